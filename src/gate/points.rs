//! What an operation costs: a point for each field, times the items of the lists it stands in.

use apollo_compiler::ast::Value;
use apollo_compiler::response::JsonMap;

use super::normalize::{Field, Selected};

/// Points of what is selected. Of the concrete types an answer can be of, the dearest counts.
pub(super) fn points(selected: &Selected<'_>, variables: &JsonMap, page_items: u32) -> u32 {
    let sum = |fields: &[Field<'_>]| {
        fields.iter().fold(0, |sum: u32, field| {
            let inside = points(&field.selected, variables, page_items);
            sum.saturating_add(inside.saturating_mul(items(field, variables, page_items)).saturating_add(1))
        })
    };
    match selected {
        Selected::Leaf => 0,
        Selected::Fields(fields) => sum(fields),
        Selected::PerType(per_type) => per_type.iter().map(|(_, fields)| sum(fields)).max().unwrap_or(0),
    }
}

/// Items that the field can answer: what `first` or `last` asks for; of a list without pages as many as are in its longest list
/// argument (`nodes(ids:)`). A list that is bounded in neither way is counted as one item.
fn items(field: &Field<'_>, variables: &JsonMap, page_items: u32) -> u32 {
    let arguments = || field.source.arguments.iter();
    if field.definition.argument_by_name("first").is_some() {
        let page = arguments().filter(|argument| matches!(argument.name.as_str(), "first" | "last"));
        return page.filter_map(|argument| integer(&argument.value, variables)).max().unwrap_or(page_items);
    }
    if field.definition.ty.is_list() {
        return arguments().map(|argument| length(&argument.value, variables)).max().unwrap_or(1).max(1);
    }
    1
}

fn integer(value: &Value, variables: &JsonMap) -> Option<u32> {
    let number = match value {
        // Longer than 64 bits does not parse, and is no page.
        Value::Int(number) => number.as_str().parse().unwrap_or(i64::MAX),
        Value::Variable(name) => variables.get(name.as_str())?.as_i64()?,
        _ => return None,
    };
    Some(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

fn length(value: &Value, variables: &JsonMap) -> u32 {
    let length = match value {
        Value::List(items) => items.len(),
        Value::Variable(name) => variables.get(name.as_str()).and_then(|value| value.as_array()).map_or(1, Vec::len),
        _ => 1,
    };
    u32::try_from(length).unwrap_or(u32::MAX)
}
