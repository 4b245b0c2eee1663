//! The normalised operation as text for the executor's parser, which reads less than the specification allows: strings on one
//! line with plain escapes, no empty selection sets.
//!
//! A variable without a value is left out together with the argument or input field that it stands for, as the specification
//! says; the executor would make null of it, which means another thing.

use std::fmt::Write;

use apollo_compiler::Name;
use apollo_compiler::ast::Value;
use apollo_compiler::collections::HashSet;
use apollo_compiler::executable::Operation;
use apollo_compiler::response::{JsonMap, JsonValue};

use super::limits::Limits;
use super::normalize::{Field, Selected};
use super::refusal::{Code, Refusal};

/// A selection set of nothing, as text that the parsers accept. Its answer is an empty object.
const NOTHING: &str = "{...@skip(if:true){__typename}}";

/// The text, and the names of the variables that it uses.
pub(super) fn print<'a>(
    operation: &'a Operation,
    selected: &Selected<'a>,
    variables: &'a JsonMap,
    limits: &Limits,
) -> Result<(String, HashSet<&'a Name>), Refusal> {
    let mut printer =
        Printer { text: String::new(), variables, used: HashSet::default(), limit: limits.normalized_bytes };
    printer.selected(selected)?;
    let Printer { text: selection_set, used, .. } = printer;

    let mut text = operation.operation_type.name().to_owned();
    if let Some(name) = &operation.name {
        text.push(' ');
        text.push_str(name);
    }
    let mut separator = '(';
    for variable in operation.variables.iter().filter(|variable| used.contains(&variable.name)) {
        // Defaults are in the coerced values. One that is not null is so by its type, too, wherever it stands.
        let ty = variable.ty.as_ref().clone();
        let is_null = variables.get(variable.name.as_str()).is_none_or(JsonValue::is_null);
        let ty = if is_null { ty } else { ty.non_null() };
        push(&mut text, format_args!("{separator}${}:{ty}", variable.name));
        separator = ',';
    }
    if separator == ',' {
        text.push(')');
    }
    text.push_str(&selection_set);
    Ok((text, used))
}

struct Printer<'a> {
    text: String,
    variables: &'a JsonMap,
    used: HashSet<&'a Name>,
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
            if let Some(alias) = &field.source.alias {
                push(&mut self.text, format_args!("{alias}:"));
            }
            self.text.push_str(&field.source.name);
            let arguments = field.source.arguments.iter().map(|argument| (&argument.name, argument.value.as_ref()));
            self.named('(', arguments, ')');
            self.selected(&field.selected)?;
            if self.text.len() > self.limit {
                let message =
                    format!("the operation is larger than {} bytes when its fragments are expanded", self.limit);
                return Err(Refusal::new(Code::TooExpensive, message));
            }
        }
        self.text.push('}');
        Ok(())
    }

    /// Arguments or input fields that have a value. Nothing at all is written for arguments of which none has one.
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
                character => self.text.push(character),
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
