//! Jobs: work that waits for the clock or takes long. Each job is a row, and any node on the database can run it.
//!
//! - [`request`] requests jobs, in the caller's transaction. [`periodic`] requests those that recur, [`of_customer`] those that an
//!   admin wants.
//! - [`queue`] claims a job under a lease, and ends it under the same lease.
//! - [`runner`] runs the jobs that are due: as long as a server runs, or before another program ends.
//! - [`evaluation`], [`settlement`], [`expiry`], [`retention`], [`audit`], [`export`] and [`erasure`] contain the work of the jobs.
//! - [`relay`] runs the jobs of the kind `OUTBOX`, which have no end.
//! - [`list`] and [`transition`] are what admins see of jobs and may do with them.
//! - [`presence`] is not a job. Each program announces itself to the others.
//!
//! Invariants: There is at most one job for each `unique_key`. If the worker of a job dies, the job runs again once its lease has
//! expired. A job that keeps failing or keeps killing its worker becomes `dead`, and the reason is stored. Jobs are idempotent: a
//! job changes data through the write path, under the campaign lock, or in a transaction that holds its lease. So a worker that
//! has lost its lease, because it was frozen for example, does no harm when it continues.
//!
//! Periodic work recurs in ticks ([`periodic`]). Each tick is requested once, whatever the number of nodes and their clocks, and
//! ticks that were missed collapse into one. Loops that only concern their own process are not jobs: presence, the sweep for live
//! updates, the upkeep of caches and metrics.
//!
//! Jobs give way to callers: a batch takes the facts of callers first, and while such facts wait, at most one commit of a
//! job comes between two batches (`Recorder::job_turn`).

pub mod audit;
pub mod erasure;
pub mod evaluation;
pub mod expiry;
pub mod export;
pub mod list;
pub mod of_customer;
pub mod periodic;
pub mod presence;
pub mod queue;
pub mod relay;
pub mod request;
pub mod retention;
pub mod runner;
pub mod settlement;
pub mod transition;
