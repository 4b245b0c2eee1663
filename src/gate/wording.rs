//! Rewrites errors of the parser and the validator for the author of the document. Parser and validator describe an error only by
//! its message, so this module matches messages, and tests pin their wording.

use apollo_compiler::Schema;
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::DiagnosticList;

use super::coercion::one_of_names;
use super::refusal::{Code, MAX_REFUSALS, Refusal};

/// Errors that may only follow from another error, because the part that caused the other error was left out.
const CONSEQUENCES: [&str; 4] = ["UnusedVariable", "UnusedFragment", "UndefinedFragment", "MissingSubselection"];

/// What the parser expects, in the words of its grammar and in words for the client.
const EXPECTED: [(&str, &str); 16] = [
    ("definition", "`query`, `mutation`, `subscription`, `fragment` or `{`"),
    ("a StringValue, Name or OperationDefinition", "`query`, `mutation`, `subscription`, `fragment` or `{`"),
    ("an Operation Type or a Selection Set", "`query`, `mutation`, `subscription`, `fragment` or `{`"),
    ("a Selection Set", "`{` and the fields to select"),
    ("Selection Set", "`{` and the fields to select"),
    ("at least one Selection in Selection Set", "the name of a field"),
    ("a Name", "a name"),
    ("a Name in Type Condition", "the name of a type"),
    ("Fragment Name", "the fragment's name"),
    ("'on'", "`on` and the name of a type"),
    ("Type Condition", "`on` and the name of a type"),
    ("a Type", "a type, such as `Int!`"),
    ("a type", "a type, such as `Int!`"),
    ("a valid Value", "a value, such as `1`, `\"text\"`, `true`, `null`, `[1, 2]`, `{name: 1}` or `$variable`"),
    ("an Argument", "an argument, such as `first: 10`"),
    ("a Variable Definition", "a variable, such as `$first: Int`"),
];

/// The parser's names of tokens, and the characters that the names stand for.
const TOKENS: [(&str, &str); 9] = [
    ("R_CURLY", "}"),
    ("L_CURLY", "{"),
    ("R_PAREN", ")"),
    ("L_PAREN", "("),
    ("R_BRACK", "]"),
    ("L_BRACK", "["),
    ("COLON", ":"),
    ("DOLLAR", "$"),
    ("EQ", "="),
];

/// Returns the reason why a text is not GraphQL. Only the first error counts, because later ones usually follow from it.
pub(super) fn syntax(text: &str, errors: &DiagnosticList) -> Refusal {
    let Some(first) = errors.iter().next() else { return Refusal::new(Code::GraphqlParseFailed, "syntax error") };
    let message = first.error.to_string();
    let Some(place) = first.line_column_range().map(|range| (range.start.line, range.start.column)) else {
        return Refusal::new(Code::GraphqlParseFailed, message);
    };
    let message = match message.strip_prefix("syntax error: expected ") {
        Some(expected) => format!("syntax error: {} is expected here{}", in_words(expected), found(text, place)),
        None => message,
    };
    Refusal::new(Code::GraphqlParseFailed, message).at(place)
}

fn in_words(expected: &str) -> String {
    let expected = expected.split_once(", got ").map_or(expected, |(expected, _)| expected);
    if let Some((_, token)) = TOKENS.iter().find(|(name, _)| *name == expected) {
        return format!("`{token}`");
    }
    let known = EXPECTED.iter().find(|(grammar, _)| *grammar == expected);
    known.map_or(expected, |(_, words)| words).to_owned()
}

/// Describes the text at a line and a column.
fn found(text: &str, (line, column): (usize, usize)) -> String {
    let rest = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().chars().skip(column.saturating_sub(1));
    let is_name = |character: &char| *character == '_' || character.is_ascii_alphanumeric();
    let mut rest = rest.peekable();
    let name: String = std::iter::from_fn(|| rest.next_if(is_name)).collect();
    match (name.is_empty(), rest.next()) {
        (false, _) => format!(", not `{name}`"),
        (true, Some('.')) => ", not `...`".to_owned(),
        (true, Some(character)) => format!(", not `{character}`"),
        (true, None) => ", where the text ends".to_owned(),
    }
}

/// Returns the reasons why a document is not valid. `whole` says that no invalid part of the document was left out before. If a
/// part was left out, the errors in `CONSEQUENCES` are not reported.
pub(super) fn invalid(schema: &Schema, errors: &DiagnosticList, whole: bool) -> Vec<Refusal> {
    let follows = |name: Option<&str>| !whole && name.is_some_and(|name| CONSEQUENCES.contains(&name));
    let told = errors.iter().filter(|error| !follows(error.error.unstable_error_name())).take(MAX_REFUSALS);
    let mut refusals = Vec::new();
    for error in told {
        let refusal = Refusal::new(Code::GraphqlValidationFailed, with_names(schema, error.error.to_string()));
        refusals.push(match error.line_column_range() {
            Some(range) => refusal.at((range.start.line, range.start.column)),
            None => refusal,
        });
    }
    refusals
}

/// Adds the possible values to a message about a value of an enum.
fn with_names(schema: &Schema, message: String) -> String {
    let of_value = message.strip_prefix("value `").and_then(|rest| rest.split_once("` does not exist on `"));
    let of_type = message.strip_prefix("expected value of type ").and_then(|rest| rest.split_once(", found"));
    let ty = match (of_value, of_type) {
        (Some((_, ty)), _) => ty.trim_end_matches('`'),
        (None, Some((ty, _))) => ty.trim_matches(['[', ']', '!']),
        (None, None) => return message,
    };
    match schema.types.get(ty) {
        Some(ExtendedType::Enum(names)) => format!("{message}: {}, without quotes", one_of_names(names)),
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{admit, refused};

    #[test]
    fn what_was_expected_is_said_in_words() {
        for (query, expected) in [
            ("{ me { id", "`}` is expected here, where the text ends"),
            ("{ me { id } }}", "`query`, `mutation`, `subscription`, `fragment` or `{` is expected here, not `}`"),
            (
                "queri { me { id } }",
                "`query`, `mutation`, `subscription`, `fragment` or `{` is expected here, not `queri`",
            ),
            ("query Q() { me { id } }", "a variable, such as `$first: Int` is expected here, not `)`"),
            ("{}", "the name of a field is expected here, not `}`"),
            ("{ a: }", "a name is expected here, not `}`"),
            ("{\n  me(id 1) { id } }", "`)` is expected here, not `1`"),
            ("{ me(id: 1 { id } }", "`)` is expected here, not `{`"),
            ("{ me(a: [1, ) { id } }", "or `$variable` is expected here, not `)`"),
            ("query($a:) { me { id } }", "a type, such as `Int!` is expected here, not `)`"),
            ("fragment F Customer { id }", "`on` and the name of a type is expected here, not `Customer`"),
            ("{ me { ... on { id } } }", "the name of a type is expected here, not `{`"),
        ] {
            let refusals = admit(query).unwrap_err();
            assert_eq!(refusals.len(), 1, "{query}: {refusals:?}");
            let message = &refusals[0].message;
            assert!(message.starts_with("syntax error: ") && message.ends_with(expected), "{query}: {message}");
            assert!(!message.contains("CURLY") && !message.contains("PAREN"), "{message}");
        }
    }

    #[test]
    fn the_values_of_an_enum_are_told() {
        for query in
            ["{ echo(status: OPEN) }", "{ echo(status: \"DRAFT\") }", "query($s: Status = 1) { echo(status: $s) }"]
        {
            let (_, message) = refused(query, json!({}));
            assert!(message.ends_with(": expected one of DRAFT, ACTIVE, without quotes"), "{message}");
        }
        let (_, message) = refused("query($s: Status) { echo(status: $s) }", json!({"s": "active"}));
        assert_eq!(message, "variable `$s`: this is not a value of type Status: expected one of DRAFT, ACTIVE");
    }

    #[test]
    fn all_that_is_wrong_is_told_and_nothing_that_follows_from_it() {
        let messages = |query: &str| admit(query).unwrap_err().into_iter().map(|refusal| refusal.message).collect();
        let told: Vec<String> =
            messages("query($a: Int) { me { nope(x: $a) } echo(number: \"x\", filter: {a: 1, b: 2}) }");
        let expected = [
            "type `Customer` does not have a field `nope`",
            "expected value of type Int, found a string",
            "field `a` does not exist on `Filter`",
            "field `b` does not exist on `Filter`",
        ];
        assert_eq!(told, expected);
        let told: Vec<String> = messages("{ me { ...F } } fragment F on Nothing { id }");
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
