//! External ids: the shop's own names for customers, purchases and refunds, parsed once.

use std::fmt;
use std::ops::Deref;

/// The maximum length of a caller's text, in bytes of UTF-8.
pub const TEXT_BYTES: usize = 200;

/// Why a caller's text is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most {TEXT_BYTES} bytes long in UTF-8")]
    TooLong,
    /// PostgreSQL cannot store this character.
    #[error("must not contain the character U+0000")]
    Nul,
}

/// Checks a caller's text: 1 to [`TEXT_BYTES`] bytes without U+0000.
pub fn check_text(text: &str) -> Result<(), TextError> {
    if text.is_empty() {
        Err(TextError::Empty)
    } else if text.len() > TEXT_BYTES {
        Err(TextError::TooLong)
    } else if text.contains('\0') {
        Err(TextError::Nul)
    } else {
        Ok(())
    }
}

/// The beginning of the name that replaces an erased one. The rest is [`ERASED_DIGITS`] lower-case hexadecimal digits.
const ERASED: &str = "erased:";
const ERASED_DIGITS: usize = 32;

/// Returns the name that replaces one of an erased customer.
pub fn erased(hash: u128) -> String {
    format!("{ERASED}{hash:0ERASED_DIGITS$x}")
}

/// Whether a name was replaced because its customer was erased. Nothing new is recorded of a customer with such a name.
pub fn is_erased(name: &str) -> bool {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    name.strip_prefix(ERASED).is_some_and(|rest| rest.len() == ERASED_DIGITS && rest.bytes().all(is_digit))
}

/// The shop's name for a customer, a purchase or a refund: a text that [`check_text`] accepts. Ids are compared as bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalId(String);

impl ExternalId {
    /// Parses a caller's text.
    pub fn parse(text: impl Into<String>) -> Result<Self, TextError> {
        let text = text.into();
        check_text(&text)?;
        Ok(Self(text))
    }

    /// An id that the database stores. It was parsed before it was stored.
    pub fn stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Deref for ExternalId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<ExternalId> for String {
    fn from(id: ExternalId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_1_to_200_bytes_without_nul() {
        let parse = |text: &str| ExternalId::parse(text).map(String::from);
        assert_eq!(parse(""), Err(TextError::Empty));
        assert_eq!(parse("a\0b"), Err(TextError::Nul));
        // Two bytes each.
        assert_eq!(parse(&"é".repeat(100)), Ok("é".repeat(100)));
        assert_eq!(parse(&"é".repeat(101)), Err(TextError::TooLong));
        assert_eq!(parse(" a "), Ok(" a ".to_owned()));
    }

    #[test]
    fn an_erased_name_is_told_from_others() {
        for hash in [0, 1, u128::MAX] {
            assert!(is_erased(&erased(hash)), "{}", erased(hash));
        }
        let name = erased(0xabc);
        for other in [&name[1..], &name[..name.len() - 1], &format!("{name}0"), &name.to_uppercase(), "erased:", "ada"]
        {
            assert!(!is_erased(other), "{other}");
        }
    }
}
