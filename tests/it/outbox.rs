//! Events that commits write and the relay publishes, on real databases and without a broker: nothing is lost, and a consumer that follows
//! `docs/events.md` ends with the ledgers of the database.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use entity::{AwardStatus, JobKind, JobState, job, outbox as table};
use futures_util::FutureExt as _;
use parking_lot::Mutex;
use sea_orm::{ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windfall::app::App;
use windfall::app::erasure;
use windfall::app::event::{MAX_EVENT_BYTES, MAX_ITEMS};
use windfall::app::jobs::relay::{self, Needed};
use windfall::app::jobs::runner;
use windfall::app::model::OutboxRow;
use windfall::app::outbox::{self, BUCKETS};
use windfall::app::sink::Published;
use windfall::engine::time::Instant;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, purchase_input};
use crate::support::websocket::PATIENCE;

/// A campaign that gives 10 points for each purchase.
fn each() -> Value {
    json!({
        "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
        "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 },
    })
}

/// What a consumer knows of a customer.
#[derive(Debug, Default)]
struct Known {
    version: i64,
    part: i64,
    sequence: i64,
    points: i64,
    /// The status and the points of each award, by id.
    awards: BTreeMap<String, (String, i64)>,
    balance: Value,
}

/// A consumer of events.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    customers: BTreeMap<String, Known>,
    /// The number of events that were repeated or late.
    pub(crate) ignored: usize,
}

impl Consumer {
    /// The points of a customer, as far as its events are known.
    pub(crate) fn points(&self, customer: &str) -> i64 {
        self.customers.get(customer).map_or(0, |known| known.points)
    }

    /// Takes an event. Fails the test if one before it is missing.
    pub(crate) fn take(&mut self, event: &str, balance: Option<&str>) {
        let event: Value = serde_json::from_str(event).unwrap();
        let name = event["customerExternalId"].as_str().unwrap().to_owned();
        if event.get("erasedAt").is_some() {
            self.customers.remove(&name);
            return;
        }
        let known = self.customers.entry(name).or_default();
        let (version, part) = (event["version"].as_i64().unwrap(), event["part"].as_i64().unwrap());
        if (version, part) <= (known.version, known.part) {
            self.ignored += 1;
            return;
        }
        assert_eq!(part, if version == known.version { known.part + 1 } else { 1 }, "{event}");
        (known.version, known.part) = (version, part);
        for entry in event["entries"].as_array().unwrap() {
            known.sequence += 1;
            assert_eq!(entry["sequence"], known.sequence, "{event}");
            known.points += entry["points"].as_i64().unwrap();
        }
        for award in event["awards"].as_array().unwrap() {
            let state = (award["status"].as_str().unwrap().to_owned(), award["points"].as_i64().unwrap());
            known.awards.insert(award["id"].as_str().unwrap().to_owned(), state);
        }
        if let Some(balance) = balance {
            known.balance = serde_json::from_str(balance).unwrap();
        }
    }
}

/// Where the relays of a test publish to.
#[derive(Clone, Default)]
struct Topic {
    rows: Arc<Mutex<Vec<OutboxRow>>>,
}

impl Topic {
    /// Lets the relay of an application publish to this topic, and `fate` decide whether each publication succeeds.
    fn connect(&self, app: &Arc<App>, fate: impl Fn() -> Fate + Send + Sync + 'static) {
        let rows = Arc::clone(&self.rows);
        let sink = move |events: Vec<OutboxRow>| {
            let (rows, fate) = (Arc::clone(&rows), fate());
            async move {
                let ids = events.iter().map(|row| row.id).collect();
                match fate {
                    Fate::Works => {
                        rows.lock().extend(events);
                        Published { ids, problem: None }
                    }
                    Fate::Fails => Published { ids: Vec::new(), problem: Some("no broker".to_owned()) },
                    Fate::DiesBeforeTheMark => {
                        rows.lock().extend(events);
                        std::future::pending().await
                    }
                    Fate::IsFrozenBefore(thawed) => {
                        // Its thread does nothing else meanwhile, as in a process that is frozen.
                        while !thawed.is_cancelled() {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        rows.lock().extend(events);
                        Published { ids, problem: None }
                    }
                }
            }
            .boxed()
        };
        assert!(app.sink.set(Box::new(sink)).is_ok());
    }

    fn consumer(&self) -> Consumer {
        let mut consumer = Consumer::default();
        for row in &*self.rows.lock() {
            consumer.take(&row.event, row.balance.as_deref());
        }
        consumer
    }

    fn len(&self) -> usize {
        self.rows.lock().len()
    }
}

#[derive(Clone)]
enum Fate {
    Works,
    Fails,
    DiesBeforeTheMark,
    IsFrozenBefore(CancellationToken),
}

/// A relay that runs until it is stopped.
struct Relay {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Relay {
    fn start(app: &Arc<App>) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(relay::run(Arc::clone(app), stop.clone())), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Ends it as the death of its process does.
    async fn kill(self) {
        self.task.abort();
        self.task.await.unwrap_err();
    }
}

async fn until(holds: impl AsyncFn() -> bool, what: &str) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

async fn waiting(app: &App) -> Vec<table::Model> {
    let unpublished = table::Entity::find().filter(table::Column::Published.eq(0));
    unpublished.all(app.database.read()).await.unwrap()
}

async fn all_are_published(app: &App) {
    until(async || waiting(app).await.is_empty(), "all events are published").await;
}

/// Compares what a consumer knows with the database.
async fn knows_everything(consumer: &Consumer, test: &TestApp, customers: &[&str]) {
    assert_eq!(
        consumer.customers.keys().collect::<BTreeSet<_>>(),
        customers.iter().map(|name| name.to_owned().to_owned()).collect::<BTreeSet<String>>().iter().collect()
    );
    for name in customers {
        let (known, row) = (&consumer.customers[*name], test.customer(name).await.unwrap());
        assert_eq!((known.sequence, known.points), (row.ledger_sequence, row.balance), "{name}");
        let standing: i64 =
            known.awards.values().filter(|(status, _)| status == "STANDING").map(|(_, points)| points).sum();
        assert_eq!((standing, &known.balance["lifetime"]), (row.lifetime, &json!(row.lifetime)), "{name}");
        let awards = test.awards(name).await;
        let counted = awards.iter().filter(|award| award.status == AwardStatus::Standing).count();
        assert_eq!(known.awards.values().filter(|(status, _)| status == "STANDING").count(), counted, "{name}");
    }
}

/// Keeps events, without a relay yet.
async fn begin(test: &TestApp, topic: &Topic) {
    topic.connect(&test.app, || Fate::Works);
    let relay = Relay::start(&test.app);
    until(async || test.app.campaigns().await.unwrap().keeps_events, "events are kept").await;
    relay.stop().await;
    test.campaign(each()).await;
}

#[tokio::test]
async fn a_commit_writes_its_events_and_the_relay_publishes_them() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        // Nobody wants events yet. The campaign looks back later, and gives it an award.
        test.buy("ada", "before", NOW - DAY, "1.00").await.unwrap();
        begin(&test, &topic).await;
        for n in 0..40 {
            test.buy(["bob", "cyd", "dan"][n % 3], &format!("p{n}"), NOW - DAY, "1.00").await.unwrap();
        }
        let kept = waiting(&test.app).await;
        assert_eq!(kept.len(), 41, "one for each commit");
        // What changes nothing of the points is no event.
        test.buy("bob", "p0", NOW - DAY, "1.00").await.unwrap();
        test.buy("bob", "nothing", NOW - DAY, "0.00").await.unwrap();
        assert_eq!(waiting(&test.app).await.len(), 41, "a purchase of 0 has no award");
        let relay = Relay::start(&test.app);
        all_are_published(&test.app).await;
        // One that is committed while the relay waits is published at once.
        test.buy("bob", "late", NOW - 2 * DAY, "1.00").await.unwrap();
        all_are_published(&test.app).await;
        let running = job::Entity::find()
            .filter(job::Column::Kind.eq(JobKind::Outbox))
            .all(test.app.database.read())
            .await
            .unwrap();
        assert!(running.len() == BUCKETS as usize && running.iter().all(|job| job.state == JobState::Running));
        relay.stop().await;
        let consumer = topic.consumer();
        assert_eq!(consumer.ignored, 0);
        knows_everything(&consumer, &test, &["ada", "bob", "cyd", "dan"]).await;
        let row = topic.rows.lock().last().unwrap().clone();
        let customer = test.customer("bob").await.unwrap();
        assert_eq!((row.key.as_str(), row.version), ("bob", customer.version));
        assert_eq!(row.event_id, windfall::app::cursor::Cursor::of(&customer).to_text(), "{engine:?}");
    }
}

#[tokio::test]
async fn a_change_of_many_awards_is_told_in_parts() {
    const PURCHASES: usize = 3_000;
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        begin(&test, &topic).await;
        // Every second purchase is an award, so a late one at the beginning moves all of them.
        let second = json!({
            "name": "second", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
            "goal": { "purchases": { "atLeast": 2, "repeat": true } }, "award": { "points": 1 },
        });
        test.campaign(second).await;
        for chunk in (0..PURCHASES).collect::<Vec<_>>().chunks(500) {
            let at = |n: &usize| NOW - 100 * DAY + i64::try_from(*n).unwrap() * HOUR / 2;
            let facts = chunk.iter().map(|n| test.buy_fact("ada", &format!("p{n:05}"), at(n), "1.00")).collect();
            test.record(facts).await;
        }
        test.buy("ada", "late", NOW - 101 * DAY, "1.00").await.unwrap();
        let rows = waiting(&test.app).await;
        let last = rows.iter().map(|row| row.version).max().unwrap();
        let of_last: Vec<_> = rows.iter().filter(|row| row.version == last).collect();
        assert!(of_last.len() >= PURCHASES / 2 / MAX_ITEMS, "{}", of_last.len());
        assert!(rows.iter().all(|row| row.event.len() < MAX_EVENT_BYTES));
        assert_eq!(of_last.iter().filter(|row| row.balance.is_some()).count(), 1, "the last part has the balance");
        let relay = Relay::start(&test.app);
        all_are_published(&test.app).await;
        relay.stop().await;
        let ids: BTreeSet<String> = topic.rows.lock().iter().map(|row| row.event_id.clone()).collect();
        assert_eq!(ids.len(), topic.len(), "each event has an id of its own");
        knows_everything(&topic.consumer(), &test, &["ada"]).await;
    }
}

#[tokio::test]
async fn a_relay_that_dies_between_publication_and_mark_repeats_its_events() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        let fates = Mutex::new(vec![Fate::Works, Fate::DiesBeforeTheMark, Fate::Fails]);
        topic.connect(&test.app, move || fates.lock().pop().unwrap_or(Fate::Works));
        let relay = Relay::start(&test.app);
        until(async || test.app.campaigns().await.unwrap().keeps_events, "events are kept").await;
        test.campaign(each()).await;
        for n in 0..20 {
            test.buy(["ada", "bob"][n % 2], &format!("p{n}"), NOW - DAY, "1.00").await.unwrap();
        }
        // The first attempt fails, and the second one publishes and dies.
        until(async || topic.len() > 0, "events are published").await;
        relay.kill().await;
        let published = topic.len();
        assert!(!waiting(&test.app).await.is_empty());
        let other = test.another().await;
        topic.connect(&other, || Fate::Works);
        let relay = Relay::start(&other);
        // The lease of the dead one still runs.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(topic.len(), published);
        test.set_now(NOW + 60_000_000);
        all_are_published(&test.app).await;
        relay.stop().await;
        let consumer = topic.consumer();
        assert_eq!(consumer.ignored, published, "{engine:?}");
        knows_everything(&consumer, &test, &["ada", "bob"]).await;
    }
}

#[tokio::test]
async fn what_a_frozen_relay_publishes_late_is_ignored() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        begin(&test, &topic).await;
        let frozen = test.another().await;
        let thawed = CancellationToken::new();
        topic.connect(&frozen, {
            let thawed = thawed.clone();
            move || Fate::IsFrozenBefore(thawed.clone())
        });
        for n in 0..10 {
            test.buy("ada", &format!("p{n}"), NOW - DAY, "1.00").await.unwrap();
        }
        let stop = CancellationToken::new();
        let late = {
            let (stop, runtime) =
                (stop.clone(), tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
            std::thread::spawn(move || runtime.block_on(relay::run(frozen, stop)))
        };
        let running = || job::Entity::find().filter(job::Column::State.eq(JobState::Running));
        until(
            async || running().all(test.app.database.read()).await.unwrap().len() == BUCKETS as usize,
            "it has all buckets",
        )
        .await;
        // Another one takes over once the leases have expired, and publishes more.
        test.set_now(NOW + 60_000_000);
        let relay = Relay::start(&test.app);
        all_are_published(&test.app).await;
        test.buy("ada", "more", NOW - DAY, "1.00").await.unwrap();
        all_are_published(&test.app).await;
        let published = topic.len();
        thawed.cancel();
        until(async || topic.len() > published, "the frozen one goes on").await;
        stop.cancel();
        tokio::task::spawn_blocking(|| late.join().unwrap()).await.unwrap();
        relay.stop().await;
        let consumer = topic.consumer();
        assert_eq!(consumer.ignored, topic.len() - published, "{engine:?}");
        knows_everything(&consumer, &test, &["ada"]).await;
    }
}

/// A transaction takes a low id and stays open while later ids are published. Nothing of it is lost.
#[tokio::test]
async fn a_transaction_that_stays_open_loses_no_event() {
    let (test, topic) = (TestApp::start(Engine::Postgres).await, Topic::default());
    begin(&test, &topic).await;
    test.buy("ada", "first", NOW - DAY, "1.00").await.unwrap();
    let relay = Relay::start(&test.app);
    all_are_published(&test.app).await;
    let open = test.app.database.begin().await.unwrap();
    let mut held = topic.rows.lock()[0].clone();
    held.event = held.event.replace("\"ada\"", "\"zoe\"");
    let copy = format!(
        "INSERT INTO outbox (segment, bucket, customer_id, version, part, key, event_id, event, balance, erases, committed_at, published) \
         VALUES ({}, {}, 7777, 1, 1, 'zoe', 'x', '{}', NULL, 0, 0, 0)",
        held.segment, held.bucket, held.event
    );
    open.execute_unprepared(&copy).await.unwrap();
    for n in 0..30 {
        test.buy("ada", &format!("p{n}"), NOW - DAY, "1.00").await.unwrap();
    }
    all_are_published(&test.app).await;
    assert_eq!(topic.len(), 31, "nobody waits for it");
    // For so long that a search could have left its place behind.
    for _ in 0..12 {
        open.execute_unprepared("SELECT 1").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    test.buy("ada", "more", NOW - DAY, "1.00").await.unwrap();
    all_are_published(&test.app).await;
    open.commit().await.unwrap();
    // The next event of the same customer, with a greater id.
    test.app.database.write().execute_unprepared(&copy.replace("7777, 1,", "7777, 2,")).await.unwrap();
    until(async || topic.len() == 34, "its events are published").await;
    relay.stop().await;
    let rows = topic.rows.lock();
    let [.., before, late, next] = &rows[..] else { panic!("three events") };
    assert_eq!([(&*late.key, late.version), (&*next.key, next.version)], [("zoe", 1), ("zoe", 2)], "in order");
    assert!(late.id < before.id && before.id < next.id, "it has a lower id than others");
}

/// The names of the segments that have rows.
async fn segments(test: &TestApp) -> BTreeSet<i32> {
    table::Entity::find().all(test.app.database.read()).await.unwrap().iter().map(|row| row.segment).collect()
}

#[tokio::test]
async fn published_segments_are_emptied_but_not_under_a_backup() {
    let (test, topic) = (TestApp::start(Engine::Postgres).await, Topic::default());
    begin(&test, &topic).await;
    let relay = Relay::start(&test.app);
    // So much that the backup cannot write all of it before somebody reads it.
    for chunk in 0..4 {
        let facts = (0..500).map(|n| test.buy_fact("ada", &format!("{chunk}-{n}"), NOW - DAY, "1.00")).collect();
        test.record(facts).await;
    }
    all_are_published(&test.app).await;
    let first = segments(&test).await;
    assert_eq!(first.len(), 1);
    let later = Instant(NOW + 11 * 60_000_000);
    test.set_now(later.0);
    let mut backup =
        Command::new(crate::operations::program("pg_dump")).arg(&test.url).stdout(Stdio::piped()).spawn().unwrap();
    let locks = "SELECT 1 FROM pg_locks WHERE relation = 'outbox_0'::regclass AND mode = 'AccessShareLock' AND granted";
    until(
        async || test.app.database.read().execute_unprepared(locks).await.unwrap().rows_affected() > 0,
        "the backup runs",
    )
    .await;
    assert_eq!(outbox::trim(&test.app.database, later).await.unwrap(), 0);
    // Nobody waits for the backup.
    test.buy("ada", "meanwhile", NOW - DAY, "1.00").await.unwrap();
    all_are_published(&test.app).await;
    assert_eq!(segments(&test).await.len(), 2);
    std::io::copy(&mut backup.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
    assert!(backup.wait().unwrap().success());
    // A statement of the relay may use the segment just then.
    until(async || outbox::trim(&test.app.database, later).await.unwrap() == 1, "the segment is emptied").await;
    let left = segments(&test).await;
    assert!(left.len() == 1 && left != first, "the one that is written to stays");
    // Nor is a segment emptied that has an event to be published.
    relay.stop().await;
    test.buy("ada", "unpublished", NOW - DAY, "1.00").await.unwrap();
    assert_eq!(outbox::trim(&test.app.database, Instant(later.0 + 11 * 60_000_000)).await.unwrap(), 0);
}

#[tokio::test]
async fn an_erasure_reaches_the_outbox() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        begin(&test, &topic).await;
        for (customer, id) in [("ada lovelace", "p1"), ("bob", "p2"), ("ada lovelace", "p3")] {
            test.buy(customer, id, NOW - DAY, "1.00").await.unwrap();
        }
        // One event of hers is published, and its row is still there on PostgreSQL.
        let hers = waiting(&test.app).await.into_iter().find(|row| row.key.starts_with("ada")).unwrap();
        outbox::mark(&test.app.database, &[hers.id]).await.unwrap();
        erasure::request(&test.app, &TestApp::actor(), "ada lovelace", "ada lovelace").await.unwrap();
        runner::run_due(&test.app).await.unwrap();
        let rows = table::Entity::find().all(test.app.database.read()).await.unwrap();
        let told: Vec<_> = rows.iter().map(|row| (row.key.as_str(), row.erases)).collect();
        assert_eq!(told, [("bob", 0), ("ada lovelace", 1)], "{engine:?}");
        let relay = Relay::start(&test.app);
        all_are_published(&test.app).await;
        relay.stop().await;
        let erased = topic.rows.lock().iter().find(|row| row.erases > 0).cloned().unwrap();
        assert_eq!((erased.key.as_str(), erased.erases, erased.balance), ("ada lovelace", 1, None));
        assert!(serde_json::from_str::<Value>(&erased.event).unwrap().get("erasedAt").is_some());
        let rows = table::Entity::find().all(test.app.database.read()).await.unwrap();
        assert!(rows.iter().all(|row| !row.key.contains("lovelace")), "{engine:?}: the name is gone");
    }
}

#[tokio::test]
async fn events_wait_while_they_cannot_be_published() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        let works = CancellationToken::new();
        topic.connect(&test.app, {
            let works = works.clone();
            move || if works.is_cancelled() { Fate::Works } else { Fate::Fails }
        });
        let relay = Relay::start(&test.app);
        until(async || test.app.campaigns().await.unwrap().keeps_events, "events are kept").await;
        test.campaign(each()).await;
        test.send(purchase_input("ada", "p1", NOW - DAY, "1.00")).await.unwrap();
        until(async || test.app.publishing.problem().is_some(), "the problem is told").await;
        works.cancel();
        all_are_published(&test.app).await;
        until(async || test.app.publishing.problem().is_none(), "the problem is over").await;
        relay.stop().await;
    }
}

/// A customer who comes back under the name of an erased one: the erasure is told before.
#[tokio::test]
async fn who_comes_back_after_an_erasure_is_told_of_afterwards() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        begin(&test, &topic).await;
        for n in 0..5 {
            test.buy("ada", &format!("p{n}"), NOW - DAY, "1.00").await.unwrap();
        }
        // So that the second one has another number.
        test.buy("bob", "b", NOW - DAY, "1.00").await.unwrap();
        let bucket = waiting(&test.app).await.into_iter().find(|row| row.key == "ada").unwrap().bucket;
        erasure::request(&test.app, &TestApp::actor(), "ada", "ada").await.unwrap();
        runner::run_due(&test.app).await.unwrap();
        test.buy("ada", "back", NOW - DAY, "1.00").await.unwrap();
        // Nothing keeps the order of events in different buckets.
        let rows = waiting(&test.app).await;
        assert!(rows.iter().filter(|row| row.key == "ada").all(|row| row.bucket == bucket), "{engine:?}");
        let relay = Relay::start(&test.app);
        all_are_published(&test.app).await;
        relay.stop().await;
        let told: Vec<(i64, i32)> =
            topic.rows.lock().iter().filter(|row| row.key == "ada").map(|row| (row.version, row.erases)).collect();
        assert!(matches!(told[..], [(_, 1), (1, 0)]), "{engine:?}: {told:?}");
        knows_everything(&topic.consumer(), &test, &["ada", "bob"]).await;
    }
}

#[tokio::test]
async fn events_are_given_up_only_if_nobody_needs_them() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        begin(&test, &topic).await;
        let relay = Relay::start(&test.app);
        test.buy("ada", "p1", NOW - DAY, "1.00").await.unwrap();
        all_are_published(&test.app).await;
        assert_eq!(relay::give_up(&test.app).await.unwrap(), Some(Needed::ByANode));
        relay.stop().await;
        erasure::request(&test.app, &TestApp::actor(), "ada", "ada").await.unwrap();
        runner::run_due(&test.app).await.unwrap();
        assert_eq!(relay::give_up(&test.app).await.unwrap(), Some(Needed::ForAnErasure));
        let relay = Relay::start(&test.app);
        all_are_published(&test.app).await;
        relay.stop().await;
        test.buy("bob", "p2", NOW - DAY, "1.00").await.unwrap();
        assert_eq!(relay::give_up(&test.app).await.unwrap(), None);
        test.buy("bob", "p3", NOW - DAY, "1.00").await.unwrap();
        assert!(waiting(&test.app).await.is_empty(), "{engine:?}: nothing is kept any more");
        let jobs =
            job::Entity::find().filter(job::Column::Kind.eq(JobKind::Outbox)).all(test.app.database.read()).await;
        assert!(jobs.unwrap().is_empty());
        // A later relay begins again.
        let relay = Relay::start(&test.app);
        until(async || test.app.campaigns().await.unwrap().keeps_events, "events are kept again").await;
        test.buy("bob", "p4", NOW - DAY, "1.00").await.unwrap();
        all_are_published(&test.app).await;
        relay.stop().await;
        assert_eq!(topic.rows.lock().last().unwrap().key, "bob");
    }
}

#[tokio::test]
async fn what_a_repair_corrects_is_told() {
    for engine in ENGINES {
        let (test, topic) = (TestApp::start(engine).await, Topic::default());
        begin(&test, &topic).await;
        for n in 0..3 {
            test.buy("ada", &format!("p{n}"), NOW - DAY, "1.00").await.unwrap();
        }
        let db = test.app.database.write();
        db.execute_unprepared("UPDATE award SET points = 99 WHERE number = 2").await.unwrap();
        // A repair goes on behind the latest version that it finds.
        db.execute_unprepared("UPDATE customer SET version = 1").await.unwrap();
        windfall::app::audit::run(&test.app, Some(&TestApp::admin()), |_| {}).await.unwrap();
        let relay = Relay::start(&test.app);
        all_are_published(&test.app).await;
        relay.stop().await;
        let consumer = topic.consumer();
        assert_eq!(consumer.ignored, 0, "{engine:?}");
        knows_everything(&consumer, &test, &["ada"]).await;
    }
}
