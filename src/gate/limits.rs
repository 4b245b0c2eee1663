//! How much one request may ask for.

/// The largest request the gate lets pass. Counts are taken after every fragment has been expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of query text.
    pub text_bytes: usize,
    /// Tokens of query text; commas and comments are none.
    pub tokens: u32,
    /// Levels of open brackets in the text, and of nested selection sets with fragments expanded.
    pub levels: u32,
    /// Fields and fragments selected, by all operations of the document together.
    pub fields: u32,
    /// Fields with an alias.
    pub aliases: u32,
    /// Directives, on whatever they stand.
    pub directives: u32,
    /// Fields within fields.
    pub depth: u32,
    /// Fields within fields, below `__schema` and `__type` and with them.
    pub introspection_depth: u32,
    /// Levels of lists and objects in the variables.
    pub variables_levels: u32,
    /// Selections visited by the normaliser: an abstract type's are visited once per concrete type.
    pub normalized_fields: u32,
    /// Bytes of normalised text: a long argument in a fragment is written once per use.
    pub normalized_bytes: usize,
    /// Items that a field with a `first` argument is taken to answer when it is given neither `first` nor `last`.
    pub page_items: u32,
    /// Items that any other list is taken to answer, where no argument says how many.
    pub list_items: u32,
    /// The most items that `first` and `last` can ask for; told to whoever asks for too much.
    pub max_page_items: u32,
    /// Points, as [`Admitted::cost`](super::Admitted::cost) counts them.
    pub max_cost: u32,
    /// Bytes of parsed documents that are kept.
    pub documents_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            text_bytes: 64 * 1024,
            tokens: 1_500,
            levels: 48,
            fields: 1_500,
            aliases: 30,
            directives: 20,
            depth: 15,
            introspection_depth: 24,
            variables_levels: 48,
            normalized_fields: 12_000,
            normalized_bytes: 256 * 1024,
            page_items: 20,
            list_items: 5,
            max_page_items: 100,
            max_cost: 50_000,
            documents_bytes: 32 << 20,
        }
    }
}
