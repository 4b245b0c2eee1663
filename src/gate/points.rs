//! Computes the price of an operation: a point for each field, multiplied by the items of every list around the field.

use apollo_compiler::ast::Value;
use apollo_compiler::response::JsonMap;

use super::limits::Limits;
use super::normalize::{Field, Selected};

/// Returns the points of a selection. If a result can have several concrete types, the most expensive one counts.
pub(super) fn points(selected: &Selected<'_>, variables: &JsonMap, limits: &Limits) -> u32 {
    points_within(selected, false, variables, limits)
}

/// `page` says that the selection belongs to a page, such as a connection. The field that returns the page has already counted
/// the items of the lists in the page.
fn points_within(selected: &Selected<'_>, page: bool, variables: &JsonMap, limits: &Limits) -> u32 {
    let sum = |fields: &[Field<'_>]| {
        fields.iter().fold(0, |sum: u32, field| {
            let inside = points_within(&field.selected, is_paged(field), variables, limits);
            let items = if page { 1 } else { items(field, variables, limits) };
            sum.saturating_add(inside.saturating_mul(items).saturating_add(1))
        })
    };
    match selected {
        Selected::Leaf => 0,
        Selected::Fields(fields) => sum(fields),
        Selected::PerType(per_type) => per_type.iter().map(|(_, fields)| sum(fields)).max().unwrap_or(0),
    }
}

fn is_paged(field: &Field<'_>) -> bool {
    field.definition.argument_by_name("first").is_some()
}

/// Returns how many items the field is expected to return. For a page, `first` or `last` decides. A list without pages has as
/// many items as its longest list argument, as in `nodes(ids:)`, or else [`Limits::list_items`].
fn items(field: &Field<'_>, variables: &JsonMap, limits: &Limits) -> u32 {
    let arguments = || field.source.arguments.iter();
    if is_paged(field) {
        let page = arguments().filter(|argument| matches!(argument.name.as_str(), "first" | "last"));
        return page.filter_map(|argument| integer(&argument.value, variables)).max().unwrap_or(limits.page_items);
    }
    if field.definition.ty.is_list() {
        let lengths = arguments().filter_map(|argument| length(&argument.value, variables));
        return lengths.max().unwrap_or(limits.list_items);
    }
    1
}

fn integer(value: &Value, variables: &JsonMap) -> Option<u32> {
    let number = match value {
        // A number beyond 64 bits is no valid page size and counts as the largest one.
        Value::Int(number) => number.as_str().parse().unwrap_or(i64::MAX),
        Value::Variable(name) => variables.get(name.as_str())?.as_i64()?,
        _ => return None,
    };
    Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

/// Returns the number of items in a list, but at least 1. Returns `None` if the value is not a list.
fn length(value: &Value, variables: &JsonMap) -> Option<u32> {
    let length = match value {
        Value::List(items) => items.len(),
        Value::Variable(name) => variables.get(name.as_str())?.as_array()?.len(),
        _ => return None,
    };
    Some(u32::try_from(length).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::super::fixture::{admit_with, refused};
    use super::super::refusal::Code;

    fn cost(query: &str, variables: Json) -> u32 {
        admit_with(query, variables).unwrap().cost
    }

    #[test]
    fn lists_multiply_what_is_in_them() {
        for (query, points) in [
            ("{ me { id } }", 2),
            ("{ customers { nodes { id } } }", 1 + 20 * 2),
            ("{ customers(first: 3) { nodes { id } pageInfo { hasNextPage } } }", 1 + 3 * 4),
            ("{ customers(last: 3) { nodes { id } } }", 1 + 3 * 2),
            ("{ customers(first: 2, last: 3) { nodes { id } } }", 1 + 3 * 2),
            ("{ customers(first: null) { nodes { id } } }", 1 + 20 * 2),
            ("{ customers(first: 0) { nodes { id } } }", 1),
            ("{ customers(first: -5) { nodes { id } } }", 1),
            ("{ customers(first: 10) { nodes { awards(first: 5) { id label } } } }", 1 + 10 * (1 + 1 + 5 * 2)),
            ("{ nodes(ids: [1, 2, 3]) { id } }", 1 + 3),
            ("{ goals { __typename } }", 1 + 5),
            ("{ customers(first: 3) { edges { node { id } } } }", 1 + 3 * 3),
        ] {
            assert_eq!(cost(query, json!({})), points, "{query}");
        }
        let by_variable =
            "query($n: Int, $ids: [ID!]!) { customers(first: $n) { nodes { id } } nodes(ids: $ids) { id } }";
        assert_eq!(cost(by_variable, json!({"n": 3, "ids": [1, 2]})), 1 + 3 * 2 + 1 + 2);
        assert_eq!(cost(by_variable, json!({"ids": []})), 1 + 20 * 2 + 1 + 1);
    }

    #[test]
    fn what_cannot_run_is_free() {
        assert_eq!(cost("{ me { id id ...F } } fragment F on Customer { id rank @skip(if: true) }", json!({})), 2);
        let per_type = "{ node(id: 1) { ... on Customer { rank balance } ... on Campaign { status } } }";
        assert_eq!(cost(per_type, json!({})), 3);
    }

    #[test]
    fn cost_is_bounded_and_saturates() {
        let query = "{ customers(first: 2147483647) { nodes { awards(first: 2147483647) { id } } } }";
        let (code, message) = refused(query, json!({}));
        assert_eq!((code, message.contains("4294967295 points")), (Code::TooExpensive, true), "{message}");
        assert_eq!(cost("{ customers(first: 24999) { nodes { id } } }", json!({})), 49_999);
        assert_eq!(refused("{ customers(first: 25000) { nodes { id } } }", json!({})).0, Code::TooExpensive);
    }
}
