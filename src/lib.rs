//! Windfall.
