//! The feed alone, without a server: how it treats wake-ups that come twice, late or not at all.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use windfall::app::App;
use windfall::app::cursor::Cursor;
use windfall::app::error::Error;
use windfall::app::reading::points_update::{Feed, Update};
use windfall::app::reading::sweep;
use windfall::app::viewer::Viewer;
use windfall::engine::time::Instant;

use crate::support::app::{Engine, HOUR, NOW, TestApp, purchase_input};
use crate::support::graphql::customer;
use crate::support::websocket::PATIENCE;

const START: Cursor = Cursor { sequence: 0, version: 0, posted_at: 0, stamp: None };

async fn feed(app: &Arc<App>, viewer: &Viewer, expires_at: Instant, after: Option<Cursor>) -> Result<Feed, Error> {
    let after = after.map(Cursor::to_text);
    Feed::open(Arc::clone(app), viewer.require_reader().unwrap(), expires_at, None, after).await
}

/// Starts an application with a campaign that gives 10 points for each purchase.
async fn with_campaign(engine: Engine) -> TestApp {
    let test = TestApp::start(engine).await;
    test.campaign(json!({
        "name": "each", "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
        "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 },
    }))
    .await;
    test
}

async fn next(stream: &mut (impl futures_util::Stream<Item = Result<Update, Error>> + Unpin)) -> Result<Update, Error> {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("an item in time").expect("no end of the stream")
}

/// Sends repeated and late wake-ups, without the entries of a commit.
fn confuse(app: &App, version: i64) {
    for version in [version, version - 1, version] {
        app.live.wake("ada", version, || None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wake_ups_that_come_twice_and_late_change_nothing() {
    let test = with_campaign(Engine::Sqlite).await;
    let ada = customer("ada");
    let mut stream = Box::pin(feed(&test.app, &ada, Instant::FOREVER, None).await.unwrap().stream());
    let mut sequences = Vec::new();
    for number in 0..30 {
        confuse(&test.app, number);
        test.buy("ada", &format!("p{number}"), NOW - HOUR * (number + 1), "5.00").await.unwrap();
        confuse(&test.app, number + 1);
        let update = next(&mut stream).await.unwrap();
        sequences.extend(update.entries.iter().map(|entry| entry.sequence));
    }
    assert_eq!(sequences, (1..=30).collect::<Vec<i64>>());
    drop(stream);
    assert_eq!(test.app.live.topics(), Vec::<String>::new());
}

/// Two servers share a database. Each finds the other's commits by its sweep alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_tell_each_other_s_commits() {
    let test = with_campaign(Engine::Postgres).await;
    let other = test.another().await;
    let stop = CancellationToken::new();
    let sweeps: Vec<_> = [&test.app, &other].map(|app| tokio::spawn(sweep::run(Arc::clone(app), stop.clone()))).into();
    let count = 60;
    let listening = [&test.app, &other].map(|app| {
        let app = Arc::clone(app);
        tokio::spawn(async move {
            let ada = customer("ada");
            let mut stream = Box::pin(feed(&app, &ada, Instant::FOREVER, Some(START)).await.unwrap().stream());
            let (mut sequences, mut version) = (Vec::new(), 0);
            while sequences.len() < count {
                let update = next(&mut stream).await.unwrap();
                assert!(update.customer.version >= version);
                version = update.customer.version;
                sequences.extend(update.entries.iter().map(|entry| entry.sequence));
            }
            sequences
        })
    });
    for number in 0..i64::try_from(count).unwrap() {
        let app = if number % 3 == 0 { &other } else { &test.app };
        let input = purchase_input("ada", &format!("p{number}"), NOW - HOUR * (number + 1), "5.00");
        windfall::app::purchase::record(app, &TestApp::shop(), vec![(vec![], input)]).await.unwrap();
    }
    for told in listening {
        assert_eq!(told.await.unwrap(), (1..=i64::try_from(count).unwrap()).collect::<Vec<i64>>());
    }
    stop.cancel();
    for sweep in sweeps {
        sweep.await.unwrap();
    }
    other.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_the_clock_reaches_the_token_s_end() {
    let test = with_campaign(Engine::Sqlite).await;
    let ada = customer("ada");
    let mut stream = Box::pin(feed(&test.app, &ada, Instant(NOW + HOUR), Some(START)).await.unwrap().stream());
    test.buy("ada", "p", NOW - HOUR, "5.00").await.unwrap();
    let reached = next(&mut stream).await.unwrap().cursor;
    test.set_now(NOW + HOUR - 1);
    assert!(tokio::time::timeout(Duration::from_millis(50), stream.next()).await.is_err());
    test.set_now(NOW + HOUR);
    match next(&mut stream).await {
        Err(Error::Interrupted { cursor, cause }) => {
            assert_eq!(Cursor::parse(&cursor).unwrap(), reached);
            assert!(matches!(*cause, Error::Unauthenticated));
        }
        other => panic!("{other:?}"),
    }
    assert!(stream.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_a_later_version_is_unknown() {
    let test = with_campaign(Engine::Sqlite).await;
    test.buy("ada", "p", NOW - HOUR, "5.00").await.unwrap();
    let ada = customer("ada");
    let row = test.customer("ada").await.unwrap();
    let cursor = Cursor::of(&row);
    let (posted_at, stamp) = (cursor.posted_at, cursor.stamp.unwrap());
    let of = |sequence, version, posted_at, stamp| Cursor { sequence, version, posted_at, stamp };
    for unknown in [
        of(2, 1, posted_at, None),
        of(1, 2, posted_at, None),
        of(0, 2, 0, None),
        of(i64::from(u32::MAX), 1, posted_at, None),
        of(1, 0, posted_at, None),
        of(1, 1, posted_at - 1, None),
        of(0, 0, posted_at, None),
        of(1, 1, posted_at, Some(stamp - 1)),
    ] {
        let opened = feed(&test.app, &ada, Instant::FOREVER, Some(unknown)).await;
        assert!(matches!(opened, Err(Error::CursorUnknown)), "{unknown:?}");
    }
    for known in [of(0, 0, 0, None), of(0, 0, 0, Some(0)), of(0, 1, 0, None), of(1, 1, posted_at, None), cursor] {
        assert_eq!(Cursor::parse(&known.to_text()).unwrap(), known);
        assert!(feed(&test.app, &ada, Instant::FOREVER, Some(known)).await.is_ok(), "{known:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn updates_that_are_caught_up_with_take_turns() {
    const TURNS: usize = 16;
    let test = with_campaign(Engine::Sqlite).await;
    for number in 0..2 {
        test.buy("ada", &format!("p{number}"), NOW - HOUR * (number + 1), "5.00").await.unwrap();
    }
    let ada = customer("ada");
    let mut held = Vec::new();
    for _ in 0..TURNS {
        let mut stream = Box::pin(feed(&test.app, &ada, Instant::FOREVER, Some(START)).await.unwrap().stream());
        held.push((next(&mut stream).await.unwrap(), stream));
    }
    let mut waits = Box::pin(feed(&test.app, &ada, Instant::FOREVER, Some(START)).await.unwrap().stream());
    let early = tokio::time::timeout(Duration::from_millis(100), waits.next()).await;
    assert!(early.is_err(), "{early:?}");
    // A live update needs no permit.
    let mut live = Box::pin(feed(&test.app, &ada, Instant::FOREVER, None).await.unwrap().stream());
    test.buy("ada", "p2", NOW, "5.00").await.unwrap();
    assert_eq!(next(&mut live).await.unwrap().entries.len(), 1);
    // An update that has been delivered returns its permit.
    drop(held.pop());
    assert_eq!(next(&mut waits).await.unwrap().entries[0].sequence, 1);
    for _ in 0..TURNS {
        let mut stream = Box::pin(feed(&test.app, &ada, Instant::FOREVER, Some(START)).await.unwrap().stream());
        assert_eq!(next(&mut stream).await.unwrap().entries[0].sequence, 1);
    }
}
