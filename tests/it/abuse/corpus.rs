//! The abusive requests, grouped by how they are sent.

use reqwest::Method;
use serde_json::{Value, json};

use super::attack::{Answer, Attack, Shot};
use crate::support::websocket::Message;

const JSON: &str = "application/json";
const RECORD: &str = "mutation($i: [RecordPurchaseInput!]!) { recordPurchases(inputs: $i) { replayed } }";

fn post(content_type: &str, body: impl Into<Vec<u8>>) -> Shot {
    let headers = vec![("content-type", content_type.to_owned())];
    Shot::Http { method: Method::POST, path: "/graphql".to_owned(), headers, body: body.into() }
}

fn get(query: &str) -> Shot {
    let path = format!("/graphql?{query}");
    Shot::Http { method: Method::GET, path, headers: Vec::new(), body: Vec::new() }
}

fn error(status: u16, code: &str) -> Answer {
    Answer::Error(status, code.to_owned())
}

fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
    open.repeat(levels) + inner + &close.repeat(levels)
}

/// A chain of fragments. `link` returns the selection of a fragment, which spreads the next one.
fn bomb(levels: usize, link: impl Fn(usize) -> String) -> String {
    let fragments: String = (0..levels).map(|n| format!("fragment F{n} on Customer{{{}}}", link(n + 1))).collect();
    format!("{{me{{...F0}}}}{fragments}fragment F{levels} on Customer{{id}}")
}

/// Documents that the gate refuses. Each has a name and the code of the refusal.
fn documents() -> Vec<(&'static str, &'static str, String)> {
    const TOO_EXPENSIVE: &str = "TOO_EXPENSIVE";
    const INVALID: &str = "GRAPHQL_VALIDATION_FAILED";
    let deep = bomb(20, |next| format!("...F{next}...F{next}"));
    let wide = bomb(5, |next| format!("...F{next} ").repeat(20));
    for small in [&deep, &wide] {
        assert!((650..=1_000).contains(&small.len()), "{}", small.len());
    }
    let circle: String = (0..150).map(|n| format!("fragment F{n} on Query {{ ...F{} }} ", (n + 1) % 150)).collect();
    let argument = |literal: String| format!("{{ me(atLeastVersion: {literal}) {{ id }} }}");
    vec![
        ("fragment bomb, deep", TOO_EXPENSIVE, deep),
        ("fragment bomb, wide", TOO_EXPENSIVE, wide),
        ("fragment bomb, fields", TOO_EXPENSIVE, bomb(12, |next| format!("a:progress{{unit}}...F{next}...F{next}"))),
        ("fragment bomb, inline", TOO_EXPENSIVE, bomb(18, |next| format!("...{{...F{next}}}...{{...F{next}}}"))),
        (
            "300 aliases",
            TOO_EXPENSIVE,
            format!("{{{}}}", (0..300).map(|n| format!("a{n}:me{{id}}")).collect::<String>()),
        ),
        ("700 directives", TOO_EXPENSIVE, format!("{{me{{id {}}}}}", "@a".repeat(700))),
        ("30 000 directives", TOO_EXPENSIVE, format!("{{me{{id {}}}}}", "@a".repeat(30_000))),
        ("700 conflicts", INVALID, format!("{{ me {{ id }} {} }}", "me ".repeat(700))),
        ("300 operations", TOO_EXPENSIVE, (0..300).map(|n| format!("query Q{n}{{me{{id}}}}")).collect()),
        ("1 542 lists", TOO_EXPENSIVE, argument(nested("[", "1", "]", 1_542))),
        ("1 223 objects", TOO_EXPENSIVE, argument(nested("{a:", "1", "}", 1_223))),
        ("15 000 lists, open", TOO_EXPENSIVE, format!("{{ me(atLeastVersion: {}", "[".repeat(15_000))),
        ("1 500 types", TOO_EXPENSIVE, format!("query($a: {}) {{ __typename }}", nested("[", "Int", "]", 1_500))),
        ("fragments in a circle", INVALID, "{ ...F } fragment F on Query { ...F ...F ...F }".to_owned()),
        ("a circle of 150", TOO_EXPENSIVE, format!("{{ ...F0 }} {circle}")),
        ("60 000 stray characters", TOO_EXPENSIVE, "?".repeat(60_000)),
        ("unknown fields", INVALID, format!("{{ {} }}", (0..200).map(|n| format!("nothing{n} ")).collect::<String>())),
        (
            "introspection",
            "FORBIDDEN",
            format!("{{ __schema {{ types {{ fields {{ type {} }} }} }} }}", nested("{ ofType ", "{ name }", " }", 8)),
        ),
        ("no end", "GRAPHQL_PARSE_FAILED", "{ me { id } me(atLeastVersion: \"".to_owned()),
    ]
}

/// Documents that are larger than the limit of a WebSocket message.
fn large_documents() -> Vec<(&'static str, &'static str, String)> {
    let aliases: String = (0..100_000).map(|n| format!("a{n}:me ")).collect();
    vec![
        ("100 000 aliases", "TOO_EXPENSIVE", format!("{{{aliases}}}")),
        ("100 000 selection sets", "TOO_EXPENSIVE", nested("{me", "{id}", "}", 100_000)),
        ("1 000 000 blanks", "TOO_EXPENSIVE", " ".repeat(1_000_000)),
    ]
}

/// The request for a document. A comment with the number makes each document different.
fn payload(document: &str, number: usize) -> Value {
    json!({ "query": format!("#{number}\n{document}") })
}

fn over_http() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (name, code, document) in documents().into_iter().chain(large_documents()) {
        attacks.push(Attack::new(name, error(200, code), move |number| {
            post(JSON, payload(&document, number).to_string())
        }));
    }
    attacks
}

/// A mutation with `count` invalid inputs.
fn inputs(name: &'static str, count: usize, input: &Value) -> Attack {
    let variables = json!({ "i": vec![input; count] });
    Attack::new(name, error(200, "BAD_USER_INPUT"), move |number| {
        let mut asks = payload(RECORD, number);
        asks["variables"] = variables.clone();
        post(JSON, asks.to_string())
    })
}

/// HTTP requests that are not valid GraphQL requests.
fn malformed() -> Vec<Attack> {
    const ASKS: &str = "{\"query\":\"{ __typename }\"}";
    let bad = |name, status, make: Box<dyn Fn(usize) -> Shot + Send + Sync>| {
        Attack::new(name, error(status, "BAD_USER_INPUT"), make)
    };
    let body =
        |bytes: Vec<u8>| -> Box<dyn Fn(usize) -> Shot + Send + Sync> { Box::new(move |_| post(JSON, bytes.clone())) };
    let variables = |item: &str, count: usize| {
        let items = format!("{item},").repeat(count - 1);
        body(
            format!("{{\"query\":\"{{me{{id}}}}\",\"variables\":{{\"a\":[{items}{item}]}},\"operationName\":7}}")
                .into(),
        )
    };
    let typed = |content_type: &'static str| -> Box<dyn Fn(usize) -> Shot + Send + Sync> {
        Box::new(move |_| post(content_type, ASKS))
    };
    let with_header = |name: &'static str, value: String| -> Box<dyn Fn(usize) -> Shot + Send + Sync> {
        Box::new(move |_| {
            let headers = vec![("content-type", JSON.to_owned()), (name, value.clone())];
            Shot::Http { method: Method::POST, path: "/graphql".to_owned(), headers, body: ASKS.into() }
        })
    };
    let method = |method: Method| -> Box<dyn Fn(usize) -> Shot + Send + Sync> {
        Box::new(move |_| Shot::Http {
            method: method.clone(),
            path: "/graphql".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        })
    };
    vec![
        bad("a batch", 400, body(format!("[{ASKS},{ASKS}]").into())),
        bad("a batch of 50 000", 400, body(format!("[{}{ASKS}]", format!("{ASKS},").repeat(50_000)).into())),
        bad("100 000 arrays", 400, body(nested("[", "", "]", 100_000).into())),
        bad("100 000 nested objects", 413, body(nested("{\"a\":", "1", "}", 100_000).into())),
        bad("broken UTF-8", 400, body([&b"{\"query\":\"{ me\xff\xfe }\"}"[..], &[0xC0; 1_000]].concat())),
        bad("2 MiB of blanks", 400, body(vec![b' '; 2 << 20])),
        bad("3 MiB", 413, body(vec![b' '; 3 << 20])),
        bad("260 000 objects", 413, variables("{\"a\":1}", 260_000)),
        bad("500 000 lists", 413, variables("[1]", 500_000)),
        bad("a million numbers", 413, variables("1", 1_000_000)),
        bad("the most objects", 400, variables("{\"a\":1}", 65_000)),
        bad("the most numbers", 400, variables("1", 260_000)),
        bad("text/plain", 415, typed("text/plain")),
        bad("a form", 415, typed("application/x-www-form-urlencoded")),
        bad("multipart", 415, typed("multipart/form-data; boundary=x")),
        bad("an encoding", 415, with_header("content-encoding", "gzip".to_owned())),
        bad("a long Accept", 406, with_header("accept", "a/b;q=0.5,".repeat(5_000))),
        bad("PUT", 405, method(Method::PUT)),
        bad("DELETE", 405, method(Method::DELETE)),
        bad("TRACE", 405, method(Method::TRACE)),
        bad("a mutation by GET", 405, Box::new(|_| get("query=mutation{deleteCampaign(id:\"x\"){deletedId}}"))),
        bad("GET without a query", 400, Box::new(|_| get(""))),
        bad("GET with two queries", 400, Box::new(|_| get("query={me{id}}&query={me{id}}"))),
        bad(
            "GET with deep variables",
            400,
            Box::new(|_| get(&format!("query={{me{{id}}}}&variables={}", "[".repeat(9_000)))),
        ),
        bad("an upgrade by POST", 405, with_header("upgrade", "h2c, websocket".to_owned())),
        Attack::new("a hash that nobody knows", error(200, "PERSISTED_QUERY_NOT_FOUND"), |number| {
            let extensions = json!({ "persistedQuery": { "version": 1, "sha256Hash": format!("{number:064x}") } });
            post(JSON, json!({ "extensions": extensions }).to_string())
        }),
        Attack::new("deep variables", error(200, "BAD_USER_INPUT"), |_| {
            let body = format!("{{\"query\":\"{RECORD}\",\"variables\":{{\"i\":{}}}}}", nested("[", "", "]", 120));
            post(JSON, body)
        }),
        inputs("50 000 empty inputs", 50_000, &json!({})),
        inputs("60 000 wrong inputs", 60_000, &json!({ "a": 1 })),
        inputs("200 000 numbers for inputs", 200_000, &json!(1)),
    ]
}

/// Request heads that the HTTP library refuses before the server's own code sees them.
fn heads() -> Vec<Attack> {
    let raw = |name, status, bytes: String| {
        Attack::new(name, Answer::Status(status), move |_| Shot::Raw(bytes.clone().into_bytes()))
    };
    let host = "host: x\r\n";
    vec![
        raw("a header of 1 MB", 431, format!("GET /graphql HTTP/1.1\r\n{host}x: {}\r\n\r\n", "x".repeat(1_000_000))),
        raw("10 000 headers", 431, format!("GET /graphql HTTP/1.1\r\n{host}{}\r\n", "a: b\r\n".repeat(10_000))),
        raw("300 Accept headers", 431, format!("GET /graphql HTTP/1.1\r\n{host}{}\r\n", "accept: a/b\r\n".repeat(300))),
        raw("a URL of 100 kB", 414, format!("GET /graphql?query={} HTTP/1.1\r\n{host}\r\n", "x".repeat(100_000))),
        raw("no HTTP", 400, "\u{16}\u{3}\u{1}nonsense\r\n\r\n".to_owned()),
        raw(
            "two lengths",
            400,
            format!("POST /graphql HTTP/1.1\r\n{host}content-length: 3\r\ncontent-length: 4\r\n\r\n{{}}"),
        ),
        raw("a negative length", 400, format!("POST /graphql HTTP/1.1\r\n{host}content-length: -1\r\n\r\n")),
    ]
}

fn over_websocket() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (name, code, document) in documents() {
        attacks.push(Attack::new(name, Answer::OperationError(code.to_owned()), move |number| {
            Shot::Operation(payload(&document, number))
        }));
    }
    for (name, _, document) in large_documents() {
        attacks
            .push(Attack::new(name, Answer::Closed(1009), move |number| Shot::Operation(payload(&document, number))));
    }
    attacks.push(Attack::new("deep JSON", Answer::Closed(1009), |_| {
        Shot::Message(Message::text(nested("[", "", "]", 100_000)))
    }));
    attacks.push(Attack::new("32 000 objects", Answer::Closed(1009), |_| {
        Shot::Message(Message::text(format!("[{}1]", "{\"a\":1},".repeat(32_000))))
    }));
    attacks.push(Attack::new("deep variables", Answer::OperationError("BAD_USER_INPUT".to_owned()), |_| {
        let variables = nested("[", "", "]", 8_000);
        let text = "{\"type\":\"subscribe\",\"id\":\"1\",\"payload\":{\"query\":\"query($a:ID!){node(id:$a){id}}\",\"variables\":{\"a\":";
        Shot::Message(Message::text(format!("{text}{variables}}}}}}}")))
    }));
    attacks
}

/// All attacks, grouped by how they are sent.
pub(super) fn all() -> Vec<(&'static str, Vec<Attack>)> {
    vec![
        ("documents over HTTP", over_http()),
        ("malformed requests", malformed()),
        ("malformed heads", heads()),
        ("documents over WebSocket", over_websocket()),
    ]
}
