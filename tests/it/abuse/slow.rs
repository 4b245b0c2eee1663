//! Slow clients. The server closes their connections, and they delay nobody else.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::operations::programs::free_port;
use crate::support::app::cases;
use crate::support::process::open_sockets;
use crate::support::server::command;
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;
use crate::support::websocket::{PATIENCE, Socket, host};

/// The connection preface of HTTP/2 and an empty SETTINGS frame.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SLOW_BODY: &[u8] =
    b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"query\":";

/// A server that waits at most one second for a request's head, and for the whole request.
fn impatient(sqlite: &Sqlite) -> Command {
    let mut command = command(&sqlite.url());
    command.env("WINDFALL__HTTP__HEAD_TIMEOUT_MS", "1000").env("WINDFALL__HTTP__REQUEST_TIMEOUT_MS", "1000");
    command
}

/// Reads until the server closes the connection, and returns what was read.
async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answered = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answered)).await;
    assert!(read.is_ok(), "the server does not close the connection after {:?}", String::from_utf8_lossy(&answered));
    String::from_utf8_lossy(&answered).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_do_not_come_to_their_end_are_cut() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(&mut impatient(&sqlite)).await;
    let idle = open_sockets(shop.server.pid());
    let beginnings: [&[u8]; 8] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n",
        HTTP_2,
        b"G",
        b"GET /gra",
        b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-le",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /heal",
    ];
    let mut slow = JoinSet::new();
    for beginning in beginnings {
        for _ in 0..cases(20, 200) {
            let (beginning, address) = (beginning.to_vec(), host(shop.address()).to_owned());
            slow.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // On a busy machine, the server may close the connection before the test has written to it.
                let _ = stream.write_all(&beginning).await;
                read_to_end(&mut stream).await;
            });
        }
    }
    let mut answered = 0;
    while !slow.is_empty() {
        shop.data(&shop.storefront, "{ customers { nodes { id } } }", json!({})).await;
        answered += 1;
        while let Some(ended) = slow.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(answered > 0);
    let let_go = async {
        while open_sockets(shop.server.pid()) > idle {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, let_go).await.expect("the server closes all slow connections");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_metrics_are_answered_when_no_connection_is_left() {
    let sqlite = Sqlite::new();
    let internal = format!("127.0.0.1:{}", free_port());
    let mut command = command(&sqlite.url());
    command.env("WINDFALL__HTTP__CONNECTIONS", "4").env("WINDFALL__HTTP__INTERNAL_LISTEN", &internal);
    let shop = Shop::open_with(&mut command).await;
    let mut sockets = Vec::new();
    // The client that waited for the server's start may still have the fourth connection.
    while sockets.len() < 3 {
        sockets.push(Socket::open(shop.address(), &shop.storefront).await);
    }
    let mut waiting = TcpStream::connect(host(shop.address())).await.unwrap();
    waiting.write_all(b"GET /graphql HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{internal}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(path).await, (200, "ok".to_owned()));
    }
    let (status, metrics) = get("/metrics").await;
    assert!(status == 200 && metrics.contains("windfall_live_subscribers"), "{metrics}");
    assert_eq!(get("/graphql").await.0, 404, "the internal listener serves nothing else");
    drop(sockets);
    assert!(shop.server.terminate().success());
}

/// The streams of HTTP/2 would escape the timeouts of HTTP/1.1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_not_spoken() {
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    let mut stream = TcpStream::connect(host(shop.address())).await.unwrap();
    stream.write_all(HTTP_2).await.unwrap();
    let answered = read_to_end(&mut stream).await;
    assert!(answered.is_empty() || answered.starts_with("HTTP/1.1 4"), "{answered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_a_byte_now_and_then_is_cut() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(&mut impatient(&sqlite)).await;
    let mut dripping = JoinSet::new();
    for beginning in [b"GET /graphql HTTP/1.1\r\nhost: ".as_slice(), SLOW_BODY, b"G", b""] {
        let (beginning, address) = (beginning.to_vec(), host(shop.address()).to_owned());
        dripping.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(&beginning).await.unwrap();
            let (mut read, mut write) = stream.split();
            let drip = async {
                // Only a failed write shows that the server has closed the connection.
                while write.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let mut answered = Vec::new();
            let cut = async {
                tokio::select! {
                    () = drip => {}
                    _ = read.read_to_end(&mut answered) => {}
                }
            };
            tokio::time::timeout(PATIENCE, cut).await.expect("the server closes the connection");
        });
    }
    while let Some(cut) = dripping.join_next().await {
        cut.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_told_so() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(&mut impatient(&sqlite)).await;
    let mut stream = TcpStream::connect(host(shop.address())).await.unwrap();
    stream.write_all(SLOW_BODY).await.unwrap();
    let answered = read_to_end(&mut stream).await;
    assert!(answered.starts_with("HTTP/1.1 408 ") && answered.contains("\"code\":\"BAD_USER_INPUT\""), "{answered}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_that_lie_make_no_second_request() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(&mut impatient(&sqlite)).await;
    let body = "{\"query\":\"{ __typename }\"}";
    let post = |length: &str| {
        format!("POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{length}\r\n\r\n{body}")
    };
    let statuses = async |request: String, ends: bool| {
        let mut stream = TcpStream::connect(host(shop.address())).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        if ends {
            stream.shutdown().await.unwrap();
        }
        let answered = read_to_end(&mut stream).await;
        answered.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect::<Vec<_>>()
    };
    let length = |bytes: usize| post(&format!("content-length: {bytes}"));
    assert_eq!(statuses(length(body.len()), false).await, ["200"]);
    // The length is too small: neither the truncated body nor the rest is a valid request.
    let answered = statuses(length(10), false).await;
    assert!(!answered.is_empty() && answered.iter().all(|status| status == "400"), "{answered:?}");
    // The length is too large, and the rest never arrives.
    assert_eq!(statuses(length(body.len() + 1), false).await, ["408"]);
    for answered in
        [statuses(length(body.len() + 1), true).await, statuses(post("transfer-encoding: chunked"), true).await]
    {
        assert!(answered.is_empty() || answered == ["400"], "{answered:?}");
    }
    // Two contradictory ways to delimit the body. A proxy in front may choose the other one.
    let both = post(&format!("content-length: {}\r\ntransfer-encoding: chunked", body.len()));
    let answered = statuses(both, true).await;
    assert!(answered.is_empty() || answered == ["400"], "{answered:?}");
}
