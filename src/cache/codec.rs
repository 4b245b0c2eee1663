//! Entries as bytes, for where they can get lost, mixed up or damaged: behind a checksum over key and value.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

/// Bytes of the checksum: chance lets one in 2^64 pass.
const CHECKSUM_BYTES: usize = 8;

/// The value behind its checksum; none: it cannot be written.
pub(super) fn encode<T: Serialize>(key: &str, value: &T) -> Option<Vec<u8>> {
    let mut encoded = vec![0; CHECKSUM_BYTES];
    serde_json::to_writer(&mut encoded, value).ok()?;
    let checksum = checksum(key, &encoded[CHECKSUM_BYTES..]);
    encoded[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    Some(encoded)
}

/// The value; none: these are not the bytes that [`encode`] made for this key.
pub(super) fn decode<T: DeserializeOwned>(key: &str, encoded: &[u8]) -> Option<T> {
    let (found, value) = encoded.split_at_checked(CHECKSUM_BYTES)?;
    if found != checksum(key, value) {
        ::metrics::counter!(crate::metrics::REDIS_FAILURES, "kind" => "garbage").increment(1);
        return None;
    }
    serde_json::from_slice(value).ok()
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
    }
}
