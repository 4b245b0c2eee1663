//! Many sockets that do nothing, or read nothing: what they take, and that they take it from nobody.

use std::time::Duration;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::shop_with;
use crate::support::direct::cases;
use crate::support::process::{open_files_max, open_sockets, resident_bytes};
use crate::support::server::token;
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::{PATIENCE, Socket};

/// Files that the rest of this process and the server may have open.
const OTHER_FILES: usize = 1_000;

/// Here and in the server, which inherits the limit.
fn files_suffice(sockets: usize) {
    let max = open_files_max(std::process::id());
    let needed = sockets + OTHER_FILES;
    assert!(max >= needed, "this test opens {sockets} sockets: run it with `ulimit -n` of {needed} or more, not {max}");
}

/// A server that takes them all, though they are one client's.
async fn crowded() -> (Shop, Sqlite) {
    shop_with(|command| {
        command.env("WINDFALL__HTTP__SOCKETS_PER_SUBJECT", "10000");
        command.env("WINDFALL__HTTP__SOCKETS_PER_ADDRESS", "10000");
    })
    .await
}

async fn until_let_go(shop: &Shop, sockets: usize) {
    let let_go = async {
        while open_sockets(shop.server.pid()) > sockets {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, let_go).await.expect("no socket is left");
}

async fn connect(shop: &Shop, count: usize) -> Vec<Socket> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        sockets.push(Socket::connect(shop.address()).await);
    }
    sockets
}

/// What the server held when a wave of sockets was at its height, and after it had gone.
#[derive(Debug)]
struct Wave {
    before: u64,
    height: u64,
    after: u64,
}

/// Each socket takes no more than so many bytes. And nothing of it stays: the allocator keeps what was freed rather than
/// give it back, so the first wave leaves a higher level, but those that follow find room in that. An eighth of those
/// bytes that each socket left behind would show.
fn are_bounded(waves: &[Wave], sockets: usize, bytes_each: u64) {
    let sockets = sockets as u64;
    for wave in waves {
        let taken = wave.height.saturating_sub(wave.before);
        assert!(taken < sockets * bytes_each, "{} bytes a socket: {waves:?}", taken / sockets);
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
    // The first one alone, so that what the server loads once is not counted.
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
