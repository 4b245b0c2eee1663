//! A disk that is full or fails, and a database that is read-only. Nothing that was acknowledged is lost, clients get an error
//! that is safe to retry, `/readyz` reports the reason, and writes continue by themselves when the fault is over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, EntityTrait as _, Statement};
use serde_json::{Value, json};
use tempfile::TempDir;
use windfall::app::clock::Clock;
use windfall::app::error::Error;
use windfall::app::failure::Obstacle;
use windfall::app::probe::find_obstacle;
use windfall::app::{App, audit, campaign};

use crate::support::app::{Engine, NOW, TestApp, cases, open, settings};
use crate::support::graphql::{GraphqlApp, admin, codes, customer, storefront};
use crate::support::node::metric;
use crate::support::postgres::Postgres;
use crate::support::server::{ask, command};
use crate::support::shop::{BALANCE, Shop};
use crate::support::websocket::PATIENCE;

/// The number of connections in the pool for reads.
const SQLITE_READERS: usize = 4;
/// When the file cannot grow, SQLite rolls back the whole transaction of this statement. Most other statements are rolled back
/// alone.
const TOO_LARGE: &str = "INSERT INTO write_probe (id, stamp, filler) VALUES (2, 0, zeroblob(1000000))";
const RECORD: &str = "mutation($input: RecordPurchaseInput!) { \
    recordPurchase(input: $input) { purchase { externalId } userErrors { code } } }";
const ACTIVATE: &str = "mutation($id: ID!) { activateCampaign(id: $id) { userErrors { code } } }";

fn each_purchase() -> Value {
    json!({
        "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": {"campaign": "WHOLE"},
        "goal": {"everyPurchase": "EACH"}, "award": {"points": 10}, "budget": 1_000_000
    })
}

/// Returns the external ids of all recorded purchases, and the differences that an audit finds.
async fn stored(app: &App) -> (BTreeSet<String>, Vec<String>) {
    let rows = entity::purchase::Entity::find().all(app.database.read()).await.unwrap();
    let mut differences = Vec::new();
    audit::run(app, None, |difference| differences.push(difference.to_string())).await.unwrap();
    (rows.into_iter().map(|row| row.external_id).collect(), differences)
}

/// Limits the number of pages of the file for the writing connection. A limit below the current size is no error: the file
/// cannot grow, but it does not shrink.
async fn limit_pages(app: &App, pages: u32) {
    let tx = app.database.begin().await.unwrap();
    tx.execute_unprepared(&format!("PRAGMA max_page_count = {pages}")).await.unwrap();
    tx.commit().await.unwrap();
}

/// The write-ahead log is copied into the file although no commit finds it long enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_copied_beside_the_writes() {
    let test = TestApp::start(Engine::Sqlite).await;
    test.buy("ada", "p0", NOW, "1.00").await.unwrap();
    let file = PathBuf::from(test.url.strip_prefix("sqlite://").unwrap());
    let copied = async {
        // The bytes of the customer are in the file itself, not only in its log.
        while !std::fs::read(&file).unwrap().windows(3).any(|bytes| bytes == b"ada") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, copied).await.expect("the log is copied");
}

/// SQLite rolls back by itself when the file is full. What is recorded afterwards must be committed nevertheless.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_file_loses_nothing_that_was_acknowledged() {
    let test = TestApp::start(Engine::Sqlite).await;
    let id = test.campaign(each_purchase()).await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..cases(3, 50) {
        limit_pages(&test.app, 1).await;
        for n in 0.. {
            let purchase = format!("full-{round}-{n}");
            match test.buy(&format!("c{}", n % 3), &purchase, NOW - n, "1.00").await {
                Ok(_) => assert!(acknowledged.insert(purchase) && n < 10_000, "the file never becomes full"),
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    break;
                }
            }
        }
        limit_pages(&test.app, 1).await;
        if round == 0 {
            // Waits until a probe is due. The probe must find the obstacle even if a single small row still fits.
            tokio::time::sleep(Duration::from_millis(2_100)).await;
        }
        assert_eq!(find_obstacle(&test.app.database).await, Some(Obstacle::DiskFull));
        limit_pages(&test.app, 1).await;
        let tx = test.app.database.begin().await.unwrap();
        tx.execute_unprepared(TOO_LARGE).await.unwrap_err();
        drop(tx);
        limit_pages(&test.app, u32::MAX - 1).await;
        let refused = campaign::activate(&test.app, &TestApp::actor(), id).await;
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        for n in 0..20 {
            let purchase = format!("room-{round}-{n}");
            test.buy(&format!("c{}", n % 3), &purchase, NOW - n, "1.00").await.unwrap();
            acknowledged.insert(purchase);
        }
        assert_eq!(test.app.database.writes().obstacle(), None);
    }
    test.app.stop().await.unwrap();
    let reopened = test.another().await;
    assert_eq!(stored(&reopened).await, (acknowledged, Vec::new()));
    reopened.stop().await.unwrap();
}

/// The same holds for the reading connections. A transaction that stays open would show an old state for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_sqlite_ended_by_itself_pins_no_snapshot() {
    let test = TestApp::start(Engine::Sqlite).await;
    let mut reads = Vec::new();
    for _ in 0..SQLITE_READERS {
        reads.push(test.app.database.snapshot().await.unwrap());
    }
    for read in reads {
        read.execute_unprepared("PRAGMA max_page_count = 1").await.unwrap();
        read.execute_unprepared(TOO_LARGE).await.unwrap_err();
    }
    // Each connection begins a new transaction and is returned to the pool.
    let mut reads = Vec::new();
    for _ in 0..SQLITE_READERS {
        let read = test.app.database.snapshot().await.unwrap();
        entity::purchase::Entity::find().all(&read).await.unwrap();
        reads.push(read);
    }
    drop(reads);
    test.buy("ada", "p", NOW, "1.00").await.unwrap();
    let reads = (0..50).map(|_| {
        let app = Arc::clone(&test.app);
        tokio::spawn(async move { entity::purchase::Entity::find().all(app.database.read()).await.unwrap().len() })
    });
    for read in reads.collect::<Vec<_>>() {
        assert_eq!(read.await.unwrap(), 1, "a read shows an old state");
    }
}

/// A fault that keeps a server's SQLite file from growing.
enum Fault {
    /// The kernel refuses writes beyond the first byte of a file. SQLite reports `IOERR`.
    WritesFail(TempDir),
    /// The file system is full. SQLite reports `FULL`.
    NoRoom(Tmpfs),
}

impl Fault {
    /// Returns all faults that can be caused on this machine.
    fn all() -> Vec<Self> {
        let fails = Self::WritesFail(tempfile::tempdir().unwrap());
        std::iter::once(fails).chain(Tmpfs::mount().map(Self::NoRoom)).collect()
    }

    fn directory(&self) -> &Path {
        match self {
            Self::WritesFail(directory) => directory.path(),
            Self::NoRoom(tmpfs) => tmpfs.directory.path(),
        }
    }

    fn begin(&self, server: u32) {
        match self {
            Self::WritesFail(_) => limit_files(server, "1"),
            Self::NoRoom(tmpfs) => {
                let filled = std::fs::write(tmpfs.ballast(), vec![0; TMPFS_BYTES]);
                assert!(filled.is_err(), "the ballast must leave no room");
            }
        }
    }

    fn end(&self, server: u32) {
        match self {
            Self::WritesFail(_) => limit_files(server, "unlimited"),
            Self::NoRoom(tmpfs) => std::fs::remove_file(tmpfs.ballast()).unwrap(),
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::WritesFail(_) => "the database refuses writes: its disk reports errors",
            Self::NoRoom(_) => "the database refuses writes: its disk is full",
        }
    }
}

/// Limits the size of every file that the process writes.
fn limit_files(process: u32, bytes: &str) {
    let set = Command::new("prlimit").arg(format!("--pid={process}")).arg(format!("--fsize={bytes}:")).status();
    assert!(set.unwrap().success());
}

const TMPFS_BYTES: usize = 8 << 20;

/// A small file system, which is unmounted when this value is dropped.
struct Tmpfs {
    directory: TempDir,
}

impl Tmpfs {
    /// Returns `None` if this user may not mount a file system.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={TMPFS_BYTES}"), "tmpfs"]).arg(directory.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(Self { directory })
    }

    fn ballast(&self) -> PathBuf {
        self.directory.path().join("ballast")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.directory.path()).status();
    }
}

/// Starts a server that gets an error when it writes beyond the limit. By default, the kernel would kill the server.
async fn start(url: &str) -> Shop {
    let program = command(url);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(program.get_program());
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // The standard error may be a file, to which the limit would apply too.
    shell.current_dir(std::env::temp_dir()).stdin(Stdio::null()).stderr(Stdio::null());
    Shop::open_with(&mut shell).await
}

async fn readiness(shop: &Shop) -> (u16, String) {
    let answer = shop.client.get(format!("{}/readyz", shop.address())).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Records a purchase. Returns the code of the error, or `None` if the purchase was acknowledged.
async fn record(shop: &Shop, id: &str) -> Option<String> {
    let input = json!({
        "externalId": id, "customerExternalId": "ada", "purchasedAt": "2026-11-02T12:00:00Z", "total": "1.00", "currency": "EUR"
    });
    let answer = ask(&shop.client, shop.address(), &shop.storefront, RECORD, json!({ "input": input })).await.unwrap();
    if answer["data"]["recordPurchase"]["purchase"]["externalId"] == id {
        return None;
    }
    Some(answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_disk_says_so_and_goes_on_by_itself() {
    let faults = Fault::all();
    if faults.len() == 1 {
        println!("a small tmpfs cannot be mounted here: only `PRAGMA max_page_count` simulates a full disk");
    }
    for fault in faults {
        let url = format!("sqlite://{}", fault.directory().join("windfall.db").display());
        let shop = start(&url).await;
        let campaign = shop.campaign(json!({})).await;
        let mut acknowledged = BTreeSet::new();
        for round in 0..cases(3, 10) {
            for n in 0..10 {
                let id = format!("before-{round}-{n}");
                assert_eq!(record(&shop, &id).await, None);
                acknowledged.insert(id);
            }
            fault.begin(shop.server.pid());
            // On a full disk, the files may still have free pages.
            let mut refused = 0;
            for n in 0..1_000 {
                let id = format!("meanwhile-{round}-{n}");
                match record(&shop, &id).await {
                    None => assert!(acknowledged.insert(id)),
                    Some(code) => {
                        assert_eq!(code, "UNAVAILABLE");
                        refused += 1;
                    }
                }
                if refused == 5 {
                    break;
                }
            }
            assert_eq!(refused, 5, "{}: writes never fail", fault.words());
            assert_eq!(readiness(&shop).await, (503, fault.words().to_owned()));
            assert_eq!(metric(&shop, "windfall_database_writable").await, 0.0);
            // Reads still work.
            shop.balance("ada").await;
            fault.end(shop.server.pid());
            let ready = async {
                while readiness(&shop).await.0 != 200 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(PATIENCE, ready).await.expect("the server accepts writes again");
            assert_eq!(metric(&shop, "windfall_database_writable").await, 1.0);
            let refused = shop.data(&shop.admin, ACTIVATE, json!({ "id": campaign })).await;
            assert_eq!(refused["activateCampaign"]["userErrors"][0]["code"], "ILLEGAL_TRANSITION");
            for n in 0..10 {
                let id = format!("after-{round}-{n}");
                assert_eq!(record(&shop, &id).await, None);
                acknowledged.insert(id);
            }
        }
        assert!(shop.server.terminate().success());
        let app = App::start(open(&url).await, Clock::System, &settings(&url)).await.unwrap();
        assert_eq!(stored(&app).await, (acknowledged, Vec::new()), "{}", fault.words());
        app.stop().await.unwrap();
    }
}

/// Runs a statement on the PostgreSQL server, from another database than the tested one.
async fn on_postgres(sql: &str) {
    let url = Postgres::shared().create_database().await;
    let connection = Database::connect(url).await.unwrap();
    connection.execute_unprepared(sql).await.unwrap();
    connection.close().await.unwrap();
}

fn purchase(id: &str) -> Value {
    json!({ "input": {
        "externalId": id, "customerExternalId": "ada", "purchasedAt": "2026-11-02T12:00:00Z", "total": "1.00", "currency": "EUR"
    }})
}

/// PostgreSQL reports a full disk and other exhausted resources. Clients may retry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_postgres_has_no_room_for_can_be_tried_again() {
    let test = GraphqlApp::postgres().await;
    for (state, obstacle) in [
        ("53100", Obstacle::DiskFull),
        ("53200", Obstacle::OutOfMemory),
        ("53400", Obstacle::OutOfResources),
        ("58030", Obstacle::DiskFails),
    ] {
        test.execute(&format!(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ \
             BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$; \
             CREATE TRIGGER fail BEFORE INSERT ON purchase EXECUTE FUNCTION fail()"
        ))
        .await;
        let answer = test.run(&storefront(), RECORD, purchase(state)).await;
        assert_eq!(codes(&answer), ["UNAVAILABLE"], "{state}: {answer}");
        assert_eq!(find_obstacle(&test.app.database).await, Some(obstacle));
        test.execute("DROP TRIGGER fail ON purchase; DROP FUNCTION fail").await;
        assert_eq!(codes(&test.run(&storefront(), RECORD, purchase(state)).await), Vec::<String>::new());
        assert_eq!(find_obstacle(&test.app.database).await, None);
    }
}

/// This happens after a failover if the open connections lead to a server that has become a replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_became_read_only_is_told_and_left() {
    let test = GraphqlApp::postgres().await;
    test.purchase("p", "ada", "2026-11-02T11:00:00Z", "1.00").await;
    let name = Statement::from_string(DatabaseBackend::Postgres, "SELECT current_database()::text");
    let row = test.app.database.read().query_one_raw(name).await.unwrap().unwrap();
    let database: String = row.try_get_by_index(0).unwrap();
    // The setting holds for new sessions only, so the open ones are ended.
    on_postgres(&format!(
        "ALTER DATABASE {database} SET default_transaction_read_only = on; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    ))
    .await;
    let told = async {
        while find_obstacle(&test.app.database).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("the probe finds the obstacle");
    assert_eq!(find_obstacle(&test.app.database).await, Some(Obstacle::ReadOnly));
    assert_eq!(codes(&test.run(&storefront(), RECORD, purchase("q")).await), ["UNAVAILABLE"]);
    let create = "mutation { createCampaign(input: { name: \"n\", startsAt: \"2026-11-01T00:00:00Z\", currency: \"EUR\", \
        window: { campaign: WHOLE }, goal: { everyPurchase: EACH }, award: { points: 1 } }) { userErrors { code } } }";
    assert_eq!(codes(&test.run(&admin(), create, json!({})).await), ["UNAVAILABLE"]);
    test.data(&customer("ada"), BALANCE, json!({})).await;
    // Sessions that are open now stay read-only.
    on_postgres(&format!("ALTER DATABASE {database} RESET default_transaction_read_only")).await;
    let back = async {
        while !codes(&test.run(&storefront(), RECORD, purchase("q")).await).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("writes succeed again without a restart");
    assert_eq!(find_obstacle(&test.app.database).await, None);
}
