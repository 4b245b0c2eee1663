//! Coerces the values of variables while it reads them, by the rules of "Input Coercion" in the specification.
//!
//! A value that does not fit is noted with its path and replaced with null, so that one response reports several faults. Reading
//! ends after ten faults.

use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};

use apollo_compiler::ast::{Type, Value as Literal};
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::schema::{EnumType, ExtendedType, InputObjectType};
use apollo_compiler::{Name, Schema};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};

use super::refusal::{Code, MAX_REFUSALS, Refusal};
use super::scalars::Scalars;
use super::values::{is_one_of, one_of_message};

/// From 2^53 on, not every whole number is exact as a float.
const MAX_EXACT_FLOAT: f64 = 9_007_199_254_740_992.0;

/// The state shared by all values of one request.
pub(super) struct Context<'a> {
    schema: &'a Schema,
    scalars: &'a Scalars,
    /// Limits how deeply lists and objects may be nested.
    max_levels: u32,
    refusals: RefCell<Vec<Refusal>>,
}

impl<'a> Context<'a> {
    pub(super) fn new(schema: &'a Schema, scalars: &'a Scalars, max_levels: u32) -> Self {
        Self { schema, scalars, max_levels, refusals: RefCell::default() }
    }

    /// Returns a refusal for each value that did not fit. If reading failed and there is no refusal, the JSON itself is at fault.
    pub(super) fn into_refusals(self) -> Vec<Refusal> {
        self.refusals.into_inner()
    }
}

/// The path to a value, as in `$inputs[3].total.amount`, for messages.
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

/// The place of a value: the expected type, the path and the nesting.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    context: &'a Context<'a>,
    ty: &'a Type,
    path: &'a Path<'a>,
    /// Counts the lists and objects around the value.
    levels: u32,
}

impl<'a> Place<'a> {
    pub(super) fn new(context: &'a Context<'a>, ty: &'a Type, path: &'a Path<'a>) -> Self {
        Self { context, ty, path, levels: 0 }
    }

    /// Returns the place of an item or field of this value.
    fn inside(self, ty: &'a Type, path: &'a Path<'a>) -> Self {
        Self { ty, path, levels: self.levels + 1, ..self }
    }

    fn note(self, code: Code, message: impl Display) -> usize {
        let refusal = Refusal::new(code, format!("variable `{}`: {message}", self.path));
        let mut refusals = self.context.refusals.borrow_mut();
        refusals.push(refusal);
        refusals.len()
    }

    /// Notes a value that does not fit, and returns null in its place. Fails if there are now so many faults that reading ends.
    fn refuse<E: Error>(self, message: impl Display) -> Result<JsonValue, E> {
        let noted = self.note(Code::BadUserInput, message);
        if noted < MAX_REFUSALS { Ok(JsonValue::Null) } else { Err(E::custom("too many faults")) }
    }

    fn unfit<E: Error>(self) -> Result<JsonValue, E> {
        let scalar = self.context.scalars.get(self.ty.inner_named_type().as_str());
        match (scalar, self.definition()) {
            (Some(scalar), _) => self.refuse(scalar.expected),
            (None, Some(ExtendedType::Enum(names))) => {
                self.refuse(format_args!("this is not a value of type {}: {}", self.ty, one_of_names(names)))
            }
            (None, _) => self.refuse(format_args!("this is not a value of type {}", self.ty)),
        }
    }

    fn enter<E: Error>(self) -> Result<(), E> {
        let limit = self.context.max_levels;
        if self.levels < limit {
            return Ok(());
        }
        self.note(Code::TooExpensive, format_args!("lists and objects are nested more than {limit} levels deep"));
        Err(E::custom("too deep"))
    }

    /// Reads a value that is not a list. Where a list is expected, the value becomes its only item.
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

    /// Coerces a value that is neither a list nor an object.
    fn leaf<E: Error>(self, value: Value) -> Result<JsonValue, E> {
        self.alone(|place| {
            let fits = match place.definition() {
                Some(ExtendedType::Scalar(scalar)) => match self.context.scalars.get(scalar.name.as_str()) {
                    Some(scalar) => (scalar.fits)(&value),
                    None => is_of_scalar(&scalar.name, &value),
                },
                Some(ExtendedType::Enum(names)) => value.as_str().is_some_and(|name| names.values.contains_key(name)),
                _ => false,
            };
            if fits { Ok(value.into()) } else { place.unfit() }
        })
    }

    /// Whether the type is a custom scalar without a form, which accepts any value.
    fn is_free(self, definition: &ExtendedType) -> bool {
        let ExtendedType::Scalar(scalar) = definition else { return false };
        !scalar.is_built_in() && !self.context.scalars.contains_key(scalar.name.as_str())
    }
}

/// Says which values an enum has, for messages.
pub(super) fn one_of_names(names: &EnumType) -> String {
    let names: Vec<&str> = names.values.keys().map(Name::as_str).collect();
    format!("expected one of {}", names.join(", "))
}

fn is_of_scalar(name: &Name, value: &Value) -> bool {
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
        if self.ty.is_non_null() { self.unfit() } else { Ok(JsonValue::Null) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<JsonValue, E> {
        self.leaf(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<JsonValue, E> {
        self.leaf(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<JsonValue, E> {
        self.leaf(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<JsonValue, E> {
        self.leaf(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<JsonValue, E> {
        self.leaf(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sent: A) -> Result<JsonValue, A::Error> {
        self.enter()?;
        let anything;
        let item = match self.ty {
            Type::List(item) | Type::NonNullList(item) => item,
            Type::Named(name) | Type::NonNullNamed(name) => match self.definition() {
                Some(definition) if self.is_free(definition) => {
                    anything = Type::Named(name.clone());
                    &anything
                }
                _ => {
                    while sent.next_element::<IgnoredAny>()?.is_some() {}
                    return self.unfit();
                }
            },
        };
        let mut items = Vec::new();
        while let Some(value) = sent.next_element_seed(self.inside(item, &Path::Item(self.path, items.len())))? {
            items.push(value);
        }
        Ok(JsonValue::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut sent: A) -> Result<JsonValue, A::Error> {
        self.enter()?;
        self.alone(|place| match place.definition() {
            Some(ExtendedType::InputObject(input)) => place.object(input, sent),
            Some(definition) if place.is_free(definition) => place.any_object(sent),
            _ => {
                while sent.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                place.unfit()
            }
        })
    }
}

impl Place<'_> {
    fn object<'de, A: MapAccess<'de>>(self, input: &InputObjectType, mut sent: A) -> Result<JsonValue, A::Error> {
        let mut fields = JsonMap::new();
        let noted = self.context.refusals.borrow().len();
        while let Some(name) = sent.next_key::<String>()? {
            let path = Path::Field(self.path, &name);
            let Some(field) = input.fields.get(name.as_str()) else {
                sent.next_value::<IgnoredAny>()?;
                Place { path: &path, ..self }.refuse(format_args!("{} has no such field", input.name))?;
                continue;
            };
            let value = sent.next_value_seed(self.inside(&field.ty, &path))?;
            if fields.insert(name.as_str(), value).is_some() {
                Place { path: &path, ..self }.refuse("the field is given twice")?;
            }
        }
        if is_one_of(input) {
            // A null may also replace a value that did not fit. Such a value is reported already.
            let told = self.context.refusals.borrow().len() > noted;
            if !told && (fields.len() != 1 || fields.values().any(JsonValue::is_null)) {
                return self.refuse(one_of_message(&input.name));
            }
        }
        self.complete(input, &mut fields)?;
        Ok(JsonValue::Object(fields))
    }

    /// Adds the defaults of absent fields, and notes required fields that are absent.
    fn complete<E: Error>(self, input: &InputObjectType, fields: &mut JsonMap) -> Result<(), E> {
        for (name, field) in &input.fields {
            if fields.contains_key(name.as_str()) {
                continue;
            }
            if let Some(default) = &field.default_value {
                fields.insert(name.as_str(), json(default));
            } else if field.ty.is_non_null() {
                let path = Path::Field(self.path, name);
                Place { path: &path, ..self }.refuse(format_args!("a value of type {} is required", field.ty))?;
            }
        }
        Ok(())
    }

    /// Reads an object as the value of a custom scalar.
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

/// Converts a literal to JSON.
pub(super) fn json(literal: &Literal) -> JsonValue {
    match literal {
        // Defaults contain no variables. A variable inside a custom scalar's literal counts as null.
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

/// GraphQL and JSON write numbers in the same way.
fn number_of(text: &str) -> JsonValue {
    text.parse().map_or(JsonValue::Null, JsonValue::Number)
}
