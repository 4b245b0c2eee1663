//! A key set that lives elsewhere: fetched at start, when it has aged, and when a token names a key that is not in it.
//!
//! Anybody can send tokens with made-up key names, so they cause at most one fetch per [`PAUSE`]. A fetch that fails changes
//! nothing: the last good set stays.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use parking_lot::RwLock;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use super::keys::{Key, KeySet};

/// Between the starts of two fetches, in microseconds.
pub(super) const PAUSE: i64 = 30_000_000;

/// After which a set that serves well is fetched again, so that keys which the issuer took back go, in microseconds.
pub(super) const MAX_AGE: i64 = 600_000_000;

/// Of a whole fetch.
const DEADLINE: Duration = Duration::from_secs(5);

const SET_BYTES_MAX: usize = 256 * 1024;

/// Brings a set's bytes.
pub(super) type Fetch = Box<dyn Fn() -> Fetching + Send + Sync>;
pub(super) type Fetching = Pin<Box<dyn Future<Output = Result<Vec<u8>, JwksError>> + Send>>;

/// Why a key set could not be had.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// The server cannot be asked.
    #[error("the URL cannot be fetched: {0}")]
    Http(#[source] reqwest::Error),
    /// The server answers something else.
    #[error("the URL answers with status {0}")]
    Status(u16),
    /// Too slow.
    #[error("it took longer than five seconds")]
    Deadline,
    /// Too big.
    #[error("it is larger than 256 KiB")]
    TooLarge,
    /// Of no use.
    #[error(
        "it is no key set with 1 to 100 keys, one of them RSA of 2048 bits or more, EC P-256 or Ed25519, for signatures"
    )]
    NoKeys,
}

/// The current key set and where newer ones come from.
pub(super) struct Jwks {
    fetch: Fetch,
    keys: RwLock<Arc<KeySet>>,
    /// When the last fetch began. Locked while one runs.
    began: Arc<Mutex<i64>>,
}

impl Jwks {
    /// Fetches the first set.
    pub(super) async fn new(fetch: Fetch, now: i64) -> Result<Arc<Self>, JwksError> {
        let jwks = Self { fetch, keys: RwLock::default(), began: Arc::new(Mutex::new(now)) };
        jwks.load().await?;
        Ok(Arc::new(jwks))
    }

    /// The key that a token's header names.
    pub(super) async fn find(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm, now: i64) -> Option<Arc<Key>> {
        if let Ok(key) = self.current().find(kid, algorithm) {
            self.renew_in_background(now);
            return key;
        }
        // Waits for a fetch that is under way.
        let began = Arc::clone(&self.began).lock_owned().await;
        if now.abs_diff(*began) >= PAUSE.unsigned_abs() {
            // Whether it went well shows in the keys.
            drop(self.spawn_load(began, now).await);
        }
        self.current().find(kid, algorithm).ok().flatten()
    }

    fn renew_in_background(self: &Arc<Self>, now: i64) {
        if let Ok(began) = Arc::clone(&self.began).try_lock_owned()
            && now.abs_diff(*began) >= MAX_AGE.unsigned_abs()
        {
            drop(self.spawn_load(began, now));
        }
    }

    /// In a task of its own: a caller that hangs up must not take the one fetch of the next half minute with it.
    fn spawn_load(self: &Arc<Self>, mut began: OwnedMutexGuard<i64>, now: i64) -> JoinHandle<()> {
        *began = now;
        let jwks = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = jwks.load().await {
                tracing::warn!(error = %error, "auth.jwks could not be read again; the keys known so far stay");
            }
            drop(began);
        })
    }

    async fn load(&self) -> Result<(), JwksError> {
        let bytes = tokio::time::timeout(DEADLINE, (self.fetch)()).await.map_err(|_| JwksError::Deadline)??;
        let keys = KeySet::parse(&bytes).ok_or(JwksError::NoKeys)?;
        *self.keys.write() = Arc::new(keys);
        Ok(())
    }

    fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read())
    }
}

/// Reads the set from a file.
pub(super) fn file(path: PathBuf) -> Fetch {
    Box::new(move || {
        let path = path.clone();
        Box::pin(async move {
            let mut bytes = Vec::new();
            let limit = SET_BYTES_MAX as u64 + 1;
            tokio::fs::File::open(path).await?.take(limit).read_to_end(&mut bytes).await?;
            if bytes.len() > SET_BYTES_MAX { Err(JwksError::TooLarge) } else { Ok(bytes) }
        })
    })
}

/// Reads the set from an http or https URL.
pub(super) fn url(url: String) -> Result<Fetch, JwksError> {
    if url.starts_with("http://") {
        tracing::warn!("auth.jwks is fetched without TLS: whoever can change the answer on its way can forge tokens");
    }
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(2))
        .timeout(DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(JwksError::Http)?;
    Ok(Box::new(move || {
        let request = client.get(&url).send();
        Box::pin(async move {
            // The URL may hold credentials.
            let error = |error: reqwest::Error| JwksError::Http(error.without_url());
            let mut response = request.await.map_err(error)?;
            if !response.status().is_success() {
                return Err(JwksError::Status(response.status().as_u16()));
            }
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(error)? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > SET_BYTES_MAX {
                    return Err(JwksError::TooLarge);
                }
            }
            Ok(bytes)
        })
    }))
}
