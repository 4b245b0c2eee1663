//! Where a request comes from: its id and the address of the client.

use std::net::IpAddr;
use std::sync::Arc;

/// Names one request in its response, in the log and in the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

/// The maximum length of a request id, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

impl RequestId {
    /// Takes the id that a client or a proxy chose: 1 to 128 ASCII letters, digits and characters of `-_.:/+=`. Returns `None` for
    /// any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
        let fits = (1..=MAX_REQUEST_ID_BYTES).contains(&text.len());
        (fits && text.bytes().all(is_allowed)).then(|| Self(text.into()))
    }

    /// Returns a new id: 32 hexadecimal digits.
    pub fn random() -> Self {
        // Formatting a number of 128 bits would take several times as long, and each request has an id.
        let digits =
            rand::random::<[u8; 16]>().map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        Self(String::from_utf8_lossy(digits.as_flattened()).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The request with which somebody acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub request_id: RequestId,
    /// The address of the client. `None` if no client sent the request.
    pub address: Option<IpAddr>,
}

impl Origin {
    /// The origin of what this process does by itself.
    pub fn process() -> Self {
        Self { request_id: RequestId::random(), address: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_has_harmless_characters() {
        let longest = "x".repeat(MAX_REQUEST_ID_BYTES);
        for id in ["7", "0af7651916cd43dd8448eb211c80319c", "Root=1-67891233-abc", "a.b:c/d+e_f", &longest] {
            assert_eq!(RequestId::parse(id).as_ref().map(RequestId::as_str), Some(id));
        }
        let too_long = format!("{longest}x");
        for id in ["", " ", "a b", "a\tb", "a\"b", "a,b", "é", "a\0", &too_long] {
            assert_eq!(RequestId::parse(id), None, "{id:?}");
        }
        let random = RequestId::random();
        assert_eq!((random.as_str().len(), RequestId::parse(random.as_str())), (32, Some(random.clone())));
        assert_ne!(random, RequestId::random());
    }
}
