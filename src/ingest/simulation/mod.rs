//! Predicts what the consumers of a topic will do, before they are configured. Nothing here reads a clock, a file or a database.
//!
//! Read in this order: `trace` is what arrives, and `pattern` makes one up; `costs` is how long recording takes on this machine;
//! `setting` is what an operator can choose; `model` runs one setting; `figures` says what came out, and why; `report` compares the
//! settings of a grid, and `svg` draws them.

pub mod costs;
pub mod figures;
pub mod model;
pub mod pattern;
pub mod report;
pub mod setting;
pub mod svg;
pub mod trace;

/// The number of microseconds of a second.
const SECOND: u64 = 1_000_000;

/// Returns a duration in seconds, for people and for sums.
#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Returns a duration in whole microseconds. What is negative or no number becomes 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast of this kind keeps within the range"
)]
fn micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// Returns a number from 0 to almost 1 that stands for two numbers and looks random. The same numbers always give the same one.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn chance(seed: u64, number: u64) -> f64 {
    // The finaliser of SplitMix64, whose results pass tests of randomness.
    let mut mixed = (seed.rotate_left(32) ^ number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}
