//! The command line, the output, memory, tokens and Redis.

use std::io::{Read as _, Write as _};

use super::*;
use crate::support::redis::Redis;
use crate::support::sqlite::Sqlite;

/// An elliptic key of RFC 7517, and an RSA key that is far too short.
const KEYS: &str = r#"{"keys": [
    {"kty": "EC", "crv": "P-256", "kid": "1", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
    {"kty": "RSA", "kid": "2", "n": "AQAB", "e": "AQAB"},
    {"kty": "RSA", "kid": "3", "use": "enc", "n": "AQAB", "e": "AQAB"}
]}"#;

/// The report about a database that does not exist yet, with other variables.
fn with(variables: &[(&str, &str)]) -> Report {
    let sqlite = Sqlite::new();
    Report::of(command(&sqlite.url()).envs(variables.iter().copied()))
}

#[test]
fn what_cannot_be_understood_exits_with_2() {
    let sqlite = Sqlite::new();
    let invalid = run(command(&sqlite.url()).env("WINDFALL__WRITER__BATCH_ITEMS", "none").args(["doctor", "--json"]));
    assert_eq!((invalid.code, invalid.stdout.as_str()), (Some(2), ""), "{invalid:?}");
    assert!(invalid.stderr.contains("`writer.batch_items`"), "{invalid:?}");
    assert_eq!(run(command(&sqlite.url()).args(["doctor", "--xml"])).code, Some(2));
    let help = run(command(&sqlite.url()).args(["doctor", "--help"]));
    assert!(help.stdout.contains("with 1 if there is one"), "{help:?}");
}

#[test]
fn text_has_the_same_as_json() {
    let sqlite = Sqlite::new();
    let bad = || {
        let mut command = command(&sqlite.url());
        command.env("WINDFALL__AUTH__HS256_SECRET", "short");
        command
    };
    let json = Report::of(&mut bad());
    let text = run(bad().arg("doctor"));
    assert_eq!(text.code, Some(0), "advice is no problem");
    assert!(text.stdout.starts_with("advice token-secret-short: `auth.hs256_secret`\n"), "{text:?}");
    assert!(text.stdout.ends_with("problems: 0, advice: 1\n"), "{text:?}");
    let finding = &json.findings()[0];
    for key in ["subject", "measured", "advice"] {
        assert!(text.stdout.contains(finding[key].as_str().unwrap()), "{key}: {text:?}");
    }
    assert!(!sqlite.path().exists(), "nothing was created");
}

#[test]
fn budgets_above_the_memory_are_told() {
    let report = with(&[("WINDFALL__CACHE__L1_BYTES", "1099511627776")]);
    let measured = report.has("problem", "memory-budgets");
    assert!(measured.contains("`cache.l1_bytes` 1 TiB"), "{measured}");
}

#[test]
fn files_that_serve_refuses_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().to_str().unwrap();
    let documents = || with(&[("WINDFALL__HTTP__DOCUMENTS", folder)]);
    assert!(documents().has("problem", "documents-unusable").contains("has no .graphql file"));
    let document = directory.path().join("me.graphql");
    fs::write(&document, "{ me { nonsense } }").unwrap();
    assert!(documents().has("problem", "documents-unusable").contains("nonsense"));
    fs::write(&document, "{ me { externalId } }").unwrap();
    documents().is_empty();
    let map = directory.path().join("map.toml");
    fs::write(&map, "currency = \"EUR\"").unwrap();
    let brokers = nobody();
    let kafka = [
        ("WINDFALL__KAFKA__BROKERS", brokers.as_str()),
        ("WINDFALL__KAFKA__FACTS_TOPICS", "orders"),
        ("WINDFALL__KAFKA__FACTS_MAP", map.to_str().unwrap()),
    ];
    assert!(with(&kafka).has("problem", "facts-map-unusable").contains("map.toml"));
}

#[test]
fn keys_are_judged_as_by_serve() {
    let none = with(&[("WINDFALL__AUTH__HS256_SECRET", "")]);
    none.has("problem", "token-key-missing");
    assert!(none.findings()[0]["advice"].as_str().unwrap().contains("WINDFALL__AUTH__JWKS"), "{:#}", none.document);
    let short = [("WINDFALL__AUTH__HS256_SECRET", "a"), ("WINDFALL__AUTH__HS256_SECRET_PREVIOUS", "bc")];
    let short = with(&short);
    assert_eq!(short.has("advice", "token-secret-short"), "the secret has 1 byte");
    assert_eq!(short.findings().len(), 2);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.json");
    let name = file.to_str().unwrap();
    assert!(with(&[("WINDFALL__AUTH__JWKS", name)]).has("problem", "token-keys-unusable").contains("cannot be read"));
    fs::write(&file, "{\"keys\": []}").unwrap();
    assert!(with(&[("WINDFALL__AUTH__JWKS", name)]).has("problem", "token-keys-unusable").contains("1 to 100 keys"));
    let url = format!("https://{}/keys", nobody());
    assert!(
        with(&[("WINDFALL__AUTH__JWKS", &url)]).has("problem", "token-keys-unusable").contains("cannot be fetched")
    );
    fs::write(&file, KEYS).unwrap();
    let left_out = with(&[("WINDFALL__AUTH__JWKS", name)]);
    assert!(left_out.has("advice", "token-keys-left-out").starts_with("1 "), "{:#}", left_out.document);
    assert_eq!(left_out.findings().len(), 1);
}

#[test]
fn a_key_set_without_tls_is_told() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{KEYS}", KEYS.len()).unwrap();
    });
    let report = with(&[("WINDFALL__AUTH__JWKS", &url)]);
    report.has("advice", "token-keys-unencrypted");
    report.lacks("token-keys-unusable");
}

#[test]
fn a_redis_that_is_down_or_not_a_cache_is_told() {
    let redis = |url: &str| with(&[("WINDFALL__REDIS__URL", url)]);
    redis(&format!("redis://{}", nobody())).has("problem", "redis-unreachable");
    let unlimited = Redis::start_with(&["--maxmemory", "0", "--maxmemory-policy", "noeviction"]);
    let report = redis(&unlimited.url());
    report.has("problem", "redis-memory-limit");
    report.has("advice", "redis-eviction");
    let random = Redis::start_with(&["--maxmemory-policy", "allkeys-random"]);
    let report = redis(&random.url());
    assert!(report.has("advice", "redis-eviction").contains("allkeys-random"), "{:#}", report.document);
    report.lacks("redis-memory-limit");
    random.command(&["ACL", "SETUSER", "windfall", "on", ">secret", "~*", "+ping"]);
    redis(&format!("redis://windfall:secret@{}", random.address())).has("advice", "redis-memory-unknown");
    redis(&format!("redis://windfall:wrong@{}", random.address())).has("problem", "redis-unreachable");
}

/// A server that does not respond takes no longer than its time-out. What it is about is a finding.
#[test]
fn a_redis_that_hangs_is_told() {
    let frozen = Redis::start();
    frozen.suspend();
    with(&[("WINDFALL__REDIS__URL", &frozen.url())]).has("problem", "redis-unreachable");
    frozen.resume();
}
