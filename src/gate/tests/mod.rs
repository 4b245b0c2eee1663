//! Tests the gate as a whole. An admitted request means what the client sent, and harmful requests are refused.

mod executor;
mod hostile;
mod meaning;

use serde_json::json;

use super::fixture::{SDL, admit, admit_with, gate, refused, text};
use super::{Code, Gate, Limits, OperationKind, Request, Rights, Scalars};

fn admit_named(query: &str, operation_name: Option<&str>) -> Result<String, (Code, String)> {
    let request = Request { query, hash: None, operation_name, variables: "" };
    gate().admit(&request, Rights::default()).map(|admitted| admitted.document.clone()).map_err(|mut refusals| {
        let refusal = refusals.remove(0);
        (refusal.code, refusal.message)
    })
}

#[test]
fn the_operation_is_the_one_that_was_asked_for() {
    let two = "query A { me { id } } mutation B { other } ";
    assert_eq!(admit_named(two, Some("A")), Ok("query A{me{id}}".into()));
    assert_eq!(admit_named(two, Some("B")), Ok("mutation B{other}".into()));
    for (query, name) in [(two, None), (two, Some("C")), (two, Some("")), ("{ me { id } }", Some("A"))] {
        assert_eq!(admit_named(query, name).unwrap_err().0, Code::BadUserInput, "{query} {name:?}");
    }
}

#[test]
fn kinds_are_told_apart() {
    for (query, kind) in [
        ("{ me { id } }", OperationKind::Query),
        ("mutation { other }", OperationKind::Mutation),
        ("subscription { ticks }", OperationKind::Subscription),
    ] {
        let admitted = admit(query).unwrap();
        assert_eq!(admitted.operation, kind);
    }
}

#[test]
fn introspection_takes_the_right() {
    for query in [
        "{ __schema { types { name } } }",
        "{ me { id } ...F } fragment F on Query { __type(name: \"Query\") { name isOneOf } }",
    ] {
        let request = Request { query, hash: None, operation_name: None, variables: "" };
        assert_eq!(gate().admit(&request, Rights::default()).unwrap_err()[0].code, Code::Forbidden);
        assert!(gate().admit(&request, Rights { introspection: true, ..Rights::default() }).is_ok());
    }
    assert!(admit("{ __typename me { __typename } }").is_ok());
    let other = "query A { me { id } } query B { __schema { types { name } } }";
    assert!(admit_named(other, Some("A")).is_ok());
    assert_eq!(admit_named(other, Some("B")).unwrap_err().0, Code::Forbidden);
}

#[test]
fn introspection_that_multiplies_is_too_expensive() {
    let query = "{ __schema { types { fields { type { fields { type { fields { name } } } } } } } }";
    let request = Request { query, hash: None, operation_name: None, variables: "" };
    assert_eq!(
        gate().admit(&request, Rights { introspection: true, ..Rights::default() }).unwrap_err()[0].code,
        Code::TooExpensive
    );
}

#[test]
fn what_is_not_graphql_fails_to_parse() {
    for query in [
        "",
        "  # nothing",
        "{",
        "}",
        "{ me { id }",
        "query Q() { me { id } }",
        "{}",
        "{ me(id: ) }",
        "\0",
        "{ a: }",
        "{ é }",
    ] {
        let (code, message) = refused(query, json!({}));
        assert_eq!(code, Code::GraphqlParseFailed, "{query:?}: {message}");
    }
}

#[test]
fn what_the_schema_does_not_answer_fails_validation() {
    for query in [
        "{ unknown }",
        "{ me }",
        "{ me { id { x } } }",
        "{ me { id(x: 1) } }",
        "{ node { id } }",
        "{ ...F }",
        "{ me { id } } fragment F on Query { me { id } }",
        "{ a: me { id } a: goals { __typename } }",
        "{ a: echo(number: 1) a: echo(number: 2) }",
        "query($a: Int) { me { id } }",
        "{ echo(number: $a) }",
        "{ me { id @unknown } }",
        "{ me @skip { id } }",
        "{ __typename @skip(if: \"x\") }",
        "{ __typename(x: 1) }",
        "query A { me { id } } query A { me { id } }",
        "{ me { id } } { me { id } }",
        "{ me { ... on Award { id } } }",
        "{ me { ... on Missing { id } } }",
        "subscription { ticks points { id } }",
        "subscription { ticks @skip(if: true) }",
        "type Query { a: Int }",
        "fragment F on Query { me { id } }",
        "query($a: Customer) { echo(text: $a) }",
        "{ ...F } fragment F on Query { ...G } fragment G on Query { ...F }",
        "{ me { id } } fragment F on Query { ...F }",
    ] {
        let (code, message) = refused(query, json!({}));
        assert_eq!(code, Code::GraphqlValidationFailed, "{query}: {message}");
        assert!(!message.to_lowercase().contains("did you mean"), "{message}");
    }
}

#[test]
fn refusals_say_where_and_are_bounded() {
    let refusals = admit("{\n  me { nope }\n}").unwrap_err();
    assert_eq!(refusals[0].locations, [(2, 8)]);
    let many: String = (0..200).map(|index| format!("f{index} ")).collect();
    let refusals = admit(&format!("{{ {many} }}")).unwrap_err();
    assert_eq!(refusals.len(), 10);
    let long = "é".repeat(20_000);
    for query in
        [format!("{{ echo(number: \"{long}\") }}"), format!("{{ {} }}", "n".repeat(20_000)), format!("\"{long}\"")]
    {
        for refusal in admit(&query).unwrap_err() {
            assert!(refusal.message.chars().count() <= 300);
        }
    }
}

#[test]
fn a_byte_order_mark_and_commas_are_no_obstacle() {
    assert_eq!(admit("\u{feff}{,me,{,id,}\u{feff},}").unwrap().document, "query{me{id}}");
}

#[test]
fn an_invalid_schema_makes_no_gate() {
    assert!(Gate::new("type Query { a: Missing }", Scalars::default(), Limits::default(), text).is_err());
    assert!(Gate::new("", Scalars::default(), Limits::default(), text).is_err());
    assert!(Gate::new(SDL, Scalars::default(), Limits::default(), text).is_ok());
}

#[test]
fn codes_have_the_names_that_clients_know() {
    let codes = [
        Code::GraphqlParseFailed,
        Code::GraphqlValidationFailed,
        Code::BadUserInput,
        Code::TooExpensive,
        Code::Forbidden,
    ];
    let names = ["GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT", "TOO_EXPENSIVE", "FORBIDDEN"];
    assert_eq!(codes.map(Code::as_str), names);
}

#[test]
fn limits_hold_at_their_edge() {
    let fields = |count: usize| format!("{{ me {{ {} }} }}", "id ".repeat(count));
    assert!(admit(&fields(1_495)).is_ok(), "1 500 tokens");
    assert_eq!(refused(&fields(1_496), json!({})).0, Code::TooExpensive);
    let aliases =
        |count: usize| (0..count).fold(String::from("{ me {"), |text, index| text + &format!(" a{index}: id")) + " } }";
    assert!(admit(&aliases(30)).is_ok());
    assert_eq!(refused(&aliases(31), json!({})).0, Code::TooExpensive);
    let directives = |count: usize| format!("{{ me {{ id {} }} }}", "@once ".repeat(count));
    assert!(admit(&directives(20)).is_ok());
    assert_eq!(refused(&directives(21), json!({})).0, Code::TooExpensive);
    let depth = |count: usize| "{ me ".to_owned() + &"{ friend ".repeat(count - 2) + "{ id }" + &"}".repeat(count - 1);
    assert!(admit(&depth(15)).is_ok());
    assert_eq!(refused(&depth(16), json!({})).0, Code::TooExpensive);
    assert!(admit_with("{ me { id } }", json!({"unused": [1]})).is_ok());
}
