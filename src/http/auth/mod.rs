//! Who is calling: bearer tokens (JWT) in, a role and a subject out.
//!
//! A token is believed only by a key of our own choosing. Each key verifies one algorithm, fixed by what the key is; the token's
//! header merely says which of them to try, and `kid` is a look-up in a map. Keys inside a token (`jwk`, `jku`, `x5u`) are never
//! looked at. No clock is read here: the time comes with each call, in microseconds since 1970.

mod jwks;
mod keys;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, Header};
use jwks::Jwks;
use serde::Deserialize;

use crate::config::{Auth, PublicKeys};
pub use jwks::JwksError;
use keys::Key;
pub use keys::KeyError;

/// Tokens with many claims take about 2 kB.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// As long as a customer's `externalId` may be.
const SUBJECT_BYTES_MAX: usize = 200;

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sees and subscribes to itself.
    Customer,
    /// Records purchases and reads any customer.
    Storefront,
    /// Everything.
    Admin,
}

impl Role {
    /// The claim's text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Storefront => "storefront",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        [Self::Customer, Self::Storefront, Self::Admin].into_iter().find(|role| role.name() == name).ok_or(UnknownRole)
    }
}

/// A text that names no role.
#[derive(Debug, thiserror::Error)]
#[error("a role is one of customer, storefront, admin")]
pub struct UnknownRole;

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What its bearer may do.
    pub role: Role,
    /// Who its bearer is: for a customer, its `externalId`.
    pub subject: String,
    /// The instant from which it is refused, in microseconds since 1970, leeway included.
    pub expires_at: i64,
}

/// Why a token was refused. The messages are for the client: they tell nothing about our keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not exactly one header, or not the bearer scheme.
    #[error("one Authorization header of the form \"Bearer <token>\" is expected")]
    Header,
    /// Not a JWT, or one of a kind that is not meant for us.
    #[error("the token is not a signed access token")]
    Malformed,
    /// Signed by nobody we know, or not at all.
    #[error("the token's signature cannot be verified")]
    Signature,
    /// Too late.
    #[error("the token has expired")]
    Expired,
    /// Too early.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Signed well, but not for us.
    #[error("the token's claim `{0}` is missing or not accepted")]
    Claim(&'static str),
}

/// Why no verifier can be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Nothing is configured.
    #[error(
        "no key verifies tokens: set one of `auth.hs256_secret` (WINDFALL__AUTH__HS256_SECRET), \
         `auth.jwks` (WINDFALL__AUTH__JWKS) and `auth.public_key_pem` (WINDFALL__AUTH__PUBLIC_KEY_PEM)"
    )]
    NoKey,
    /// The PEM file is of no use.
    #[error("the configuration key `auth.public_key_pem` (WINDFALL__AUTH__PUBLIC_KEY_PEM) cannot be used: {0}")]
    Pem(#[from] KeyError),
    /// The key set is of no use.
    #[error("the configuration key `auth.jwks` (WINDFALL__AUTH__JWKS) cannot be used: {0}")]
    Jwks(#[from] JwksError),
    /// Tokens are not verified as they should be.
    #[error("the cryptography of this build does not work")]
    SelfTest,
}

/// Verifies tokens.
pub struct Verifier {
    secret: Option<Key>,
    public: Option<Public>,
    issuer: String,
    audience: String,
    leeway: i64,
}

/// Where a signed token's key is looked up.
enum Public {
    One(Arc<Key>),
    Set(Arc<Jwks>),
}

impl Verifier {
    /// Loads the keys and tries the cryptography. A key set must be reachable: without it nobody could log in.
    pub async fn new(config: &Auth, now: i64) -> Result<Self, SetupError> {
        let public = match &config.public_keys {
            None => None,
            Some(PublicKeys::Pem(file)) => Some(Public::One(Arc::new(Key::from_pem_file(file).await?))),
            Some(PublicKeys::JwksFile(file)) => Some(Public::Set(Jwks::new(jwks::file(file.clone()), now).await?)),
            Some(PublicKeys::JwksUrl(url)) => Some(Public::Set(Jwks::new(jwks::url(url.clone())?, now).await?)),
        };
        Self::with(config, public)
    }

    fn with(config: &Auth, public: Option<Public>) -> Result<Self, SetupError> {
        let secret = config.hs256_secret.as_ref().map(|secret| Key::from_secret(secret.expose()));
        if secret.is_none() && public.is_none() {
            return Err(SetupError::NoKey);
        }
        if !keys::self_test() {
            return Err(SetupError::SelfTest);
        }
        Ok(Self {
            secret,
            public,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway: micros(config.leeway).unwrap_or(0),
        })
    }

    /// The caller of a request; `None` is an anonymous one. A bad token is an error even where none is needed.
    pub async fn authenticate(&self, headers: &HeaderMap, now: i64) -> Result<Option<Token>, AuthError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let authorization = value.to_str().map_err(|_| AuthError::Header)?;
                self.verify(authorization, now).await.map(Some)
            }
            // Which of them a proxy in front has checked cannot be known.
            (Some(_), Some(_)) => Err(AuthError::Header),
        }
    }

    /// Verifies what stands in an Authorization header, or in `connection_init` in its place.
    pub async fn verify(&self, authorization: &str, now: i64) -> Result<Token, AuthError> {
        let (scheme, jwt) = authorization.split_once(' ').ok_or(AuthError::Header)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Header);
        }
        if jwt.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let header = jsonwebtoken::decode_header(jwt).map_err(|_| AuthError::Malformed)?;
        // `crit` lists what a verifier must understand. We understand nothing beyond the standard.
        if header.crit.is_some() || !is_access_token(header.typ.as_deref()) {
            return Err(AuthError::Malformed);
        }
        let claims = match header.alg {
            Algorithm::HS256 => self.secret.as_ref().ok_or(AuthError::Signature)?.claims(jwt)?,
            _ => self.public_key(&header, now).await.ok_or(AuthError::Signature)?.claims(jwt)?,
        };
        self.accept(claims, now)
    }

    async fn public_key(&self, header: &Header, now: i64) -> Option<Arc<Key>> {
        match self.public.as_ref()? {
            Public::One(key) => (key.algorithm() == header.alg).then(|| Arc::clone(key)),
            Public::Set(jwks) => jwks.find(header.kid.as_deref(), header.alg, now).await,
        }
    }

    fn accept(&self, claims: Claims, now: i64) -> Result<Token, AuthError> {
        let expires_at = claims.exp.as_ref().and_then(instant).ok_or(AuthError::Claim("exp"))?;
        let expires_at = expires_at.saturating_add(self.leeway);
        if now >= expires_at {
            return Err(AuthError::Expired);
        }
        if let Some(nbf) = &claims.nbf
            && instant(nbf).ok_or(AuthError::Claim("nbf"))? > now.saturating_add(self.leeway)
        {
            return Err(AuthError::NotYetValid);
        }
        if claims.iss.as_ref() != Some(&self.issuer) {
            return Err(AuthError::Claim("iss"));
        }
        if !claims.aud.is_some_and(|audience| audience.contains(&self.audience)) {
            return Err(AuthError::Claim("aud"));
        }
        if !is_access_token(claims.typ.as_deref()) {
            return Err(AuthError::Claim("typ"));
        }
        let role = claims.role.and_then(|role| role.parse().ok()).ok_or(AuthError::Claim("role"))?;
        let subject = claims.sub.filter(|sub| is_external_id(sub)).ok_or(AuthError::Claim("sub"))?;
        Ok(Token { role, subject, expires_at })
    }
}

/// The claims that count. Numbers may have fractions (RFC 7519, 2).
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Audience>,
    sub: Option<String>,
    exp: Option<serde_json::Number>,
    nbf: Option<serde_json::Number>,
    role: Option<String>,
    typ: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// Some issuers tell refresh tokens by the header's `typ`, others by a claim of that name. "Bearer" is the latter's access token.
fn is_access_token(typ: Option<&str>) -> bool {
    typ.is_none_or(|typ| ["JWT", "at+jwt", "Bearer"].iter().any(|access| access.eq_ignore_ascii_case(typ)))
}

/// Whether a text can be a customer's `externalId`.
pub(crate) fn is_external_id(text: &str) -> bool {
    (1..=SUBJECT_BYTES_MAX).contains(&text.len()) && !text.contains('\0')
}

/// Seconds since 1970 as microseconds; `None` before 1970 and where they do not fit.
fn instant(seconds: &serde_json::Number) -> Option<i64> {
    match seconds.as_i64() {
        Some(seconds) => seconds.checked_mul(1_000_000).filter(|&at| at >= 0),
        None => micros(Duration::try_from_secs_f64(seconds.as_f64()?).ok()?),
    }
}

fn micros(duration: Duration) -> Option<i64> {
    duration.as_micros().try_into().ok()
}

#[cfg(test)]
mod tests;
