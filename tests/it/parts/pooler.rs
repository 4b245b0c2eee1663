//! PgBouncer in transaction mode: each transaction runs in whichever session of PostgreSQL is free.

use std::time::Duration;

use migration::{Migrator, MigratorTrait as _};
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{ConnectOptions as _, Row as _, raw_sql};
use sea_orm::{ConnectionTrait as _, Database};
use serde_json::json;
use tokio::task::JoinSet;

use super::rows;
use crate::support::node::node;
use crate::support::pgbouncer::{PgBouncer, SESSIONS};
use crate::support::postgres::Postgres;
use crate::support::server::{ask, command, run};
use crate::support::websocket::PATIENCE;

const POOLER: (&str, &str) = ("WINDFALL__DATABASE__POOLER", "true");
const CUSTOMERS: usize = 12;
const PURCHASES: usize = 40;

/// Two nodes with sixteen connections share four sessions. Writes, reads, jobs and the audit work, and other users of the pooler
/// find sessions as they were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_the_sessions_of_a_pooler() {
    let postgres = Postgres::shared();
    let pgbouncer = PgBouncer::start(postgres);
    let direct = postgres.create_database().await;
    let url = pgbouncer.url(&direct);
    let refused = run(command(&url).arg("migrate"));
    assert!(refused.code == Some(1) && refused.stderr.contains("startup parameter"), "{refused:?}");

    let nodes = [node(&url, None, &[POOLER]).await, node(&url, None, &[POOLER]).await];
    nodes[0].campaign(json!({})).await;
    let nodes = std::sync::Arc::new(nodes);
    let mut clients = JoinSet::new();
    for customer in 0..CUSTOMERS {
        let nodes = std::sync::Arc::clone(&nodes);
        clients.spawn(async move {
            let name = format!("customer-{customer}");
            for number in 0..PURCHASES {
                nodes[number % 2].buy(&name, number).await;
                let balance = nodes[(number + 1) % 2].balance(&name).await;
                assert_eq!(balance["available"], json!(10 * (number + 1)), "{name}");
            }
            nodes[0].refund(&name, 0).await;
            assert_eq!(nodes[1].ledger(&name).await.len(), PURCHASES + 1);
        });
    }
    clients.join_all().await;
    // A campaign that starts in the past is evaluated by jobs, and its change takes the exclusive lock.
    nodes[1].campaign(json!({ "name": "more", "award": { "points": 3 } })).await;
    let expected = json!(13 * (PURCHASES - 1));
    let evaluated = async {
        for customer in 0..CUSTOMERS {
            while nodes[0].balance(&format!("customer-{customer}")).await["available"] != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, evaluated).await.expect("the past is evaluated in time");
    let audit = run(command(&url).env(POOLER.0, POOLER.1).arg("audit"));
    assert_eq!((audit.code, audit.stderr.as_str()), (Some(0), ""), "{audit:?}");

    let sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(rows(&direct, sessions).await.len() <= SESSIONS);
    let options: PgConnectOptions = url.parse().unwrap();
    let mut other = options.extra_float_digits(None).connect().await.unwrap();
    for (setting, value) in [("statement_timeout", "0"), ("plan_cache_mode", "auto"), ("enable_seqscan", "on")] {
        for _ in 0..SESSIONS {
            let sql = sea_orm::sqlx::AssertSqlSafe(format!("SHOW {setting}"));
            let row = raw_sql(sql).fetch_one(&mut other).await.unwrap();
            assert_eq!(row.get::<String, _>(0), value, "{setting}");
        }
    }
}

/// PostgreSQL ends a statement that takes too long, although the pooler passes on no settings of a session. The request itself
/// would wait for much longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_time_out_behind_a_pooler() {
    let postgres = Postgres::shared();
    let pgbouncer = PgBouncer::start(postgres);
    let direct = postgres.create_database().await;
    let patient =
        [POOLER, ("WINDFALL__DATABASE__STATEMENT_TIMEOUT_MS", "500"), ("WINDFALL__HTTP__REQUEST_TIMEOUT_MS", "600000")];
    let shop = node(&pgbouncer.url(&direct), None, &patient).await;
    shop.campaign(json!({})).await;
    shop.buy("ada", 0).await;
    let locked = Database::connect(&direct).await.unwrap();
    locked.execute_unprepared("BEGIN; SELECT FROM customer WHERE external_id = 'ada' FOR UPDATE").await.unwrap();
    let record = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
    let input = json!({ "input": {
        "externalId": "late", "customerExternalId": "ada", "purchasedAt": "2020-01-01T12:00:00Z", "total": "5.00",
        "currency": "EUR",
    }});
    let asked = ask(&shop.client, shop.address(), &shop.storefront, record, input);
    let answer = tokio::time::timeout(PATIENCE, asked).await.expect("an answer in time").unwrap();
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{answer}");
    locked.close().await.unwrap();
}

/// A migration that runs online holds a lock of its session, which a pooler would give to another client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_runs_online_is_refused_behind_a_pooler() {
    let postgres = Postgres::shared();
    let pgbouncer = PgBouncer::start(postgres);
    let direct = postgres.create_database().await;
    let url = pgbouncer.url(&direct);
    let migrate = |url: &str, pooler: &str| run(command(url).env(POOLER.0, pooler).arg("migrate"));
    // A new database takes all migrations in one transaction.
    assert_eq!(migrate(&url, "true").code, Some(0));
    let mut latest_first = Migrator::migrations().into_iter().rev();
    let later = latest_first.position(|migration| migration.use_transaction() == Some(false));
    let later = later.expect("a migration that runs online");
    let connection = Database::connect(&direct).await.unwrap();
    Migrator::down(&connection, Some(u32::try_from(later + 1).unwrap())).await.unwrap();
    connection.close().await.unwrap();
    let refused = migrate(&url, "true");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in ["runs online", "`windfall migrate`", "WINDFALL__DATABASE__POOLER"] {
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    assert_eq!(migrate(&direct, "false").code, Some(0));
    let nothing_left = migrate(&url, "true");
    assert_eq!(nothing_left.code, Some(0), "{nothing_left:?}");
}
