//! A key set from a file or a URL. It is loaded at the start, and reloaded when it is old and when a token names an
//! unknown key.
//!
//! Anybody can send tokens with made-up key names, so unknown names cause at most one reload per [`PAUSE`]. If a reload
//! fails, the set that was loaded before stays in use.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use parking_lot::RwLock;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use super::keys::{Key, KeySet};

/// The shortest time between the starts of two loads for an unknown key, in microseconds.
pub(super) const PAUSE: i64 = 30_000_000;

/// The age at which a set is reloaded even if it has all keys, so that revoked keys disappear. In microseconds.
pub(super) const MAX_AGE: i64 = 600_000_000;

/// How long one load may take.
const DEADLINE: Duration = Duration::from_secs(5);

const SET_BYTES_MAX: usize = 256 * 1024;

/// Loads the bytes of a set.
pub(super) type Fetch = Box<dyn Fn() -> Fetching + Send + Sync>;
pub(super) type Fetching = Pin<Box<dyn Future<Output = Result<Vec<u8>, JwksError>> + Send>>;

/// Why a key set could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file could not be opened or read.
    #[error("the file cannot be read: {0}")]
    File(#[from] io::Error),
    /// The server of the URL could not be reached, or its response could not be read.
    #[error("the URL cannot be fetched: {0}")]
    Http(#[source] reqwest::Error),
    /// The server responded with a status other than 2xx. Redirects are not followed.
    #[error("the URL responds with status {0}")]
    Status(u16),
    /// The load took longer than the deadline.
    #[error("loading it took longer than five seconds")]
    Deadline,
    /// The set exceeds the size limit.
    #[error("it is larger than 256 KiB")]
    TooLarge,
    /// The bytes are not a key set, or the set has too many keys or no key that can be used.
    #[error(
        "it must be a JSON Web Key Set of 1 to 100 keys, at least one of them for signatures: RSA of 2048 bits or \
         more, EC P-256 or Ed25519"
    )]
    NoKeys,
}

/// The current key set and the way to reload it.
pub(super) struct Jwks {
    fetch: Fetch,
    keys: RwLock<Arc<KeySet>>,
    /// Increases with each set that is loaded.
    generation: AtomicU64,
    /// When the last load began. Locked while a load runs.
    began: Arc<Mutex<i64>>,
}

impl Jwks {
    /// Loads the first set. Fails if it cannot be loaded.
    pub(super) async fn new(fetch: Fetch, now: i64) -> Result<Arc<Self>, JwksError> {
        let jwks =
            Self { fetch, keys: RwLock::default(), generation: AtomicU64::new(0), began: Arc::new(Mutex::new(now)) };
        jwks.load().await?;
        Ok(Arc::new(jwks))
    }

    /// Returns the key that the header of a token names, if the key is for this algorithm. May wait for a reload.
    pub(super) async fn find(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm, now: i64) -> Option<Arc<Key>> {
        if let Ok(key) = self.current().find(kid, algorithm) {
            self.renew_in_background(now);
            return key;
        }
        // If a load is running, this waits for its end.
        let began = Arc::clone(&self.began).lock_owned().await;
        if now.abs_diff(*began) >= PAUSE.unsigned_abs() {
            // The result is not needed: after a successful load, the current set has the key.
            drop(self.spawn_load(began, now).await);
        }
        self.current().find(kid, algorithm).ok().flatten()
    }

    /// Returns a number that changes with the key set. Reloads the set in the background if it is old.
    pub(super) fn generation(self: &Arc<Self>, now: i64) -> u64 {
        self.renew_in_background(now);
        self.generation.load(Ordering::Acquire)
    }

    fn renew_in_background(self: &Arc<Self>, now: i64) {
        if let Ok(began) = Arc::clone(&self.began).try_lock_owned()
            && now.abs_diff(*began) >= MAX_AGE.unsigned_abs()
        {
            drop(self.spawn_load(began, now));
        }
    }

    /// Loads the set in a separate task. If a caller that disconnects cancelled the load, there would be no other for the
    /// next half minute.
    fn spawn_load(self: &Arc<Self>, mut began: OwnedMutexGuard<i64>, now: i64) -> JoinHandle<()> {
        *began = now;
        let jwks = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = jwks.load().await {
                tracing::warn!(error = %error, "auth.jwks could not be reloaded; the loaded keys stay valid");
            }
            drop(began);
        })
    }

    async fn load(&self) -> Result<(), JwksError> {
        let bytes = tokio::time::timeout(DEADLINE, (self.fetch)()).await.map_err(|_| JwksError::Deadline)??;
        let keys = KeySet::parse(&bytes).ok_or(JwksError::NoKeys)?;
        *self.keys.write() = Arc::new(keys);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read())
    }
}

/// Makes a function that loads the set from a file.
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

/// Makes a function that loads the set from an http or https URL.
pub(super) fn url(url: String) -> Result<Fetch, JwksError> {
    if url.starts_with("http://") {
        tracing::warn!("auth.jwks is loaded without TLS: whoever can change the response in transit can forge tokens");
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
            // The error must not contain the URL, which may contain credentials.
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
