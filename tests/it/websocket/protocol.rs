//! Every violation of the protocol that closes a socket, with its code.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use windfall::http::auth::Role;

use super::{is_quiet, shop, shop_with};
use crate::support::server::token_for;
use crate::support::shop::Shop;
use crate::support::websocket::{Message, PROTOCOL, Socket};

/// The server's limit on the size of a message.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

fn message(value: &Value) -> Message {
    Message::text(value.to_string())
}

/// Sends a message and returns the code with which the server closes the socket.
async fn closed_by(mut socket: Socket, message: Message) -> u16 {
    socket.send_raw(message).await;
    socket.closed().await
}

async fn initialized(shop: &Shop) -> Socket {
    Socket::open(shop.address(), &shop.storefront).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_closes_with_4400_before_and_after_the_initialisation() {
    let (shop, _sqlite) = shop().await;
    let texts = [
        "",
        "{",
        "nonsense",
        "null",
        "7",
        "\"ping\"",
        "[]",
        "[\"ping\"]",
        "[{\"type\": \"ping\"}]",
        "{}",
        "{\"type\": 7}",
        "{\"type\": null}",
        "{\"type\": \"\"}",
        "{\"type\": \"nonsense\"}",
        "{\"type\": \"Ping\"}",
        // These messages belong to the legacy protocol.
        "{\"type\": \"start\", \"id\": \"1\", \"payload\": {\"query\": \"{ __typename }\"}}",
        "{\"type\": \"connection_terminate\"}",
        // Only the server may send these messages.
        "{\"type\": \"connection_ack\"}",
        "{\"type\": \"next\", \"id\": \"1\", \"payload\": {}}",
        "{\"type\": \"error\", \"id\": \"1\", \"payload\": []}",
        "{\"type\": \"ping\"} {\"type\": \"ping\"}",
        "{\"type\": \"ping\", \"payload\": 7}",
        "{\"type\": \"ping\", \"payload\": []}",
        "{\"type\": \"ping\", \"payload\": \"text\"}",
        "{\"type\": \"ping\", \"payload\": true}",
        "{\"type\": \"pong\", \"payload\": 7}",
        "{\"type\": \"pong\", \"payload\": []}",
    ];
    let messages = texts.into_iter().map(Message::text);
    for message in messages.chain([Message::binary("{\"type\": \"ping\"}"), Message::binary("")]) {
        assert_eq!(closed_by(Socket::connect(shop.address()).await, message.clone()).await, 4400, "{message:?}");
        assert_eq!(closed_by(initialized(&shop).await, message.clone()).await, 4400, "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_that_are_none_close_with_4400() {
    let (shop, _sqlite) = shop().await;
    let asks = json!({ "query": "{ __typename }" });
    for message in [
        json!({ "type": "subscribe", "payload": asks }),
        json!({ "type": "subscribe", "id": "", "payload": asks }),
        json!({ "type": "subscribe", "id": null, "payload": asks }),
        json!({ "type": "subscribe", "id": 7, "payload": asks }),
        json!({ "type": "subscribe", "id": ["1"], "payload": asks }),
        json!({ "type": "subscribe", "id": "x".repeat(201), "payload": asks }),
        json!({ "type": "subscribe", "id": "1" }),
        json!({ "type": "subscribe", "id": "1", "payload": null }),
        json!({ "type": "subscribe", "id": "1", "payload": "{ __typename }" }),
        json!({ "type": "subscribe", "id": "1", "payload": ["{ __typename }"] }),
        json!({ "type": "subscribe", "id": "1", "payload": {} }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": "" } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": 7 } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": null } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": ["{ __typename }"] } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": "{ __typename }", "variables": [] } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": "{ __typename }", "variables": "{}" } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": "{ __typename }", "operationName": 7 } }),
        json!({ "type": "subscribe", "id": "1", "payload": { "query": "{ __typename }", "extensions": [] } }),
        json!({ "type": "complete" }),
        json!({ "type": "complete", "id": "" }),
        json!({ "type": "complete", "id": 7 }),
    ] {
        assert_eq!(closed_by(initialized(&shop).await, self::message(&message)).await, 4400, "{message}");
    }
    for payload in [json!(7), json!("text"), json!([]), json!(true)] {
        let init = json!({ "type": "connection_init", "payload": payload });
        assert_eq!(closed_by(Socket::connect(shop.address()).await, message(&init)).await, 4400, "{init}");
    }
    // This is the longest valid id.
    let mut socket = initialized(&shop).await;
    let id = "x".repeat(200);
    socket.subscribe(&id, "{ __typename }", Value::Null).await;
    assert_eq!(socket.message().await["id"], id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_does_not_say_who_it_is_is_closed() {
    let (shop, _sqlite) = shop_with(|command| {
        command.env("WINDFALL__AUTH__LEEWAY_SECONDS", "0");
    })
    .await;
    let asks = json!({ "type": "subscribe", "id": "1", "payload": { "query": "{ __typename }" } });
    assert_eq!(closed_by(Socket::connect(shop.address()).await, message(&asks)).await, 4401);

    let expired = token_for(Role::Customer, "ada", Duration::ZERO);
    for authorization in [
        json!("nonsense"),
        json!(""),
        json!("Bearer "),
        json!("Bearer nonsense"),
        json!(shop.storefront),
        json!(format!("Basic {}", shop.storefront)),
        json!(format!("Bearer {}x", shop.storefront)),
        json!(format!("Bearer {expired}")),
        json!(format!("Bearer {}", "x".repeat(10_000))),
        json!(7),
        json!(true),
        json!([]),
        json!({}),
    ] {
        let init = json!({ "type": "connection_init", "payload": { "authorization": authorization } });
        assert_eq!(closed_by(Socket::connect(shop.address()).await, message(&init)).await, 4403, "{authorization}");
    }

    let mut late = Socket::connect(shop.address()).await;
    is_quiet(&mut late).await;
    assert_eq!(late.closed().await, 4408);

    // Sockets need a token.
    for payload in [json!(null), json!({}), json!({ "authorization": null }), json!({ "other": 7 })] {
        let init = json!({ "type": "connection_init", "payload": payload });
        assert_eq!(closed_by(Socket::connect(shop.address()).await, message(&init)).await, 4403, "{payload}");
    }
    let init = json!({ "type": "connection_init" });
    assert_eq!(closed_by(initialized(&shop).await, message(&init)).await, 4429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_one_operation_s_at_a_time() {
    let (shop, _sqlite) = shop().await;
    let updates = "subscription { pointsUpdated(customerExternalId: \"ada\") { cursor } }";
    for second in [updates, "{ __typename }"] {
        let mut socket = initialized(&shop).await;
        socket.subscribe("1", updates, Value::Null).await;
        socket.subscribe("2", updates, Value::Null).await;
        is_quiet(&mut socket).await;
        socket.subscribe("1", second, Value::Null).await;
        assert_eq!(socket.closed().await, 4409);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_subprotocol_is_spoken() {
    let (shop, _sqlite) = shop().await;
    for headers in
        [&[][..], &[("sec-websocket-protocol", "graphql-ws")], &[("sec-websocket-protocol", "soap, graphql-ws")]]
    {
        let mut socket = Socket::connect_with(shop.address(), headers).await.expect("a WebSocket");
        assert_eq!(socket.closed().await, 4406, "{headers:?}");
    }
    for headers in [[PROTOCOL], [("sec-websocket-protocol", "graphql-ws, graphql-transport-ws")]] {
        let mut socket = Socket::connect_with(shop.address(), &headers).await.expect("a WebSocket");
        is_quiet(&mut socket).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_have_a_largest_size() {
    let (shop, _sqlite) = shop().await;
    let ping = |bytes: usize| {
        let around = json!({ "type": "ping", "payload": { "text": "" } }).to_string().len();
        json!({ "type": "ping", "payload": { "text": "x".repeat(bytes - around) } })
    };
    let mut socket = initialized(&shop).await;
    socket.send(ping(MAX_MESSAGE_BYTES)).await;
    assert_eq!(socket.message().await["payload"], ping(MAX_MESSAGE_BYTES)["payload"]);
    for bytes in [MAX_MESSAGE_BYTES + 1, 10 * MAX_MESSAGE_BYTES] {
        assert_eq!(closed_by(initialized(&shop).await, message(&ping(bytes))).await, 1009, "{bytes}");
    }
    // Each part is small enough, but the message is not.
    let mut socket = initialized(&shop).await;
    let part = |op, last| Message::Frame(Frame::message(vec![b' '; MAX_MESSAGE_BYTES / 2], OpCode::Data(op), last));
    socket.send_raw(part(Data::Text, false)).await;
    socket.send_raw(part(Data::Continue, false)).await;
    socket.send_raw(part(Data::Continue, true)).await;
    assert_eq!(socket.closed().await, 1009);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_websocket_traffic_closes_too() {
    let (shop, _sqlite) = shop().await;
    let text = |bytes: &'static [u8]| Message::Frame(Frame::message(bytes, OpCode::Data(Data::Text), true));
    assert_eq!(closed_by(initialized(&shop).await, text(b"{\"type\": \"ping\xff\"}")).await, 1007);
    let mut reserved = Frame::message("{}", OpCode::Data(Data::Text), true);
    reserved.header_mut().rsv1 = true;
    assert_eq!(closed_by(initialized(&shop).await, Message::Frame(reserved)).await, 1002);
    let lost_part = Frame::message("{}", OpCode::Data(Data::Continue), true);
    assert_eq!(closed_by(initialized(&shop).await, Message::Frame(lost_part)).await, 1002);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_are_answered_with_their_payload() {
    let (shop, _sqlite) = shop().await;
    for mut socket in [Socket::connect(shop.address()).await, initialized(&shop).await] {
        let payload = json!({ "a": { "b": [1, "ü", null] } });
        socket.send(json!({ "type": "ping", "payload": payload })).await;
        assert_eq!(socket.message().await, json!({ "type": "pong", "payload": payload }));
        socket.send(json!({ "type": "ping" })).await;
        assert_eq!(socket.message().await, json!({ "type": "pong" }));
        socket.send(json!({ "type": "ping", "payload": null, "other": 7 })).await;
        assert_eq!(socket.message().await, json!({ "type": "pong" }));
        // The server does not respond to pongs, requested or not.
        socket.send(json!({ "type": "pong", "payload": payload })).await;
        socket.send(json!({ "type": "pong" })).await;
        socket.send_raw(Message::Ping("the library's own".into())).await;
        is_quiet(&mut socket).await;
    }
}

/// The server releases a socket that the client closes, that breaks the protocol, or whose connection is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_that_end_are_let_go() {
    use crate::support::process::open_sockets;
    use crate::support::websocket::PATIENCE;
    let (shop, _sqlite) = shop().await;
    let updates = "subscription { pointsUpdated(customerExternalId: \"ada\") { cursor } }";
    let before = open_sockets(shop.server.pid());
    for number in 0..20 {
        let mut socket = initialized(&shop).await;
        socket.subscribe("1", updates, Value::Null).await;
        match number % 3 {
            0 => socket.close().await,
            1 => assert_eq!(closed_by(socket, Message::text("{")).await, 4400),
            _ => drop(socket),
        }
    }
    let let_go = async {
        while open_sockets(shop.server.pid()) > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, let_go).await.expect("the server releases all sockets");
}
