//! Messages that do not come to their end: how much of them is kept, and for how long.

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

/// One frame that is whole, of a message that is not.
fn beginning(bytes: usize) -> Message {
    part(Data::Text, bytes, false)
}

async fn initialized(shop: &Shop) -> Socket {
    Socket::open(shop.address(), &shop.storefront).await
}

/// With a budget of 1 MiB, of which one address gets half.
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
    // In one frame, in several, and with pings in between.
    let mut one = Socket::connect(shop.address()).await;
    one.send_raw(beginning(20 * KIB)).await;
    let mut several = Socket::connect(shop.address()).await;
    several.send_raw(beginning(4 * KIB)).await;
    for _ in 0..4 {
        several.send_raw(Message::Ping(vec![b'x'; 100].into())).await;
        several.send_raw(part(Data::Continue, 4 * KIB, false)).await;
    }
    for mut socket in [one, several] {
        // The server closes with something unread, so the client may not hear why.
        let heard = socket.next().await;
        assert!(matches!(heard, Heard::Lost | Heard::Closed { code: 1009, .. }), "{heard:?}");
    }
    // The longest token fits.
    let mut socket = Socket::connect(shop.address()).await;
    let authorization = format!("Bearer {}", "x".repeat(8 * KIB));
    socket.send(json!({ "type": "connection_init", "payload": { "authorization": authorization } })).await;
    assert_eq!(socket.closed().await, 4403);
    // Pings that are answered do not add up.
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
    println!("{COUNT} times 200 KiB: {} are held, {} KiB", open.len(), held / 1024);
    // 200 KiB but 8, in parts of 16, twice: a third time does not fit into half of the budget.
    assert_eq!(open.len(), 2);
    // Whoever sends whole messages does not need it.
    let mut honest = initialized(&shop).await;
    is_quiet(&mut honest).await;
    shop.data(&shop.storefront, "{ __typename }", json!({})).await;
    // What comes to its end is taken, and makes room.
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
        // The server may have closed it before all is sent.
        let _ = stream.write_all(&vec![b' '; 200 * KIB]).await;
        streams.push(stream);
    }
    // Two fit; whichever these are, of three one is cut at once, long before its time is over.
    let mut cut = tokio::task::JoinSet::new();
    for mut stream in streams {
        cut.spawn(async move {
            let mut answered = Vec::new();
            let _ = stream.read_to_end(&mut answered).await;
            String::from_utf8_lossy(&answered).into_owned()
        });
    }
    for _ in 0..6 {
        let answered = tokio::time::timeout(PATIENCE, cut.join_next()).await.expect("a connection is cut");
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
    // It is alive all the same, and that does not help it.
    let closed = async {
        loop {
            slow.send_raw(Message::Ping("alive".into())).await;
            if let Some(heard) = slow.heard_within(Duration::from_millis(50)).await {
                return heard;
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, closed).await.expect("the server closes it");
    assert!(matches!(heard, Heard::Lost | Heard::Closed { code: 4408, .. }), "{heard:?}");
    // Between messages there is no such time.
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
    tokio::time::timeout(PATIENCE, free).await.expect("a place");
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
    // Nobody is believed who is no trusted proxy.
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
    tokio::time::timeout(PATIENCE, free).await.expect("a place");
}
