//! What an admin may do with a job: make it run again, or cancel it.
//!
//! Each change adds an entry to the trail in the same transaction, and so does each refusal. Without a change, there is no entry.
//!
//! Both change the row under its lock, so that they do not race a worker. A worker whose job was cancelled has lost its lease: it
//! can commit nothing under it any more. Facts that it has already handed to the write path are still committed, which does no
//! harm, because they only evaluate what is recorded.

use entity::{CustomerId, JobKind, JobState, customer, job};
use sea_orm::{ActiveEnum, ActiveModelTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QuerySelect};
use serde_json::json;

use super::periodic::is_periodic;
use crate::app::App;
use crate::app::error::{Error, UserErrorCode};
use crate::app::stored::running::Running;
use crate::app::trail::{self, Attempt, Target};
use crate::app::viewer::Actor;
use crate::engine::time::Instant;

/// Makes a job that is dead or cancelled run again, with all its attempts, and one that waits run now. Changes nothing if the job
/// is due.
pub async fn retry(app: &App, actor: &Actor, id: i64) -> Result<job::Model, Error> {
    let attempt = Attempt::new(actor, "retryJob").on(Target::Job(id));
    app.conclude(&attempt, decide_and_retry(app, &attempt, id)).await
}

async fn decide_and_retry(app: &App, attempt: &Attempt<'_>, id: i64) -> Result<job::Model, Error> {
    let tx = app.database.begin().await?;
    let job = lock(&tx, id).await?;
    let now = app.clock.ask(&tx).await?;
    let changed = decide_retry(&job, now).map_err(illegal)?;
    let job = save(tx, attempt, now, job, changed).await?;
    app.job_wanted.notify_one();
    Ok(job)
}

/// Cancels a job, unless its work would be missing then. Changes nothing if the job is cancelled.
pub async fn cancel(app: &App, actor: &Actor, id: i64) -> Result<job::Model, Error> {
    let attempt = Attempt::new(actor, "cancelJob").on(Target::Job(id));
    app.conclude(&attempt, decide_and_cancel(app, &attempt, id)).await
}

async fn decide_and_cancel(app: &App, attempt: &Attempt<'_>, id: i64) -> Result<job::Model, Error> {
    let tx = app.database.begin().await?;
    let job = lock(&tx, id).await?;
    let is_owed = match (job.kind, job.customer_id) {
        (JobKind::Evaluation, Some(customer)) => is_deferred(app, &tx, CustomerId(customer)).await?,
        _ => false,
    };
    let now = app.clock.ask(&tx).await?;
    let changed = decide_cancel(&job, is_owed, now).map_err(illegal)?;
    save(tx, attempt, now, job, changed).await
}

/// Loads the job and locks its row.
async fn lock(tx: &DatabaseTransaction, id: i64) -> Result<job::Model, Error> {
    let found = job::Entity::find_by_id(id).lock_exclusive().one(tx).await?;
    found.ok_or_else(|| Error::refused(&["id"], UserErrorCode::NotFound, "no job has this id"))
}

/// Whether a part of the customer's history is not evaluated yet. Read after the job is locked: a commit that defers something of
/// the customer requests the job, so it comes either before this or after the whole transition.
async fn is_deferred(app: &App, tx: &DatabaseTransaction, id: CustomerId) -> Result<bool, Error> {
    let Some(row) = customer::Entity::find_by_id(id).one(tx).await? else { return Ok(false) };
    let set = app.campaigns.current(tx).await?;
    let activated = set.counting().filter_map(|campaign| campaign.row.activated_revision).max();
    // If the states cannot be read, nothing is known to be evaluated.
    Ok(Running::parse(&row.head).map_or(true, |running| running.has_deferred())
        || activated > Some(row.evaluated_revision))
}

/// Stores what was decided about the job, and an entry of the trail if it changes something.
async fn save(
    tx: DatabaseTransaction,
    attempt: &Attempt<'_>,
    now: Instant,
    job: job::Model,
    changed: Option<job::Model>,
) -> Result<job::Model, Error> {
    let Some(changed) = changed else {
        // Unlocks the row before the response.
        tx.rollback().await?;
        return Ok(job);
    };
    let entry = attempt.entry(now, Some(state(&job)?), Some(state(&changed)?));
    let changed = changed.into_active_model().reset_all().update(&tx).await?;
    trail::add(&tx, &[entry]).await?;
    tx.commit().await?;
    Ok(changed)
}

/// What the trail says of a job before and after a change.
fn state(job: &job::Model) -> Result<String, Error> {
    let state = job.state.to_value().to_uppercase();
    trail::state(json!({ "state": state, "attempts": job.attempts, "runAt": Instant(job.run_at).to_string() }))
}

fn illegal(reason: String) -> Error {
    Error::refused(&["id"], UserErrorCode::IllegalTransition, reason)
}

/// Decides what a retry changes. Returns `None` if it changes nothing, or the reason why it is refused.
fn decide_retry(job: &job::Model, now: Instant) -> Result<Option<job::Model>, String> {
    match job.state {
        JobState::Waiting if job.run_at <= now.0 => Ok(None),
        JobState::Waiting => Ok(Some(job::Model { run_at: now.0, ..job.clone() })),
        JobState::Dead | JobState::Cancelled => {
            let (state, run_at, finished_at) = (JobState::Waiting, now.0, None);
            Ok(Some(job::Model { state, attempts: 0, run_at, finished_at, ..job.clone() }))
        }
        JobState::Running => Err("the job is RUNNING: wait for its end, or cancel it first".to_owned()),
        JobState::Done => Err("the job is DONE: there is nothing to retry".to_owned()),
    }
}

/// Decides what a cancellation changes. Returns `None` if it changes nothing, or the reason why it is refused. `is_owed`: without
/// the job, a part of a customer's history would never be evaluated.
///
/// A backfill can be cancelled, because nothing is lost: it stays open, the campaign does not settle, and a retry continues where
/// it stopped. Meanwhile a customer who buys is evaluated by that purchase. A customer with a deferred part is not: everything
/// later waits for the job. An erasure that has begun cannot be undone, so it must come to its end. A tick cannot be cancelled, because
/// the next one would do the same work; a dead one can, which ends the alarm.
fn decide_cancel(job: &job::Model, is_owed: bool, now: Instant) -> Result<Option<job::Model>, String> {
    match job.state {
        JobState::Cancelled => Ok(None),
        JobState::Done => Err("the job is DONE: there is nothing to cancel".to_owned()),
        JobState::Waiting | JobState::Running if is_periodic(job.kind) => {
            Err("the job is periodic: its next tick would do the same work".to_owned())
        }
        JobState::Waiting | JobState::Running if job.kind == JobKind::Outbox => {
            Err("the job publishes events as long as servers do: to end that, run `windfall events stop`".to_owned())
        }
        JobState::Waiting | JobState::Running | JobState::Dead
            if job.kind == JobKind::Erasure && job.started_at.is_some() =>
        {
            Err("the erasure has begun and cannot be undone: retry the job if it is DEAD".to_owned())
        }
        JobState::Waiting | JobState::Running | JobState::Dead if is_owed => Err(
            "a part of the customer's history is not evaluated yet, and later purchases wait for it: retry the job instead"
                .to_owned(),
        ),
        JobState::Waiting | JobState::Running | JobState::Dead => Ok(Some(job::Model {
            state: JobState::Cancelled,
            lease: None,
            leased_until: None,
            finished_at: Some(now.0),
            ..job.clone()
        })),
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::Iterable as _;

    use super::*;

    const NOW: Instant = Instant(1_000);
    const STATES: [JobState; 5] =
        [JobState::Waiting, JobState::Running, JobState::Done, JobState::Dead, JobState::Cancelled];

    fn job(kind: JobKind, state: JobState) -> job::Model {
        job::Model {
            id: 1,
            kind,
            unique_key: "k".to_owned(),
            campaign_id: None,
            customer_id: None,
            state,
            requests: 1,
            attempts: 3,
            error: Some("e".to_owned()),
            run_at: 2_000,
            lease: Some(7),
            leased_until: Some(3_000),
            created_at: 0,
            started_at: Some(1),
            finished_at: Some(2),
            done: Some(1),
            total: Some(2),
        }
    }

    #[test]
    fn a_retry_in_each_state() {
        let after = |state| decide_retry(&job(JobKind::Evaluation, state), NOW);
        for state in [JobState::Running, JobState::Done] {
            after(state).unwrap_err();
        }
        for state in [JobState::Dead, JobState::Cancelled] {
            let again = after(state).unwrap().unwrap();
            let seen = (again.state, again.attempts, again.run_at, again.finished_at);
            assert_eq!(seen, (JobState::Waiting, 0, NOW.0, None), "{state:?}");
            // A backfill continues where it stopped.
            assert_eq!((again.done, again.total), (Some(1), Some(2)));
        }
        let earlier = after(JobState::Waiting).unwrap().unwrap();
        assert_eq!((earlier.attempts, earlier.run_at), (3, NOW.0));
        assert_eq!(decide_retry(&earlier, NOW), Ok(None));
    }

    #[test]
    fn a_cancellation_in_each_state() {
        for kind in JobKind::iter() {
            for is_owed in [false, true] {
                for state in STATES {
                    let cancelled = decide_cancel(&job(kind, state), is_owed, NOW);
                    let what = format!("{kind:?} {state:?} {is_owed}: {cancelled:?}");
                    let ends = matches!(state, JobState::Waiting | JobState::Running);
                    match cancelled {
                        Ok(None) => assert_eq!(state, JobState::Cancelled, "{what}"),
                        Ok(Some(job)) => {
                            assert_ne!(kind, JobKind::Erasure, "{what}");
                            assert!(!is_owed && (ends || state == JobState::Dead), "{what}");
                            assert!(!(is_periodic(kind) || kind == JobKind::Outbox) || !ends, "{what}");
                            assert_eq!(
                                (job.state, job.lease, job.finished_at),
                                (JobState::Cancelled, None, Some(NOW.0))
                            );
                        }
                        Err(_) => {
                            let periodic = is_periodic(kind) && ends;
                            let begun = kind == JobKind::Erasure;
                            let relays = kind == JobKind::Outbox && ends;
                            assert!(state == JobState::Done || is_owed || periodic || begun || relays, "{what}");
                            assert_ne!(state, JobState::Cancelled, "{what}");
                        }
                    }
                }
            }
        }
        let unbegun = job::Model { started_at: None, ..job(JobKind::Erasure, JobState::Waiting) };
        assert_eq!(decide_cancel(&unbegun, false, NOW).unwrap().unwrap().state, JobState::Cancelled);
    }
}
