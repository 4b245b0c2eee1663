//! The encoding of cache entries. A checksum over key and value detects entries from Redis that are damaged or belong to another
//! key.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// The size of the checksum in bytes. A wrong entry passes with a probability of 2^-64.
const CHECKSUM_BYTES: usize = 8;

/// Encodes a value with its checksum in front. Returns `None` if the value cannot be serialized.
pub(super) fn encode<T: Serialize>(key: &str, value: &T) -> Option<Vec<u8>> {
    let mut encoded = vec![0; CHECKSUM_BYTES];
    rmp_serde::encode::write_named(&mut encoded, value).ok()?;
    let checksum = checksum(key, &encoded[CHECKSUM_BYTES..]);
    encoded[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    Some(encoded)
}

/// Decodes a value. Returns `None` if [`encode`] did not make these bytes for this key, or if they are not a `T`.
pub(super) fn decode<T: DeserializeOwned>(key: &str, encoded: &[u8]) -> Option<T> {
    let (found, value) = encoded.split_at_checked(CHECKSUM_BYTES)?;
    if found != checksum(key, value) {
        ::metrics::counter!(crate::metrics::REDIS_FAILURES, "kind" => "garbage").increment(1);
        return None;
    }
    rmp_serde::from_slice(value).ok()
}

/// Decodes a value that [`encode`] made in this process, or that [`decode`] has checked.
pub(super) fn decode_trusted<T: DeserializeOwned>(encoded: &[u8]) -> Option<T> {
    rmp_serde::from_slice(encoded.get(CHECKSUM_BYTES..)?).ok()
}

fn checksum(key: &str, value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::new().chain_update(key.len().to_le_bytes()).chain_update(key).chain_update(value).finalize();
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_for_the_key_is_read() {
        let encoded = encode("a", &"value".to_owned()).unwrap();
        assert_eq!(decode::<String>("a", &encoded), Some("value".to_owned()));
        assert_eq!(decode::<String>("b", &encoded), None);
        for end in 0..encoded.len() {
            assert_eq!(decode::<String>("a", &encoded[..end]), None);
        }
        for byte in 0..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[byte] ^= 1;
            assert_eq!(decode::<String>("a", &damaged), None, "{byte}");
        }
        assert_eq!(decode::<String>("a", b""), None);
        assert_eq!(decode_trusted::<String>(&encoded), Some("value".to_owned()));
        assert_eq!(decode_trusted::<String>(b""), None);
    }
}
