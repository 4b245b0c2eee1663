//! Unfinished messages: how much of them the server keeps, and for how long.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use windfall::http::auth::Role;

use super::{is_quiet, shop, shop_with};
use crate::support::process::resident_bytes;
use crate::support::server::token;
use crate::support::shop::Shop;
use crate::support::websocket::{Heard, Message, PATIENCE, Socket, host};

const KIB: usize = 1024;

fn part(op: Data, bytes: usize, last: bool) -> Message {
    Message::Frame(Frame::message(vec![b' '; bytes], OpCode::Data(op), last))
}

/// The first frame of an unfinished message. The frame itself is whole.
fn beginning(bytes: usize) -> Message {
    part(Data::Text, bytes, false)
}

async fn initialized(shop: &Shop) -> Socket {
    Socket::open(shop.address(), &shop.storefront).await
}

/// Starts a server with a budget of 1 MiB for unfinished input. One address gets at most half of it.
async fn narrow() -> (Shop, crate::support::sqlite::Sqlite) {
    shop_with(|command| {
        command.env("WINDFALL__HTTP__BODY_LIMIT_BYTES", "262144");
        command.env("WINDFALL__HTTP__UNFINISHED_BYTES", "1048576");
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_a_token_is_accepted_a_few_kib_are_taken() {
    let (shop, _sqlite) = shop().await;
    // The bytes arrive in one frame, or in several with pings in between.
    let mut one = Socket::connect(shop.address()).await;
    one.send_raw(beginning(20 * KIB)).await;
    let mut several = Socket::connect(shop.address()).await;
    several.send_raw(beginning(4 * KIB)).await;
    for _ in 0..4 {
        several.send_raw(Message::Ping(vec![b'x'; 100].into())).await;
        several.send_raw(part(Data::Continue, 4 * KIB, false)).await;
    }
    for mut socket in [one, several] {
        // The server closes the connection before it has read everything, so the closing frame may be lost.
        let heard = socket.next().await;
        assert!(matches!(heard, Heard::Lost | Heard::Closed { code: 1009, .. }), "{heard:?}");
    }
    // The longest possible token fits.
    let mut socket = Socket::connect(shop.address()).await;
    let authorization = format!("Bearer {}", "x".repeat(8 * KIB));
    socket.send(json!({ "type": "connection_init", "payload": { "authorization": authorization } })).await;
    assert_eq!(socket.closed().await, 4403);
    // Pings that have been answered no longer count.
    let mut socket = Socket::connect(shop.address()).await;
    for _ in 0..300 {
        socket.send_raw(Message::Ping(vec![b'x'; 100].into())).await;
    }
    assert!(socket.is_open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_unfinished_messages_share_a_budget() {
    const COUNT: usize = 20;
    let (shop, _sqlite) = narrow().await;
    let before = resident_bytes(shop.server.pid());
    let mut open = Vec::new();
    for _ in 0..COUNT {
        let mut socket = initialized(&shop).await;
        socket.send_raw(beginning(200 * KIB)).await;
        if socket.is_open().await {
            open.push(socket);
        }
    }
    let held = resident_bytes(shop.server.pid()).saturating_sub(before);
    println!("{COUNT} messages of 200 KiB: {} are kept, {} KiB", open.len(), held / 1024);
    // Each message takes 192 KiB, because the first 8 KiB are free. A third message does not fit into half of the budget.
    assert_eq!(open.len(), 2);
    // Whole messages do not need the budget.
    let mut honest = initialized(&shop).await;
    is_quiet(&mut honest).await;
    shop.data(&shop.storefront, "{ __typename }", json!({})).await;
    // A message that is completed is processed, and frees its part of the budget.
    let mut finished = open.remove(0);
    finished.send_raw(part(Data::Continue, 10, true)).await;
    assert_eq!(finished.closed().await, 4400);
    let mut next = initialized(&shop).await;
    next.send_raw(beginning(200 * KIB)).await;
    assert!(next.is_open().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_share_it_too() {
    let (shop, _sqlite) = narrow().await;
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 250000\r\n\r\n",
        shop.storefront
    );
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(host(shop.address())).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may close the connection before all bytes are sent.
        let _ = stream.write_all(&vec![b' '; 200 * KIB]).await;
        streams.push(stream);
    }
    // Only two bodies fit. The server closes the other six connections at once, without waiting for the timeout.
    let mut cut = tokio::task::JoinSet::new();
    for mut stream in streams {
        cut.spawn(async move {
            let mut answered = Vec::new();
            let _ = stream.read_to_end(&mut answered).await;
            String::from_utf8_lossy(&answered).into_owned()
        });
    }
    for _ in 0..6 {
        let answered = tokio::time::timeout(PATIENCE, cut.join_next()).await.expect("the server closes a connection");
        let answered = answered.unwrap().unwrap();
        assert!(!answered.starts_with("HTTP/1.1 408"), "{answered}");
    }
    shop.data(&shop.storefront, "{ __typename }", json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_has_a_time_to_come_to_its_end() {
    let (shop, _sqlite) = shop_with(|command| {
        command.env("WINDFALL__HTTP__REQUEST_TIMEOUT_MS", "500");
    })
    .await;
    let mut slow = initialized(&shop).await;
    slow.send_raw(beginning(KIB)).await;
    // Pings show that the client is alive, but they do not extend the time.
    let closed = async {
        loop {
            slow.send_raw(Message::Ping("alive".into())).await;
            if let Some(heard) = slow.heard_within(Duration::from_millis(50)).await {
                return heard;
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, closed).await.expect("the server closes the socket");
    assert!(matches!(heard, Heard::Lost | Heard::Closed { code: 4408, .. }), "{heard:?}");
    // Between messages there is no timeout.
    let mut idle = initialized(&shop).await;
    let nothing = idle.heard_within(Duration::from_millis(1_500)).await;
    assert_eq!(nothing, None);
    is_quiet(&mut idle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_a_subject_are_bounded() {
    let (shop, _sqlite) = shop_with(|command| {
        command.env("WINDFALL__HTTP__SOCKETS_PER_SUBJECT", "2");
    })
    .await;
    let opened = async |token: &str| {
        let mut socket = Socket::connect(shop.address()).await;
        let authorization = format!("Bearer {token}");
        socket.send(json!({ "type": "connection_init", "payload": { "authorization": authorization } })).await;
        match socket.next().await {
            Heard::Message(_) => Ok(socket),
            Heard::Closed { code, .. } => Err(code),
            Heard::Lost => panic!("a closing frame is expected"),
        }
    };
    let [ada, bob] = ["ada", "bob"].map(|customer| token(Role::Customer, customer));
    let (first, second) = (opened(&ada).await.unwrap(), opened(&ada).await.unwrap());
    assert_eq!(opened(&ada).await.err(), Some(1013));
    let mut other = opened(&bob).await.unwrap();
    is_quiet(&mut other).await;
    first.close().await;
    let free = async { while opened(&ada).await.is_err() {} };
    tokio::time::timeout(PATIENCE, free).await.expect("a free place");
    drop(second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_of_an_address_are_bounded() {
    const LOCALHOST: [u8; 4] = [127, 0, 0, 1];
    let (shop, _sqlite) = shop_with(|command| {
        command.env("WINDFALL__HTTP__SOCKETS_PER_ADDRESS", "3");
    })
    .await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(initialized(&shop).await);
    }
    // The header counts only if a trusted proxy sends it.
    for headers in [&[][..], &[("x-forwarded-for", "203.0.113.9")]] {
        let refused = Socket::connect_from(LOCALHOST, shop.address(), headers).await.err().expect("no WebSocket");
        let code = &refused.body["errors"][0]["extensions"]["code"];
        assert_eq!((refused.status, code), (429, &json!("RATE_LIMITED")), "{headers:?}");
        assert_eq!(refused.body["errors"][0]["extensions"]["retryAfterSeconds"], 10);
    }
    let elsewhere = Socket::connect_from([127, 0, 0, 2], shop.address(), &[]).await;
    is_quiet(&mut elsewhere.expect("a WebSocket")).await;
    assert_ne!(shop.data(&shop.storefront, "{ __typename }", json!({})).await, Value::Null);
    drop(sockets);
    let free = async { while Socket::connect_from(LOCALHOST, shop.address(), &[]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, free).await.expect("a free place");
}
