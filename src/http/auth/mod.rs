//! Authenticates callers: verifies a bearer token (JWT) and returns its role and subject.
//!
//! Only configured keys verify tokens. Each key verifies one algorithm, which follows from the kind of the key. The
//! header of a token only selects the key: `kid` is looked up in a map, and keys inside a token (`jwk`, `jku`, `x5u`) are
//! ignored. This module reads no clock: every call gets the time, in microseconds since 1970.

mod jwks;
mod keys;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, Header};
use jwks::Jwks;
use quick_cache::sync::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::config::{Auth, PublicKeys, Secret};
use crate::engine::external_id::check_text;
pub use jwks::JwksError;
use keys::Key;
pub use keys::KeyError;

/// The largest token, in bytes. Tokens with many claims take about 2 kB.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The number of verified tokens that are kept. A token takes about half a kilobyte.
const KEPT_TOKENS: usize = 10_000;

/// The role in a token, which decides what the caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May read its own data and subscribe to its own updates.
    Customer,
    /// May record purchases and refunds, and read any customer.
    Storefront,
    /// May do everything, including changing campaigns.
    Admin,
}

impl Role {
    /// The value of the claim `role`.
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

/// The text is not the name of a role.
#[derive(Debug, thiserror::Error)]
#[error("a role is one of customer, storefront, admin")]
pub struct UnknownRole;

/// The content of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub role: Role,
    /// Identifies the bearer. For a customer, this is its `externalId`.
    pub subject: Arc<str>,
    /// The instant from which the token is rejected, in microseconds since 1970. It includes the leeway.
    pub expires_at: i64,
}

/// Why a token was rejected. Clients see the messages, so they reveal nothing about the keys of the server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The request has several Authorization headers, or the header does not use the bearer scheme.
    #[error("one Authorization header of the form \"Bearer <token>\" is expected")]
    Header,
    /// The token is not a JWT, or is not an access token.
    #[error("the token is not a signed access token")]
    Malformed,
    /// No configured key verifies the signature.
    #[error("the token's signature cannot be verified")]
    Signature,
    /// The token has passed its `exp`, leeway included.
    #[error("the token has expired")]
    Expired,
    /// The `nbf` of the token lies ahead, leeway included.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The signature is valid, but this claim is missing or not accepted.
    #[error("the token's claim `{0}` is missing or not accepted")]
    Claim(&'static str),
}

/// Why the verifier cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// No key is configured.
    #[error(
        "no key verifies tokens: set one of `auth.hs256_secret` (WINDFALL__AUTH__HS256_SECRET), \
         `auth.jwks` (WINDFALL__AUTH__JWKS) and `auth.public_key_pem` (WINDFALL__AUTH__PUBLIC_KEY_PEM)"
    )]
    NoKey,
    /// The PEM file cannot be used.
    #[error("the configuration key `auth.public_key_pem` (WINDFALL__AUTH__PUBLIC_KEY_PEM) cannot be used: {0}")]
    Pem(#[from] KeyError),
    /// The key set cannot be used.
    #[error("the configuration key `auth.jwks` (WINDFALL__AUTH__JWKS) cannot be used: {0}")]
    Jwks(#[from] JwksError),
    /// The self-test failed: this build does not verify tokens correctly.
    #[error("the cryptography of this build does not work")]
    SelfTest,
}

/// Verifies bearer tokens with the configured keys, issuer and audience.
pub struct Verifier {
    secret: Option<Key>,
    /// A secret that is being replaced.
    previous_secret: Option<Key>,
    public: Option<Public>,
    issuer: String,
    audience: String,
    leeway: i64,
    /// Verified tokens by the SHA-256 of their text, so that a token is verified once and not with each request.
    kept: Cache<[u8; 32], Arc<Kept>>,
}

/// A token that was verified with the keys of a generation.
struct Kept {
    token: Token,
    generation: u64,
}

/// The source of public keys: one key from a file, or a key set.
enum Public {
    One(Arc<Key>),
    Set(Arc<Jwks>),
}

impl Verifier {
    /// Loads the keys and tests the cryptography. Fails if a key set cannot be loaded, because no token could be verified
    /// without it.
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
        let key = |secret: &Option<Secret>| secret.as_ref().map(|secret| Key::from_secret(secret.expose()));
        let (secret, previous_secret) = (key(&config.hs256_secret), key(&config.hs256_secret_previous));
        if secret.is_none() && public.is_none() {
            return Err(SetupError::NoKey);
        }
        if !keys::self_test() {
            return Err(SetupError::SelfTest);
        }
        Ok(Self {
            secret,
            previous_secret,
            public,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            leeway: micros(config.leeway).unwrap_or(0),
            kept: Cache::new(KEPT_TOKENS),
        })
    }

    /// Returns how many keys for signatures the key set has that cannot be used.
    pub fn left_out_keys(&self) -> usize {
        match &self.public {
            Some(Public::Set(set)) => set.current().left_out(),
            Some(Public::One(_)) | None => 0,
        }
    }

    /// Returns the token of a request, or `None` for an anonymous caller. An invalid token is an error even if the
    /// request needs no token.
    pub async fn authenticate(&self, headers: &HeaderMap, now: i64) -> Result<Option<Token>, AuthError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let authorization = value.to_str().map_err(|_| AuthError::Header)?;
                self.verify(authorization, now).await.map(Some)
            }
            // A proxy in front may have checked one of the headers, and the server cannot know which one.
            (Some(_), Some(_)) => Err(AuthError::Header),
        }
    }

    /// Verifies the value of an Authorization header, or the value that `connection_init` has in its place.
    pub async fn verify(&self, authorization: &str, now: i64) -> Result<Token, AuthError> {
        let (scheme, jwt) = authorization.split_once(' ').ok_or(AuthError::Header)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(AuthError::Header);
        }
        if jwt.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let hash = Sha256::digest(jwt).into();
        // The generation is read before the keys are used. A token that was verified with removed keys is verified again.
        let generation = self.generation(now);
        if let Some(kept) = self.kept.get(&hash).filter(|kept| kept.generation == generation) {
            return if now < kept.token.expires_at { Ok(kept.token.clone()) } else { Err(AuthError::Expired) };
        }
        let token = self.verify_jwt(jwt, now).await?;
        self.kept.insert(hash, Arc::new(Kept { token: token.clone(), generation }));
        Ok(token)
    }

    fn generation(&self, now: i64) -> u64 {
        match &self.public {
            Some(Public::Set(jwks)) => jwks.generation(now),
            _ => 0,
        }
    }

    async fn verify_jwt(&self, jwt: &str, now: i64) -> Result<Token, AuthError> {
        let header = jsonwebtoken::decode_header(jwt).map_err(|_| AuthError::Malformed)?;
        // `crit` lists extensions that a verifier must support. This one supports none.
        if header.crit.is_some() || !is_access_token(header.typ.as_deref()) {
            return Err(AuthError::Malformed);
        }
        let claims = match header.alg {
            Algorithm::HS256 => self.claims_by_secret(jwt)?,
            _ => self.public_key(&header, now).await.ok_or(AuthError::Signature)?.claims(jwt)?,
        };
        self.accept(claims, now)
    }

    fn claims_by_secret(&self, jwt: &str) -> Result<Claims, AuthError> {
        let claims = self.secret.as_ref().ok_or(AuthError::Signature)?.claims(jwt);
        match &self.previous_secret {
            Some(previous) if matches!(claims, Err(AuthError::Signature)) => previous.claims(jwt),
            _ => claims,
        }
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
        let subject = claims.sub.filter(|sub| check_text(sub).is_ok()).ok_or(AuthError::Claim("sub"))?;
        Ok(Token { role, subject: subject.into(), expires_at })
    }
}

/// The claims that are checked. Numbers may have fractions (RFC 7519, section 2).
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

/// Whether `typ` is absent or names an access token. Some issuers mark refresh tokens in the `typ` of the header. Others
/// use a claim `typ`, whose value is "Bearer" for an access token.
fn is_access_token(typ: Option<&str>) -> bool {
    typ.is_none_or(|typ| ["JWT", "at+jwt", "Bearer"].iter().any(|access| access.eq_ignore_ascii_case(typ)))
}

/// Converts seconds since 1970 to microseconds. Returns `None` for times before 1970 and for numbers that are too large.
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
