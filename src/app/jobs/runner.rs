//! Runs the jobs that are due. Each attempt is a task of its own, so that a panic ends one attempt and nothing else.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, gauge};
use entity::{CampaignId, CustomerId, JobKind, JobState, job};
use sea_orm::{ActiveEnum, Iterable};
use tokio_util::sync::CancellationToken;

use super::periodic::{Requested, is_periodic};
use super::queue::{End, MAX_ATTEMPTS};
use super::{audit, erasure, evaluation, expiry, export, periodic, queue, retention, settlement};
use crate::app::App;
use crate::app::error::Error;
use crate::app::{dead_letter, waiting_fact};
use crate::metrics;

/// The number of jobs that run at a time on this node.
const WORKERS: usize = 2;
/// How often an idle worker checks for jobs that are due, and how often a node checks whether a tick has begun, and counts the
/// jobs. A request of this node wakes a worker earlier.
const POLL: Duration = Duration::from_secs(2);

/// How often [`finish`] checks whether the jobs that run on other nodes are done.
const OTHERS_POLL: Duration = Duration::from_millis(200);

/// Runs jobs until `stop` is cancelled. Jobs that are running then go back to the queue.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    for kind in JobKind::iter() {
        counter!(metrics::JOB_ATTEMPTS, "kind" => kind.to_value()).increment(0);
        counter!(metrics::JOB_FAILURES, "kind" => kind.to_value()).increment(0);
    }
    let workers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(work(Arc::clone(&app), stop.clone()))).collect();
    let mut polls = tokio::time::interval(POLL);
    let mut requested = Requested::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = polls.tick() => {}
        }
        if let Err(error) = periodic::request_ticks(&app, &mut requested).await {
            tracing::warn!(error = %error, "a periodic job could not be requested");
        }
        if let Err(error) = observe(&app).await {
            tracing::warn!(error = %error, "jobs could not be counted");
        }
    }
    for worker in workers {
        if let Err(error) = worker.await {
            tracing::error!(error = %error, "a worker ended unexpectedly");
        }
    }
}

/// Returns the kinds of jobs that have an end. The others have a runner of their own, the relay.
fn kinds() -> Vec<JobKind> {
    JobKind::iter().filter(|kind| *kind != JobKind::Outbox).collect()
}

/// Runs one job after the other until `stop` is cancelled.
async fn work(app: Arc<App>, stop: CancellationToken) {
    let kinds = kinds();
    loop {
        let ran = match run_next(&app, &kinds, &stop).await {
            Ok(ran) => ran.is_some(),
            Err(error) => {
                tracing::warn!(error = %error, "a job could not be claimed or ended");
                false
            }
        };
        if stop.is_cancelled() {
            return;
        }
        if !ran {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
                () = app.job_wanted.notified() => {}
            }
        }
    }
}

/// Runs all jobs that are due, one after the other. Returns the number of attempts. If attempts failed, returns the error of the
/// first one, after all jobs have been tried.
pub async fn run_due(app: &Arc<App>) -> Result<u64, Error> {
    run_due_of(app, &kinds()).await
}

async fn run_due_of(app: &Arc<App>, kinds: &[JobKind]) -> Result<u64, Error> {
    let (mut attempts, mut failed) = (0, None);
    let stop = CancellationToken::new();
    while let Some(outcome) = run_next(app, kinds, &stop).await? {
        attempts += 1;
        failed = failed.or(outcome.err());
    }
    failed.map_or(Ok(attempts), Err)
}

/// Runs evaluations until none waits or runs, also on other nodes. Programs call this before they end. Other jobs are left to
/// servers, and what an admin has cancelled stays open.
pub async fn finish(app: &Arc<App>) -> Result<(), Error> {
    loop {
        run_due_of(app, &[JobKind::Evaluation]).await?;
        if let Some(error) = queue::first_dead(app).await? {
            return Err(Error::Internal(format!("an evaluation has failed too often: {error}")));
        }
        if !queue::has_unfinished_evaluations(app).await? {
            return Ok(());
        }
        // Another node runs the rest.
        tokio::time::sleep(OTHERS_POLL).await;
    }
}

/// Claims a job of these kinds and runs it. Returns the result of the attempt, or `None` if no job is due. An attempt that has
/// lost its lease is no failure: somebody else has decided about the job.
async fn run_next(
    app: &Arc<App>,
    kinds: &[JobKind],
    stop: &CancellationToken,
) -> Result<Option<Result<(), Error>>, Error> {
    let Some(job) = queue::claim(app, kinds).await? else { return Ok(None) };
    counter!(metrics::JOB_ATTEMPTS, "kind" => job.kind.to_value()).increment(1);
    let outcome = if job.attempts > MAX_ATTEMPTS {
        let killed = format!("the process that ran this job ended {} times", job.attempts - 1);
        Err((Error::Internal(killed.clone()), killed))
    } else {
        attempt(app, &job, stop).await.map_err(|error| {
            let reason = error.masked();
            (error, reason)
        })
    };
    let end = match &outcome {
        Ok(end) => end.clone(),
        Err((_, reason)) => End::Failed(reason.clone()),
    };
    let Some(state) = queue::end(app, &job, end).await? else {
        tracing::warn!(job = job.unique_key, "an attempt was given up: the job was cancelled or has another worker");
        return Ok(Some(Ok(())));
    };
    if is_periodic(job.kind) && matches!(state, JobState::Done | JobState::Dead) {
        periodic::replace_dead(app, &job).await?;
    }
    let Err((error, reason)) = outcome else { return Ok(Some(Ok(()))) };
    counter!(metrics::JOB_FAILURES, "kind" => job.kind.to_value()).increment(1);
    let dead = state == JobState::Dead;
    tracing::error!(job = job.unique_key, attempts = job.attempts, dead, reason, error = %error, "a job failed");
    Ok(Some(Err(error)))
}

/// Makes one attempt in a task of its own. If `stop` is cancelled, aborts the attempt and puts the job back.
async fn attempt(app: &Arc<App>, job: &job::Model, stop: &CancellationToken) -> Result<End, Error> {
    let mut task = {
        let (app, job) = (Arc::clone(app), job.clone());
        tokio::spawn(async move { perform(&app, &job).await })
    };
    tokio::select! {
        ended = &mut task => ended.map_err(|panic| Error::Internal(format!("a panic: {panic}")))?,
        () = stop.cancelled() => {
            task.abort();
            Ok(End::Again(app.clock.now()))
        }
    }
}

async fn perform(app: &App, job: &job::Model) -> Result<End, Error> {
    match (job.kind, job.campaign_id, job.customer_id) {
        (JobKind::Evaluation, Some(id), _) => evaluation::run_campaign(app, job, CampaignId(id)).await,
        (JobKind::Evaluation, None, Some(id)) => evaluation::run_customer(app, job, CustomerId(id)).await,
        (JobKind::Evaluation, None, None) => Err(Error::Internal("a job without campaign and customer".to_owned())),
        (JobKind::Export, _, Some(id)) => export::run(app, job, CustomerId(id)).await,
        (JobKind::Erasure, _, Some(id)) => erasure::run(app, job, CustomerId(id)).await,
        (JobKind::Export | JobKind::Erasure, _, None) => Err(Error::Internal("a job without a customer".to_owned())),
        (JobKind::Outbox, ..) => Err(Error::Internal("a relay has no end".to_owned())),
        (JobKind::Settlement, ..) => settlement::run_tick(app).await,
        (JobKind::Expiry, ..) => expiry::run_tick(app, job).await,
        (JobKind::Retention, ..) => retention::run_tick(app, job).await,
        (JobKind::Audit, ..) => audit::run_tick(app, job).await,
    }
}

/// Publishes metrics about the jobs of all nodes on the database.
#[expect(clippy::cast_precision_loss, reason = "figures for people, exact up to 2^53")]
async fn observe(app: &App) -> Result<(), Error> {
    for (kind, state, jobs) in queue::counts(app).await? {
        gauge!(metrics::JOBS, "kind" => kind.to_value(), "state" => state.to_value()).set(jobs as f64);
    }
    gauge!(metrics::JOB_WAIT_SECONDS).set(queue::oldest_wait(app).await? as f64 / 1e6);
    // Without a topic, these tables are empty, and cost nothing.
    for (topic, letters) in dead_letter::counts(app).await? {
        gauge!(metrics::DEAD_LETTERS, "topic" => topic).set(letters as f64);
    }
    gauge!(metrics::WAITING_FACTS).set(waiting_fact::count(app).await? as f64);
    Ok(())
}
