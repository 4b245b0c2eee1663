//! Tests hostile requests. The gate refuses each of them, even on a small stack.

use proptest::prelude::*;
use serde_json::json;

use super::super::fixture::{admit, admit_with, refused};
use super::super::{Admitted, Code, Refusal};

/// The default stack size of threads in Rust and in Tokio.
const STACK_BYTES: usize = 2 << 20;

fn on_small_stack(query: String) -> Result<Admitted<String>, Vec<Refusal>> {
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || admit(&query));
    thread.unwrap().join().unwrap()
}

fn code(query: String) -> Code {
    let start: String = query.chars().take(60).collect();
    match on_small_stack(query) {
        Ok(_) => panic!("passes: {start}"),
        Err(refusals) => refusals[0].code,
    }
}

fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    open.repeat(levels) + inner + &close.repeat(levels)
}

#[test]
fn nesting_is_refused_wherever_it_stands() {
    for levels in [49, 500, 1_223, 1_542, 15_000] {
        for query in [
            format!("{{ echo(points: {}) }}", nested("[", "1", "]", levels)),
            format!("{{ echo(points: {}) }}", nested("{a:", "1", "}", levels)),
            format!("{{ echo(points: {}", "[".repeat(levels)),
            format!("query($a: {}) {{ echo(points: $a) }}", nested("[", "Int", "]", levels)),
            format!("query($a: Points = {}) {{ echo(points: $a) }}", nested("[", "1", "]", levels)),
            format!("{{ me @d(a: {}) {{ id }} }}", nested("[", "1", "]", levels)),
            nested("{a", "", "}", levels),
            nested("{...", "{a}", "}", levels),
            format!("{{me{}", nested("{friend", "{id}", "}", levels)),
            "{".repeat(levels),
            "[".repeat(levels),
            "(".repeat(levels),
            "{a(".repeat(levels),
        ] {
            assert_eq!(code(query), Code::TooExpensive);
        }
    }
    assert_eq!(code(nested("{friend", "{id}", "}", 100_000)), Code::TooExpensive);
}

#[test]
fn nesting_that_the_scan_allows_fits_the_stack() {
    assert!(on_small_stack(format!("{{ echo(points: {}) }}", nested("[", "1", "]", 46))).is_ok());
    assert!(on_small_stack(format!("{{ echo(points: {}) }}", nested("{a:", "1", "}", 46))).is_ok());
    assert!(on_small_stack(nested("{...", "{__typename}", "}", 47)).is_ok());
    assert_eq!(
        code(format!("query($a: {}) {{ echo(points: $a) }}", nested("[", "Int", "]", 47))),
        Code::GraphqlValidationFailed
    );
    let mut chain = String::from("{ ...F0 } fragment F46 on Query { __typename }");
    for index in 0..46 {
        chain += &format!(" fragment F{index} on Query {{ ...F{} }}", index + 1);
    }
    assert!(on_small_stack(chain).is_ok());
}

/// Returns a chain of fragments. `link` writes how each fragment spreads the next one, usually twice.
fn doubling(levels: usize, link: impl Fn(usize) -> String) -> String {
    let fragments = (0..levels).map(|index| format!("fragment F{index} on Customer{{{}}}", link(index + 1)));
    format!("{{me{{...F0}}}}{}fragment F{levels} on Customer{{id}}", fragments.collect::<String>())
}

#[test]
fn fragment_bombs_are_refused() {
    let deep = doubling(20, |next| format!("...F{next}...F{next}"));
    assert!(deep.len() < 900, "{}", deep.len());
    assert_eq!(code(deep), Code::TooExpensive);
    assert_eq!(code(doubling(12, |next| format!("friend{{...F{next}}}...F{next}"))), Code::TooExpensive);
    assert_eq!(code(doubling(12, |next| format!("a:friend{{...F{next}}}b:friend{{...F{next}}}"))), Code::TooExpensive);
    assert_eq!(code(doubling(40, |next| format!("...{{...F{next}}}...{{...F{next}}}"))), Code::TooExpensive);
    let wide = doubling(5, |next| format!("...F{next} ").repeat(20));
    assert!(wide.len() < 1_000, "{}", wide.len());
    assert_eq!(code(wide), Code::TooExpensive);
    let wide_and_different = doubling(5, |next| (0..6).map(|index| format!("a{index}:friend{{...F{next}}}")).collect());
    assert_eq!(code(wide_and_different), Code::TooExpensive);
    assert_eq!(code(doubling(90, |next| format!("...F{next}"))), Code::TooExpensive);
    assert_eq!(code(doubling(180, |next| format!("...F{next}"))), Code::TooExpensive);
}

#[test]
fn a_bomb_in_any_operation_is_refused() {
    let bomb = doubling(20, |next| format!("...F{next}...F{next}"));
    assert_eq!(code(format!("query A{{me{{id}}}}query B{bomb}")), Code::TooExpensive);
}

#[test]
fn operations_that_share_a_large_fragment_are_refused() {
    let operations: String = (0..35).map(|index| format!("query Q{index}{{me{{...F}}}}")).collect();
    assert_eq!(code(format!("{operations}fragment F on Customer{{{}}}", "id ".repeat(500))), Code::TooExpensive);
}

#[test]
fn fragments_in_circles_are_refused() {
    for query in [
        "{ ...F } fragment F on Query { ...F }",
        "{ ...F } fragment F on Query { ...F ...F ...F ...F }",
        "{ me { ...F } } fragment F on Customer { friend { ...G } } fragment G on Customer { friend { ...F } }",
        "{ me { id } } fragment F on Query { ...G } fragment G on Query { ...F }",
    ] {
        assert_eq!(code(query.into()), Code::GraphqlValidationFailed);
    }
    let circle: String =
        (0..150).map(|index| format!("fragment F{index} on Query {{ ...F{} }} ", (index + 1) % 150)).collect();
    assert_eq!(code(format!("{{ ...F0 }} {circle}")), Code::TooExpensive);
}

#[test]
fn floods_are_refused() {
    let aliases: String = (0..100_000).map(|index| format!("a{index}:me ")).collect();
    assert_eq!(code(format!("{{{aliases}}}")), Code::TooExpensive);
    let aliases: String = (0..300).map(|index| format!("a{index}:me{{id}}")).collect();
    assert_eq!(code(format!("{{{aliases}}}")), Code::TooExpensive);
    for count in [21, 700, 30_000] {
        assert_eq!(code(format!("{{me{{id {}}}}}", "@a".repeat(count))), Code::TooExpensive);
        assert_eq!(code(format!("query {}{{me{{id}}}}", "@a".repeat(count))), Code::TooExpensive);
    }
    let operations: String = (0..300).map(|index| format!("query Q{index}{{me{{id}}}}")).collect();
    assert_eq!(code(operations), Code::TooExpensive);
    assert_eq!(code("{me{id}}".repeat(180)), Code::GraphqlValidationFailed);
    assert_eq!(code("?".repeat(60_000)), Code::TooExpensive);
    assert_eq!(code(" ".repeat(70_000)), Code::TooExpensive);
    for trivia in [",", " ", "\n", "#\n", "\u{feff}"] {
        assert!(on_small_stack(format!("{{me{{id}}}}{}", trivia.repeat(20_000))).is_ok(), "{trivia:?}");
    }
}

#[test]
fn broken_text_is_refused() {
    for query in [
        r#"{ echo(text: "abc) }"#,
        r#"{ echo(text: """abc) }"#,
        "{ echo(text: \"a\nb\") }",
        r#"{ echo(text: "\uD800") }"#,
        r#"{ echo(text: "\uDC00\uD800") }"#,
        r#"{ echo(text: "\uD800\n") }"#,
        r#"{ echo(text: "\uD800\u0041") }"#,
        r#"{ echo(text: "\uD83D\u{DE00}") }"#,
        r#"{ echo(text: "\u{D800}") }"#,
        r#"{ echo(text: "\u{110000}") }"#,
        r#"{ echo(text: "\u{FFFFFFFFFFFFFFFFFFFF}") }"#,
        r#"{ echo(text: "\u{}") }"#,
        r#"{ echo(text: "\u12") }"#,
        r#"{ echo(text: "\x") }"#,
        "{ me { id } }\0",
        "\0",
        "{ me\0 { id } }",
        "\u{feff}",
    ] {
        assert_eq!(code(query.into()), Code::GraphqlParseFailed, "{query}");
    }
    assert!(on_small_stack("{ echo(text: \"\0\") }".into()).is_ok());
    assert!(on_small_stack(r#"{ echo(text: "\uD83D\uDE00") }"#.into()).is_ok());
}

#[test]
fn deep_variables_are_refused() {
    let deep = (0..120).fold(json!(1), |inner, _| json!({ "and": [inner] }));
    let refusals = admit_with("query($f: Filter) { echo(filter: $f) }", json!({ "f": deep })).unwrap_err();
    assert_eq!(refusals[0].code, Code::TooExpensive);
}

#[test]
fn conflicts_by_the_hundred_are_ten_refusals() {
    let query = format!("{{ me {{ id }} {} }}", "me ".repeat(700));
    assert!(admit(&query).unwrap_err().len() <= 10);
    let query: String = (0..140).map(|index| format!("echo(number: {index}) ")).collect();
    assert!(admit(&format!("{{ {query} }}")).unwrap_err().len() <= 10);
    assert_eq!(refused("{ echo(number: 1) echo(number: 2) }", json!({})).0, Code::GraphqlValidationFailed);
}

/// Pieces that form texts similar to GraphQL.
const PIECES: [&str; 44] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ":",
    "!",
    "=",
    "@",
    "$",
    "|",
    "&",
    "...",
    "me",
    "id",
    "echo",
    "text",
    "points",
    "query",
    "mutation",
    "fragment",
    "F",
    "on",
    "Query",
    "Customer",
    "$a",
    "1",
    "-1.5e3",
    "\"",
    "\"\"\"",
    "\\",
    "\\u",
    "\\\"",
    "D800",
    "null",
    "true",
    "@skip(if:true)",
    "#",
    "\n",
    " ",
    ",",
    "\u{feff}",
    "é",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_what_passes_can_be_read(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
        if let Ok(admitted) = admit(&pieces.concat()) {
            prop_assert!(async_graphql::parser::parse_query(&admitted.document).is_ok(), "{}", admitted.document);
        }
    }

    #[test]
    fn any_string_survives(text in any::<String>()) {
        let quoted: String = text.chars().map(|character| format!("\\u{{{:x}}}", u32::from(character))).collect();
        if let Ok(admitted) = admit(&format!("{{ echo(text: \"{quoted}\") }}")) {
            let again = admit(&admitted.document).unwrap();
            prop_assert_eq!(&again.document, &admitted.document);
            prop_assert!(async_graphql::parser::parse_query(&admitted.document).is_ok());
        } else {
            prop_assert!(false, "refused: {}", quoted);
        }
    }
}
