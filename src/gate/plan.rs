//! Plans: what the gate makes of one operation, so that a known operation is not normalised, priced and printed again.
//!
//! A plan depends on the text of the document, on the name of the operation, and on its [`Shape`]: on what the request sends for
//! the variables that decide what runs and what it costs. All other values are only passed on.

use std::sync::Arc;

use apollo_compiler::Name;
use apollo_compiler::ast::{DirectiveList, Value};
use apollo_compiler::collections::HashSet;
use apollo_compiler::executable::{ExecutableDocument, Operation, Selection, SelectionSet};
use apollo_compiler::response::{JsonMap, JsonValue};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::documents::{BYTES_PER_TEXT_BYTE, Hash, estimated};
use super::limits::Limits;
use super::{OperationKind, Places};

/// The assumed memory of a plan in addition to [`BYTES_PER_TEXT_BYTE`] for each byte of its text.
const PLAN_BYTES: usize = 1024;

/// A normalised operation that may run, and everything about it that does not depend on the other values of its variables.
#[derive(Debug)]
pub struct Plan<D> {
    pub operation: OperationKind,
    /// The normalised operation, which runs in place of the text that the client sent.
    pub document: D,
    /// Maps the fields of `document` to their places in the client's text.
    pub places: Places,
    /// The variables that `document` uses.
    pub(super) used: Vec<Name>,
    /// The price in points. Each field that can run costs one point, multiplied by the items of every list around it. A page has
    /// as many items as `first` or `last` requests, by default [`Limits::page_items`]. A list with a list argument has as many
    /// items as that argument. Any other list has [`Limits::list_items`].
    pub cost: u32,
    /// Bytes of the normalised text.
    pub(super) text_bytes: usize,
}

/// What a request sends for one variable, as far as it decides about the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sent {
    Absent,
    Null,
    /// Any value of a variable whose value does not matter.
    Some,
    /// A Boolean, an integer or the length of a list.
    Value(i64),
}

/// What a request sends for each variable of the operation, in the order of their definitions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape(Box<[Sent]>);

/// The variables of an operation whose values decide what runs or what it costs: conditions, page sizes, and lists that a field
/// returns an item for.
pub(super) type Deciding = HashSet<Name>;

/// Identifies a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PlanKey {
    pub(super) document: Hash,
    pub(super) operation: Option<Name>,
    pub(super) shape: Shape,
}

/// The plans that are kept, in bounded memory. The least useful ones are evicted.
pub(super) type Plans<D> = Cache<PlanKey, Arc<Plan<D>>, Weight>;

/// Creates an empty cache of plans, which takes about [`Limits::plans_bytes`] of memory.
pub(super) fn plans<D>(limits: &Limits) -> Plans<D> {
    let bytes = limits.plans_bytes;
    Cache::with_weighter(estimated(bytes), bytes, Weight)
}

/// Weighs a plan.
#[derive(Clone)]
pub(super) struct Weight;

impl<D> Weighter<PlanKey, Arc<Plan<D>>> for Weight {
    fn weight(&self, _: &PlanKey, plan: &Arc<Plan<D>>) -> u64 {
        (PLAN_BYTES + BYTES_PER_TEXT_BYTE * plan.text_bytes) as u64
    }
}

impl Shape {
    pub(super) fn of(operation: &Operation, deciding: &Deciding, variables: &JsonMap) -> Self {
        let sent = operation.variables.iter().map(|variable| match variables.get(variable.name.as_str()) {
            None => Sent::Absent,
            Some(JsonValue::Null) => Sent::Null,
            Some(value) if deciding.contains(&variable.name) => deciding_part(value),
            Some(_) => Sent::Some,
        });
        Self(sent.collect())
    }
}

fn deciding_part(value: &JsonValue) -> Sent {
    match value {
        JsonValue::Bool(value) => Sent::Value(i64::from(*value)),
        JsonValue::Array(items) => Sent::Value(i64::try_from(items.len()).unwrap_or(i64::MAX)),
        value => value.as_i64().map_or(Sent::Some, Sent::Value),
    }
}

/// Finds the deciding variables of an operation, including those in its fragments.
pub(super) fn deciding(document: &ExecutableDocument, operation: &Operation) -> Deciding {
    let mut search = Search { document, visited: HashSet::default(), deciding: Deciding::default() };
    search.selection_set(&operation.selection_set);
    search.deciding
}

struct Search<'a> {
    document: &'a ExecutableDocument,
    visited: HashSet<&'a Name>,
    deciding: Deciding,
}

impl<'a> Search<'a> {
    fn selection_set(&mut self, set: &'a SelectionSet) {
        for selection in &set.selections {
            self.conditions(selection.directives());
            match selection {
                Selection::Field(field) => {
                    // These are the arguments that `points` reads.
                    let lengths = field.definition.ty.is_list();
                    let counts = |name: &Name| matches!(name.as_str(), "first" | "last");
                    for argument in field.arguments.iter().filter(|argument| lengths || counts(&argument.name)) {
                        self.variable(&argument.value);
                    }
                    self.selection_set(&field.selection_set);
                }
                Selection::InlineFragment(fragment) => self.selection_set(&fragment.selection_set),
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.fragment_name)
                        && self.visited.insert(&spread.fragment_name)
                    {
                        self.selection_set(&fragment.selection_set);
                    }
                }
            }
        }
    }

    fn conditions(&mut self, directives: &'a DirectiveList) {
        for directive in directives.iter().filter(|directive| matches!(directive.name.as_str(), "skip" | "include")) {
            if let Some(condition) = directive.specified_argument_by_name("if") {
                self.variable(condition);
            }
        }
    }

    fn variable(&mut self, value: &Value) {
        self.deciding.extend(value.as_variable().cloned());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::fixture::{gate, values};
    use super::super::{Admitted, Gate, Request, Rights};

    const QUERY: &str = "query Q($if: Boolean!, $n: Int, $ids: [ID!] = [], $text: String, $by: ID = \"a\") {
        me { id @include(if: $if) } customers(first: $n) { nodes { id } } nodes(ids: $ids) { id }
        echo(text: $text, ids: [$by]) ...F }
        fragment F on Query { me { awards(last: $n) { id } } }";

    #[expect(clippy::needless_pass_by_value, reason = "tests write the values inside the call")]
    fn admitted(gate: &Gate<String>, variables: Value) -> Admitted<String> {
        let variables = &variables.to_string();
        gate.admit(&Request { query: QUERY, hash: None, operation_name: None, variables }, Rights::default()).unwrap()
    }

    #[test]
    fn a_plan_is_made_once_and_serves_other_values() {
        let gate = gate();
        let first = admitted(&gate, json!({"if": true, "n": 3, "ids": ["1", "2"], "text": "a"}));
        let again = admitted(&gate, json!({"if": true, "n": 3, "ids": ["3", "4"], "text": "b", "by": "c"}));
        assert!(Arc::ptr_eq(&first.plan, &again.plan));
        assert_eq!(values(&again), json!({"n": 3, "ids": ["3", "4"], "text": "b", "by": "c"}));
    }

    #[test]
    fn what_decides_makes_a_plan_of_its_own() {
        let gate = gate();
        let sent = json!({"if": true, "n": 3, "ids": ["1", "2"], "text": "a"});
        let plan = admitted(&gate, sent.clone()).plan;
        for (name, value) in
            [("if", json!(false)), ("n", json!(4)), ("n", Value::Null), ("ids", json!(["1"])), ("text", Value::Null)]
        {
            let mut other = sent.clone();
            other[name] = value.clone();
            let other = admitted(&gate, other);
            assert!(!Arc::ptr_eq(&plan, &other.plan), "{name} {value}");
            assert_ne!((&plan.document, plan.cost), (&other.document, other.cost), "{name} {value}");
        }
        let mut without = sent;
        without.as_object_mut().unwrap().remove("text");
        assert_ne!(plan.document, admitted(&gate, without).plan.document);
    }
}
