//! The time. All other modules ask this one.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "purchases are made at the real time")]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
