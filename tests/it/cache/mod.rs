//! Reads are never stale, whatever happens to Redis, to nodes and to the database, and they cost no more than promised.

mod answers;
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
