//! Windfall.

pub mod config;
