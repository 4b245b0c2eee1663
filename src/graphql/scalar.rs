//! Scalars. What comes in as text stays text: a value that is not of its form is told in `userErrors`, with its path,
//! by whoever checks the input. What is no text at all is refused here.

use async_graphql::{InputValueError, InputValueResult, Number, Scalar, ScalarType, Value};

use crate::engine::money::{Currency, decimal_text};
use crate::engine::time::Instant;

/// The largest whole number that every JSON reader keeps exact: 2^53 − 1.
const MAX_EXACT: i64 = (1 << 53) - 1;

macro_rules! text_scalar {
    ($(#[$doc:meta])+ $name:ident) => {
        $(#[$doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(pub String);

        $(#[$doc])+
        #[Scalar]
        impl ScalarType for $name {
            fn parse(value: Value) -> InputValueResult<Self> {
                match value {
                    Value::String(text) => Ok(Self(text)),
                    _ => Err(InputValueError::custom("a string is expected")),
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
    /// An instant in RFC 3339 with an offset, such as `2026-11-02T18:00:00+01:00`. Answered in UTC, to the microsecond.
    DateTime
}
text_scalar! {
    /// An exact span of time in ISO 8601: weeks, days of 24 hours, hours, minutes and seconds, such as `P7D` or `PT30M`.
    Duration
}
text_scalar! {
    /// An exact decimal as a string, such as `"19.99"`.
    Decimal
}
text_scalar! {
    /// The IANA name of a time zone, such as `Europe/Vienna`.
    TimeZone
}
text_scalar! {
    /// A time on a local clock, hours and minutes, such as `18:00`.
    LocalTime
}
text_scalar! {
    /// The ISO 4217 code of a currency, such as `EUR`.
    CurrencyCode
}

impl From<Instant> for DateTime {
    fn from(instant: Instant) -> Self {
        Self(instant.to_string())
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

/// Whole points: a JSON number within ±(2^53 − 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Points(pub i64);

/// Whole points: a JSON number within ±(2^53 − 1).
#[Scalar]
impl ScalarType for Points {
    fn parse(value: Value) -> InputValueResult<Self> {
        whole(&value, -MAX_EXACT).map(Self)
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// A whole number that is never negative, up to 2^53 − 1: counters, versions, sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub i64);

/// A whole number that is never negative, up to 2^53 − 1: counters, versions, sequences.
#[Scalar]
impl ScalarType for Count {
    fn parse(value: Value) -> InputValueResult<Self> {
        whole(&value, 0).map(Self)
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

fn whole<T>(value: &Value, least: i64) -> Result<i64, InputValueError<T>>
where
    T: async_graphql::InputType,
{
    let number = match value {
        Value::Number(number) => Number::as_i64(number),
        _ => None,
    };
    let number = number.filter(|number| (least..=MAX_EXACT).contains(number));
    number.ok_or_else(|| InputValueError::custom(format!("a whole number from {least} to {MAX_EXACT} is expected")))
}
