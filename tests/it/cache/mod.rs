//! Reads are never stale, whatever becomes of Redis, of nodes and of the database; and they are as cheap as promised.

mod clock;
mod cost;
mod drift;
mod herd;
mod memory;
mod progress;
mod redis;
mod restored;
mod staleness;
mod statements;
