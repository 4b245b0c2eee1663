//! Keys that verify tokens. Each key is tied to one algorithm.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};

use super::{AuthError, Claims};

/// The largest number of keys in a set. Issuers have a handful of keys, and twice as many during a rotation.
const SET_KEYS_MAX: usize = 100;

/// A secret or a public key, with the only algorithm that it verifies.
pub(super) struct Key {
    algorithm: Algorithm,
    verification: DecodingKey,
    validation: Validation,
}

/// Why the key in a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The file does not contain exactly one public key of a supported kind.
    #[error("it must be one public key in PEM: RSA of 2048 bits or more, EC P-256 or Ed25519")]
    Kind,
}

impl Key {
    fn new(algorithm: Algorithm, verification: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        // The library verifies the signature only. It would compare `exp` with the system clock, and accept tokens
        // without `iss`, `aud` and `sub`.
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
        // The library would also accept a private key, or parts of a certificate.
        let text = std::str::from_utf8(pem).ok()?;
        if !text.contains("-----BEGIN PUBLIC KEY-----") && !text.contains("-----BEGIN RSA PUBLIC KEY-----") {
            return None;
        }
        if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
            // A modulus of 2048 bits with its exponent takes more than 260 bytes in DER.
            return (key.try_get_as_bytes().ok()?.len() > 260).then(|| Self::new(Algorithm::RS256, key));
        }
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            return is_p256_point(&key).then(|| Self::new(Algorithm::ES256, key));
        }
        let key = DecodingKey::from_ed_pem(pem).ok()?;
        is_ed25519_point(&key).then(|| Self::new(Algorithm::EdDSA, key))
    }

    /// Returns `None` if the key is of an unsupported kind, or not for signatures.
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
            // This includes symmetric keys: a secret does not belong in a set of public keys.
            _ => return None,
        };
        let declared = jwk.common.key_algorithm.is_none_or(|declared| declared == KeyAlgorithm::from(algorithm));
        (usable && declared).then(|| Self::new(algorithm, key))
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Verifies the signature and returns the claims. The claims themselves are not checked.
    pub(super) fn claims(&self, jwt: &str) -> Result<Claims, AuthError> {
        use jsonwebtoken::errors::ErrorKind;
        match jsonwebtoken::decode(jwt, &self.verification, &self.validation) {
            Ok(token) => Ok(token.claims),
            // The library parses the claims after it has verified the signature, so the signature is valid.
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

/// Whether the key is an uncompressed point: the tag 4 and two coordinates of 32 bytes.
fn is_p256_point(key: &DecodingKey) -> bool {
    key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 65 && bytes[0] == 4)
}

fn is_ed25519_point(key: &DecodingKey) -> bool {
    key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32)
}

/// The usable public keys of a JSON Web Key Set, by `kid`.
#[derive(Default)]
pub(super) struct KeySet {
    named: HashMap<String, Arc<Key>>,
    /// If the set has exactly one key, that key. Tokens without `kid` use it.
    only: Option<Arc<Key>>,
    /// The number of keys for signatures that cannot be used.
    left_out: usize,
}

impl KeySet {
    /// Parses a JSON Web Key Set and leaves out keys that cannot be used. Returns `None` if no key is left or the set has
    /// too many keys.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(json).ok()?;
        let entries = document.get("keys")?.as_array()?;
        if entries.len() > SET_KEYS_MAX {
            return None;
        }
        let mut keys = Vec::new();
        for entry in entries {
            // The keys are parsed one by one, so that a key of a kind that the library does not know does not affect the
            // others.
            if let Ok(jwk) = serde_json::from_value::<Jwk>(entry.clone())
                && let Some(key) = Key::from_jwk(&jwk)
            {
                keys.push((jwk.common.key_id, Arc::new(key)));
            }
        }
        let used = keys.len();
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
        let not_for_signatures = entries.iter().filter(|entry| entry.get("use").is_some_and(|of| of == "enc")).count();
        Some(Self { named, only, left_out: entries.len() - not_for_signatures - used })
    }

    /// Returns the number of keys for signatures that cannot be used: of another kind, or too short.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Returns `Ok(None)` if no key of this set may verify the token and a reload would not help, and an error if a newer
    /// set may have the key.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Option<Arc<Key>>, UnknownKid> {
        let key = match kid {
            Some(kid) => Some(self.named.get(kid).ok_or(UnknownKid)?),
            None => self.only.as_ref(),
        };
        Ok(key.filter(|key| key.algorithm() == algorithm).cloned())
    }
}

/// The set has no key with this `kid`.
pub(super) struct UnknownKid;

/// Whether a token is accepted with the right secret and rejected with another one. The test is needed because the
/// library also compiles with a wrong set of features, and then fails at its first use.
pub(super) fn self_test() -> bool {
    let claims = json!({"sub": "self-test"});
    let signature = EncodingKey::from_secret(b"the secret of the self-test, one");
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &signature).is_ok_and(|jwt| {
        Key::from_secret("the secret of the self-test, one").claims(&jwt).is_ok()
            && Key::from_secret("the secret of the self-test, two").claims(&jwt).is_err()
    })
}
