//! The faults that other tests rely on happen as described.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream as BlockingStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::proxy::{Garbage, Mode, Proxy};
use super::redis::{Redis, request};
use super::websocket::PATIENCE;

/// The tests assume that what has not come within this time does not come.
const SILENCE: Duration = Duration::from_millis(300);

const PONG: &[u8] = b"+PONG\r\n";

/// A client that sees each byte of its connection.
struct Client(TcpStream);

impl Client {
    async fn connect(proxy: &Proxy) -> Self {
        Self(TcpStream::connect(proxy.address()).await.expect("a proxy that listens"))
    }

    /// Sends a command and ignores errors. What comes back shows whether the command arrived.
    async fn send(&mut self, words: &[&str]) {
        let _ = self.0.write_all(&request(words)).await;
    }

    /// Asserts that the next bytes are these.
    async fn expect(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        timeout(PATIENCE, self.0.read_exact(&mut heard)).await.expect("an answer").expect("an answer");
        assert_eq!(heard, bytes, "{}", String::from_utf8_lossy(&heard));
    }

    async fn answers(&mut self) {
        self.send(&["PING"]).await;
        self.expect(PONG).await;
    }

    async fn hears_nothing(&mut self) {
        let heard = timeout(SILENCE, self.0.read_u8()).await;
        assert!(heard.is_err(), "{heard:?}");
    }

    /// Everything that comes before the end of the connection.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset counts as an end too.
        let _ = timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("the end of the connection");
        rest
    }

    async fn is_closed(&mut self) {
        assert_eq!(self.rest().await, b"");
    }
}

#[test]
fn redis_is_an_empty_cache_that_answers() {
    let redis = Redis::start();
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
    assert_eq!(redis.command(&["DBSIZE"]), "0");
    assert_eq!(redis.command(&["GET", "key"]), "(nil)");
    assert_eq!(redis.command(&["SET", "key", "über"]), "OK");
    assert_eq!(redis.command(&["GET", "key"]), "über");
    assert_eq!(redis.command(&["KEYS", "*"]), "key");
    assert_eq!(redis.command(&["CONFIG", "GET", "maxmemory-policy"]), "maxmemory-policy\nallkeys-lru");
    redis.flush();
    assert_eq!(redis.command(&["DBSIZE"]), "0");

    let other = Redis::start_with(&["--databases", "1", "--maxmemory-policy", "noeviction"]);
    assert_eq!(other.command(&["CONFIG", "GET", "maxmemory-policy"]), "maxmemory-policy\nnoeviction");
    let error = other.try_command(&["SELECT", "1"]).unwrap_err();
    assert!(error.contains("out of range"), "{error}");
    other.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = other.try_command(&["SET", "key", "value"]).unwrap_err();
    assert!(error.starts_with("OOM "), "{error}");
}

#[test]
fn redis_comes_back_with_what_it_saved_or_with_nothing() {
    let mut redis = Redis::start();
    redis.command(&["SET", "key", "saved"]);
    redis.save();
    redis.command(&["SET", "key", "later"]);

    redis.kill();
    assert!(BlockingStream::connect(redis.address()).is_err());
    assert!(redis.try_command(&["PING"]).is_err());
    for _ in 0..2 {
        redis.restart_with_dump();
        assert_eq!(redis.command(&["GET", "key"]), "saved");
    }
    redis.restart();
    assert_eq!(redis.command(&["GET", "key"]), "(nil)");
    redis.kill();
    redis.restart();
    assert_eq!(redis.command(&["DBSIZE"]), "0");
}

#[test]
fn suspended_redis_answers_when_it_is_resumed() {
    let mut redis = Redis::start();
    redis.suspend();
    assert!(!redis.answers_within(SILENCE));
    redis.resume();
    assert!(redis.answers_within(PATIENCE));
    redis.suspend();
    redis.restart();
    assert!(redis.answers_within(PATIENCE));
}

/// Set by [`no_redis_outlives_its_tests`], which runs [`hold_redis`] in another process.
const HOLD: &str = "WINDFALL_TEST_HOLD_REDIS";

#[test]
fn hold_redis() {
    if std::env::var_os(HOLD).is_none() {
        return;
    }
    let redis = Redis::start();
    redis.suspend();
    println!("\nport {}", redis.port());
    loop {
        std::thread::park();
    }
}

#[test]
fn no_redis_outlives_its_tests() {
    let mut tests = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "support::faults_tests::hold_redis"])
        .env(HOLD, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(tests.stdout.take().unwrap()).lines();
    let port = lines.map(Result::unwrap).find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok()).unwrap();
    assert!(BlockingStream::connect(("127.0.0.1", port)).is_ok());

    tests.kill().unwrap();
    tests.wait().unwrap();
    let gone = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        BlockingStream::connect(("127.0.0.1", port)).is_err()
    });
    assert!(gone);
}

#[tokio::test]
async fn a_proxy_passes_bytes_late_if_told_so() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    assert_eq!(proxy.url(), format!("redis://{}", proxy.address()));
    let mut client = Client::connect(&proxy).await;
    client.answers().await;
    // The value takes more than one chunk in each direction.
    let value = "v".repeat(1_000_000);
    client.send(&["SET", "key", &value]).await;
    client.expect(b"+OK\r\n").await;
    client.send(&["GET", "key"]).await;
    client.expect(format!("$1000000\r\n{value}\r\n").as_bytes()).await;

    proxy.set(Mode::Slow(SILENCE * 3));
    client.send(&["PING"]).await;
    client.hears_nothing().await;
    client.expect(PONG).await;
    proxy.set(Mode::Slow(PATIENCE * 10));
    client.send(&["PING"]).await;
    client.hears_nothing().await;
    proxy.set(Mode::Pass);
    client.expect(PONG).await;
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_black_hole_swallows_on_every_connection() {
    let mut redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let mut old = Client::connect(&proxy).await;
    old.answers().await;
    let mut idle = Client::connect(&proxy).await;
    idle.answers().await;
    let mut subscriber = Client::connect(&proxy).await;
    subscriber.send(&["SUBSCRIBE", "news"]).await;
    subscriber.expect(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").await;

    proxy.set(Mode::Blackhole);
    let mut new = Client::connect(&proxy).await;
    let mut new_idle = Client::connect(&proxy).await;
    for client in [&mut old, &mut new] {
        client.send(&["SET", "key", "value"]).await;
        client.hears_nothing().await;
    }
    assert_eq!(redis.command(&["DBSIZE"]), "0");
    assert_eq!(redis.command(&["PUBLISH", "news", "unheard"]), "1");
    subscriber.hears_nothing().await;
    assert_eq!(proxy.connections(), 5);

    proxy.set(Mode::Pass);
    // Connections that have lost bytes are closed.
    for client in [&mut old, &mut new, &mut subscriber] {
        client.is_closed().await;
    }
    // Connections that have lost nothing stay open.
    for client in [&mut idle, &mut new_idle] {
        client.answers().await;
    }

    // The end of the server is hidden too.
    proxy.set(Mode::Blackhole);
    redis.kill();
    idle.hears_nothing().await;
    proxy.set(Mode::Pass);
    idle.is_closed().await;
}

#[tokio::test]
async fn connections_are_cut_and_refused() {
    let redis = Redis::start();
    let clients_of_redis = || redis.command(&["CLIENT", "LIST", "TYPE", "normal"]).lines().count();
    let proxy = Proxy::start(redis.address());
    let (mut one, mut two) = (Client::connect(&proxy).await, Client::connect(&proxy).await);
    one.answers().await;
    assert_eq!(proxy.connections(), 2);
    proxy.cut();
    assert_eq!(proxy.connections(), 0);
    one.is_closed().await;
    two.is_closed().await;
    // Only the connection of this query is left, as soon as Redis has noticed the end of the others.
    while clients_of_redis() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let mut three = Client::connect(&proxy).await;
    three.answers().await;
    proxy.set(Mode::Refuse);
    assert_eq!(proxy.connections(), 0);
    three.is_closed().await;
    Client::connect(&proxy).await.is_closed().await;
    proxy.set(Mode::Pass);
    let mut four = Client::connect(&proxy).await;
    four.answers().await;

    let address = proxy.address();
    drop(proxy);
    four.is_closed().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_goes_when_it_likes() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    for mode in [Mode::Pass, Mode::Blackhole, Mode::Garbage(Garbage::WrongType)] {
        proxy.set(mode);
        let client = Client::connect(&proxy).await;
        assert_eq!(proxy.connections(), 1, "{mode:?}");
        drop(client);
        while proxy.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn garbage_is_the_answer_to_each_chunk() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let mut client = Client::connect(&proxy).await;
    client.answers().await;
    let answers: [(Garbage, &[u8]); 3] = [
        (Garbage::WrongType, b":1\r\n"),
        (Garbage::Bulk("some text"), b"$9\r\nsome text\r\n"),
        (Garbage::WrongType, b":1\r\n"),
    ];
    for (garbage, answer) in answers {
        proxy.set(Mode::Garbage(garbage));
        client.send(&["SET", "key", "value"]).await;
        client.expect(answer).await;
    }
    proxy.set(Mode::Garbage(Garbage::Truncated));
    client.send(&["PING"]).await;
    assert_eq!(client.rest().await, b"$1000\r\ncut off he");

    let mut noises = Vec::new();
    for seed in [1, 1, 2] {
        proxy.set(Mode::Garbage(Garbage::Noise(seed)));
        let mut client = Client::connect(&proxy).await;
        client.send(&["PING"]).await;
        let mut noise = [0; 64];
        client.0.read_exact(&mut noise).await.unwrap();
        assert!(!noise[0].is_ascii());
        noises.push(noise);
        // After garbage, answers would no longer match requests, so the connection is closed.
        proxy.set(Mode::Pass);
        client.is_closed().await;
    }
    assert_eq!(noises[0], noises[1]);
    assert_ne!(noises[0], noises[2]);
    assert_eq!(redis.command(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn only_subscriptions_are_dropped() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address());
    let mut plain = Client::connect(&proxy).await;
    let mut old = Client::connect(&proxy).await;
    old.send(&["subscribe", "news"]).await;
    old.expect(b"*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n").await;

    proxy.set(Mode::DropSubscriptions { seed: 7, within: SILENCE });
    old.is_closed().await;
    for _ in 0..3 {
        let mut new = Client::connect(&proxy).await;
        let request = request(&["PSUBSCRIBE", "*"]);
        // Splits the request in the middle of the word.
        let (one, other) = request.split_at(12);
        new.0.write_all(one).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        new.0.write_all(other).await.unwrap();
        // The answer may or may not come before the end.
        new.rest().await;
        plain.answers().await;
    }
    plain.send(&["UNSUBSCRIBE"]).await;
    plain.expect(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n").await;
    tokio::time::sleep(SILENCE).await;
    plain.answers().await;
    assert_eq!(proxy.connections(), 1);
}
