//! How the message of a dead letter is recorded. `ingest` gives this to the application, because it knows what a message means.

use entity::dead_letter;
use futures_util::future::BoxFuture;

use super::error::Error;

/// Records the message of a dead letter.
pub type Replay = Box<dyn Fn(dead_letter::Model) -> BoxFuture<'static, Result<(), Failed>> + Send + Sync>;

/// Why a message could not be recorded.
#[derive(Clone, Debug)]
pub enum Failed {
    /// The message itself is the reason.
    Message(String),
    /// It may be recorded later.
    Now(Error),
}
