//! Windfall.

pub mod gate;
