//! Jobs: work that waits for the clock or takes long. Each job is a row, and any node on the database can run it.
//!
//! - [`request`] requests jobs, in the caller's transaction.
//! - [`queue`] claims a job under a lease, and ends it under the same lease.
//! - [`runner`] runs the jobs that are due: as long as a server runs, or before another program ends.
//! - [`evaluation`] and [`settlement`] contain the work of the jobs.
//! - [`presence`] is not a job. Each program announces itself to the others.
//!
//! Invariants: There is at most one job for each `unique_key`. If the worker of a job dies, the job runs again once its lease
//! has expired. An evaluation that keeps failing or keeps killing its worker becomes `dead`, and its error is stored. Jobs are
//! idempotent and change data through the write path or under the campaign lock, so it does no harm if two workers run the same
//! job by accident. Only the progress of a backfill is stored outside of both.

pub mod evaluation;
pub mod presence;
pub mod queue;
pub mod request;
pub mod runner;
pub mod settlement;
