//! Counts what a document selects without expanding its fragments.
//!
//! A few hundred bytes of fragments that spread each other select millions of fields. The counter therefore visits each fragment
//! once and adds its counts wherever the fragment is spread, so that the work is linear in the text. Counting comes before
//! validation, which walks fragments too. All later steps may recurse and expand freely, because the counts are bounded.

use apollo_compiler::Name;
use apollo_compiler::collections::HashMap;
use apollo_compiler::executable::{ExecutableDocument, Operation, Selection, SelectionSet};

use super::limits::Limits;
use super::refusal::{Code, Refusal};

/// The counts of a selection set with all its fragments expanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    fields: u32,
    aliases: u32,
    directives: u32,
    depth: u32,
    introspection_depth: u32,
    levels: u32,
}

impl Cost {
    pub(super) fn introspects(&self) -> bool {
        self.introspection_depth > 0
    }

    fn add(&mut self, other: Self) {
        self.fields = self.fields.saturating_add(other.fields);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.directives = self.directives.saturating_add(other.directives);
        self.depth = self.depth.max(other.depth);
        self.introspection_depth = self.introspection_depth.max(other.introspection_depth);
        self.levels = self.levels.max(other.levels);
    }
}

/// Counts the operations of one document.
pub(super) struct Counter<'a> {
    document: &'a ExecutableDocument,
    limits: &'a Limits,
    /// The counts of the fragments visited so far. `None` marks a fragment that is being counted. If such a fragment is spread,
    /// it contains itself.
    fragments: HashMap<&'a Name, Option<Cost>>,
    /// The fields of all operations so far. Each operation is validated with its fragments, whichever one will run.
    fields: u32,
    /// The number of selections visited so far. Tests check that none is visited twice.
    #[cfg(test)]
    visited: usize,
}

impl<'a> Counter<'a> {
    pub(super) fn new(document: &'a ExecutableDocument, limits: &'a Limits) -> Self {
        Self {
            document,
            limits,
            fragments: HashMap::default(),
            fields: 0,
            #[cfg(test)]
            visited: 0,
        }
    }

    /// Returns the counts of one operation, or a refusal if a count exceeds its limit. The limit on fields applies to the sum
    /// over all operations counted so far.
    pub(super) fn count(&mut self, operation: &'a Operation) -> Result<Cost, Refusal> {
        let mut cost = self.selection_set(&operation.selection_set, 1)?;
        let on_variables: usize = operation.variables.iter().map(|variable| variable.directives.len()).sum();
        cost.directives = cost.directives.saturating_add(count(operation.directives.len() + on_variables));
        self.fields = self.fields.saturating_add(cost.fields);
        let Limits { fields, aliases, directives, depth, introspection_depth, .. } = *self.limits;
        for (what, sent, limit, remedy) in [
            ("fields", self.fields, fields, "split it into several requests"),
            ("aliases", cost.aliases, aliases, "split it into several requests"),
            ("directives", cost.directives, directives, "split it into several requests"),
            ("levels of fields", cost.depth, depth, "request the inner object by its `id`"),
            ("levels of introspection fields", cost.introspection_depth, introspection_depth, "select fewer levels"),
        ] {
            if sent > limit {
                let message = format!(
                    "with its fragments expanded the document has {sent} {what}, and at most {limit} are allowed: {remedy}"
                );
                return Err(Refusal::new(Code::TooExpensive, message));
            }
        }
        Ok(cost)
    }

    fn selection_set(&mut self, set: &'a SelectionSet, level: u32) -> Result<Cost, Refusal> {
        self.check_level(level)?;
        let mut total = Cost { levels: 1, ..Cost::default() };
        for selection in &set.selections {
            #[cfg(test)]
            {
                self.visited += 1;
            }
            let mut cost = match selection {
                Selection::Field(field) if field.selection_set.is_empty() => Cost { depth: 1, ..Cost::default() },
                Selection::Field(field) => {
                    let mut cost = self.selection_set(&field.selection_set, level + 1)?;
                    cost.depth += 1;
                    cost.levels += 1;
                    cost
                }
                Selection::InlineFragment(fragment) => {
                    let mut cost = self.selection_set(&fragment.selection_set, level + 1)?;
                    cost.levels += 1;
                    cost
                }
                Selection::FragmentSpread(spread) => {
                    let mut cost = self.fragment(&spread.fragment_name, level + 1)?;
                    cost.levels += 1;
                    cost
                }
            };
            cost.fields = cost.fields.saturating_add(1);
            cost.directives = cost.directives.saturating_add(count(selection.directives().len()));
            if let Selection::Field(field) = selection {
                cost.aliases = cost.aliases.saturating_add(u32::from(field.alias.is_some()));
                if matches!(field.name.as_str(), "__schema" | "__type") {
                    cost.introspection_depth = std::mem::take(&mut cost.depth);
                }
            }
            total.add(cost);
        }
        Ok(total)
    }

    fn fragment(&mut self, name: &'a Name, level: u32) -> Result<Cost, Refusal> {
        let Some(fragment) = self.document.fragments.get(name) else {
            // Validation reports the missing fragment.
            return Ok(Cost::default());
        };
        match self.fragments.get(name) {
            Some(Some(cost)) => {
                let cost = *cost;
                self.check_level(level + cost.levels - 1)?;
                return Ok(cost);
            }
            Some(None) => {
                let message = format!("fragment `{name}` contains itself");
                let refusal = Refusal::new(Code::GraphqlValidationFailed, message);
                return Err(refusal.at_span(fragment.location(), &self.document.sources));
            }
            None => {}
        }
        self.fragments.insert(name, None);
        let mut cost = self.selection_set(&fragment.selection_set, level)?;
        cost.directives = cost.directives.saturating_add(count(fragment.directives.len()));
        self.fragments.insert(name, Some(cost));
        Ok(cost)
    }

    fn check_level(&self, level: u32) -> Result<(), Refusal> {
        if level <= self.limits.levels {
            return Ok(());
        }
        let message = format!("selections and fragments are nested more than {} levels deep", self.limits.levels);
        Err(Refusal::new(Code::TooExpensive, message))
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use apollo_compiler::Schema;

    use super::super::fixture::SDL;
    use super::*;

    fn counted(limits: &Limits, text: &str) -> (Result<Cost, Refusal>, usize) {
        let schema = Schema::parse_and_validate(SDL, "schema").unwrap();
        let document = ExecutableDocument::parse(&schema, text, "text").unwrap();
        let mut counter = Counter::new(&document, limits);
        let cost = counter.count(document.operations.iter().next().unwrap());
        (cost, counter.visited)
    }

    fn cost(text: &str) -> Cost {
        counted(&Limits::default(), text).0.unwrap()
    }

    #[test]
    fn a_fragment_counts_wherever_it_is_spread() {
        let text = "{ me { ...F a: friend { ...F } } } fragment F on Customer @x { b: id @skip(if: false) ... on Node { label } }";
        // Ten selections: `me`, `...F`, `friend` and `...F`, and in each F `id`, the inline fragment and `label`.
        let expected = Cost { fields: 10, aliases: 3, directives: 4, depth: 3, introspection_depth: 0, levels: 5 };
        assert_eq!(cost(text), expected);
    }

    #[test]
    fn fragments_are_counted_once_however_often_they_are_spread() {
        let mut text = String::from("{ me { ...F0 } } fragment F30 on Customer { id }");
        for level in 0..30 {
            text += &format!(" fragment F{level} on Customer {{ a: friend {{ ...F{0} }} ...F{0} }}", level + 1);
        }
        let unlimited = Limits { fields: u32::MAX, aliases: u32::MAX, depth: 99, levels: 99, ..Limits::default() };
        let (cost, visited) = counted(&unlimited, &text);
        let cost = cost.unwrap();
        assert_eq!(visited, 2 + 1 + 30 * 3);
        assert!(cost.fields > 1 << 30, "{cost:?}");
        assert_eq!(cost.depth, 32);
        assert_eq!(counted(&Limits::default(), &text).0.unwrap_err().code, Code::TooExpensive);
    }

    #[test]
    fn counts_saturate() {
        let mut text = String::from("{ me { ...F0 } } fragment F40 on Customer { id }");
        for level in 0..40 {
            text += &format!(" fragment F{level} on Customer {{ ...F{0} ...F{0} }}", level + 1);
        }
        let (cost, _) = counted(&Limits { fields: u32::MAX, ..Limits::default() }, &text);
        assert_eq!(cost.unwrap().fields, u32::MAX);
    }

    #[test]
    fn each_count_has_its_limit() {
        let limits = Limits {
            fields: 4,
            aliases: 1,
            directives: 2,
            depth: 2,
            introspection_depth: 3,
            levels: 4,
            ..Limits::default()
        };
        let message = |text| counted(&limits, text).0.map_err(|refusal| refusal.message);
        for allowed in ["{ a: me { id label rank } }", "{ me { id @once @once } }", "{ __schema { types { name } } }"] {
            assert!(message(allowed).is_ok(), "{allowed}");
        }
        for (refused, why) in [
            ("{ me { id label rank balance } }", "5 fields, and at most 4 are"),
            ("{ a: me { b: id } }", "2 aliases, and at most 1 are"),
            ("{ me { id @once @once @once } }", "3 directives, and at most 2 are"),
            ("query @a @b @c { me { id } }", "3 directives, and at most 2 are"),
            ("query ($a: Int @a @b @c) { me { id } }", "3 directives, and at most 2 are"),
            ("{ me { friend { id } } }", "3 levels of fields, and at most 2 are"),
            ("{ __schema { types { fields { name } } } }", "4 levels of introspection fields, and at most 3 are"),
            ("{ ... { ... { ... { ... { __typename } } } } }", "nested more than 4 levels"),
        ] {
            assert!(message(refused).unwrap_err().contains(why), "{refused}");
        }
    }

    #[test]
    fn introspection_buys_no_depth_for_other_fields() {
        let cost_of_both = cost("{ __schema { types { name } } me { friend { friend { id } } } }");
        assert_eq!((cost_of_both.depth, cost_of_both.introspection_depth), (4, 3));
        assert!(!cost("{ __typename me { __typename } }").introspects());
    }

    #[test]
    fn levels_are_counted_through_fragments_that_were_met_before() {
        // The first spread of F is within the limit, the second one is too deep.
        let fits = "{ ...F me { id } } fragment F on Query { ... { ... { __typename } } }";
        let deeper = "{ ...F ... { ... { ...F } } } fragment F on Query { ... { ... { __typename } } }";
        let limits = Limits { levels: 5, ..Limits::default() };
        assert!(counted(&limits, fits).0.is_ok());
        assert_eq!(counted(&limits, deeper).0.unwrap_err().code, Code::TooExpensive);
        assert_eq!(counted(&Limits { levels: 6, ..limits }, deeper).0.unwrap().levels, 6);
    }

    #[test]
    fn a_fragment_that_contains_itself_is_invalid() {
        for text in [
            "{ ...F } fragment F on Query { ...F }",
            "{ ...F } fragment F on Query { ...G } fragment G on Query { me { id } ... { ...F } }",
        ] {
            let refusal = counted(&Limits::default(), text).0.unwrap_err();
            assert_eq!(refusal.code, Code::GraphqlValidationFailed);
            assert!(refusal.message.contains("contains itself"), "{}", refusal.message);
        }
    }
}
