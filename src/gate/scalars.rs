//! Checks the form of custom scalars' values before anything runs. Whoever creates the gate defines the forms.

use std::collections::HashMap;

use apollo_compiler::ast::{Type, Value as Literal};
use serde_json::Value;

use super::coercion::json;

/// The form in which values of one custom scalar are written.
#[derive(Clone, Copy, Debug)]
pub struct Scalar {
    /// Returns whether a value has this form.
    pub fits: fn(&Value) -> bool,
    /// Tells the client how to write a value, for example "write a decimal as a string".
    pub expected: &'static str,
}

/// The forms by the name of their scalar. A custom scalar without an entry accepts any value.
pub type Scalars = HashMap<&'static str, Scalar>;

/// Returns the form that the literal must have. Returns `None` if the scalar has no form or the literal is a variable, null or a
/// list of values.
pub(super) fn of_literal(scalars: &Scalars, ty: &Type, literal: &Literal) -> Option<Scalar> {
    let stands_for_none = matches!(literal, Literal::Variable(_) | Literal::Null);
    // Where a list is expected, any other literal counts as its only item.
    let is_list = ty.is_list() && literal.as_list().is_some();
    if stands_for_none || is_list { None } else { scalars.get(ty.inner_named_type().as_str()).copied() }
}

impl Scalar {
    pub(super) fn fits_literal(self, literal: &Literal) -> bool {
        // In JSON, an enum value would become a string and might fit by mistake.
        if literal.as_enum().is_some() {
            return false;
        }
        serde_json::to_value(json(literal)).is_ok_and(|value| (self.fits)(&value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Code;
    use super::super::fixture::{admit, admit_with, refused};

    #[test]
    fn literals_and_defaults_are_checked() {
        for wrong in ["3", "2.5", "\"2\"", "TWO", "true", "[2]", "{a: 2}", "1e999"] {
            for query in [
                format!("{{ echo(even: {wrong}) }}"),
                format!("query($e: Even = {wrong}) {{ echo(even: $e) }}"),
                format!("{{ ...F }} fragment F on Query {{ echo(evens: [2, {wrong}]) }}"),
            ] {
                let (code, message) = refused(&query, json!({}));
                assert_eq!(code, Code::GraphqlValidationFailed, "{query}");
                assert!(message.ends_with("write it even"), "{query}: {message}");
            }
        }
        assert!(refused("query($v: Even) { echo(even: [$v]) }", json!({})).1.ends_with("write it even"));
        for query in [
            "{ echo(even: 2, evens: [2, 4]) }",
            "{ echo(even: null, evens: 2) }",
            "query($e: Even! = 2) { echo(even: $e, evens: [2, $e]) }",
        ] {
            assert!(admit(query).is_ok(), "{query}: {:?}", admit(query));
        }
        let refusals = admit("{\n  echo(even: 1, evens: [2, 3, 5]) }").unwrap_err();
        let places: Vec<_> = refusals.iter().flat_map(|refusal| refusal.locations.clone()).collect();
        assert_eq!(places, [(2, 14), (2, 28), (2, 31)]);
        assert_eq!(refusals[0].message, "this is not a value of type Even: write it even");
    }

    #[test]
    fn variables_are_checked_each_and_ten_are_told() {
        let query = "mutation($i: RecordInput!) { record(input: $i) { replayed } }";
        let lines = |numbers: &[i32]| {
            let lines: Vec<_> = numbers.iter().map(|number| json!({"sku": "s", "even": number})).collect();
            json!({"i": {"externalId": "x", "lines": lines}})
        };
        assert!(admit_with(query, lines(&[0, 2, 4])).is_ok());
        let refusals = admit_with(query, lines(&[1, 2, 3])).unwrap_err();
        let told: Vec<_> = refusals.iter().map(|refusal| (refusal.code, refusal.message.as_str())).collect();
        let expected = [
            (Code::BadUserInput, "variable `$i.lines[0].even`: write it even"),
            (Code::BadUserInput, "variable `$i.lines[2].even`: write it even"),
        ];
        assert_eq!(told, expected);
        assert_eq!(admit_with(query, lines(&[1; 500])).unwrap_err().len(), 10);
        for wrong in [json!(1), json!("2"), json!([2]), json!({"a": 2}), json!(2.5), json!(true)] {
            let query = "query($e: Even) { echo(even: $e) }";
            assert_eq!(
                refused(query, json!({"e": wrong})),
                (Code::BadUserInput, "variable `$e`: write it even".to_owned())
            );
        }
    }

    #[test]
    fn faults_of_all_kinds_are_told_together() {
        let query = "mutation($i: RecordInput!, $n: Int!, $m: Int!) { record(input: $i) { replayed } ...F }
            fragment F on Mutation { x: other @skip(if: false) y: record(input: {externalId: \"a\", lines: [{sku: \"s\", quantity: $n}, {sku: \"s\", quantity: $m}]}) { replayed } }";
        let sent = json!({"i": {"externalId": 5.5, "line": [], "points": 1, "lines": [[{}], 7, {"sku": "s", "even": 1}]}, "n": []});
        let refusals = admit_with(query, sent).unwrap_err();
        let told: Vec<_> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
        let expected = [
            "variable `$i.externalId`: this is not a value of type String!",
            "variable `$i.line`: RecordInput has no such field",
            "variable `$i.lines[0]`: this is not a value of type LineInput!",
            "variable `$i.lines[1]`: this is not a value of type LineInput!",
            "variable `$i.lines[2].even`: write it even",
            "variable `$n`: this is not a value of type Int!",
            "variable `$m`: a value of type Int! is required",
        ];
        assert_eq!(told, expected);
    }
}
