//! One key and the one algorithm that it verifies.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};

use super::{AuthError, Claims};

/// Issuers keep a handful of keys, during a rotation twice as many.
const SET_KEYS_MAX: usize = 100;

/// A secret or a public key, pinned to its algorithm.
pub(super) struct Key {
    algorithm: Algorithm,
    verification: DecodingKey,
    validation: Validation,
}

/// Why a file holds no key that can be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file holds something else.
    #[error("it must be one public key in PEM: RSA of 2048 bits or more, EC P-256 or Ed25519")]
    Kind,
}

impl Key {
    fn new(algorithm: Algorithm, verification: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        // Only the signature is left to the library. It would ask the system's clock for exp, and let iss, aud and sub be absent.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { algorithm, verification, validation }
    }

    pub(super) fn from_secret(secret: &str) -> Self {
        Self::new(Algorithm::HS256, DecodingKey::from_secret(secret.as_bytes()))
    }

    pub(super) async fn from_pem_file(file: &Path) -> Result<Self, KeyError> {
        Self::from_pem(&tokio::fs::read(file).await?).ok_or(KeyError::Kind)
    }

    pub(super) fn from_pem(pem: &[u8]) -> Option<Self> {
        // The library would also take a private key, or some bits of a certificate.
        let text = std::str::from_utf8(pem).ok()?;
        if !text.contains("-----BEGIN PUBLIC KEY-----") && !text.contains("-----BEGIN RSA PUBLIC KEY-----") {
            return None;
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            // The DER of a modulus of 2048 bits and its exponent.
            return (key.try_get_as_bytes().ok()?.len() > 260).then(|| Self::new(Algorithm::RS256, key));
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            return is_p256_point(&key).then(|| Self::new(Algorithm::ES256, key));
        }
        let key = DecodingKey::from_ed_pem(pem).ok()?;
        is_ed25519_point(&key).then(|| Self::new(Algorithm::EdDSA, key))
    }

    /// `None` for a key of another kind or for another use.
    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let (algorithm, usable) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => (Algorithm::RS256, is_long_enough(rsa)),
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, is_p256_point(&key))
            }
            AlgorithmParameters::OctetKeyPair(ed) if ed.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, is_ed25519_point(&key))
            }
            // A secret has no place in a set of public keys.
            _ => return None,
        };
        let declared = jwk.common.key_algorithm.is_none_or(|declared| declared == KeyAlgorithm::from(algorithm));
        (usable && declared).then(|| Self::new(algorithm, key))
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The claims, if this key signed them.
    pub(super) fn claims(&self, jwt: &str) -> Result<Claims, AuthError> {
        use jsonwebtoken::errors::ErrorKind;
        match jsonwebtoken::decode(jwt, &self.verification, &self.validation) {
            Ok(token) => Ok(token.claims),
            // The signature was right by then: only the claims are parsed after it.
            Err(error) if matches!(error.kind(), ErrorKind::Json(_)) => Err(AuthError::Malformed),
            Err(_) => Err(AuthError::Signature),
        }
    }
}

fn is_long_enough(rsa: &jsonwebtoken::jwk::RSAKeyParameters) -> bool {
    use base64::Engine as _;
    let modulus = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
    modulus.iter().skip_while(|&&byte| byte == 0).count() >= 2048 / 8
}

/// Uncompressed: a tag and two coordinates.
fn is_p256_point(key: &DecodingKey) -> bool {
    key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 65 && bytes[0] == 4)
}

fn is_ed25519_point(key: &DecodingKey) -> bool {
    key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32)
}

/// Public keys by `kid`.
#[derive(Default)]
pub(super) struct KeySet {
    named: HashMap<String, Arc<Key>>,
    /// The key of a set that has only this one, whether it has a name or not.
    only: Option<Arc<Key>>,
}

impl KeySet {
    /// Reads a JSON Web Key Set, leaving out keys that cannot be used. `None` when none is left, or when it has too many.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(json).ok()?;
        let entries = document.get("keys")?.as_array()?;
        if entries.len() > SET_KEYS_MAX {
            return None;
        }
        let mut keys = Vec::new();
        for entry in entries {
            // One by one: a key of a kind that the library has never heard of must not spoil the others.
            if let Ok(jwk) = serde_json::from_value::<Jwk>(entry.clone())
                && let Some(key) = Key::from_jwk(&jwk)
            {
                keys.push((jwk.common.key_id, Arc::new(key)));
            }
        }
        let only = match keys.as_slice() {
            [] => return None,
            [(_, key)] => Some(Arc::clone(key)),
            _ => None,
        };
        let mut named = HashMap::new();
        for (kid, key) in keys {
            if let Some(kid) = kid {
                named.entry(kid).or_insert(key);
            }
        }
        Some(Self { named, only })
    }

    /// `Ok(None)`: this set settles that there is no such key. `Err`: a newer set may have it.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Option<Arc<Key>>, UnknownKid> {
        let key = match kid {
            Some(kid) => Some(self.named.get(kid).ok_or(UnknownKid)?),
            None => self.only.as_ref(),
        };
        Ok(key.filter(|key| key.algorithm() == algorithm).cloned())
    }
}

/// A `kid` that is not in the set.
pub(super) struct UnknownKid;

/// Whether a token is accepted with its own secret and refused with another. (With a wrong set of features the library compiles
/// and fails at its first use.)
pub(super) fn self_test() -> bool {
    let claims = json!({"sub": "self-test"});
    let signature = EncodingKey::from_secret(b"the secret of the self-test, one");
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &signature).is_ok_and(|jwt| {
        Key::from_secret("the secret of the self-test, one").claims(&jwt).is_ok()
            && Key::from_secret("the secret of the self-test, two").claims(&jwt).is_err()
    })
}
