//! Messages of a partition: what is recorded, what waits, and what becomes a dead letter. The messages come from the tests, not from a
//! broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use entity::{dead_letter, export_chunk, ingest_position, refund, waiting_fact};
use parking_lot::Mutex;
use sea_orm::EntityTrait as _;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windfall::app::App;
use windfall::app::ingest_position::{From, Place, Stop, resume};
use windfall::app::jobs::{periodic, runner};
use windfall::app::message::Message;
use windfall::app::waiting_fact as waiting;
use windfall::ingest::partition::{MAX_FAILURES, Partition, Report};

use crate::support::app::TestApp;
use crate::support::graphql::{GraphqlApp, admin, codes, on_both, text};
use crate::support::websocket::PATIENCE;

mod letters;

const TOPIC: &str = "orders";

fn place() -> Place {
    Place { group: "windfall".to_owned(), topic: TOPIC.to_owned(), partition: 3 }
}

/// A partition that a consumer reads.
pub(crate) struct Reading {
    messages: UnboundedSender<Message>,
    pub(crate) reports: Arc<Mutex<Vec<Report>>>,
    revoked: CancellationToken,
    task: JoinHandle<()>,
    next: AtomicI64,
}

impl Reading {
    /// Begins to read at this offset.
    pub(crate) fn begin(app: &Arc<App>, offset: i64, resumes: i64) -> Self {
        let (messages, queue) = unbounded_channel();
        let (reports, revoked) = (Arc::<Mutex<Vec<Report>>>::default(), CancellationToken::new());
        let partition =
            Partition { app: Arc::clone(app), place: place(), resumes, map: None, revoked: revoked.clone() };
        let noted = Arc::clone(&reports);
        let task = tokio::spawn(partition.run(queue, move |report| noted.lock().push(report)));
        Self { messages, reports, revoked, task, next: AtomicI64::new(offset) }
    }

    pub(crate) fn send(&self, value: impl AsRef<[u8]>) -> i64 {
        self.send_message(Some(value.as_ref().to_vec()), None)
    }

    pub(crate) fn send_message(&self, value: Option<Vec<u8>>, key: Option<&str>) -> i64 {
        let offset = self.next.fetch_add(1, Ordering::Relaxed);
        let key = key.map(|key| key.as_bytes().to_vec());
        let headers = vec![("source".to_owned(), Some(b"till 7".to_vec()))];
        let message = Message { topic: TOPIC.into(), partition: 3, offset, key, headers, value, sent_at: None };
        // The reader may have stopped.
        let _ = self.messages.send(message);
        offset
    }

    /// Waits until everything that was sent is done. Returns what was reported.
    pub(crate) async fn end(self) -> Vec<Report> {
        drop(self.messages);
        self.task.await.unwrap();
        Arc::into_inner(self.reports).unwrap().into_inner()
    }

    /// Takes the partition away.
    pub(crate) async fn revoke(self) {
        self.revoked.cancel();
        self.task.await.unwrap();
    }
}

pub(crate) fn purchase(id: &str, customer: &str) -> String {
    let fact = json!({
        "externalId": id, "customerExternalId": customer, "purchasedAt": "2026-11-02T10:00:00Z", "total": "10.00", "currency": "EUR",
    });
    fact.to_string()
}

pub(crate) fn refund_of(purchase: &str, id: &str) -> String {
    let refund = json!({ "externalId": id, "purchaseExternalId": purchase, "refundedAt": "2026-11-02T11:00:00Z", "amount": "4.00" });
    json!({ "refund": refund }).to_string()
}

fn adjustment(customer: &str, key: &str) -> String {
    let adjustment = json!({ "customerExternalId": customer, "points": 5, "reason": "welcome", "idempotencyKey": key });
    json!({ "adjustment": adjustment }).to_string()
}

async fn each(app: &GraphqlApp) {
    app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 } })).await;
}

async fn balance(app: &GraphqlApp, customer: &str) -> i64 {
    app.customer(customer).await.map_or(0, |customer| customer.lifetime)
}

async fn position(app: &GraphqlApp) -> Option<ingest_position::Model> {
    ingest_position::Entity::find().one(app.app.database.read()).await.unwrap()
}

pub(crate) async fn dead(app: &GraphqlApp) -> Vec<dead_letter::Model> {
    dead_letter::Entity::find().all(app.app.database.read()).await.unwrap()
}

pub(crate) async fn waits(app: &GraphqlApp) -> Vec<waiting_fact::Model> {
    waiting_fact::Entity::find().all(app.app.database.read()).await.unwrap()
}

async fn refunds(app: &GraphqlApp) -> usize {
    refund::Entity::find().all(app.app.database.read()).await.unwrap().len()
}

on_both! {
    async fn facts_are_recorded_once_and_the_position_follows(app: &GraphqlApp) {
        each(app).await;
        let reading = Reading::begin(&app.app, 0, 0);
        for n in 0..50 {
            reading.send(purchase(&format!("p{n}"), "ada"));
        }
        reading.send(adjustment("ada", "k"));
        let last = reading.send(refund_of("p7", "r7"));
        let reports = reading.end().await;
        assert_eq!(reports.last(), Some(&Report::Saved { offset: last }));
        assert_eq!((balance(app, "ada").await, refunds(app).await), (500, 1));
        assert_eq!(app.ledger("ada").await.len(), 51, "the adjustment too");
        let saved = position(app).await.unwrap();
        assert_eq!((saved.last_offset, saved.resumes, saved.stopped), (Some(last), 0, None));

        // A consumer that was frozen reads the same messages again, and stores nothing.
        let late = Reading::begin(&app.app, 0, 0);
        for n in 0..50 {
            late.send(purchase(&format!("p{n}"), "ada"));
        }
        late.end().await;
        assert_eq!(app.ledger("ada").await.len(), 51);
        assert_eq!(position(app).await.unwrap().last_offset, Some(last), "a position moves forward only");
        assert!(dead(app).await.is_empty());
    }

    async fn a_refund_waits_for_its_purchase(app: &GraphqlApp) {
        each(app).await;
        let reading = Reading::begin(&app.app, 0, 0);
        reading.send(refund_of("late", "r1"));
        reading.send(refund_of("never", "r2"));
        reading.end().await;
        assert_eq!((waits(app).await.len(), refunds(app).await), (2, 0));
        assert_eq!(position(app).await.unwrap().last_offset, Some(1), "a refund that waits holds up nothing");

        // Whoever records the purchase wakes it, also another node.
        let stop = CancellationToken::new();
        let waking = tokio::spawn(waiting::run(Arc::clone(&app.app), stop.clone()));
        app.purchase("late", "ada", "2026-11-02T10:00:00Z", "10").await;
        until(async || refunds(app).await > 0).await;
        until(async || waits(app).await.len() == 1).await;
        stop.cancel();
        waking.await.unwrap();

        // The other one becomes a dead letter after seven days.
        app.set_clock("2026-11-09T11:59:59Z");
        tick(app).await;
        assert_eq!((waits(app).await.len(), dead(app).await.len()), (1, 0));
        app.set_clock("2026-11-09T12:01:00Z");
        tick(app).await;
        assert!(waits(app).await.is_empty());
        let [letter] = &dead(app).await[..] else { panic!("one dead letter") };
        assert_eq!((letter.message_offset, &*letter.payload), (1, refund_of("never", "r2").as_bytes()));
        assert!(letter.reason.contains("no such purchase has been recorded"), "{}", letter.reason);
    }

    async fn a_refund_waits_for_the_content_that_allows_it(app: &GraphqlApp) {
        let reading = Reading::begin(&app.app, 0, 0);
        let line = |sku: &str, revision: i64| {
            let mut fact: Value = serde_json::from_str(&purchase("p", "ada")).unwrap();
            fact["lines"] = json!([{ "sku": sku, "amount": "10.00" }]);
            fact["revision"] = json!(revision);
            fact.to_string()
        };
        reading.send(line("tea", 0));
        let refund = json!({ "externalId": "r", "purchaseExternalId": "p", "refundedAt": "2026-11-02T11:00:00Z",
            "lines": [{ "sku": "cup", "amount": "1.00" }] });
        reading.send(json!({ "refund": refund }).to_string());
        reading.send(line("cup", 1));
        reading.end().await;
        waiting::try_those_of(&app.app, vec!["p".to_owned()]).await.unwrap();
        assert_eq!((waits(app).await.len(), dead(app).await.len(), refunds(app).await), (0, 0, 1));
    }

    async fn a_purchase_in_a_commit_does_not_miss_the_refund_that_comes_to_wait(app: &GraphqlApp) {
        // The first refund that ever waits makes all batches look for refunds.
        assert!(!app.app.campaigns().await.unwrap().keeps_facts);
        let stop = CancellationToken::new();
        let waking = tokio::spawn(waiting::run(Arc::clone(&app.app), stop.clone()));
        for n in 0..20 {
            let (id, refund) = (format!("p{n}"), format!("r{n}"));
            let reading = Reading::begin(&app.app, 10 * n, 0);
            reading.send(refund_of(&id, &refund));
            let (_, _) = tokio::join!(reading.end(), app.purchase(&id, "ada", "2026-11-02T10:00:00Z", "10"));
        }
        until(async || refunds(app).await == 20).await;
        stop.cancel();
        waking.await.unwrap();
        assert_eq!((refunds(app).await, waits(app).await.len()), (20, 0));
    }

    async fn poison_becomes_dead_letters_and_holds_up_nothing(app: &GraphqlApp) {
        each(app).await;
        let reading = Reading::begin(&app.app, 0, 0);
        let mut poison: Vec<Option<Vec<u8>>> = vec![
            None,
            Some(Vec::new()),
            Some(b"\xff\xfe\x00".to_vec()),
            Some(vec![b'['; 100_000]),
            Some(vec![b'x'; 10_000_000]),
            Some(br#"{"externalId":"n","customerExternalId":"ada","purchasedAt":"2026-11-02T10:00:00Z","total":NaN}"#.to_vec()),
        ];
        let with = |field: &str, value: Value| {
            let mut fact: Value = serde_json::from_str(&purchase("poison", "ada")).unwrap();
            fact[field] = value;
            Some(fact.to_string().into_bytes())
        };
        poison.extend([
            with("total", json!("99999999999999999999999")),
            with("total", json!("1e400")),
            with("purchasedAt", json!("2999-01-01T00:00:00Z")),
            with("purchasedAt", json!("0000-01-01T00:00:00Z")),
            with("externalId", json!("a\0b")),
            with("currency", Value::Null),
        ]);
        let count = poison.len();
        for (n, value) in poison.into_iter().enumerate() {
            reading.send_message(value, Some("ada"));
            reading.send(purchase(&format!("p{n}"), "ada"));
        }
        // Fields that nobody knows are no poison, and neither is an old purchase.
        reading.send_message(with("colour", json!("red")), None);
        let last = reading.send_message(with("externalId", json!("old")), None);
        reading.end().await;
        let letters = dead(app).await;
        let offsets: Vec<i64> = letters.iter().map(|letter| letter.message_offset).collect();
        assert_eq!(offsets, (0..count as i64).map(|n| 2 * n).collect::<Vec<_>>());
        assert_eq!(balance(app, "ada").await, 10 * (count as i64 + 2));
        assert_eq!(position(app).await.unwrap().last_offset, Some(last));
        let large = letters.iter().find(|letter| letter.size == Some(10_000_000)).unwrap();
        assert_eq!(large.payload.len(), 65_536);
        assert_eq!(letters[0].size, None);
        // Read again, they stay what they are.
        let again = Reading::begin(&app.app, 0, 0);
        again.send_message(None, Some("ada"));
        again.end().await;
        assert_eq!(dead(app).await.len(), count);
    }

    async fn a_producer_of_poison_is_stopped(app: &GraphqlApp) {
        let reading = Reading::begin(&app.app, 0, 0);
        reading.send(purchase("p", "ada"));
        for _ in 0..MAX_FAILURES + 50 {
            reading.send("{");
        }
        let reports = reading.end().await;
        assert_eq!(reports.last(), Some(&Report::Stopped(Stop::Failing)));
        assert_eq!(dead(app).await.len(), MAX_FAILURES);
        let stopped = position(app).await.unwrap();
        assert_eq!((stopped.last_offset, stopped.stopped.as_deref()), (Some(MAX_FAILURES as i64), Some("failing")));

        // It goes on where it stopped. The consumer of before stores nothing any more.
        assert_eq!(resume(&app.app, &place(), None).await.unwrap(), Some(From::Position));
        let resumed = position(app).await.unwrap();
        assert_eq!((resumed.last_offset, resumed.stopped, resumed.resumes), (Some(MAX_FAILURES as i64), None, 1));
        let zombie = Reading::begin(&app.app, 500, 0);
        zombie.send(purchase("q", "ada"));
        zombie.end().await;
        assert_eq!(position(app).await.unwrap().last_offset, Some(MAX_FAILURES as i64));
        let again = Reading::begin(&app.app, 200, 1);
        again.send(purchase("r", "ada"));
        again.end().await;
        assert_eq!(position(app).await.unwrap().last_offset, Some(200));
        assert_eq!(resume(&app.app, &place(), None).await.unwrap(), None, "it is not stopped");
        assert_eq!(resume(&app.app, &place(), Some(7)).await.unwrap(), Some(From::Offset(7)));
        assert_eq!(position(app).await.unwrap().last_offset, Some(6));
    }

    async fn a_revoked_partition_finishes_its_commit_and_drops_the_rest(app: &GraphqlApp) {
        each(app).await;
        let reading = Reading::begin(&app.app, 0, 0);
        for n in 0..5_000 {
            reading.send(purchase(&format!("p{n}"), "ada"));
        }
        until(async || balance(app, "ada").await > 0).await;
        reading.revoke().await;
        let (done, last) = (balance(app, "ada").await / 10, position(app).await.unwrap().last_offset.unwrap());
        assert!(done < 5_000 && last < done, "{done} are recorded, and {last} is the last one that is done");
        // Another consumer goes on where the position is.
        let next = Reading::begin(&app.app, last + 1, 0);
        for n in last + 1..5_000 {
            next.send(purchase(&format!("p{n}"), "ada"));
        }
        next.end().await;
        assert_eq!((balance(app, "ada").await, position(app).await.unwrap().last_offset), (50_000, Some(4_999)));
    }

    async fn a_database_that_fails_holds_up_and_loses_nothing(app: &GraphqlApp) {
        each(app).await;
        let reading = Reading::begin(&app.app, 0, 0);
        app.execute("ALTER TABLE dead_letter RENAME TO away").await;
        reading.send("{");
        reading.send(purchase("p", "ada"));
        until(async || balance(app, "ada").await > 0).await;
        assert_eq!(position(app).await, None, "the dead letter cannot be kept");
        app.execute("ALTER TABLE away RENAME TO dead_letter").await;
        reading.end().await;
        assert_eq!(position(app).await.unwrap().last_offset, Some(1));
        assert_eq!((dead(app).await.len(), balance(app, "ada").await), (1, 10));
    }

    async fn an_erasure_reaches_messages_that_are_kept(app: &GraphqlApp) {
        let reading = Reading::begin(&app.app, 0, 0);
        reading.send(purchase("p", "ada"));
        reading.send(purchase("q", "bob"));
        for value in [r#"{"customerExternalId":"ada""#, r#"{"customerExternalId":"ada"}"#, r#"{"customerExternalId":"adam"}"#] {
            reading.send(value);
        }
        reading.send_message(None, Some("ada"));
        let too_much = |purchase: &str| refund_of(purchase, "r").replace("4.00", "400.00");
        reading.send(too_much("p"));
        reading.send(too_much("q"));
        reading.send(refund_of("unknown", "r"));
        reading.end().await;
        assert_eq!((dead(app).await.len(), waits(app).await.len()), (4, 3));
        // Until then, its export has them.
        windfall::app::export::request(&app.app, &TestApp::actor(), "ada").await.unwrap();
        runner::run_due(&app.app).await.unwrap();
        let chunks = export_chunk::Entity::find().all(app.app.database.read()).await.unwrap();
        let exported = String::from_utf8(chunks.into_iter().flat_map(|chunk| chunk.content).collect()).unwrap();
        let waiting: Vec<&str> = exported.lines().filter(|line| line.contains(r#""type":"waitingRefund""#)).collect();
        assert!(waiting.len() == 1 && waiting[0].contains(r#""purchaseExternalId":"p""#), "{exported}");
        windfall::app::erasure::request(&app.app, &TestApp::actor(), "ada", "ada").await.unwrap();
        runner::run_due(&app.app).await.unwrap();
        let payloads: Vec<_> = dead(app).await.into_iter().map(|letter| String::from_utf8(letter.payload).unwrap()).collect();
        assert_eq!(payloads, [r#"{"customerExternalId":"adam"}"#]);
        let left: Vec<_> = waits(app).await.into_iter().map(|row| row.purchase_external_id).collect();
        assert_eq!(left, ["q", "unknown"]);
    }
}

/// Waits until the condition holds.
async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it happens in time");
}

/// Runs the tick of the job that tries refunds again.
async fn tick(app: &GraphqlApp) {
    periodic::request_ticks(&app.app, &mut periodic::Requested::default()).await.unwrap();
    runner::run_due(&app.app).await.unwrap();
}
