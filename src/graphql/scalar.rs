//! Custom scalars. [`FORMS`] is the only definition of how their values are written. The gate uses it to refuse
//! malformed values before anything is executed. A well-formed value that is wrong, such as an unknown currency, is
//! reported in `userErrors` by the code that checks the input.

use std::borrow::Cow;

use async_graphql::parser::types::Field;
use async_graphql::registry::Registry;
use async_graphql::{
    ContextSelectionSet, InputValueError, InputValueResult, Number, OutputType, Positioned, Scalar, ScalarType, Value,
};
use serde_json::Value as Json;

use super::session::Session;
use crate::engine::account::MAX_EXACT;
use crate::engine::money::{CURRENCY_FORM, Currency, DECIMAL_FORM, decimal_text, is_decimal};
use crate::engine::time::{self, INSTANT_FORM, Instant, IsoDuration, parse_instant};
use crate::engine::zone::Zone;

/// The form in which values of a scalar are written.
pub struct Form {
    /// The name of the scalar in the schema.
    pub scalar: &'static str,
    /// Returns whether a value has this form.
    pub fits: fn(&Json) -> bool,
    /// The instruction that an error message gives for a value without this form.
    pub expected: &'static str,
}

/// The forms of all custom scalars.
pub const FORMS: [Form; 8] = [
    Form {
        scalar: "DateTime",
        fits: |value| text(value).is_some_and(|text| parse_instant(text).is_ok()),
        expected: INSTANT_FORM,
    },
    Form {
        scalar: "Duration",
        fits: |value| text(value).is_some_and(|text| IsoDuration::parse(text).is_ok()),
        expected: "write a duration as ISO 8601 in weeks, days, hours, minutes and seconds, such as \"P7D\" or \"PT30M\"",
    },
    Form { scalar: "Decimal", fits: |value| text(value).is_some_and(is_decimal), expected: DECIMAL_FORM },
    Form {
        scalar: "TimeZone",
        fits: |value| text(value).is_some_and(|text| Zone::parse(text).is_ok()),
        expected: "write a time zone by its IANA name, such as \"Europe/Vienna\"",
    },
    Form {
        scalar: "LocalTime",
        fits: |value| text(value).is_some_and(|text| time::LocalTime::parse(text).is_ok()),
        expected: "write a local time as hours and minutes, such as \"18:00\"",
    },
    Form { scalar: "CurrencyCode", fits: |value| text(value).is_some(), expected: CURRENCY_FORM },
    Form {
        scalar: "Points",
        fits: |value| value.as_i64().is_some_and(is_points),
        expected: "write points as a whole number from -9007199254740991 to 9007199254740991",
    },
    Form {
        scalar: "Count",
        fits: |value| value.as_i64().is_some_and(is_count),
        expected: "write a count as a whole number from 0 to 9007199254740991",
    },
];

fn text(value: &Json) -> Option<&str> {
    value.as_str()
}

fn is_points(number: i64) -> bool {
    (-MAX_EXACT..=MAX_EXACT).contains(&number)
}

fn is_count(number: i64) -> bool {
    (0..=MAX_EXACT).contains(&number)
}

macro_rules! text_scalar {
    ($(#[$doc:meta])+ $name:ident, $url:literal) => {
        $(#[$doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub String);

        $(#[$doc])+
        #[Scalar(specified_by_url = $url)]
        impl ScalarType for $name {
            fn parse(value: Value) -> InputValueResult<Self> {
                match value {
                    Value::String(text) => Ok(Self(text)),
                    _ => Err(InputValueError::custom("expected a string")),
                }
            }

            fn to_value(&self) -> Value {
                Value::String(self.0.clone())
            }
        }

        impl From<$name> for String {
            fn from(scalar: $name) -> Self {
                scalar.0
            }
        }
    };
}

text_scalar! {
    /// An instant in RFC 3339 with an offset, such as `2026-11-02T18:00:00+01:00`. Values are stored in whole
    /// microseconds (finer input is truncated) and returned in UTC.
    DateTime, "https://www.rfc-editor.org/rfc/rfc3339"
}
text_scalar! {
    /// An exact span of time in ISO 8601, such as `P7D` or `PT30M`. It consists of weeks, days of 24 hours, hours,
    /// minutes and seconds; years and months are not allowed. Values are returned as they were entered.
    Duration, "https://www.rfc-editor.org/rfc/rfc3339#appendix-A"
}
text_scalar! {
    /// An exact decimal number as a string, such as `"19.99"`. It consists of digits, with a decimal point only between
    /// digits and optionally a minus sign in front. There is no exponent.
    Decimal, "https://www.w3.org/TR/xmlschema11-2/#decimal"
}
text_scalar! {
    /// A time zone by its IANA name, such as `Europe/Vienna`.
    TimeZone, "https://www.iana.org/time-zones"
}
text_scalar! {
    /// A time of day on a local clock, in hours and minutes from `00:00` to `23:59`, such as `18:00`.
    LocalTime, "https://html.spec.whatwg.org/multipage/common-microsyntaxes.html#times"
}
text_scalar! {
    /// A currency by its ISO 4217 code in upper case, such as `EUR`.
    CurrencyCode, "https://www.iso.org/iso-4217-currency-codes.html"
}

impl From<Instant> for DateTime {
    fn from(instant: Instant) -> Self {
        Self(instant.to_string())
    }
}

/// A `DateTime` that is the current time. It notes that it is part of the response.
#[derive(Clone, Copy, Debug)]
pub struct AsOf(pub Instant);

impl OutputType for AsOf {
    fn type_name() -> Cow<'static, str> {
        <DateTime as OutputType>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        <DateTime as OutputType>::create_type_info(registry)
    }

    async fn resolve(
        &self,
        ctx: &ContextSelectionSet<'_>,
        _: &Positioned<Field>,
    ) -> async_graphql::ServerResult<Value> {
        ctx.data_unchecked::<Session>().reads.note_as_of();
        Ok(Value::String(self.0.to_string()))
    }
}

impl From<Currency> for CurrencyCode {
    fn from(currency: Currency) -> Self {
        Self(currency.to_string())
    }
}

impl From<i64> for Decimal {
    fn from(whole: i64) -> Self {
        Self(decimal_text(i128::from(whole), 0))
    }
}

/// A whole number of points, which may be negative: a JSON number from −(2^53 − 1) to 2^53 − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points(pub i64);

/// A whole number of points, which may be negative: a JSON number from −(2^53 − 1) to 2^53 − 1.
#[Scalar(specified_by_url = "https://www.rfc-editor.org/rfc/rfc7493#section-2.2")]
impl ScalarType for Points {
    fn parse(value: Value) -> InputValueResult<Self> {
        whole(&value, is_points).map(Self)
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// A whole number from 0 to 2^53 − 1, as a JSON number. It is used for counters, versions and sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub i64);

/// A whole number from 0 to 2^53 − 1, as a JSON number. It is used for counters, versions and sequences.
#[Scalar(specified_by_url = "https://www.rfc-editor.org/rfc/rfc7493#section-2.2")]
impl ScalarType for Count {
    fn parse(value: Value) -> InputValueResult<Self> {
        whole(&value, is_count).map(Self)
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

fn whole<T>(value: &Value, is_one: fn(i64) -> bool) -> Result<i64, InputValueError<T>>
where
    T: async_graphql::InputType,
{
    let number = match value {
        Value::Number(number) => Number::as_i64(number),
        _ => None,
    };
    number.filter(|number| is_one(*number)).ok_or_else(|| InputValueError::custom("expected a whole number"))
}
