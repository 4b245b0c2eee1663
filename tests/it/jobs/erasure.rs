//! The job of an erasure beside everything else that happens: writes on two nodes, subscribers, histories that are long or shared.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use entity::{CustomerId, JobKind, JobState, award, customer, erased_name, job, purchase, purchase_revision};
use futures_util::StreamExt as _;
use sea_orm::{ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, QueryFilter as _, Statement};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use windfall::app::campaign;
use windfall::app::erasure;
use windfall::app::error::Error;
use windfall::app::jobs::queue::{self, End};
use windfall::app::jobs::{erasure as work, periodic, runner};
use windfall::app::purchase as purchases;
use windfall::app::reading::points_update::Feed;
use windfall::app::reading::sweep;
use windfall::app::refund::{self, RecordRefund};
use windfall::engine::external_id::is_erased;
use windfall::engine::time::Instant;

use super::draft;
use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, open, purchase_input};
use crate::support::graphql::customer as token_of;
use crate::support::websocket::PATIENCE;

/// A campaign that gives 10 points for each purchase.
fn each() -> serde_json::Value {
    json!({
        "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
        "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 },
    })
}

async fn request(test: &TestApp, name: &str) -> CustomerId {
    let job = erasure::request(&test.app, &TestApp::actor(), name, name).await.unwrap();
    CustomerId(job.customer_id.unwrap())
}

async fn is_done(test: &TestApp) -> bool {
    let jobs = job::Entity::find().filter(job::Column::Kind.eq(JobKind::Erasure)).all(test.app.database.read()).await;
    jobs.unwrap().iter().all(|job| job.state == JobState::Done)
}

async fn row(test: &TestApp, id: CustomerId) -> customer::Model {
    customer::Entity::find_by_id(id).one(test.app.database.read()).await.unwrap().unwrap()
}

fn refund_of(purchase: &str, id: &str) -> RecordRefund {
    RecordRefund {
        external_id: id.to_owned(),
        purchase_external_id: purchase.to_owned(),
        refunded_at: "2026-11-01T00:00:00Z".to_owned(),
        amount: Some("0.10".to_owned()),
        lines: None,
    }
}

/// While the job runs, two nodes send the orders again, revise them, refund them and record new ones under the old name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_slips_through_while_it_runs() {
    const ORDERS: usize = 700;
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(each()).await;
        let inputs = (0..ORDERS).map(|n| (vec![], purchase_input("ada", &format!("p{n}"), NOW - DAY, "1.00")));
        for part in inputs.collect::<Vec<_>>().chunks(200) {
            for answer in purchases::record(&test.app, &TestApp::shop(), part.to_vec()).await.unwrap() {
                answer.unwrap();
            }
        }
        let nodes = [Arc::clone(&test.app), test.another().await];
        let id = request(&test, "ada").await;
        let stop = Arc::new(AtomicBool::new(false));
        let writers = nodes.iter().enumerate().map(|(node, app)| {
            let (app, stop) = (Arc::clone(app), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut sent, mut new) = (0_usize, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    sent += 1;
                    let order = format!("p{}", rand::random_range(0..ORDERS));
                    let another = format!("new {node} {sent}");
                    let mut revised = purchase_input("carl", &order, NOW - DAY, "2.00");
                    revised.revision = 1;
                    let inputs = match sent % 4 {
                        // A fact under her name, and under another one.
                        0 => vec![purchase_input("ada", &another, NOW - HOUR, "1.00")],
                        1 => vec![purchase_input("ada", &order, NOW - DAY, "1.00")],
                        2 => vec![revised, purchase_input("bob", &format!("bob {another}"), NOW - HOUR, "1.00")],
                        _ => {
                            // Before the erasure begins, it takes points back like any refund.
                            let refund = refund_of(&order, &format!("r {another}"));
                            refund::record(&app, &TestApp::shop(), vec![], refund).await.unwrap();
                            continue;
                        }
                    };
                    if sent.is_multiple_of(4) {
                        new.push(another);
                    }
                    let inputs = inputs.into_iter().map(|input| (vec![], input)).collect();
                    for answer in purchases::record(&app, &TestApp::shop(), inputs).await.unwrap() {
                        answer.unwrap();
                    }
                }
                new
            })
        });
        let writers: Vec<_> = writers.collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        runner::run_due(&test.app).await.unwrap();
        assert!(is_done(&test).await);
        let rest = Duration::from_millis(100);
        tokio::time::sleep(rest).await;
        stop.store(true, Ordering::Relaxed);
        let mut new = HashSet::new();
        for writer in writers {
            new.extend(writer.await.unwrap());
        }
        let db = test.app.database.read();
        let names = erased_name::Entity::find().all(db).await.unwrap();
        assert!(names.len() <= ORDERS + new.len() && names.iter().all(|name| name.customer_id == id), "{engine:?}");
        let carl = test.customer("carl").await.map(|row| row.id);
        let stored = purchase::Entity::find().all(db).await.unwrap();
        for purchase in &stored {
            let is_new = new.contains(&purchase.external_id) || purchase.external_id.starts_with("bob ");
            // Orders that went to carl before the erasure began.
            let is_carls = Some(purchase.customer_id) == carl && purchase.external_id.starts_with('p');
            assert!(is_new || is_carls, "{engine:?}: {purchase:?}");
            assert_ne!(purchase.customer_id, id, "{engine:?}");
        }
        let of_carl = stored.iter().filter(|purchase| Some(purchase.customer_id) == carl).count();
        let of_ada = stored.iter().filter(|purchase| new.contains(&purchase.external_id)).count();
        // Each order is either hashed or carl's, and each new one is hers, old or new.
        assert_eq!(names.len() + of_carl + of_ada, ORDERS + new.len(), "{engine:?}");
        assert!(of_ada > 0, "{engine:?}: she came back");
        test.audit_is_clean().await;
    }
}

/// A batch is held up after it has looked for erased orders, and before it inserts its own. Its order must not go meanwhile, or it
/// would be recorded again. SQLite has one writer, so nothing can come in between there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_in_a_batch_is_not_deleted() {
    let test = TestApp::start(Engine::Postgres).await;
    // The first erasure chooses the key, which waits for batches, too.
    test.buy("eve", "q", NOW - DAY, "1.00").await.unwrap();
    request(&test, "eve").await;
    runner::run_due(&test.app).await.unwrap();
    test.buy("ada", "p", NOW - DAY, "1.00").await.unwrap();
    let database = open(&test.url).await;
    let holding = database.begin().await.unwrap();
    holding.execute_unprepared("SELECT pg_advisory_xact_lock(77)").await.unwrap();
    let stall = "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NEW; END $$; \
        CREATE TRIGGER stall BEFORE INSERT ON purchase FOR EACH ROW EXECUTE FUNCTION stall()";
    test.app.database.write().execute_unprepared(stall).await.unwrap();
    request(&test, "ada").await;
    // On another node, because the commit that replaces the name must not wait for it.
    let again = {
        let app = test.another().await;
        tokio::spawn(async move {
            let input = purchase_input("carl", "p", NOW - DAY, "1.00");
            purchases::record(&app, &TestApp::shop(), vec![(vec![], input)]).await.unwrap().remove(0).unwrap()
        })
    };
    let until = async |sql: &str| {
        let ask = Statement::from_string(database.backend(), sql.to_owned());
        let found = async {
            while database.read().query_one_raw(ask.clone()).await.unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect(sql);
    };
    until("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await;
    let erasing = {
        let app = Arc::clone(&test.app);
        tokio::spawn(async move { runner::run_due(&app).await.unwrap() })
    };
    until("SELECT 1 FROM erased_name HAVING COUNT(*) = 2").await;
    // Time enough to go on, if nothing held it back.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!is_done(&test).await);
    holding.rollback().await.unwrap();
    assert!(again.await.unwrap().replayed);
    erasing.await.unwrap();
    assert!(is_done(&test).await && test.customer("carl").await.is_none());
    let left = purchase::Entity::find().all(test.app.database.read()).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    test.audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_an_erased_customer_is_told() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        test.campaign(each()).await;
        test.buy("ada", "p", NOW - DAY, "1.00").await.unwrap();
        let ada = token_of("ada");
        let feed = Feed::open(Arc::clone(&test.app), ada.require_reader().unwrap(), Instant::FOREVER, None, None);
        let mut stream = Box::pin(feed.await.unwrap().stream());
        let stop = CancellationToken::new();
        let sweeping = tokio::spawn(sweep::run(Arc::clone(&test.app), stop.clone()));
        request(&test, "ada").await;
        runner::run_due(&test.app).await.unwrap();
        let told = tokio::time::timeout(PATIENCE, stream.next()).await.expect("an end in time");
        assert!(matches!(told, Some(Err(Error::CursorUnknown))), "{engine:?}: {told:?}");
        stop.cancel();
        sweeping.await.unwrap();
    }
}

/// What was deferred of her history is evaluated first, so that her points are what they should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deferred_is_evaluated_before() {
    for engine in ENGINES {
        let test = TestApp::start_with(engine, |config| config.writer.fold_purchases = 16).await;
        for n in 0..100 {
            test.buy("ada", &format!("p{n:03}"), NOW - DAY + n, "1.00").await.unwrap();
        }
        let campaign = draft(&test, json!({})).await;
        campaign::activate(&test.app, &TestApp::actor(), campaign).await.unwrap();
        assert_eq!(test.customer("ada").await.unwrap().balance, 0);
        let id = request(&test, "ada").await;
        let claimed = queue::claim(&test.app, &[JobKind::Erasure]).await.unwrap().unwrap();
        work::run(&test.app, &claimed, id).await.unwrap();
        let row = row(&test, id).await;
        assert!(is_erased(&row.external_id));
        assert_eq!((row.balance, row.lifetime), (1_000, 1_000), "{engine:?}");
        queue::end(&test.app, &claimed, End::Done).await.unwrap();
        // The backfill ends, too.
        runner::run_due(&test.app).await.unwrap();
        assert_eq!(row.balance, 1_000);
        test.audit_is_clean().await;
    }
}

/// A settled campaign counts an order that was bob's when it was settled. It goes to ada, and she is erased: what bob got stays explained.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_customer_got_for_her_order_stays() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let mut input = each();
        input["endsAt"] = json!("2026-11-10T00:00:00Z");
        input["lateness"] = json!("P1D");
        input["goal"] = json!({ "purchases": { "atLeast": 3, "repeat": true } });
        test.campaign(input).await;
        // More than one checkpoint.
        for n in 0..300 {
            test.buy("bob", &format!("b{n:03}"), NOW - HOUR + n, "1.00").await.unwrap();
        }
        let refund = refund_of("b100", "bob's refund");
        refund::record(&test.app, &TestApp::shop(), vec![], refund).await.unwrap();
        test.set_now(NOW + 20 * DAY);
        periodic::request_ticks(&test.app, &mut periodic::Requested::default()).await.unwrap();
        runner::run_due(&test.app).await.unwrap();
        assert!(test.app.campaigns().await.unwrap().all()[0].life.settled);
        let before = test.awards("bob").await;
        assert_eq!(before.len(), 100);
        // One of them is in the states of checkpoints.
        let checkpoints = entity::checkpoint::Entity::find().all(test.app.database.read()).await.unwrap();
        let in_state = |n: &i64| checkpoints.iter().any(|row| row.state.matches(&format!("b{n:03}")).count() > 0);
        let handed_over: Vec<i64> = [100, 101, 102].into_iter().chain((103..300).find(in_state)).collect();
        for n in &handed_over {
            let mut over = purchase_input("ada", &format!("b{n:03}"), NOW - HOUR + n, "1.00");
            over.revision = 1;
            test.send(over).await.unwrap();
        }
        refund::record(&test.app, &TestApp::shop(), vec![], refund_of("b101", "ada's refund")).await.unwrap();
        test.audit_is_clean().await;
        let id = request(&test, "ada").await;
        runner::run_due(&test.app).await.unwrap();
        assert!(is_done(&test).await);
        test.audit_is_clean().await;
        let after = test.awards("bob").await;
        let points =
            |awards: &[award::Model]| awards.iter().map(|one| (one.number, one.points, one.status)).collect::<Vec<_>>();
        assert_eq!(points(&before), points(&after), "{engine:?}");
        let renamed =
            |one: &&award::Model| is_erased(&one.purchase_external_id) || is_erased(&one.evidence_from_external_id);
        assert_eq!(after.iter().filter(renamed).count(), 3, "{engine:?}");
        let db = test.app.database.read();
        let stubs = purchase::Entity::find().filter(purchase::Column::CustomerId.eq(id)).all(db).await.unwrap();
        assert!(stubs.len() == 4 && stubs.iter().all(|stub| is_erased(&stub.external_id) && stub.lines == "[]"));
        let refunds = entity::refund::Entity::find().all(db).await.unwrap();
        let refunds: Vec<&str> = refunds.iter().map(|refund| refund.external_id.as_str()).collect();
        assert_eq!(refunds, ["bob's refund"], "{engine:?}");
        let checkpoints = entity::checkpoint::Entity::find().all(db).await.unwrap();
        let names = |id: &str| checkpoints.iter().any(|row| row.external_id == id || row.state.contains(id));
        assert!(checkpoints.len() > 1 && handed_over.iter().all(|n| !names(&format!("b{n:03}"))), "{engine:?}");
    }
}

/// Somebody who is only named by a content that never counted has no row, and can be erased nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_only_named_can_be_erased() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let mut counts = purchase_input("bob", "p", NOW - DAY, "1.00");
        counts.revision = 5;
        test.send(counts).await.unwrap();
        test.buy("ada", "p", NOW - DAY, "1.00").await.unwrap();
        assert!(test.customer("ada").await.is_none());
        let id = request(&test, "ada").await;
        runner::run_due(&test.app).await.unwrap();
        assert!(is_done(&test).await && is_erased(&row(&test, id).await.external_id), "{engine:?}");
        let contents = purchase_revision::Entity::find().all(test.app.database.read()).await.unwrap();
        assert!(contents.len() == 1 && is_erased(&contents[0].customer_external_id), "{engine:?}");
        test.audit_is_clean().await;
        let unknown = erasure::request(&test.app, &TestApp::actor(), "nobody", "nobody").await;
        assert!(matches!(unknown, Err(Error::Refused(_))), "{engine:?}");
    }
}
