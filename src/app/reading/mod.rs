//! Reads recorded data: customers (through the cache), pages of lists, progress, evidence and the updates of subscribers.

pub mod evidence;
pub mod lookback;
pub mod lookup;
pub mod page;
pub mod points;
pub mod points_update;
pub mod progress;
pub mod purchase_revision;
pub mod recent_stats;
pub mod snapshot;
pub mod sweep;
pub mod trail;
