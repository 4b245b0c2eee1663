//! The protocol graphql-transport-ws against a real server, message by message: the responses, what closes a socket and with
//! which code, and what many sockets cost.

mod crowd;
mod handshake;
mod operations;
mod protocol;
mod unfinished;

use std::process::Command;

use serde_json::json;

use crate::support::server::command;
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::Socket;

async fn shop() -> (Shop, Sqlite) {
    shop_with(|_| {}).await
}

/// Starts a server with a changed configuration, and a campaign that gives 10 points for each purchase.
async fn shop_with(configure: impl FnOnce(&mut Command)) -> (Shop, Sqlite) {
    let sqlite = Sqlite::new();
    let mut command = command(&sqlite.url());
    configure(&mut command);
    let shop = Shop::open_with(&mut command).await;
    shop.campaign(json!({})).await;
    (shop, sqlite)
}

/// Asserts that the socket is open and that no other message is on its way: the next one is the response to a ping.
async fn is_quiet(socket: &mut Socket) {
    let payload = json!({ "nonce": rand::random::<u32>() });
    socket.send(json!({ "type": "ping", "payload": payload })).await;
    assert_eq!(socket.message().await, json!({ "type": "pong", "payload": payload }));
}
