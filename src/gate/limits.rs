//! The limits on one request, and the assumptions about list lengths that its price is based on.

/// The largest request that the gate admits. Selections are counted with every fragment expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the document's text.
    pub text_bytes: usize,
    /// Tokens of the document's text. Commas and comments do not count.
    pub tokens: u32,
    /// Levels of nested brackets in the text, and of nested selection sets with fragments expanded.
    pub levels: u32,
    /// Selected fields and fragments, in all operations of the document together.
    pub fields: u32,
    /// Fields with an alias, in one operation.
    pub aliases: u32,
    /// Directives in one operation, including those on the operation, its variables and its fragments.
    pub directives: u32,
    /// Levels of nested fields, without those of introspection.
    pub depth: u32,
    /// Levels of nested introspection fields, beginning with `__schema` or `__type`.
    pub introspection_depth: u32,
    /// Levels of nested lists and objects in the value of a variable.
    pub variables_levels: u32,
    /// Selections that the normaliser visits. A selection of an abstract type may be visited once for each concrete type.
    pub normalized_fields: u32,
    /// Bytes of the normalised text, in which a long argument of a fragment is repeated at every use of the fragment.
    pub normalized_bytes: usize,
    /// Assumed number of items of a field with a `first` argument if the request sets neither `first` nor `last`.
    pub page_items: u32,
    /// Assumed number of items of any other list without a list argument.
    pub list_items: u32,
    /// The most items that `first` and `last` can request. The gate does not check this limit, but states it if a request costs
    /// too much.
    pub max_page_items: u32,
    /// The highest price in points, as defined by [`Plan::cost`](super::Plan::cost).
    pub max_cost: u32,
    /// Approximate memory in bytes for parsed documents that are kept, without those on the list.
    pub documents_bytes: u64,
    /// Approximate memory in bytes for the plans that are kept.
    pub plans_bytes: u64,
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
            documents_bytes: 24 << 20,
            plans_bytes: 8 << 20,
        }
    }
}
