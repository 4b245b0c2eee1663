//! Jobs: work that waits for the clock or takes long. Each is a row that any node on the database can run.
//!
//! - [`request`] asks for jobs, in the caller's transaction; [`queue`] claims them under a lease and ends them under the same.
//! - [`runner`] claims what is due and runs it, while a server runs or before another program ends.
//! - [`evaluation`] and [`settlement`] are what jobs do.
//! - [`presence`] is no job: each program says by itself that it is there.
//!
//! Invariants: there is one job for each `unique_key`; a job whose worker died is run again after its lease; a job that keeps
//! failing, or keeps killing its worker, ends in `dead` with its error. What a job changes goes through the write path or the
//! campaign lock and is idempotent, so two workers that run one job by accident do no harm.

pub mod evaluation;
pub mod presence;
pub mod queue;
pub mod request;
pub mod runner;
pub mod settlement;
