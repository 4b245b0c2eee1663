//! `windfall audit` finds all data that was tampered with, and reports its owner and both values. `--repair` restores what can
//! be restored.

use sea_orm::{ConnectionTrait, EntityTrait};
use serde_json::json;
use windfall::app::audit;
use windfall::app::audit::difference::Difference;
use windfall::app::jobs::settlement;
use windfall::app::recorder::fact::Fact;
use windfall::app::refund::{self, RecordRefund};
use windfall::app::stored::running::Running;
use windfall::engine::lifecycle::Status;
use windfall::engine::time::Instant;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, NOW, TestApp, cases, purchase_input};

mod beside;
mod points;
mod size;

const PAIRS: &str = "pairs";
const LIMITED: &str = "limited";

/// Two campaigns, the second with a budget for three awards, and enough purchases of two customers to have checkpoints.
async fn with_history(engine: Engine) -> TestApp {
    let test = TestApp::start(engine).await;
    test.campaign(json!({
        "name": PAIRS, "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR",
        "window": {"calendar": {"unit": "MONTH"}},
        "goal": {"purchases": {"atLeast": 2, "repeat": true}}, "award": {"points": 10}
    }))
    .await;
    test.campaign(json!({
        "name": LIMITED, "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": {"campaign": "WHOLE"},
        "goal": {"purchases": {"atLeast": 30, "repeat": true}}, "award": {"points": 7}, "budget": 21
    }))
    .await;
    for customer in ["ada", "bob"] {
        let facts = (0..70).map(|n| {
            let input = purchase_input(customer, &format!("{customer}-{n:02}"), NOW - 20 * DAY + n * HOUR, "5.00");
            Fact::Purchase(input.check(&[], Instant(NOW)).unwrap())
        });
        test.record(facts.collect()).await;
    }
    // Three of the four awards of `LIMITED` fit its budget. The refund reverses one award of `PAIRS` and moves others.
    let refund = RecordRefund {
        external_id: "r".into(),
        purchase_external_id: "ada-03".into(),
        refunded_at: "2026-11-02T12:00:00Z".into(),
        amount: None,
        lines: None,
    };
    refund::record(&test.app, &TestApp::shop(), vec![], refund).await.unwrap();
    test.audit_is_clean().await;
    test
}

async fn tamper(test: &TestApp, sql: &str) {
    let tx = test.app.database.begin().await.unwrap();
    let changed = tx.execute_unprepared(sql).await.unwrap().rows_affected();
    tx.commit().await.unwrap();
    assert!(changed > 0, "the statement changes nothing: {sql}");
}

async fn repair(test: &TestApp) -> audit::Audited {
    audit::run(&test.app, Some(&TestApp::admin()), |_| {}).await.unwrap()
}

fn texts(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

/// Returns the rows of the append-only tables: the ledger entries and the budget decisions.
async fn appended(test: &TestApp) -> (Vec<entity::ledger_entry::Model>, Vec<entity::budget_decision::Model>) {
    let read = test.app.database.read();
    let mut entries = entity::ledger_entry::Entity::find().all(read).await.unwrap();
    entries.sort_by_key(|entry| (entry.customer_id, entry.sequence));
    let mut decisions = entity::budget_decision::Entity::find().all(read).await.unwrap();
    decisions.sort_by_key(|decision| (decision.campaign_id, decision.decision_no));
    (entries, decisions)
}

/// One way to tamper.
struct Case {
    sql: &'static str,
    /// One line of the report contains all these parts.
    told: &'static [&'static str],
    /// Parts of the lines that a repair leaves, because the rows that they are about are never overwritten.
    left: &'static [&'static str],
}

const ADA: &str = "(SELECT id FROM customer WHERE external_id = 'ada')";
const BOB: &str = "(SELECT id FROM customer WHERE external_id = 'bob')";

const fn mended(sql: &'static str, told: &'static [&'static str]) -> Case {
    Case { sql, told, left: &[] }
}

/// In the statements, `{ada}` and `{bob}` stand for the keys of the customers, `{pairs}` and `{limited}` for those of the
/// campaigns. `{unmarked}` stands for a head of ada that says that there are no checkpoints.
const CASES: &[Case] = &[
    // Orphans.
    Case {
        sql: "INSERT INTO checkpoint (customer_id, campaign_id, purchased_at, external_id, state) VALUES (0, 1, 1, 'x', '{}')",
        told: &["rows of the table checkpoint without a customer", "recorded 1", "expected 0"],
        left: &["rows of the table checkpoint without a customer"],
    },
    Case {
        sql: "INSERT INTO refund (external_id, purchase_external_id, customer_id, refunded_at, recorded_at, amount, lines, \
            set_revision, version) VALUES ('orphan', 'none', 0, 1, 1, 1, '[]', 1, 1)",
        told: &["rows of the table refund without a purchase", "recorded 1", "expected 0"],
        left: &["rows of the table refund without a purchase"],
    },
    Case {
        sql: "INSERT INTO raised_revision (external_id, revision, raised_to) VALUES ('none', 1, 2)",
        told: &["rows of the table raised_revision without a purchase", "recorded 1", "expected 0"],
        left: &["rows of the table raised_revision without a purchase"],
    },
    // Awards.
    mended(
        "UPDATE award SET points = 15 WHERE customer_id = {ada} AND number = 2",
        &["customer ada: campaign", "(pairs): award of purchase ada-", "recorded 15 points", "expected 10 points"],
    ),
    mended(
        "UPDATE award SET points = 4 WHERE customer_id = {bob} AND campaign_id = {limited} AND status = 'standing'",
        &["customer bob: campaign", "(limited): award of purchase bob-", "recorded 4 points", "expected 7 points"],
    ),
    mended(
        "UPDATE award SET closes_at = closes_at + 1000000 WHERE customer_id = {ada} AND number = 2",
        &["customer ada: campaign", "(pairs): award of", "to 2026-11-01T00:00:01Z", "to 2026-11-01T00:00:00Z"],
    ),
    mended(
        "UPDATE award SET opens_at = opens_at - 1000000 WHERE customer_id = {ada} AND number = 2",
        &["customer ada: campaign", "(pairs): award of", "window 2026-09-30T23:59:59Z", "window 2026-10-01T00:00:00Z"],
    ),
    mended(
        "UPDATE award SET ordinal = 77 WHERE customer_id = {ada} AND number = 1",
        &["customer ada: campaign", "(pairs): award of purchase ada-", "ordinal 77", "ordinal 1,"],
    ),
    mended(
        "UPDATE award SET evidence_from_external_id = 'ada-55' WHERE customer_id = {ada} AND number = 1",
        &["customer ada: campaign", "(pairs): award of purchase ada-", "evidence from ada-55", "evidence from ada-00"],
    ),
    mended(
        "UPDATE award SET evidence_from_at = 0 WHERE customer_id = {ada} AND number = 1",
        &["customer ada: campaign", "(pairs): award of", "at 1970-01-01T00:00:00Z", "evidence from ada-00 at 2026-"],
    ),
    mended(
        "UPDATE award SET purchase_external_id = 'ada-69' WHERE customer_id = {ada} AND number = 1",
        &["customer ada: campaign", "(pairs): award of purchase ada-01 (number 1): recorded none, expected 10 points"],
    ),
    mended(
        "UPDATE award SET status = 'reversed' WHERE customer_id = {bob} AND number = 3",
        &["customer bob: campaign", "(pairs): award of purchase bob-05 (number 1): recorded none, expected 10 points"],
    ),
    mended(
        "UPDATE award SET status = 'declined' WHERE customer_id = {bob} AND number = 3",
        &["customer bob: campaign", "(pairs): status of award 3: recorded DECLINED, expected STANDING"],
    ),
    mended(
        "UPDATE award SET status = 'standing' WHERE campaign_id = {limited} AND status = 'declined'",
        &["customer ", "(limited): status of award ", " by its budget decision: recorded STANDING, expected DECLINED"],
    ),
    mended(
        "DELETE FROM award WHERE customer_id = {bob} AND number = 3",
        &["customer bob: campaign", "(pairs): award of purchase bob-05 (number 1): recorded none, expected 10 points"],
    ),
    mended(
        "DELETE FROM award WHERE customer_id = {bob} AND number = (SELECT max(number) FROM award WHERE customer_id = {bob})",
        &["customer bob: campaign", "recorded none, expected "],
    ),
    mended(
        "INSERT INTO award SELECT customer_id, 900, campaign_id, 'bob-02', 1, 9, points, 'standing', earned_at, opens_at, \
         closes_at, evidence_from_at, evidence_from_external_id, version, points_before_cap, available_at, expires_at FROM award \
         WHERE customer_id = {bob} AND number = 3",
        &[
            "customer bob: campaign",
            "(pairs): award of purchase bob-02 (number 1): recorded 10 points",
            "expected none",
        ],
    ),
    mended(
        "INSERT INTO award SELECT customer_id, 900, campaign_id, purchase_external_id, nth, ordinal, points, 'standing', \
         earned_at, opens_at, closes_at, evidence_from_at, evidence_from_external_id, version, points_before_cap, available_at, expires_at FROM award \
         WHERE customer_id = {bob} AND number = 3",
        &[
            "customer bob: campaign",
            "(pairs): award of purchase bob-05 (number 1): recorded another: 10 points",
            "none",
        ],
    ),
    // The ledger.
    Case {
        sql: "UPDATE ledger_entry SET points = points + 5 WHERE customer_id = {bob} AND sequence = 3",
        told: &["customer bob: campaign", "(pairs): points posted for award 3: recorded 15, expected 10"],
        left: &["customer bob: balance after ledger entry "],
    },
    Case {
        sql: "UPDATE ledger_entry SET balance_after = 12345 WHERE customer_id = {bob} AND sequence = 3",
        told: &["customer bob: balance after ledger entry 3: recorded 12345, expected 30"],
        left: &["customer bob: balance after ledger entry 3: recorded 12345, expected 30"],
    },
    Case {
        sql: "DELETE FROM ledger_entry WHERE customer_id = {bob} AND sequence = 3",
        told: &["customer bob: campaign", "(pairs): points posted for award 3: recorded 0, expected 10"],
        left: &["customer bob: ledger sequence: recorded 4, expected 3", "customer bob: balance after ledger entry "],
    },
    mended(
        "DELETE FROM ledger_entry WHERE customer_id = {bob} AND sequence = \
         (SELECT max(sequence) FROM ledger_entry WHERE customer_id = {bob})",
        &["customer bob: campaign", "points posted for award ", "recorded 0, expected "],
    ),
    Case {
        sql: "UPDATE ledger_entry SET sequence = 900 WHERE customer_id = {bob} AND sequence = \
              (SELECT max(sequence) FROM ledger_entry WHERE customer_id = {bob})",
        told: &["customer bob: ledger sequence: recorded 900, expected "],
        left: &["customer bob: ledger sequence: recorded 900, expected "],
    },
    Case {
        sql: "UPDATE ledger_entry SET purchase_external_id = 'bob-09' WHERE customer_id = {bob} AND sequence = 3",
        told: &["customer bob: campaign", "(pairs): purchase of ledger entry 3: recorded bob-09, expected bob-05"],
        left: &["customer bob: campaign"],
    },
    // This entry belongs to an award that has moved since.
    Case {
        sql: "UPDATE ledger_entry SET purchase_external_id = 'bob-09' WHERE customer_id = {ada} AND sequence = 3",
        told: &["customer ada: campaign", "(pairs): purchase of ledger entry 3: recorded bob-09, expected one of this"],
        left: &["(pairs): purchase of ledger entry 3"],
    },
    Case {
        sql: "UPDATE ledger_entry SET purchase_external_id = NULL WHERE customer_id = {ada} AND kind = 'reversal'",
        told: &["customer ada: campaign", "): purchase of ledger entry ", ": recorded none, expected ada-"],
        left: &["): purchase of ledger entry "],
    },
    Case {
        sql: "UPDATE award SET points = points + 1 WHERE customer_id = {ada} AND status = 'reversed'",
        told: &["customer ada: campaign", "points of award ", ", which is REVERSED: recorded ", ", expected "],
        left: &[", which is REVERSED: recorded "],
    },
    Case {
        sql: "UPDATE refund SET customer_id = {bob}",
        told: &["customer ada: customer of refund r: recorded ", ", expected "],
        left: &["customer ada: customer of refund r: recorded "],
    },
    // The customer.
    mended(
        "UPDATE customer SET balance = balance + 1 WHERE id = {ada}",
        &["customer ada: balance: recorded ", ", expected "],
    ),
    mended("UPDATE customer SET lifetime = 1 WHERE id = {ada}", &["customer ada: lifetime: recorded 1, expected "]),
    mended(
        "UPDATE customer SET ledger_sequence = 1 WHERE id = {ada}",
        &["customer ada: last sequence: recorded 1, expected "],
    ),
    mended(
        "UPDATE customer SET posted_at = 1 WHERE id = {ada}",
        &["customer ada: time of the last entry: recorded 1, expected "],
    ),
    mended(
        "UPDATE customer SET award_number = 500 WHERE id = {ada}",
        &["customer ada: last award number: recorded 500, expected "],
    ),
    mended(
        "UPDATE customer SET version = 0 WHERE id = {ada}",
        &["customer ada: version: recorded 0, expected at least "],
    ),
    mended(
        "UPDATE customer SET head = '{}' WHERE id = {ada}",
        &["customer ada: campaign", "(pairs): running state: recorded ", ", expected State"],
    ),
    mended(
        "UPDATE customer SET head = 'torn' WHERE id = {ada}",
        &["customer ada: running states: recorded torn, expected "],
    ),
    mended(
        "UPDATE checkpoint SET state = '{}' WHERE customer_id = {ada} AND campaign_id = {pairs}",
        &["customer ada: campaign", "(pairs): checkpoint at purchase ada-", "recorded {}, expected State"],
    ),
    mended(
        "UPDATE checkpoint SET state = 'torn' WHERE customer_id = {bob} AND campaign_id = {limited}",
        &["customer bob: campaign", "(limited): checkpoint at purchase bob-", "recorded torn, expected State"],
    ),
    mended(
        "UPDATE customer SET head = '{unmarked}' WHERE id = {ada}",
        &["customer ada: campaign", "(pairs): checkpoints: recorded none, expected some"],
    ),
    mended(
        "UPDATE checkpoint SET external_id = 'bob-01' WHERE customer_id = {bob} AND campaign_id = {limited}",
        &["customer bob: campaign", "(limited): checkpoint at purchase bob-01: recorded ", ", expected none"],
    ),
    // Campaigns.
    mended(
        "UPDATE budget SET points_used = 2 WHERE campaign_id = {limited}",
        &["(limited): points used of the budget: recorded 2, expected 21"],
    ),
    mended(
        "UPDATE budget SET points_limit = 900 WHERE campaign_id = {limited}",
        &["(limited): budget: recorded 900, expected 21"],
    ),
    mended(
        "UPDATE budget SET points_limit = NULL WHERE campaign_id = {limited}",
        &["(limited): budget: recorded none, expected 21"],
    ),
    mended(
        "UPDATE budget SET decision_no = 90 WHERE campaign_id = {limited}",
        &["(limited): last decision number: recorded 90, expected "],
    ),
    Case {
        sql: "UPDATE budget_decision SET kind = 'declined' WHERE decision_no = 2",
        told: &["(limited): decision 2: recorded DECLINED, expected STANDING"],
        left: &[
            "(limited): decision 2: recorded DECLINED, expected STANDING",
            " by its budget decision: recorded STANDING, expected DECLINED",
            "(limited): points used of the budget after decision 2",
        ],
    },
    Case {
        sql: "UPDATE budget_decision SET points = 8 WHERE decision_no = 2",
        told: &["(limited): points used of the budget after decision 2: recorded 7, expected 8"],
        left: &["(limited): points used of the budget after decision 2: recorded 7, expected 8"],
    },
    Case {
        sql: "UPDATE budget_decision SET points_used = 9 WHERE decision_no = 2",
        told: &["(limited): points used of the budget after decision 2: recorded 9, expected 7"],
        left: &["(limited): points used of the budget after decision "],
    },
    Case {
        sql: "DELETE FROM budget_decision WHERE decision_no = 2",
        told: &["(limited): decision number: recorded 3, expected 2"],
        left: &[
            "(limited): decision number: recorded 3, expected 2",
            "(limited): points used of the budget after decision 3",
        ],
    },
    mended(
        "UPDATE campaign_stat SET awards = awards + 3 WHERE campaign_id = {pairs}",
        &["(pairs): statistics: awards: recorded ", ", expected "],
    ),
    mended(
        "UPDATE campaign_stat SET customers = 9 WHERE campaign_id = {pairs}",
        &["(pairs): statistics: customers: recorded ", ", expected 2"],
    ),
    mended(
        "UPDATE campaign_stat SET points_standing = 1 WHERE campaign_id = {limited}",
        &["(limited): statistics: points standing: recorded ", ", expected 21"],
    ),
    mended(
        "UPDATE campaign_stat SET points_declined = 1 WHERE campaign_id = {limited}",
        &["(limited): statistics: points declined: recorded ", ", expected 7"],
    ),
    mended(
        "DELETE FROM campaign_stat WHERE campaign_id = {limited}",
        &["(limited): statistics: awards: recorded 0, expected 3"],
    ),
];

async fn check(engine: Engine, case: &Case) {
    let test = with_history(engine).await;
    let campaigns = test.app.campaigns().await.unwrap();
    let id = |name: &str| campaigns.all().iter().find(|campaign| campaign.row.name == name).unwrap().id().0.to_string();
    let sql = case.sql.replace("{ada}", ADA).replace("{bob}", BOB);
    let sql = sql.replace("{pairs}", &id(PAIRS)).replace("{limited}", &id(LIMITED));
    let mut head = json!(Running::parse(&test.customer("ada").await.unwrap().head).unwrap());
    head[id(PAIRS)]["p"] = json!(false);
    let sql = sql.replace("{unmarked}", &head.to_string());
    let awards = [test.awards("ada").await, test.awards("bob").await];
    tamper(&test, &sql).await;

    let found = texts(&test.audit().await);
    let told = found.iter().any(|line| case.told.iter().all(|part| line.contains(part)));
    assert!(told, "{engine:?}: {sql}\nis not reported by\n{}", found.join("\n"));

    let (entries, decisions) = appended(&test).await;
    let repaired = repair(&test).await;
    assert_eq!(repaired.differences, found.len() as u64, "{sql}");
    let (entries_now, decisions_now) = appended(&test).await;
    for entry in &entries_now {
        let before = entries.iter().find(|one| (one.customer_id, one.sequence) == (entry.customer_id, entry.sequence));
        match before {
            Some(before) => assert_eq!(before, entry, "{sql}: a ledger entry was overwritten"),
            None => assert_eq!(entry.reason.as_deref(), Some("audit repair"), "{sql}"),
        }
    }
    assert!(entries_now.len() >= entries.len() && decisions_now.starts_with(&decisions), "{sql}");

    let left = texts(&test.audit().await);
    let may_stay = |line: &String| case.left.iter().any(|part| line.contains(part));
    assert!(left.iter().all(may_stay), "{engine:?}: {sql}\nleaves\n{}", left.join("\n"));
    assert_eq!(left.is_empty(), case.left.is_empty(), "{engine:?}: {sql}\nleaves\n{}", left.join("\n"));
    let brief = |awards: Vec<entity::award::Model>| -> Vec<_> {
        awards.into_iter().map(|one| (one.purchase_external_id, one.campaign_id, one.points, one.status)).collect()
    };
    let now = [test.awards("ada").await, test.awards("bob").await];
    assert!(now.clone().map(brief) == awards.clone().map(brief), "{engine:?}: {sql}\n{now:?}\n{awards:?}");
    for customer in ["ada", "bob"] {
        let row = test.customer(customer).await.unwrap();
        let sum: i64 = test.ledger(customer).await.iter().map(|entry| entry.points).sum();
        assert_eq!((row.balance, row.lifetime), (sum, sum), "{engine:?}: {sql}");
    }
    // A second repair has nothing to do, and the next purchase is recorded correctly.
    let again = repair(&test).await;
    assert_eq!(again.campaigns_repaired, 0, "{sql}");
    test.buy("ada", "next", NOW, "5.00").await.unwrap();
    let after = texts(&test.audit().await);
    assert!(after.iter().all(may_stay), "{engine:?}: {sql}\nleaves\n{}", after.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_tampered_with_is_told_and_mended_on_sqlite() {
    for case in CASES {
        check(Engine::Sqlite, case).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_tampered_with_is_told_and_mended_on_postgres() {
    for case in CASES.iter().step_by(cases(3, 1)) {
        check(Engine::Postgres, case).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_once_is_mended_too() {
    for engine in ENGINES {
        let test = with_history(engine).await;
        let awards = [test.awards("ada").await, test.awards("bob").await].concat();
        for sql in [
            "DELETE FROM award WHERE number IN (2, 5, 8)",
            "UPDATE award SET points = points + 1 WHERE number = 3",
            "UPDATE customer SET balance = 0, lifetime = 0, award_number = 0, ledger_sequence = 0, head = '{}'",
            "UPDATE checkpoint SET state = '{}'",
            "UPDATE budget SET points_used = 0",
            "DELETE FROM campaign_stat",
        ] {
            tamper(&test, sql).await;
        }
        assert!(!test.audit().await.is_empty());
        let repaired = repair(&test).await;
        assert_eq!((repaired.customers, repaired.repaired), (2, 2));
        test.audit_is_clean().await;
        let names = |awards: Vec<entity::award::Model>| -> Vec<_> {
            awards.into_iter().map(|one| (one.purchase_external_id, one.campaign_id, one.points)).collect()
        };
        assert_eq!(names([test.awards("ada").await, test.awards("bob").await].concat()), names(awards), "{engine:?}");
    }
}

/// The number of a deleted award that was DECLINED is free again, because no ledger entry names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_is_compared_with_an_award_of_its_campaign_only() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        for (name, budget) in [(PAIRS, None), (LIMITED, Some(10))] {
            test.campaign(json!({
                "name": name, "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": {"campaign": "WHOLE"},
                "goal": {"purchases": {"atLeast": 1, "repeat": true}}, "award": {"points": 10}, "budget": budget
            }))
            .await;
        }
        for n in 0..2 {
            test.buy("c", &format!("p{n}"), NOW - DAY + n, "5.00").await.unwrap();
        }
        let declined = |awards: Vec<entity::award::Model>| -> Vec<i64> {
            let declined = awards.into_iter().filter(|award| award.status == entity::AwardStatus::Declined);
            declined.map(|award| award.number).collect()
        };
        assert_eq!(declined(test.awards("c").await), [4], "{engine:?}");
        tamper(&test, "DELETE FROM award WHERE number >= 3").await;
        repair(&test).await;
        assert_eq!(declined(test.awards("c").await), [5], "{engine:?}: the other campaign has not taken the number");
        test.audit_is_clean().await;
    }
}

/// A repair keeps the caps in points: the award that was trimmed is restored as it was, and none is let in beyond the caps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_keeps_the_caps_in_points() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        for cap in ["maxPointsPerCustomer", "maxPointsPerWindow"] {
            let mut input = json!({
                "name": cap, "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR",
                "window": {"calendar": {"unit": "YEAR"}}, "goal": {"everyPurchase": "EACH"}, "award": {"points": 10},
            });
            input[cap] = json!(25);
            test.campaign(input).await;
        }
        for n in 0..5 {
            test.buy("c", &format!("p{n}"), NOW - DAY + n, "5.00").await.unwrap();
        }
        let of = |awards: Vec<entity::award::Model>| -> Vec<_> {
            let standing = awards.into_iter().filter(|one| one.status == entity::AwardStatus::Standing);
            let mut awards: Vec<_> = standing
                .map(|one| (one.campaign_id, one.purchase_external_id, one.points, one.points_before_cap))
                .collect();
            awards.sort();
            awards
        };
        let awards = of(test.awards("c").await);
        let points: Vec<_> = awards.iter().map(|(_, _, points, before_cap)| (*points, *before_cap)).collect();
        assert_eq!(points, [[(10, None), (10, None), (5, Some(10))]; 2].concat(), "{engine:?}");
        for sql in [
            "UPDATE award SET points = 7 WHERE points_before_cap = 10",
            "UPDATE award SET points_before_cap = NULL",
            "UPDATE award SET points_before_cap = 30, points = 4",
            "UPDATE award SET points = 11 WHERE number = 1",
            "DELETE FROM award WHERE points = 5",
            "UPDATE customer SET head = '{}'",
        ] {
            tamper(&test, sql).await;
            assert!(!test.audit().await.is_empty(), "{engine:?}: {sql}");
            repair(&test).await;
            test.audit_is_clean().await;
            assert_eq!(of(test.awards("c").await), awards, "{engine:?}: {sql}");
            let customer = test.customer("c").await.unwrap();
            assert_eq!((customer.balance, customer.lifetime), (50, 50), "{engine:?}: {sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_settlement_does_not_count() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let id = test
            .campaign(json!({
                "name": "October", "startsAt": "2026-10-01T00:00:00Z", "endsAt": "2026-11-01T00:00:00Z",
                "currency": "EUR", "window": {"campaign": "WHOLE"}, "lateness": "P7D",
                "goal": {"purchases": {"atLeast": 2, "repeat": true}}, "award": {"points": 10}
            }))
            .await;
        for n in 0..3 {
            test.buy("c", &format!("p{n}"), NOW - 5 * DAY + n, "5.00").await.unwrap();
        }
        assert_eq!(settlement::run(&test.app).await.unwrap(), 0, "its `lateness` has not passed");
        test.set_now(NOW + 30 * DAY);
        assert_eq!(settlement::run(&test.app).await.unwrap(), 1);
        let set = test.app.campaigns().await.unwrap();
        assert_eq!(set.get(id).unwrap().life.status(test.app.clock.now()), Status::Settled);
        test.audit_is_clean().await;
        let (awards, ledger) = (test.awards("c").await, test.ledger("c").await);
        assert_eq!((awards.len(), ledger.len()), (1, 1));

        // If these facts counted, the fourth purchase would complete a pair, and the refund of the first would undo one.
        test.buy("c", "late", NOW - 4 * DAY, "5.00").await.unwrap();
        let refund = RecordRefund {
            external_id: "r".into(),
            purchase_external_id: "p0".into(),
            refunded_at: "2026-11-30T12:00:00Z".into(),
            amount: None,
            lines: None,
        };
        refund::record(&test.app, &TestApp::shop(), vec![], refund).await.unwrap();
        test.buy("d", "of another", NOW - 4 * DAY, "5.00").await.unwrap();
        assert_eq!((test.awards("c").await, test.ledger("c").await), (awards.clone(), ledger.clone()), "{engine:?}");
        test.audit_is_clean().await;

        // A repair does not count them either.
        tamper(&test, "UPDATE award SET points = 12").await;
        assert!(!test.audit().await.is_empty());
        repair(&test).await;
        test.audit_is_clean().await;
        let now = test.awards("c").await;
        assert_eq!((now.len(), now[0].points, &now[0].purchase_external_id), (1, 10, &awards[0].purchase_external_id));
        assert_eq!(test.ledger("c").await[0], ledger[0]);
        assert_eq!(test.customer("c").await.unwrap().balance, 10);
    }
}
