//! Many sockets that send nothing or read nothing: the memory that they take, and that they affect nobody else.

use std::time::Duration;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::shop_with;
use crate::support::app::cases;
use crate::support::process::{open_files_max, open_sockets, resident_bytes};
use crate::support::server::token;
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::{PATIENCE, Socket};

/// The number of other files that this process or the server may have open.
const OTHER_FILES: usize = 1_000;

/// Asserts that this process may open enough files. The server inherits the limit.
fn files_suffice(sockets: usize) {
    let max = open_files_max(std::process::id());
    let needed = sockets + OTHER_FILES;
    assert!(max >= needed, "this test opens {sockets} sockets: run it with `ulimit -n` of {needed} or more, not {max}");
}

/// Starts a server that accepts all these sockets, although they belong to one client.
async fn crowded() -> (Shop, Sqlite) {
    shop_with(|command| {
        command.env("WINDFALL__HTTP__SOCKETS_PER_SUBJECT", "10000");
        command.env("WINDFALL__HTTP__SOCKETS_PER_ADDRESS", "10000");
        // Each update costs points for each of hundreds of subscriptions of one customer.
        command.env("WINDFALL__LIMITS__CUSTOMER_POINTS_PER_SECOND", "10000000");
        command.env("WINDFALL__LIMITS__CUSTOMER_BURST_POINTS", "10000000");
    })
    .await
}

async fn until_let_go(shop: &Shop, sockets: usize) {
    let let_go = async {
        while open_sockets(shop.server.pid()) > sockets {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, let_go).await.expect("the server releases all sockets");
}

async fn connect(shop: &Shop, count: usize) -> Vec<Socket> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        sockets.push(Socket::connect(shop.address()).await);
    }
    sockets
}

/// The resident memory of the server before a wave of sockets, at its height, and after it, in bytes.
#[derive(Debug)]
struct Wave {
    before: u64,
    height: u64,
    after: u64,
}

/// Asserts that a socket takes less than `bytes_each`, and that no memory is lost. The allocator keeps freed memory instead of
/// returning it, so the first wave leaves a higher level, but later waves fit into that. If each socket lost an eighth of
/// `bytes_each`, the last level would show that.
fn are_bounded(waves: &[Wave], sockets: usize, bytes_each: u64) {
    let sockets = sockets as u64;
    for wave in waves {
        let taken = wave.height.saturating_sub(wave.before);
        assert!(taken < sockets * bytes_each, "{} bytes per socket: {waves:?}", taken / sockets);
    }
    let (first, last) = (&waves[0], &waves[waves.len() - 1]);
    let came = sockets * (waves.len() as u64 - 1);
    assert!(last.after < first.after.max(first.height) + came * bytes_each / 8, "{waves:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_never_say_who_they_are_are_closed() {
    const COUNT: usize = 2_000;
    files_suffice(COUNT);
    let (shop, _sqlite) = crowded().await;
    let (pid, idle) = (shop.server.pid(), open_sockets(shop.server.pid()));
    let mut waves = Vec::new();
    for _ in 0..cases(3, 10) {
        let before = resident_bytes(pid);
        let sockets = connect(&shop, COUNT).await;
        let height = resident_bytes(pid);
        for mut socket in sockets {
            assert_eq!(socket.closed().await, 4408);
        }
        until_let_go(&shop, idle).await;
        waves.push(Wave { before, height, after: resident_bytes(pid) });
    }
    println!("{COUNT} sockets: {waves:?}");
    are_bounded(&waves, COUNT, 16 * 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_subscribe_and_never_read_disturb_nobody() {
    const COUNT: usize = 500;
    files_suffice(COUNT);
    let (shop, _sqlite) = crowded().await;
    let (pid, idle) = (shop.server.pid(), open_sockets(shop.server.pid()));
    let ada = token(Role::Customer, "ada");
    let updates =
        "subscription($after: String) { pointsUpdated(after: $after) { entries { sequence } balance { version } } }";
    let mut bought = 0;
    let mut waves = Vec::new();
    // The first wave is one socket, so that what the server loads once is not counted.
    for count in [&[1][..], &vec![COUNT; cases(3, 10)]].concat() {
        let before = resident_bytes(pid);
        let mut silent = connect(&shop, count).await;
        for socket in &mut silent {
            let authorization = format!("Bearer {ada}");
            socket.send(json!({ "type": "connection_init", "payload": { "authorization": authorization } })).await;
            socket.subscribe("1", updates, Value::Null).await;
        }
        let mut reader = Socket::open(shop.address(), &ada).await;
        let cursor = &shop.balance("ada").await["cursor"];
        reader.subscribe("1", updates, json!({ "after": cursor })).await;
        for _ in 0..cases(15, 100) {
            shop.buy("ada", bought).await;
            bought += 1;
            let message = reader.message().await;
            assert_eq!(message["payload"]["data"]["pointsUpdated"]["entries"][0]["sequence"], bought, "{message}");
        }
        let height = resident_bytes(pid);
        drop((silent, reader));
        until_let_go(&shop, idle).await;
        waves.push(Wave { before, height, after: resident_bytes(pid) });
    }
    println!("{COUNT} sockets: {waves:?}");
    are_bounded(&waves[1..], COUNT, 64 * 1024);
}
