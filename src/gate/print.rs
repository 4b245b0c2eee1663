//! Prints the normalised operation for the executor's parser. That parser accepts less than the specification allows, so strings
//! are printed on one line with plain escapes, and no selection set is empty.
//!
//! As the specification demands, a variable without a value is omitted together with its argument or input field. The executor
//! would replace such a variable with null, which has another meaning.

use std::fmt::Write;

use apollo_compiler::Name;
use apollo_compiler::ast::Value;
use apollo_compiler::collections::HashSet;
use apollo_compiler::executable::Operation;
use apollo_compiler::parser::SourceSpan;
use apollo_compiler::response::{JsonMap, JsonValue};

use super::limits::Limits;
use super::normalize::{Field, Selected};
use super::refusal::{Code, Refusal};

/// An empty selection in a form that the parsers accept. The result is an empty object.
const NOTHING: &str = "{...@skip(if:true){__typename}}";

pub(super) struct Printed<'a> {
    pub(super) text: String,
    /// The names of the variables that the text uses.
    pub(super) used: HashSet<&'a Name>,
    /// The column at which each field begins, in ascending order, and the place of the field in the document.
    pub(super) fields: Vec<(usize, Option<SourceSpan>)>,
}

pub(super) fn print<'a>(
    operation: &'a Operation,
    selected: &Selected<'a>,
    variables: &'a JsonMap,
    limits: &Limits,
) -> Result<Printed<'a>, Refusal> {
    let mut printer = Printer {
        text: String::new(),
        variables,
        used: HashSet::default(),
        fields: Vec::new(),
        continuation_bytes: 0,
        limit: limits.normalized_bytes,
    };
    printer.selected(selected)?;
    let Printer { text: selection_set, used, mut fields, .. } = printer;

    let mut text = operation.operation_type.name().to_owned();
    if let Some(name) = &operation.name {
        text.push(' ');
        text.push_str(name);
    }
    let mut separator = '(';
    for variable in operation.variables.iter().filter(|variable| used.contains(&variable.name)) {
        // The coerced values include the defaults. A variable with a value other than null gets a non-null type, so that the
        // variable fits wherever it is used.
        let ty = variable.ty.as_ref().clone();
        let is_null = variables.get(variable.name.as_str()).is_none_or(JsonValue::is_null);
        let ty = if is_null { ty } else { ty.non_null() };
        push(&mut text, format_args!("{separator}${}:{ty}", variable.name));
        separator = ',';
    }
    if separator == ',' {
        text.push(')');
    }
    // The text so far is ASCII, so its bytes are columns.
    fields.iter_mut().for_each(|(column, _)| *column += text.len());
    text.push_str(&selection_set);
    Ok(Printed { text, used, fields })
}

struct Printer<'a> {
    text: String,
    variables: &'a JsonMap,
    used: HashSet<&'a Name>,
    fields: Vec<(usize, Option<SourceSpan>)>,
    /// How many more bytes than characters `text` has. Columns count characters.
    continuation_bytes: usize,
    limit: usize,
}

impl<'a> Printer<'a> {
    fn selected(&mut self, selected: &Selected<'a>) -> Result<(), Refusal> {
        match selected {
            Selected::Leaf => Ok(()),
            Selected::Fields(fields) => self.fields(fields),
            Selected::PerType(per_type) if per_type.is_empty() => self.fields(&[]),
            Selected::PerType(per_type) => {
                self.text.push('{');
                for (ty, fields) in per_type {
                    push(&mut self.text, format_args!("...on {ty}"));
                    self.fields(fields)?;
                }
                self.text.push('}');
                Ok(())
            }
        }
    }

    fn fields(&mut self, fields: &[Field<'a>]) -> Result<(), Refusal> {
        if fields.is_empty() {
            self.text.push_str(NOTHING);
            return Ok(());
        }
        for (index, field) in fields.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ' ' });
            let name = field.source.alias.as_ref().unwrap_or(&field.source.name);
            self.fields.push((self.text.len() - self.continuation_bytes + 1, name.location()));
            if let Some(alias) = &field.source.alias {
                push(&mut self.text, format_args!("{alias}:"));
            }
            self.text.push_str(&field.source.name);
            let arguments = field.source.arguments.iter().map(|argument| (&argument.name, argument.value.as_ref()));
            self.named('(', arguments, ')');
            self.selected(&field.selected)?;
            if self.text.len() > self.limit {
                let message = format!(
                    "the operation has more than {} bytes with its fragments expanded: split it into several requests",
                    self.limit
                );
                return Err(Refusal::new(Code::TooExpensive, message));
            }
        }
        self.text.push('}');
        Ok(())
    }

    /// Prints the arguments or input fields that have a value. If no argument has one, the parentheses are omitted too.
    fn named(&mut self, open: char, values: impl Iterator<Item = (&'a Name, &'a Value)>, close: char) {
        let mut is_open = false;
        for (name, value) in values.filter(|(_, value)| !is_absent(value, self.variables)) {
            self.text.push(if is_open { ',' } else { open });
            is_open = true;
            push(&mut self.text, format_args!("{name}:"));
            self.value(value);
        }
        match (is_open, open) {
            (true, _) => self.text.push(close),
            (false, '(') => {}
            (false, _) => self.text.extend([open, close]),
        }
    }

    fn value(&mut self, value: &'a Value) {
        match value {
            Value::Variable(_) if is_absent(value, self.variables) => self.text.push_str("null"),
            Value::Variable(name) => {
                self.used.insert(name);
                push(&mut self.text, format_args!("${name}"));
            }
            Value::String(string) => self.string(string),
            Value::List(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.text.push(',');
                    }
                    self.value(item);
                }
                self.text.push(']');
            }
            Value::Object(fields) => self.named('{', fields.iter().map(|(name, value)| (name, value.as_ref())), '}'),
            Value::Null => self.text.push_str("null"),
            Value::Enum(name) => self.text.push_str(name),
            Value::Boolean(value) => push(&mut self.text, format_args!("{value}")),
            Value::Int(number) => self.text.push_str(number.as_str()),
            Value::Float(number) => self.text.push_str(number.as_str()),
        }
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for character in string.chars() {
            match character {
                '"' | '\\' => self.text.extend(['\\', character]),
                character if character < ' ' => push(&mut self.text, format_args!("\\u{:04x}", u32::from(character))),
                character => {
                    self.continuation_bytes += character.len_utf8() - 1;
                    self.text.push(character);
                }
            }
        }
        self.text.push('"');
    }
}

fn is_absent(value: &Value, variables: &JsonMap) -> bool {
    value.as_variable().is_some_and(|name| !variables.contains_key(name.as_str()))
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let written = text.write_fmt(arguments);
    debug_assert!(written.is_ok(), "writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{admit_with, normalized, refused};
    use super::*;

    #[test]
    fn strings_are_written_on_one_line_with_plain_escapes() {
        let query = r#"{ echo(text: "\u{1F600}\uD83D\uDE00\u0000\b\f\t\"\\\/é\u2028") }"#;
        let expected = "query{echo(text:\"😀😀\\u0000\\u0008\\u000c\\u0009\\\"\\\\/é\u{2028}\")}";
        assert_eq!(normalized(query, json!({})), expected);
        let block = "{ echo(text: \"\"\"\n  one\n    \"two\" \\n\n  \\\"\"\"three\n\"\"\") }";
        assert_eq!(normalized(block, json!({})), r#"query{echo(text:"one\u000a  \"two\" \\n\u000a\"\"\"three")}"#);
    }

    #[test]
    fn values_are_written_as_they_came() {
        let query = "{ echo(points: [1, -2.5e3, true, false, null, NAME, {}, [], {a: {b: [1 2]}}], status: DRAFT) }";
        let expected = "query{echo(points:[1,-2.5e3,true,false,null,NAME,{},[],{a:{b:[1,2]}}],status:DRAFT)}";
        assert_eq!(normalized(query, json!({})), expected);
    }

    #[test]
    fn a_variable_without_a_value_leaves_with_what_it_stands_for() {
        let query = "query($a: Int, $b: String, $c: Points) {
            one: echo(number: $a) two: echo(number: $a, filter: {name: $b}, points: [$c, {c: $c}]) }";
        assert_eq!(normalized(query, json!({})), "query{one:echo two:echo(filter:{},points:[null,{}])}");
        let null = normalized(query, json!({"a": null, "b": null, "c": null}));
        let expected = "query($a:Int,$b:String,$c:Points){one:echo(number:$a) \
            two:echo(number:$a,filter:{name:$b},points:[$c,{c:$c}])}";
        assert_eq!(null, expected);
    }

    #[test]
    fn a_variable_that_has_a_value_is_of_a_type_without_null() {
        let query = "query Q($a: Int = 3, $b: [ID!]) { echo(page: $a, ids: $b) }";
        let admitted = admit_with(query, json!({"b": ["1"]})).unwrap();
        assert_eq!(admitted.document, "query Q($a:Int!,$b:[ID!]!){echo(page:$a,ids:$b)}");
    }

    #[test]
    fn the_text_is_bounded() {
        let nested = |length: usize| {
            let places = (0..13).fold(String::from("...F"), |inner, _| format!("...F friend {{ {inner} }}"));
            format!("{{ me {{ {places} }} }} fragment F on Customer {{ note(text: \"{}\") }}", "x".repeat(length))
        };
        assert!(admit_with(&nested(18_000), json!({})).is_ok());
        let (code, message) = refused(&nested(20_000), json!({}));
        assert_eq!(code, Code::TooExpensive);
        assert!(message.contains("262144 bytes"), "{message}");
    }
}
