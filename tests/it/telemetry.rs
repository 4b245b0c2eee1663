//! Traces. A program with the feature `otel` sends them to a collector.

use crate::support::server::command;
use crate::support::sqlite::Sqlite;

/// The test is a collector: it accepts one connection and reads it to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector_and_go_on_with_the_caller_s_trace() {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use serde_json::json;
    use windfall::http::auth::Role;

    use crate::support::server::{Server, token};

    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", collector.local_addr().unwrap());
    let taken = std::thread::spawn(move || {
        let mut taken = Vec::new();
        // The server sends the last spans when it stops.
        let (mut stream, _) = collector.accept().unwrap();
        let mut buffer = [0; 65_536];
        loop {
            let read = stream.read(&mut buffer).unwrap_or(0);
            if read == 0 {
                return taken;
            }
            taken.extend_from_slice(&buffer[..read]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let sqlite = Sqlite::new();
    let mut serve = command(&sqlite.url());
    serve.env("WINDFALL__LOG__OTLP_ENDPOINT", &endpoint).env("WINDFALL__LOG__FILTER", "windfall=info");
    let server = Server::start_with(&mut serve).await.0;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let body = json!({ "query": "{ me { externalId } }" });
    let request = reqwest::Client::new()
        .post(format!("{}/graphql", server.address))
        .bearer_auth(token(Role::Customer, "ada"))
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .json(&body);
    assert!(request.send().await.unwrap().status().is_success());
    assert!(server.terminate().success());
    let taken = tokio::task::spawn_blocking(move || taken.join().unwrap()).await.unwrap();
    let has = |wanted: &[u8]| taken.windows(wanted.len()).any(|window| window == wanted);
    let trace: Vec<u8> =
        (0..16).map(|index| u8::from_str_radix(&trace[2 * index..2 * index + 2], 16).unwrap()).collect();
    for wanted in [b"POST /v1/traces".as_slice(), b"windfall", b"request", b"execute", b"look_up", trace.as_slice()] {
        assert!(has(wanted), "{}", String::from_utf8_lossy(wanted));
    }
}
