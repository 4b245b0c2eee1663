//! Runs the jobs that are due. Each attempt is a task of its own, so that a panic ends one attempt and nothing else.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, gauge};
use entity::{CampaignId, CustomerId, JobKind, JobState, job};
use tokio_util::sync::CancellationToken;

use super::queue::{End, MAX_ATTEMPTS};
use super::{evaluation, queue, settlement};
use crate::app::App;
use crate::app::error::Error;
use crate::app::jobs::request::Wanted;
use crate::metrics;

/// The number of jobs that run at a time on this node.
const WORKERS: usize = 2;
/// How often an idle worker checks for jobs that are due, and how often jobs are counted. A request of this node wakes a worker
/// earlier.
const POLL: Duration = Duration::from_secs(2);

/// How often [`finish`] checks whether the jobs that run on other nodes are done.
const OTHERS_POLL: Duration = Duration::from_millis(200);

/// Runs jobs until `stop` is cancelled. Jobs that are running then go back to the queue.
pub async fn run(app: Arc<App>, stop: CancellationToken) {
    let workers: Vec<_> = (0..WORKERS).map(|_| tokio::spawn(work(Arc::clone(&app), stop.clone()))).collect();
    let mut ticks = tokio::time::interval(POLL);
    let mut settles = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        settles = settles || queue::request_periodic(&app, &Wanted::Settlement).await.is_ok();
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

/// Runs one job after the other until `stop` is cancelled.
async fn work(app: Arc<App>, stop: CancellationToken) {
    loop {
        let ran = match run_next(&app, &stop).await {
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
    let (mut attempts, mut failed) = (0, None);
    let stop = CancellationToken::new();
    while let Some(outcome) = run_next(app, &stop).await? {
        attempts += 1;
        failed = failed.or(outcome.err());
    }
    failed.map_or(Ok(attempts), Err)
}

/// Runs jobs until no backfill is open and no customer is deferred, also on other nodes. Programs call this before they end.
pub async fn finish(app: &Arc<App>) -> Result<(), Error> {
    loop {
        run_due(app).await?;
        if evaluation::open_backfills(app).await?.is_empty()
            && queue::deferred_customers(app.database.read(), 1).await?.is_empty()
        {
            return Ok(());
        }
        if let Some(error) = queue::first_dead(app).await? {
            return Err(Error::Internal(format!("an evaluation has failed too often: {error}")));
        }
        // Another node runs the rest.
        tokio::time::sleep(OTHERS_POLL).await;
    }
}

/// Claims a job and runs it. Returns the result of the attempt, or `None` if no job is due.
async fn run_next(app: &Arc<App>, stop: &CancellationToken) -> Result<Option<Result<(), Error>>, Error> {
    let Some(job) = queue::claim(app).await? else { return Ok(None) };
    let periodic = job.kind == JobKind::Settlement;
    let outcome = if job.attempts > MAX_ATTEMPTS && !periodic {
        Err(Error::Internal(format!("the process that ran this job ended {} times", job.attempts - 1)))
    } else {
        attempt(app, &job, stop).await
    };
    let end = match &outcome {
        Ok(end) => end.clone(),
        Err(error) => End::Failed { error: error.to_string(), forever: periodic },
    };
    let failed = outcome.err();
    let state = queue::end(app, &job, end).await?;
    if let Some(error) = &failed {
        counter!(metrics::JOB_FAILURES).increment(1);
        let dead = state == JobState::Dead;
        tracing::error!(job = job.unique_key, attempts = job.attempts, dead, error = %error, "a job failed");
    }
    Ok(Some(failed.map_or(Ok(()), Err)))
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
        (JobKind::Settlement, ..) => settlement::run_periodic(app).await,
    }
}

/// Publishes metrics about the jobs of all nodes on the database.
#[expect(clippy::cast_precision_loss, reason = "figures for people, exact up to 2^53")]
async fn observe(app: &App) -> Result<(), Error> {
    for ((kind, state), jobs) in queue::counts(app).await? {
        gauge!(metrics::JOBS, "kind" => kind, "state" => state).set(jobs as f64);
    }
    gauge!(metrics::JOB_WAIT_SECONDS).set(queue::oldest_wait(app).await? as f64 / 1e6);
    Ok(())
}
