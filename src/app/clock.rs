//! The clock. Injected, so that tests can set it; nothing else in the server asks the system for the time of day.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::engine::time::Instant;

/// The longest sleep: the system's clock may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_mins(1);
/// How often a clock that stands still is looked at.
const FIXED_STEP: Duration = Duration::from_millis(10);

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

    /// Waits until the instant has come.
    pub async fn sleep_until(&self, at: Instant) {
        while let Some(left) = u64::try_from(at.minus(self.now().0).0).ok().filter(|left| *left > 0) {
            let step = match self {
                Self::System => MAX_SLEEP,
                Self::Fixed(_) => FIXED_STEP,
            };
            tokio::time::sleep(step.min(Duration::from_micros(left))).await;
        }
    }
}
