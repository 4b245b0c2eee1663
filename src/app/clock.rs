//! The clock. Injected, so that tests can set it; nothing else in the server asks the system for the time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::engine::time::Instant;

/// What time it is.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's.
    #[default]
    System,
    /// Stands still until it is set; µs since 1970.
    Fixed(Arc<AtomicI64>),
}

impl Clock {
    /// Now, in whole microseconds.
    pub fn now(&self) -> Instant {
        match self {
            #[expect(clippy::disallowed_methods, reason = "this is the clock that everything else takes")]
            Self::System => jiff::Timestamp::now().into(),
            Self::Fixed(now) => Instant(now.load(Ordering::SeqCst)),
        }
    }
}
