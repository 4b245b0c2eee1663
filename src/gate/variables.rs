//! Reads the values of the variables that a request sends beside its document.

use std::collections::HashMap;
use std::fmt::{self, Formatter};

use apollo_compiler::ast::Type;
use apollo_compiler::executable::Operation;
use apollo_compiler::response::{JsonMap, JsonValue};
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

use super::coercion::{Context, Path, Place, json};
use super::refusal::{Code, MAX_REFUSALS, Refusal};
use super::values::NeverNull;

/// Returns the value of each defined variable that was sent or has a default. Variables that the operation does not define are
/// ignored.
pub(super) fn coerce(
    context: Context<'_>,
    operation: &Operation,
    never_null: &NeverNull,
    sent: &str,
) -> Result<JsonMap, Vec<Refusal>> {
    let (mut values, mut refusals) = read(context, operation, sent)?;
    for variable in &operation.variables {
        let name = variable.name.as_str();
        if !values.contains_key(name) {
            if let Some(default) = &variable.default_value {
                values.insert(name, json(default));
            } else if variable.ty.is_non_null() {
                refusals.push(bad_input(format!("variable `${name}`: a value of type {} is required", variable.ty)));
            }
        }
        // A null may also replace a value that did not fit. Such a value is in `refusals` already.
        if refusals.is_empty()
            && never_null.contains(&variable.name)
            && values.get(name).is_some_and(JsonValue::is_null)
        {
            refusals.push(bad_input(format!("variable `${name}` must not be null")));
        }
    }
    refusals.truncate(MAX_REFUSALS);
    if refusals.is_empty() { Ok(values) } else { Err(refusals) }
}

/// Returns the values that were sent, and a refusal for each value that does not fit.
fn read(context: Context<'_>, operation: &Operation, sent: &str) -> Result<(JsonMap, Vec<Refusal>), Vec<Refusal>> {
    if sent.is_empty() {
        return Ok((JsonMap::new(), Vec::new()));
    }
    let defined = operation.variables.iter().map(|variable| (variable.name.as_str(), &*variable.ty)).collect();
    let read = serde_json::Deserializer::from_str(sent).deserialize_map(Sent { context: &context, defined });
    match (read, context.into_refusals()) {
        (Ok(values), refusals) => Ok((values, refusals)),
        (Err(error), refusals) if refusals.is_empty() => {
            Err(vec![bad_input(format!("the variables cannot be read: {error}"))])
        }
        (Err(_), refusals) => Err(refusals),
    }
}

fn bad_input(message: String) -> Refusal {
    Refusal::new(Code::BadUserInput, message)
}

/// Reads the JSON object that holds a value for each variable.
struct Sent<'a> {
    context: &'a Context<'a>,
    defined: HashMap<&'a str, &'a Type>,
}

impl<'de> Visitor<'de> for Sent<'_> {
    type Value = JsonMap;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut sent: A) -> Result<JsonMap, A::Error> {
        let mut values = JsonMap::new();
        while let Some(name) = sent.next_key::<String>()? {
            let Some(ty) = self.defined.get(name.as_str()) else {
                sent.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = sent.next_value_seed(Place::new(self.context, ty, &Path::Variable(&name)))?;
            if values.insert(name, value).is_some() {
                return Err(A::Error::custom("a variable is given twice"));
            }
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture::{admit_with, gate, refused, values};
    use super::super::{Request, Rights};
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
        Ok(values(&admitted).get("v").cloned().unwrap_or_else(|| json!("absent")))
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
    fn what_does_not_fit_is_told_with_its_path() {
        for (definition, sent, expected) in [
            ("Int", json!("5"), "variable `$v`: this is not a value of type Int"),
            ("Int!", json!(null), "variable `$v`: this is not a value of type Int!"),
            ("[ID!]", json!(["a", null]), "variable `$v[1]`: this is not a value of type ID!"),
            ("Filter", json!({"min": 1, "no": 1}), "variable `$v.no`: Filter has no such field"),
            (
                "Filter",
                json!({"and": [{}, {"tags": [1]}]}),
                "variable `$v.and[1].tags[0]`: this is not a value of type String!",
            ),
            (
                "Filter",
                json!({"by": {}}),
                "variable `$v.by`: exactly one field of `CustomerBy` must be given, and it must not be null",
            ),
        ] {
            let argument = if definition.starts_with("Int") { "number" } else { "filter" };
            let argument = if definition.starts_with('[') { "ids" } else { argument };
            let query = format!("query($v: {definition}) {{ echo({argument}: $v) }}");
            assert_eq!(refused(&query, json!({ "v": sent })), (Code::BadUserInput, expected.to_owned()));
        }
        let record = "mutation($i: RecordInput!) { record(input: $i) { replayed } }";
        for (sent, expected) in [
            (json!({}), "variable `$i`: a value of type RecordInput! is required"),
            (json!({"i": {}}), "variable `$i.externalId`: a value of type String! is required"),
            (
                json!({"i": {"externalId": "x", "lines": [{"sku": "a"}, {"quantity": 1}]}}),
                "variable `$i.lines[1].sku`: a value of type String! is required",
            ),
        ] {
            assert_eq!(refused(record, sent), (Code::BadUserInput, expected.to_owned()));
        }
    }

    #[test]
    fn texts_that_are_no_values_are_bad_input() {
        let ask = |variables: &str| {
            let query = "query($v: Int) { echo(number: $v) }";
            let request = Request { query, hash: None, operation_name: None, variables };
            gate().admit(&request, Rights::default()).map_err(|refusals| refusals[0].code)
        };
        assert!(ask("").is_ok() && ask(" {} ").is_ok() && ask("{\"v\":null,\"w\":{\"v\":1}}").is_ok());
        let deep = format!("{{\"v\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for wrong in ["7", "[]", "{", "{\"v\":1,\"v\":2}", "{\"v\":1e999}", deep.as_str()] {
            assert_eq!(ask(wrong).err(), Some(Code::BadUserInput), "{wrong}");
        }
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
        assert_eq!(values(&admitted), json!({"b": 2}));
    }

    #[test]
    fn a_long_name_is_not_quoted_at_length() {
        let (_, message) = refused("query($v: Filter) { echo(filter: $v) }", json!({"v": {"é".repeat(10_000): 1}}));
        assert_eq!(message.chars().count(), 300);
    }
}
