//! Wrong clocks. What cannot be undone depends on the database's clock and on a clock that runs evenly. A caller is not blamed
//! for the wrong clock of a node.

use std::time::Duration;

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, EntityTrait as _};
use serde_json::{Value, json};
use windfall::app::App;
use windfall::app::clock::Clock;
use windfall::app::jobs::settlement;
use windfall::app::reading::snapshot::Extent;
use windfall::engine::time::Instant;
use windfall::http::auth::Role;

use crate::support::app::{DAY, ENGINES, Engine, HOUR, TestApp, open, purchase_input, scratch, settings};
use crate::support::faketime::WrongClock;
use crate::support::node::metric;
use crate::support::server::{Server, ask, command, token_for};
use crate::support::shop::Shop;
use crate::support::websocket::PATIENCE;

const SECOND: i64 = 1_000_000;

fn now() -> Instant {
    Clock::System.now()
}

fn at(micros: i64) -> String {
    now().plus(micros).to_string()
}

/// Starts a server whose clock is wrong.
async fn with_clock(url: &str, clock: &WrongClock) -> Shop {
    let mut command = command(url);
    clock.give_to(&mut command);
    let shop = Shop::of(Server::start_with(&mut command).await.0);
    // These tokens are valid by the right clock and by the wrong one.
    let token = |role| token_for(role, "shop", Duration::from_hours(24 * 100));
    Shop { admin: token(Role::Admin), storefront: token(Role::Storefront), ..shop }
}

/// Makes and activates a campaign that is settled in eleven days.
async fn campaign(url: &str) -> String {
    let shop = Shop::open(url).await;
    let id = shop.campaign(json!({ "endsAt": at(10 * DAY), "lateness": "P1D" })).await;
    assert!(shop.server.terminate().success());
    id
}

async fn transition(shop: &Shop, mutation: &str, id: &str) {
    let query = format!("mutation($id: ID!) {{ {mutation}(id: $id) {{ userErrors {{ code message }} }} }}");
    let answer = shop.data(&shop.admin, &query, json!({ "id": id })).await;
    assert_eq!(answer[mutation]["userErrors"], json!([]));
}

async fn status(shop: &Shop, id: &str) -> Value {
    let query = "query($id: ID!) { campaign(id: $id) { status } }";
    shop.data(&shop.admin, query, json!({ "id": id })).await["campaign"]["status"].take()
}

/// Records a purchase that is `ahead` µs in the future. Returns the code of the user error or of the request's error, if any.
async fn buy(shop: &Shop, id: &str, ahead: i64) -> Option<String> {
    let query = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";
    let input = json!({
        "externalId": id, "customerExternalId": "ada", "purchasedAt": at(ahead), "total": "5.00", "currency": "EUR",
    });
    let answer = ask(&shop.client, shop.address(), &shop.storefront, query, json!({ "input": input })).await.unwrap();
    let mine = &answer["data"]["recordPurchase"]["userErrors"][0]["code"];
    mine.as_str().or(answer["errors"][0]["extensions"]["code"].as_str()).map(str::to_owned)
}

async fn ready(shop: &Shop) -> String {
    shop.client.get(format!("{}/readyz", shop.address())).send().await.unwrap().text().await.unwrap()
}

/// A server looks for campaigns to settle as soon as it starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_weeks_ahead_settles_nothing() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        let id = campaign(&url).await;
        let clock = WrongClock::by(60 * DAY / SECOND);
        let shop = with_clock(&url, &clock).await;
        // When these are recorded, the first look is long over.
        for number in 0..20 {
            shop.buy("ada", number).await;
        }
        let node_says = status(&shop, &id).await;
        assert!(shop.server.terminate().success());
        let database = open(&url).await;
        let row = entity::campaign::Entity::find().one(database.read()).await.unwrap().unwrap();
        assert_eq!(row.settled_revision, None, "{engine:?}: {node_says}");
        if engine == Engine::Postgres {
            assert_eq!(node_says, "ACTIVE", "by the database's clock");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boundaries_are_placed_by_the_database_s_clock() {
    let (url, _) = scratch(Engine::Postgres).await;
    let id = campaign(&url).await;
    for wrong_by in [-HOUR, HOUR] {
        let clock = WrongClock::by(wrong_by / SECOND);
        let shop = with_clock(&url, &clock).await;
        let before = now();
        transition(&shop, "pauseCampaign", &id).await;
        let paused = boundary(&url).await;
        transition(&shop, "resumeCampaign", &id).await;
        let resumed = boundary(&url).await;
        assert!(before <= paused && paused < resumed && resumed <= now(), "{before} {paused} {resumed}");
        shop.buy("ada", usize::from(wrong_by > 0)).await;
    }
    let database = open(&url).await;
    for purchase in entity::purchase::Entity::find().all(database.read()).await.unwrap() {
        assert!((now().0 - purchase.recorded_at).abs() < HOUR / 2, "{}", purchase.recorded_at);
    }
}

/// Returns the latest boundary of the campaign.
async fn boundary(url: &str) -> Instant {
    let row = entity::campaign::Entity::find().one(open(url).await.read()).await.unwrap().unwrap();
    Instant(row.boundary.expect("a boundary"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_ahead_of_a_wrong_clock_is_not_to_blame() {
    let (url, _) = scratch(Engine::Postgres).await;
    let clock = WrongClock::by(-HOUR / SECOND);
    let shop = with_clock(&url, &clock).await;
    assert_eq!(buy(&shop, "now", 0).await, None, "an hour ahead of the node, but not of the database");
    assert_eq!(buy(&shop, "ahead", HOUR).await.as_deref(), Some("UNAVAILABLE"));
    assert_eq!(ready(&shop).await, "degraded: this node's clock is 3600 s behind the database's");
    let skew = metric(&shop, "windfall_clock_skew_seconds").await;
    assert!((-3_602.0..=-3_598.0).contains(&skew), "{skew}");
    clock.set(0);
    assert_eq!(buy(&shop, "ahead", HOUR).await.as_deref(), Some("PURCHASED_IN_FUTURE"));
    assert_eq!(ready(&shop).await, "ok");
}

/// A process that has just started does not know whether its clock is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_settled_by_a_clock_that_was_not_watched() {
    for engine in ENGINES {
        let (url, _kept) = scratch(engine).await;
        campaign(&url).await;
        let database = open(&url).await;
        is_due(&database).await;
        let clock = Clock::of_database(&database).await.unwrap();
        let app = App::start(database, clock, &settings(&url)).await.unwrap();
        assert_eq!(settlement::run(&app).await.unwrap(), 0, "{engine:?}");
        app.stop().await.unwrap();
    }
}

/// A read that goes by a wrong clock would show points that another node does not show.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_read_and_each_write_corrects_the_clock_of_a_node() {
    let (url, _kept) = scratch(Engine::Postgres).await;
    let database = open(&url).await;
    database.migrate().await.unwrap();
    let clock = Clock::of_database(&database).await.unwrap();
    let app = App::start(database, clock, &settings(&url)).await.unwrap();
    for writes in [false, true] {
        let right = now().0;
        app.clock.told(Instant(right + HOUR));
        if writes {
            let input = purchase_input("ada", "p", right, "1.00");
            windfall::app::purchase::record(&app, &TestApp::shop(), vec![(vec![], input)]).await.unwrap();
        } else {
            app.snapshots().find(&[("ada".to_owned(), None)], Extent::Balance).await.unwrap();
        }
        let wrong_by = app.clock.now().minus(right).0;
        assert!(wrong_by < HOUR / 2, "writes: {writes}, still wrong by {wrong_by} us");
    }
    app.stop().await.unwrap();
}

/// Moves the ends of all campaigns into the past, so that their settlement is due.
async fn is_due(database: &windfall::app::database::Database) {
    let tx = database.begin().await.unwrap();
    let ended = now().0 - 2 * DAY;
    let sql = format!("UPDATE campaign SET ends_at = {ended}; UPDATE installation SET set_revision = set_revision + 1");
    tx.execute_unprepared(&sql).await.unwrap();
    tx.commit().await.unwrap();
}

/// The settlement job runs once a minute, so this test takes about five minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes five minutes; scripts/test runs it with WINDFALL_TEST_SIZE=full"]
async fn a_clock_that_is_weeks_ahead_for_a_minute_settles_nothing_but_what_is_due() {
    let both = ENGINES.into_iter().map(async |engine| {
        let (url, _kept) = scratch(engine).await;
        campaign(&url).await;
        is_due(&open(&url).await).await;
        let id = campaign(&url).await;
        let clock = WrongClock::by(0);
        let shop = with_clock(&url, &clock).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        clock.set(60 * DAY / SECOND);
        tokio::time::sleep(Duration::from_mins(1)).await;
        clock.set(0);
        let settled = async || {
            let query = "{ campaigns(first: 9, status: [SETTLED]) { nodes { id } } }";
            shop.data(&shop.admin, query, json!({})).await["campaigns"]["nodes"].take()
        };
        let due = async {
            while settled().await == json!([]) {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE + Duration::from_mins(5), due).await.expect("the due campaign is settled");
        assert_eq!(status(&shop, &id).await, "ACTIVE", "{engine:?}");
    });
    join_all(both).await;
}
