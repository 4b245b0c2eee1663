//! Windfall: purchases in, points out.

pub mod engine;
