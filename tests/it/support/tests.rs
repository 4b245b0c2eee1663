//! The databases that other tests run on behave as described.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use sea_orm::{ConnectionTrait, Database, DatabaseConnection};

use super::postgres::{Durability, Postgres};
use super::rows::rows_read;
use super::sqlite::Sqlite;

async fn connect(url: &str) -> DatabaseConnection {
    Database::connect(url).await.expect("a database that answers")
}

async fn text(db: &DatabaseConnection, sql: &str) -> String {
    let statement = sea_orm::Statement::from_string(db.get_database_backend(), sql);
    let row = db.query_one_raw(statement).await.expect("a query that works").expect("a row");
    row.try_get_by_index(0).expect("a text")
}

#[tokio::test]
async fn each_postgres_database_is_empty_and_separate() {
    let postgres = Postgres::shared();
    let (one, two) = (postgres.create_database().await, postgres.create_database().await);
    let (one, two) = (connect(&one).await, connect(&two).await);
    for db in [&one, &two] {
        db.execute_unprepared("CREATE TABLE t (v text)").await.unwrap();
    }
    one.execute_unprepared("INSERT INTO t VALUES ('one')").await.unwrap();
    two.execute_unprepared("INSERT INTO t VALUES ('two')").await.unwrap();
    assert_eq!(text(&one, "SELECT v FROM t").await, "one");
    assert_eq!(text(&two, "SELECT v FROM t").await, "two");
}

#[tokio::test]
async fn the_rows_that_postgres_reads_are_counted() {
    let url = Postgres::shared().create_database().await;
    let db = connect(&url).await;
    db.execute_unprepared("CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)")
        .await
        .unwrap();
    db.close().await.unwrap();
    let before = rows_read(&url).await["t"];
    let db = connect(&url).await;
    assert_eq!(text(&db, "SELECT count(*)::text FROM t WHERE n + 0 > 10").await, "90");
    db.close().await.unwrap();
    assert_eq!(rows_read(&url).await["t"] - before, 100);
}

/// Otherwise a forgotten COLLATE "C" would pass here and fail for a user.
#[tokio::test]
async fn postgres_does_not_order_by_bytes() {
    let db = connect(&Postgres::shared().create_database().await).await;
    let order = "SELECT string_agg(v, '' ORDER BY v) FROM (VALUES ('a'), ('B'), ('c')) AS t(v)";
    assert_eq!(text(&db, order).await, "aBc");
}

#[tokio::test]
async fn a_killed_postgres_keeps_what_was_committed() {
    let mut postgres = Postgres::start(Durability::Fsync);
    let url = postgres.create_database().await;
    let db = connect(&url).await;
    assert_eq!(text(&db, "SHOW fsync").await, "on");
    db.execute_unprepared("CREATE TABLE t (v text); INSERT INTO t VALUES ('kept')").await.unwrap();
    for _ in 0..3 {
        postgres.kill9();
        assert!(TcpStream::connect(("127.0.0.1", postgres.port())).is_err());
        postgres.restart();
        assert_eq!(text(&connect(&url).await, "SELECT v FROM t").await, "kept");
    }
}

/// Set by [`no_server_outlives_its_tests`], which runs [`hold_a_server`] in another process.
const HOLD: &str = "WINDFALL_TEST_HOLD_A_SERVER";

#[test]
fn hold_a_server() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let postgres = Postgres::start(Durability::Relaxed);
    println!("\nport {}", postgres.port());
    loop {
        std::thread::park();
    }
}

#[test]
fn no_server_outlives_its_tests() {
    let mut tests = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "support::tests::hold_a_server"])
        .env(HOLD, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tests.stdout.take().unwrap()).lines();
    let port = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok()).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());

    tests.kill().unwrap();
    tests.wait().unwrap();
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    assert!(gone);
}

#[tokio::test]
async fn a_sqlite_database_is_a_file_that_goes_with_its_value() {
    let sqlite = Sqlite::new();
    let path = sqlite.path();
    assert!(!path.exists());
    let db = connect(&format!("{}?mode=rwc", sqlite.url())).await;
    assert_eq!(text(&db, "SELECT 'here'").await, "here");
    assert!(path.exists());
    db.close().await.unwrap();
    drop(sqlite);
    assert!(!path.exists());
}
