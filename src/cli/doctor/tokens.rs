//! The keys that verify tokens.

use super::finding::{Code, Finding};
use super::units::count;
use crate::app::clock::Clock;
use crate::cli::serve::{HS256_KEY_BYTES, ShortSecret, check_keys, short_secrets};
use crate::config::{Auth, PublicKeys};
use crate::http::auth::Verifier;

/// Checks the keys as `serve` does. A key set is loaded, which takes at most five seconds.
pub(super) async fn examine(auth: &Auth) -> Vec<Finding> {
    if let Err(error) = check_keys(auth) {
        let advice = format!("`serve` does not start: {error}");
        return vec![Finding::problem(Code::TokenKeyMissing, "`auth`", "no key is configured", advice)];
    }
    let mut findings = short(auth);
    findings.extend(unencrypted(auth));
    match Verifier::new(auth, Clock::System.now().0).await {
        Ok(verifier) => findings.extend(left_out(verifier.left_out_keys())),
        Err(error) => findings.push(Finding::problem(
            Code::TokenKeysUnusable,
            "`auth`",
            error.to_string(),
            "`serve` does not start until the key can be used: without it, no token could be verified.",
        )),
    }
    findings
}

fn short(auth: &Auth) -> Vec<Finding> {
    let finding = |secret: ShortSecret| {
        let measured = format!("the secret has {}", count(secret.bytes as u64, "byte"));
        let advice = format!(
            "Use at least {HS256_KEY_BYTES} random bytes (`openssl rand -hex 32`): whoever guesses the secret can forge tokens."
        );
        Finding::advice(Code::TokenSecretShort, format!("`auth.{}`", secret.name), measured, advice)
    };
    short_secrets(auth).into_iter().map(finding).collect()
}

fn unencrypted(auth: &Auth) -> Option<Finding> {
    let is_plain = matches!(&auth.public_keys, Some(PublicKeys::JwksUrl(url)) if url.starts_with("http://"));
    let advice = "Use an https URL: whoever can change the response in transit can forge tokens.";
    is_plain.then(|| {
        Finding::advice(Code::TokenKeysUnencrypted, "`auth.jwks`", "the key set is loaded without TLS", advice)
    })
}

fn left_out(keys: usize) -> Option<Finding> {
    (keys > 0).then(|| {
        Finding::advice(
            Code::TokenKeysLeftOut,
            "`auth.jwks`",
            format!("{} of the set left out", count(keys as u64, "key")),
            "Let the issuer sign with RSA of 2048 bits or more (RS256), EC P-256 (ES256) or Ed25519 (EdDSA): tokens that these keys \
             have signed are refused.",
        )
    })
}
