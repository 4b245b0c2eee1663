//! Windfall.
fn main() {}
