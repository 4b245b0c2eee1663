//! `windfall token`: mints a token for development, or for a shop that has no identity provider.

use std::io::{Write as _, stdout};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::span::parse_span;
use crate::config::Auth;
use crate::engine::external_id::check_text;
use crate::http::auth::Role;

/// Mint a token that this configuration accepts.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The role that the token grants: customer, storefront or admin.
    #[arg(long)]
    role: Role,
    /// The token's subject. For the role customer, this is the customer's external id.
    #[arg(long)]
    sub: String,
    /// How long the token is valid: a number followed by s, m, h, d or w.
    #[arg(long, value_name = "SPAN", value_parser = parse_span, default_value = "30d")]
    expires_in: Duration,
}

/// Why no token can be minted.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(
        "tokens are signed with the configuration key `auth.hs256_secret` (WINDFALL__AUTH__HS256_SECRET), which is not set"
    )]
    NoSecret,
    /// No server accepts such a subject.
    #[error("--sub must have 1 to 200 bytes, without U+0000")]
    Subject,
    /// The expiry does not fit into an instant.
    #[error("--expires-in is too long")]
    TooLong,
    #[error("the token cannot be signed")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

/// Prints a token on a line of its own. `now` is in microseconds since 1970.
pub fn run(args: &Args, config: &Auth, now: i64) -> anyhow::Result<()> {
    let token = mint(config, args.role, &args.sub, args.expires_in, now)?;
    writeln!(stdout(), "{token}")?;
    Ok(())
}

/// Returns a signed token that is valid for `ttl` from `now`. `now` is in microseconds since 1970.
pub fn mint(config: &Auth, role: Role, sub: &str, ttl: Duration, now: i64) -> Result<String, TokenError> {
    let secret = config.hs256_secret.as_ref().ok_or(TokenError::NoSecret)?;
    if check_text(sub).is_err() {
        return Err(TokenError::Subject);
    }
    let issued_at = now.div_euclid(1_000_000);
    let expires_at = i64::try_from(ttl.as_secs()).ok().and_then(|ttl| issued_at.checked_add(ttl));
    // Verifiers convert the expiry to microseconds, which must not overflow.
    let expires_at = expires_at.filter(|at| at.checked_mul(1_000_000).is_some()).ok_or(TokenError::TooLong)?;
    let claims = json!({
        "iss": config.issuer,
        "aud": config.audience,
        "sub": sub,
        "role": role.name(),
        "iat": issued_at,
        "exp": expires_at,
    });
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::http::auth::{Token, Verifier};

    const NOW: i64 = 1_788_739_200_000_000;
    const DAY: Duration = Duration::from_hours(24);

    fn config() -> Auth {
        Auth {
            hs256_secret: Some(Secret::from("0123456789abcdef0123456789abcdef".to_owned())),
            hs256_secret_previous: None,
            public_keys: None,
            issuer: "windfall".to_owned(),
            audience: "windfall".to_owned(),
            leeway: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn a_minted_token_is_accepted_until_it_expires() {
        let token = mint(&config(), Role::Storefront, "shop-1", DAY, NOW).unwrap();
        let authorization = format!("Bearer {token}");
        let verifier = Verifier::new(&config(), NOW).await.unwrap();
        let expires_at = NOW + 86_400_000_000;
        let expected = Token { role: Role::Storefront, subject: "shop-1".into(), expires_at };
        assert_eq!(verifier.verify(&authorization, NOW).await, Ok(expected));
        assert!(verifier.verify(&authorization, expires_at).await.is_err());
    }

    #[test]
    fn what_nobody_would_accept_is_not_minted() {
        let refused = |config: &Auth, sub: &str, ttl| mint(config, Role::Customer, sub, ttl, NOW).unwrap_err();
        let no_secret = Auth { hs256_secret: None, ..config() };
        assert!(matches!(refused(&no_secret, "ada", DAY), TokenError::NoSecret));
        assert!(matches!(refused(&config(), "", DAY), TokenError::Subject));
        assert!(matches!(refused(&config(), &"x".repeat(201), DAY), TokenError::Subject));
        assert!(matches!(refused(&config(), "ada", Duration::from_secs(1 << 60)), TokenError::TooLong));
    }
}
