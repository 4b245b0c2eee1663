//! A value of a type, coerced while it is read, as "Input Coercion" of the specification says for variables.
//!
//! What does not fit is refused at its first fault, with the path to it, before anything behind it takes memory. Values of custom
//! scalars may be anything; whoever runs the operation knows more about them.

use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};

use apollo_compiler::ast::{Type, Value as Literal};
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::schema::{ExtendedType, InputObjectType};
use apollo_compiler::{Name, Schema};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::refusal::{Code, Refusal};
use super::values::{is_one_of, one_of_message};

/// Whole numbers from here on are no exact floats: 2^53.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// What all values of one request are read with.
pub(super) struct Context<'a> {
    schema: &'a Schema,
    /// Of lists and objects in each other.
    max_levels: u32,
    /// Why reading ended, unless it was for a fault of the JSON.
    pub(super) refusal: RefCell<Option<Refusal>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(schema: &'a Schema, max_levels: u32) -> Self {
        Self { schema, max_levels, refusal: RefCell::new(None) }
    }
}

/// The way to a value, for messages: `$inputs[3].total.amount`.
pub(super) enum Path<'a> {
    Variable(&'a str),
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Display for Path<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(formatter, "${name}"),
            Self::Field(object, name) => write!(formatter, "{object}.{name}"),
            Self::Item(list, index) => write!(formatter, "{list}[{index}]"),
        }
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    context: &'a Context<'a>,
    ty: &'a Type,
    path: &'a Path<'a>,
    /// Of lists and objects around it.
    levels: u32,
}

impl<'a> Place<'a> {
    pub(super) fn new(context: &'a Context<'a>, ty: &'a Type, path: &'a Path<'a>) -> Self {
        Self { context, ty, path, levels: 0 }
    }

    /// Of a part of the value here.
    fn inside(self, ty: &'a Type, path: &'a Path<'a>) -> Self {
        Self { ty, path, levels: self.levels + 1, ..self }
    }

    fn fail<E: Error>(self, code: Code, message: impl Display) -> E {
        let refusal = Refusal::new(code, format!("variable `{}`: {message}", self.path));
        let error = E::custom(&refusal.message);
        self.context.refusal.replace(Some(refusal));
        error
    }

    fn unfit<E: Error>(self) -> E {
        self.fail(Code::BadUserInput, format_args!("this is no value of type {}", self.ty))
    }

    fn enter<E: Error>(self) -> Result<(), E> {
        if self.levels < self.context.max_levels {
            return Ok(());
        }
        let message = format_args!("nested more than {} levels", self.context.max_levels);
        Err(self.fail(Code::TooExpensive, message))
    }

    /// What a single value is where a list is expected: its only item.
    fn alone<E: Error>(self, read: impl FnOnce(Self) -> Result<JsonValue, E>) -> Result<JsonValue, E> {
        match self.ty {
            Type::List(item) | Type::NonNullList(item) => {
                Ok(JsonValue::Array(vec![Place { ty: item, ..self }.alone(read)?]))
            }
            Type::Named(_) | Type::NonNullNamed(_) => read(self),
        }
    }

    fn definition(self) -> Option<&'a ExtendedType> {
        self.context.schema.types.get(self.ty.inner_named_type())
    }

    /// A value without parts.
    fn leaf<E: Error>(self, value: JsonValue) -> Result<JsonValue, E> {
        self.alone(|place| {
            let fits = match place.definition() {
                Some(ExtendedType::Scalar(scalar)) => is_of_scalar(&scalar.name, &value),
                Some(ExtendedType::Enum(names)) => value.as_str().is_some_and(|name| names.values.contains_key(name)),
                _ => false,
            };
            if fits { Ok(value) } else { Err(place.unfit()) }
        })
    }
}

fn is_of_scalar(name: &Name, value: &JsonValue) -> bool {
    match name.as_str() {
        "Int" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "Float" => value.is_f64() || value.as_f64().is_some_and(|number| number.abs() < MAX_EXACT_FLOAT),
        "String" => value.is_string(),
        "Boolean" => value.is_boolean(),
        "ID" => value.is_string() || value.is_i64(),
        _ => true,
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = JsonValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonValue, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = JsonValue;

    fn expecting(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "a value of type {}", self.ty)
    }

    fn visit_unit<E: Error>(self) -> Result<JsonValue, E> {
        if self.ty.is_non_null() { Err(self.unfit()) } else { Ok(JsonValue::Null) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<JsonValue, E> {
        self.leaf(JsonValue::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<JsonValue, E> {
        self.leaf(JsonValue::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<JsonValue, E> {
        self.leaf(JsonValue::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<JsonValue, E> {
        self.leaf(Number::from_f64(value).map_or(JsonValue::Null, JsonValue::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<JsonValue, E> {
        self.leaf(JsonValue::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sent: A) -> Result<JsonValue, A::Error> {
        self.enter()?;
        let anything;
        let item = match self.ty {
            Type::List(item) | Type::NonNullList(item) => item,
            Type::Named(name) | Type::NonNullNamed(name) => match self.definition() {
                Some(ExtendedType::Scalar(scalar)) if !scalar.is_built_in() => {
                    anything = Type::Named(name.clone());
                    &anything
                }
                _ => return Err(self.unfit()),
            },
        };
        let mut items = Vec::new();
        while let Some(value) = sent.next_element_seed(self.inside(item, &Path::Item(self.path, items.len())))? {
            items.push(value);
        }
        Ok(JsonValue::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, sent: A) -> Result<JsonValue, A::Error> {
        self.enter()?;
        self.alone(|place| match place.definition() {
            Some(ExtendedType::InputObject(input)) => place.object(input, sent),
            Some(ExtendedType::Scalar(scalar)) if !scalar.is_built_in() => place.any_object(sent),
            _ => Err(place.unfit()),
        })
    }
}

impl Place<'_> {
    fn object<'de, A: MapAccess<'de>>(self, input: &InputObjectType, mut sent: A) -> Result<JsonValue, A::Error> {
        let mut fields = JsonMap::new();
        while let Some(name) = sent.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            let Some(field) = input.fields.get(name.as_str()) else {
                let message = format_args!("{} has no such field", input.name);
                return Err(Place { path: &path, ..self }.fail(Code::BadUserInput, message));
            };
            let value = sent.next_value_seed(self.inside(&field.ty, &path))?;
            if fields.insert(name.as_str(), value).is_some() {
                return Err(Place { path: &path, ..self }.fail(Code::BadUserInput, "it is given twice"));
            }
        }
        if is_one_of(input) && (fields.len() != 1 || fields.values().any(JsonValue::is_null)) {
            return Err(self.fail(Code::BadUserInput, one_of_message(&input.name)));
        }
        for (name, field) in &input.fields {
            if fields.contains_key(name.as_str()) {
                continue;
            }
            if let Some(default) = &field.default_value {
                fields.insert(name.as_str(), json(default));
            } else if field.ty.is_non_null() {
                let path = Path::Field(self.path, name);
                return Err(Place { path: &path, ..self }.fail(Code::BadUserInput, "it is missing"));
            }
        }
        Ok(JsonValue::Object(fields))
    }

    /// Of a custom scalar.
    fn any_object<'de, A: MapAccess<'de>>(self, mut sent: A) -> Result<JsonValue, A::Error> {
        let anything = Type::Named(self.ty.inner_named_type().clone());
        let mut fields = JsonMap::new();
        while let Some(name) = sent.next_key::<String>()? {
            let value = sent.next_value_seed(self.inside(&anything, &Path::Field(self.path, &name)))?;
            fields.insert(name.as_str(), value);
        }
        Ok(JsonValue::Object(fields))
    }
}

/// A literal without variables, as JSON.
pub(super) fn json(literal: &Literal) -> JsonValue {
    match literal {
        // There is none in what a schema or a definition has for default.
        Literal::Null | Literal::Variable(_) => JsonValue::Null,
        Literal::Enum(name) => JsonValue::String(name.as_str().into()),
        Literal::String(text) => JsonValue::String(text.as_str().into()),
        Literal::Boolean(value) => JsonValue::Bool(*value),
        Literal::Int(number) => number_of(number.as_str()),
        Literal::Float(number) => number_of(number.as_str()),
        Literal::List(items) => JsonValue::Array(items.iter().map(|item| json(item)).collect()),
        Literal::Object(fields) => {
            JsonValue::Object(fields.iter().map(|(name, value)| (name.as_str().into(), json(value))).collect())
        }
    }
}

/// Numbers are written in GraphQL as in JSON.
fn number_of(text: &str) -> JsonValue {
    text.parse().map_or(JsonValue::Null, JsonValue::Number)
}
