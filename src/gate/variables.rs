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
        defined.insert(name, JsonValue::from(value.clone()));
    }
    let coerced =
        coerce_variable_values(schema, operation, &defined).map_err(|error| bad_input(error.message().to_string()))?;
    for variable in &operation.variables {
        if let Some(value) = coerced.get(variable.name.as_str()) {
            if value.is_null() && never_null.contains(&variable.name) {
                return Err(bad_input(format!("variable `${}` must not be null", variable.name)));
            }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{admit_with, map, refused};
    use super::*;

    fn coerced(definition: &str, sent: Value) -> Result<Value, Code> {
        let argument = match definition.trim_end_matches('!') {
            "Int" => "number",
            "Float" => "ratio",
            "Boolean" => "flag",
            "Status" => "status",
            "[ID!]" => "ids",
            "CustomerBy" => "by",
            "Filter" => "filter",
            "Points" => "points",
            _ => "text",
        };
        let query = format!("query($v: {definition}) {{ echo({argument}: $v) }}");
        let admitted = admit_with(&query, sent).map_err(|refusals| refusals[0].code)?;
        Ok(admitted.variables.get("v").cloned().unwrap_or_else(|| json!("absent")))
    }

    #[test]
    fn values_are_coerced_to_their_type() {
        for (definition, sent, expected) in [
            ("Int", json!(5), json!(5)),
            ("Float", json!(5), json!(5)),
            ("[ID!]", json!("a"), json!(["a"])),
            ("[ID!]", json!(["a", 1]), json!(["a", 1])),
            ("Status", json!("DRAFT"), json!("DRAFT")),
            ("Points", json!({"any": ["thing"]}), json!({"any": ["thing"]})),
            ("Filter", json!({"tags": "t"}), json!({"min": 1, "tags": ["t"]})),
            ("Filter", json!({"and": {"min": 2}}), json!({"min": 1, "and": [{"min": 2}]})),
            ("CustomerBy", json!({"id": 7}), json!({"id": 7})),
            ("String", json!(null), json!(null)),
        ] {
            assert_eq!(coerced(definition, json!({ "v": sent })), Ok(expected), "{definition}");
        }
        assert_eq!(coerced("String", json!({})), Ok(json!("absent")));
        assert_eq!(coerced("String = \"x\"", json!({})), Ok(json!("x")));
        assert_eq!(coerced("String", json!({"v": "é", "unknown": 1})), Ok(json!("é")));
    }

    #[test]
    fn values_that_do_not_fit_are_bad_input() {
        for (definition, sent) in [
            ("Int", json!("5")),
            ("Int", json!(1_u64 << 40)),
            ("Int", json!(1.5)),
            ("Int!", json!(null)),
            ("Float", json!("1")),
            ("Boolean", json!(0)),
            ("String", json!(5)),
            ("Status", json!("OTHER")),
            ("[ID!]", json!([null])),
            ("Filter", json!({"unknown": 1})),
            ("Filter", json!({"min": null})),
            ("Filter", json!([])),
            ("CustomerBy", json!({})),
            ("CustomerBy", json!({"id": 1, "externalId": "x"})),
            ("CustomerBy", json!({"id": null})),
            ("Filter", json!({"and": [{"by": {"id": "1", "externalId": "x"}}]})),
        ] {
            let refused = coerced(definition, json!({ "v": sent.clone() }));
            assert_eq!(refused, Err(Code::BadUserInput), "{definition} {sent}");
        }
        assert_eq!(coerced("String!", json!({})), Err(Code::BadUserInput));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(coerced("Points", json!({ "v": nested(48) })), Ok(nested(48)));
        assert_eq!(coerced("Points", json!({ "v": nested(49) })), Err(Code::TooExpensive));
        assert_eq!(coerced("String", json!({ "unknown": nested(100) })), Ok(json!("absent")));
    }

    #[test]
    fn only_variables_that_are_still_used_are_handed_on() {
        let query =
            "query($a: Int, $b: Int, $if: Boolean!) { one: echo(number: $a) @include(if: $if) two: echo(number: $b) }";
        let admitted = admit_with(query, json!({"a": 1, "b": 2, "if": false})).unwrap();
        assert_eq!(admitted.document, "query($b:Int!){two:echo(number:$b)}");
        assert_eq!(admitted.variables, map(json!({"b": 2})));
    }

    #[test]
    fn a_long_value_is_not_quoted_at_length() {
        let (_, message) = refused("query($v: Int) { echo(number: $v) }", json!({"v": "é".repeat(10_000)}));
        assert_eq!(message.chars().count(), 300);
    }
}
