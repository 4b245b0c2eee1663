//! Jobs: how admins see them, retry them and cancel them.

use entity::{JobKind, JobState, job};
use sea_orm::{ConnectionTrait as _, DatabaseBackend, EntityTrait as _};
use serde_json::{Value, json};
use windfall::app::error::Error;
use windfall::app::jobs::evaluation;
use windfall::app::jobs::queue::{self, End};
use windfall::app::jobs::request::{Wanted, request};
use windfall::app::jobs::runner;
use windfall::engine::time::Instant;

use crate::support::app::{DAY, NOW};
use crate::support::graphql::{GraphqlApp, admin, customer, on_both, storefront, text};

const JOBS: &str = "query($kind: [JobKind!], $state: [JobState!]) { jobs(first: 100, kind: $kind, state: $state) { nodes { \
    kind state subject { __typename ... on Campaign { name } ... on Customer { externalId } } progress { done total } \
    attempts error runAt startedAt finishedAt resultUrl } } }";

async fn jobs(app: &GraphqlApp, variables: Value) -> Vec<Value> {
    let mut answer = app.data(&admin(), JOBS, variables).await;
    answer["jobs"]["nodes"].as_array_mut().unwrap().drain(..).collect()
}

/// Changes a job and returns the payload.
async fn change(app: &GraphqlApp, mutation: &str, id: &str) -> Value {
    let query = format!(
        "mutation($id: ID!) {{ {mutation}(id: $id) {{ job {{ id state attempts finishedAt }} userErrors {{ path code message }} }} }}"
    );
    app.data(&admin(), &query, json!({ "id": id })).await[mutation].take()
}

/// Returns the code of the only user error.
fn refused(payload: &Value) -> String {
    assert_eq!(payload["job"], Value::Null, "{payload}");
    assert_eq!(payload["userErrors"][0]["path"], json!(["id"]), "{payload}");
    text(&payload["userErrors"][0]["code"])
}

fn state(payload: &Value) -> String {
    assert_eq!(payload["userErrors"], json!([]), "{payload}");
    text(&payload["job"]["state"])
}

async fn only_id(app: &GraphqlApp) -> String {
    let answer = app.data(&admin(), "{ jobs { nodes { id } } }", json!({})).await;
    let nodes = answer["jobs"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1, "{answer}");
    text(&nodes[0]["id"])
}

async fn row(app: &GraphqlApp) -> job::Model {
    job::Entity::find().one(app.app.database.read()).await.unwrap().unwrap()
}

/// Activates a campaign that counts a purchase of `ada`. Its backfill is a job that is due.
async fn backfill(app: &GraphqlApp) -> String {
    app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
    app.campaign(json!({ "name": "Each", "goal": { "everyPurchase": "EACH" } })).await
}

/// Requests the evaluation of `ada`, of whom nothing is deferred.
async fn evaluation_of_ada(app: &GraphqlApp) {
    app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
    let ada = app.customer("ada").await.unwrap().id;
    request(app.app.database.write(), &[Wanted::Customer(ada)], Instant(NOW)).await.unwrap();
}

/// Puts the only job into a state, as a worker would.
async fn put_into(app: &GraphqlApp, state: &str) {
    let rest = match state {
        "running" => format!("attempts = 1, lease = 7, leased_until = {}", NOW + DAY),
        "dead" => format!("attempts = 8, error = 'no', finished_at = {NOW}"),
        "waiting" => format!("run_at = {}, attempts = 3, error = 'no'", NOW + DAY),
        _ => format!("finished_at = {NOW}"),
    };
    let reset = "run_at = 0, attempts = 0, lease = NULL, leased_until = NULL, finished_at = NULL, error = NULL";
    app.execute(&format!("UPDATE job SET {reset}")).await;
    app.execute(&format!("UPDATE job SET state = '{state}', {rest}")).await;
}

on_both! {
    async fn a_job_tells_what_it_is_about_and_how_far_it_is(app: &GraphqlApp) {
        backfill(app).await;
        let waiting = jobs(app, json!({})).await;
        assert_eq!(waiting, [json!({
            "kind": "EVALUATION", "state": "WAITING", "subject": { "__typename": "Campaign", "name": "Each" },
            "progress": null, "attempts": 0, "error": null, "runAt": "2026-11-02T12:00:00Z", "startedAt": null,
            "finishedAt": null, "resultUrl": null,
        })]);
        app.set_clock("2026-11-02T12:01:00Z");
        runner::finish(&app.app).await.unwrap();
        app.set_clock("2026-11-02T12:02:00Z");
        evaluation_of_ada(app).await;
        let all = jobs(app, json!({})).await;
        assert_eq!(all[0]["subject"], json!({ "__typename": "Customer", "externalId": "ada" }));
        assert_eq!(all[0]["progress"], Value::Null);
        assert_eq!(all[1], json!({
            "kind": "EVALUATION", "state": "DONE", "subject": { "__typename": "Campaign", "name": "Each" },
            "progress": { "done": 1, "total": 1 }, "attempts": 0, "error": null, "runAt": "2026-11-02T12:00:00Z",
            "startedAt": "2026-11-02T12:01:00Z", "finishedAt": "2026-11-02T12:01:00Z", "resultUrl": null,
        }));
    }

    async fn jobs_are_found_by_kind_and_state(app: &GraphqlApp) {
        let kinds = ["evaluation", "settlement", "expiry", "retention", "audit", "export"];
        let states = ["waiting", "running", "done", "dead", "cancelled"];
        for (n, kind) in kinds.iter().enumerate() {
            for state in states {
                let columns = "kind, unique_key, state, requests, attempts, run_at, created_at";
                let values = format!("'{kind}', '{kind} {state}', '{state}', 1, 0, 0, {n}");
                app.execute(&format!("INSERT INTO job ({columns}) VALUES ({values})")).await;
            }
        }
        // A newer program may know further kinds.
        app.execute("INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at) \
            VALUES ('later', 'later', 'waiting', 1, 0, 0, 9)").await;
        let found = async |variables: Value| {
            let found = jobs(app, variables).await;
            found.iter().map(|job| format!("{} {}", text(&job["kind"]), text(&job["state"]))).collect::<Vec<_>>()
        };
        assert_eq!(found(json!({})).await.len(), kinds.len() * states.len());
        assert_eq!(found(json!({ "kind": ["AUDIT"], "state": ["DEAD"] })).await, ["AUDIT DEAD"]);
        let of_two = found(json!({ "kind": ["AUDIT", "EVALUATION", "AUDIT"], "state": ["DONE"] })).await;
        assert_eq!(of_two, ["AUDIT DONE", "EVALUATION DONE"]);
        assert_eq!(found(json!({ "kind": ["RETENTION"] })).await.len(), states.len());
        assert_eq!(found(json!({ "state": ["CANCELLED"] })).await.len(), kinds.len());
        assert!(found(json!({ "state": [] })).await.is_empty());
        assert!(found(json!({ "kind": [] })).await.is_empty());
        // It is left to that program.
        app.execute("DELETE FROM job WHERE kind <> 'later'").await;
        assert_eq!(runner::run_due(&app.app).await.unwrap(), 0);
        assert!(queue::counts(&app.app).await.unwrap().iter().all(|(_, _, jobs)| *jobs == 0));
    }

    async fn a_job_is_a_node_for_admins_alone(app: &GraphqlApp) {
        evaluation_of_ada(app).await;
        let id = only_id(app).await;
        let query = "query($id: ID!) { node(id: $id) { id ... on Job { state } } nodes(ids: [$id]) { __typename id } }";
        let seen = app.data(&admin(), query, json!({ "id": id })).await;
        let expected = json!({ "node": { "id": id, "state": "WAITING" }, "nodes": [{ "__typename": "Job", "id": id }] });
        assert_eq!(seen, expected);
        for viewer in [storefront(), customer("ada")] {
            let seen = app.data(&viewer, query, json!({ "id": id })).await;
            assert_eq!(seen, json!({ "node": null, "nodes": [null] }), "{viewer:?}");
        }
        let query = "query($id: ID!) { job(id: $id) { id state } }";
        let seen = app.data(&admin(), query, json!({ "id": id })).await;
        assert_eq!(seen["job"], json!({ "id": id, "state": "WAITING" }));
        app.execute("DELETE FROM job").await;
        for id in [id.as_str(), "nonsense", "Q2FtcGFpZ246OTk"] {
            assert_eq!(app.data(&admin(), query, json!({ "id": id })).await["job"], Value::Null);
            for mutation in ["retryJob", "cancelJob"] {
                assert_eq!(refused(&change(app, mutation, id).await), "NOT_FOUND", "{mutation}");
            }
        }
    }

    async fn a_retry_in_every_state(app: &GraphqlApp) {
        evaluation_of_ada(app).await;
        let id = only_id(app).await;
        for state in ["running", "done"] {
            put_into(app, state).await;
            let before = row(app).await;
            assert_eq!(refused(&change(app, "retryJob", &id).await), "ILLEGAL_TRANSITION", "{state}");
            assert_eq!(row(app).await, before, "{state}");
        }
        for (from, attempts) in [("dead", 0), ("cancelled", 0), ("waiting", 3)] {
            put_into(app, from).await;
            // The second time, nothing is left to do.
            for _ in 0..2 {
                let retried = change(app, "retryJob", &id).await;
                assert_eq!(state(&retried), "WAITING", "{from}");
                assert_eq!((&retried["job"]["attempts"], &retried["job"]["finishedAt"]), (&json!(attempts), &Value::Null));
                assert_eq!(row(app).await.run_at, NOW, "{from}");
            }
        }
        assert_eq!(runner::run_due(&app.app).await.unwrap(), 1);
        assert_eq!(row(app).await.state, JobState::Done);
    }

    async fn a_cancellation_in_every_state(app: &GraphqlApp) {
        evaluation_of_ada(app).await;
        let id = only_id(app).await;
        put_into(app, "done").await;
        assert_eq!(refused(&change(app, "cancelJob", &id).await), "ILLEGAL_TRANSITION");
        for from in ["waiting", "running", "dead", "cancelled"] {
            put_into(app, from).await;
            let mut seen = Vec::new();
            for _ in 0..2 {
                let cancelled = change(app, "cancelJob", &id).await;
                assert_eq!(state(&cancelled), "CANCELLED", "{from}");
                seen.push(cancelled);
                app.set_now(NOW + DAY);
            }
            assert_eq!(seen[0], seen[1], "{from}: the second one changes nothing");
            assert_eq!(seen[0]["job"]["finishedAt"], "2026-11-02T12:00:00Z");
            app.set_now(NOW);
            assert_eq!(runner::run_due(&app.app).await.unwrap(), 0, "{from}");
        }
        // A new request makes it run again.
        evaluation_of_ada(app).await;
        assert_eq!(runner::run_due(&app.app).await.unwrap(), 1);
        assert_eq!(row(app).await.state, JobState::Done);
    }

    async fn a_running_job_that_is_cancelled_commits_nothing_more(app: &GraphqlApp) {
        let campaign = backfill(app).await;
        let id = only_id(app).await;
        let running = queue::claim(&app.app, &[JobKind::Evaluation]).await.unwrap().unwrap();
        assert_eq!(refused(&change(app, "retryJob", &id).await), "ILLEGAL_TRANSITION");
        assert_eq!(state(&change(app, "cancelJob", &id).await), "CANCELLED");
        assert!(matches!(queue::renew(&app.app, &running, Some((5, 5))).await, Err(Error::Internal(_))));
        let subject = entity::CampaignId(running.campaign_id.unwrap());
        evaluation::run_campaign(&app.app, &running, subject).await.unwrap_err();
        for end in [End::Done, End::Again(Instant(NOW)), End::Failed("late".to_owned())] {
            assert_eq!(queue::end(&app.app, &running, end).await.unwrap(), None);
        }
        let cancelled = row(app).await;
        assert_eq!((cancelled.state, cancelled.error, cancelled.done), (JobState::Cancelled, None, None));
        let query = "query($id: ID!) { campaign(id: $id) { backfill { done total } } }";
        let open = app.data(&admin(), query, json!({ "id": campaign })).await;
        assert_ne!(open["campaign"]["backfill"], Value::Null, "the backfill stays open");
        // Programs do not wait for what an admin has cancelled.
        runner::finish(&app.app).await.unwrap();
        assert_eq!(state(&change(app, "retryJob", &id).await), "WAITING");
        runner::finish(&app.app).await.unwrap();
        let closed = app.data(&admin(), query, json!({ "id": campaign })).await;
        assert_eq!((&closed["campaign"]["backfill"], row(app).await.state), (&Value::Null, JobState::Done));
        app.audit_is_clean().await;
    }

    /// The end of another job does not wake a backfill that was cancelled. `audit --repair` continues it.
    async fn a_cancelled_backfill_stays_cancelled(app: &GraphqlApp) {
        backfill(app).await;
        let id = only_id(app).await;
        assert_eq!(state(&change(app, "cancelJob", &id).await), "CANCELLED");
        let ada = app.customer("ada").await.unwrap().id;
        request(app.app.database.write(), &[Wanted::Customer(ada)], Instant(NOW)).await.unwrap();
        assert_eq!(runner::run_due(&app.app).await.unwrap(), 1);
        let campaign = jobs(app, json!({ "state": ["CANCELLED"] })).await;
        assert_eq!(campaign.len(), 1, "{campaign:?}");
        assert_eq!(queue::revive(&app.app).await.unwrap(), 1);
        runner::finish(&app.app).await.unwrap();
        assert!(jobs(app, json!({ "state": ["CANCELLED", "WAITING"] })).await.is_empty());
        assert_eq!(app.customer("ada").await.unwrap().balance, 10);
    }

    async fn what_would_be_missing_cannot_be_cancelled(app: &GraphqlApp) {
        backfill(app).await;
        app.execute("DELETE FROM job").await;
        // `ada` is not evaluated for the campaign.
        let ada = app.customer("ada").await.unwrap().id;
        request(app.app.database.write(), &[Wanted::Customer(ada)], Instant(NOW)).await.unwrap();
        let id = only_id(app).await;
        for from in ["waiting", "running", "dead"] {
            put_into(app, from).await;
            let before = row(app).await;
            let answer = change(app, "cancelJob", &id).await;
            assert_eq!(refused(&answer), "ILLEGAL_TRANSITION", "{from}");
            assert!(text(&answer["userErrors"][0]["message"]).contains("later purchases wait for it"), "{answer}");
            assert_eq!(row(app).await, before, "{from}");
        }
        // The next purchase evaluates her. Then nothing would be missing.
        app.purchase("q", "ada", "2026-11-02T11:00:00Z", "5").await;
        assert_eq!(state(&change(app, "cancelJob", &id).await), "CANCELLED");

        app.execute("DELETE FROM job").await;
        for kind in ["settlement", "expiry", "retention", "audit"] {
            app.execute("DELETE FROM job").await;
            app.execute(&format!("INSERT INTO job (kind, unique_key, state, requests, attempts, run_at, created_at) \
                VALUES ('{kind}', 'k', 'waiting', 1, 0, 0, 0)")).await;
            let id = only_id(app).await;
            for from in ["waiting", "running"] {
                put_into(app, from).await;
                let answer = change(app, "cancelJob", &id).await;
                assert_eq!(refused(&answer), "ILLEGAL_TRANSITION", "{kind} {from}");
                assert!(text(&answer["userErrors"][0]["message"]).contains("next tick"), "{answer}");
            }
            put_into(app, "dead").await;
            assert_eq!(state(&change(app, "cancelJob", &id).await), "CANCELLED", "{kind}");
        }
    }

    /// A program that does not know the state cannot read such a job.
    async fn an_error_shows_no_internals(app: &GraphqlApp) {
        evaluation_of_ada(app).await;
        let error = async |kind: &str| {
            app.execute("UPDATE job SET state = 'waiting', run_at = 0, attempts = 0").await;
            runner::run_due(&app.app).await.unwrap_err();
            let failed = jobs(app, json!({})).await.remove(0);
            assert_eq!((&failed["state"], &failed["attempts"]), (&json!("WAITING"), &json!(1)), "{kind}");
            text(&failed["error"])
        };
        // The state of the customer cannot be read.
        app.execute("UPDATE customer SET head = 'hidden'").await;
        let internal = error("internal").await;
        assert!(internal.starts_with("internal error: see ") && internal.ends_with(" in the log"), "{internal}");
        app.execute("UPDATE customer SET head = ''").await;
        // The database refuses the job's read of the customer.
        let (broken, code) = match app.app.database.backend() {
            DatabaseBackend::Postgres => ("ALTER TABLE customer RENAME TO hidden", "42P01"),
            _ => ("ALTER TABLE customer RENAME TO hidden", "1"),
        };
        app.app.database.write().execute_unprepared(broken).await.unwrap();
        app.execute("UPDATE job SET state = 'waiting', run_at = 0, attempts = 0").await;
        runner::run_due(&app.app).await.unwrap_err();
        let stored = row(app).await.error.unwrap();
        assert!(stored.starts_with(&format!("the database failed with the code {code}: see ")), "{stored}");
        for told in [internal, stored] {
            assert!(!told.contains("hidden") && !told.contains("customer"), "{told}");
        }
    }
}
