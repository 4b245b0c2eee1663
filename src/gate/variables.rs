//! The values that a request sends beside its text.

use apollo_compiler::Schema;
use apollo_compiler::ast::Type;
use apollo_compiler::executable::Operation;
use apollo_compiler::request::coerce_variable_values;
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::Valid;
use serde_json::{Map, Value};

use super::limits::Limits;
use super::refusal::{Code, Refusal};
use super::values::{NeverNull, is_one_of, one_of_message};

/// The value of each variable that the operation defines and that has one, sent or by default. What it does not define is ignored.
pub(super) fn coerce(
    schema: &Valid<Schema>,
    operation: &Operation,
    never_null: &NeverNull,
    sent: &Map<String, Value>,
    limits: &Limits,
) -> Result<JsonMap, Refusal> {
    let mut defined = JsonMap::new();
    for variable in &operation.variables {
        let name = variable.name.as_str();
        let Some(value) = sent.get(name) else { continue };
        if !within_levels(value, limits.variables_levels) {
            let message = format!("variable `${name}` is nested more than {} levels", limits.variables_levels);
            return Err(Refusal::new(Code::TooExpensive, message));
        }
        if value.is_null() && never_null.contains(&variable.name) {
            return Err(bad_input(format!("variable `${name}` must not be null")));
        }
        defined.insert(name, JsonValue::from(value.clone()));
    }
    let coerced =
        coerce_variable_values(schema, operation, &defined).map_err(|error| bad_input(error.message().to_string()))?;
    for variable in &operation.variables {
        if let Some(value) = coerced.get(variable.name.as_str()) {
            check_one_of(schema, &variable.ty, value)?;
        }
    }
    Ok(coerced.into_inner())
}

fn within_levels(value: &Value, levels: u32) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|item| within_levels(item, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|field| within_levels(field, levels - 1)),
        _ => true,
    }
}

fn check_one_of(schema: &Schema, ty: &Type, value: &JsonValue) -> Result<(), Refusal> {
    if let (true, Some(items)) = (ty.is_list(), value.as_array()) {
        return items.iter().try_for_each(|item| check_one_of(schema, ty.item_type(), item));
    }
    let Some(ExtendedType::InputObject(input)) = schema.types.get(ty.inner_named_type()) else { return Ok(()) };
    let Some(fields) = value.as_object() else { return Ok(()) };
    if is_one_of(input) && (fields.len() != 1 || fields.values().any(JsonValue::is_null)) {
        return Err(bad_input(one_of_message(&input.name)));
    }
    fields.iter().try_for_each(|(name, value)| match input.fields.get(name.as_str()) {
        Some(field) => check_one_of(schema, &field.ty, value),
        None => Ok(()),
    })
}

fn bad_input(message: String) -> Refusal {
    Refusal::new(Code::BadUserInput, message)
}
