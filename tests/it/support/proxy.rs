//! A network that fails on demand: a proxy in front of a server. Its behaviour can be changed at any time, also for
//! open connections.
//!
//! The proxy runs on a thread of its own, so it continues while a test blocks. Because it is a single thread, a change
//! of behaviour applies to every byte that comes after the change.
//!
//! TCP never loses bytes in the middle of a connection, and neither does the proxy. A connection from which bytes were
//! taken is not used again. It is closed as soon as the proxy forwards again; otherwise later answers would be taken
//! for answers to earlier requests.

use std::future::pending;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// The most bytes that are read at a time. What one read returns is a *chunk*.
const CHUNK: usize = 16 * 1024;

/// The beginnings of a command that subscribes, in capital letters.
const SUBSCRIBE: [&[u8]; 3] = [b"$9\r\nSUBSCRIBE\r\n", b"$10\r\nPSUBSCRIBE\r\n", b"$10\r\nSSUBSCRIBE\r\n"];

/// The number of bytes at the end of a chunk that may be the beginning of one of [`SUBSCRIBE`].
const SUBSCRIBE_REST: usize = 16;

/// What the proxy does with bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forwards everything without delay.
    Pass,
    /// Accepts connections and keeps them open, and discards what comes from either side. If the server closes its
    /// side, the client does not notice.
    Blackhole,
    /// Closes every connection, and closes new connections at once.
    Refuse,
    /// Forwards nothing, and answers each chunk of the client with garbage.
    Garbage(Garbage),
    /// Forwards each chunk, in either direction, after this delay.
    Slow(Duration),
    /// Forwards everything, but closes each connection on which the client has subscribed. It is closed at a random
    /// moment within this time from its subscription or from the beginning of this mode. For the same seed, the n-th
    /// connection lives equally long.
    DropSubscriptions { seed: u64, within: Duration },
}

impl Mode {
    fn forwards(self) -> bool {
        matches!(self, Self::Pass | Self::Slow(_) | Self::DropSubscriptions { .. })
    }
}

/// Answers that Redis does not give to a request for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Garbage {
    /// Random bytes that are the same for the same seed. The first byte begins nothing in the protocol RESP.
    Noise(u64),
    /// A number in place of a bulk string.
    WrongType,
    /// A bulk string with this content.
    Bulk(&'static str),
    /// The beginning of a bulk string, and then the end of the connection.
    Truncated,
}

impl Garbage {
    /// The answer to the `number`-th chunk of a connection.
    fn answer(self, number: u64) -> Vec<u8> {
        match self {
            Self::Noise(seed) => {
                let mut noise: [u8; 64] = StdRng::seed_from_u64(seed.wrapping_add(number)).random();
                noise[0] |= 0x80;
                noise.to_vec()
            }
            Self::WrongType => b":1\r\n".to_vec(),
            Self::Bulk(content) => format!("${}\r\n{content}\r\n", content.len()).into_bytes(),
            Self::Truncated => b"$1000\r\ncut off he".to_vec(),
        }
    }
}

/// A command to the thread of the proxy. The answer to each is the number of connections afterwards.
#[derive(Clone, Copy)]
enum Order {
    Set(Mode),
    Move(SocketAddr),
    Cut,
    Count,
}

/// A proxy. All its connections end when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    /// `None` only while the proxy is dropped.
    orders: Option<mpsc::UnboundedSender<(Order, blocking::Sender<usize>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Starts a proxy in front of this server, with [`Mode::Pass`].
    pub(crate) fn start(server: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener of our own");
        let address = listener.local_addr().expect("a bound listener");
        let (orders, received) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { Listening::new(listener, server).run(received).await });
        });
        Self { address, orders: Some(orders), thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that clients of Redis connect to.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.order(Order::Set(mode));
    }

    /// Connects new clients to this server from now on.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        self.order(Order::Move(server));
    }

    /// Closes all current connections, on both sides.
    pub(crate) fn cut(&self) {
        self.order(Order::Cut);
    }

    /// The number of open connections of clients.
    pub(crate) fn connections(&self) -> usize {
        self.order(Order::Count)
    }

    fn order(&self, order: Order) -> usize {
        let (answer, answered) = blocking::channel();
        let orders = self.orders.as_ref().expect("the proxy is not dropped");
        assert!(orders.send((order, answer)).is_ok(), "the thread of the proxy has ended");
        answered.recv().expect("the proxy's answer")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.orders.take());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking(), "the proxy panicked");
    }
}

/// The state of the thread of the proxy.
struct Listening {
    /// A second handle of the listener, which does not block: it shows whether a client waits.
    waiting: std::net::TcpListener,
    listener: TcpListener,
    server: SocketAddr,
    mode: watch::Sender<Mode>,
    subscriptions: Arc<AtomicU64>,
    connections: JoinSet<()>,
}

impl Listening {
    /// Must be called within a runtime.
    fn new(listener: std::net::TcpListener, server: SocketAddr) -> Self {
        Self {
            waiting: listener.try_clone().expect("a listener of our own"),
            listener: TcpListener::from_std(listener).expect("a listener of our own"),
            server,
            mode: watch::Sender::new(Mode::Pass),
            subscriptions: Arc::default(),
            connections: JoinSet::new(),
        }
    }

    /// Serves connections and orders until the proxy is dropped. The connections end with the runtime.
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<(Order, blocking::Sender<usize>)>) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((order, answer)) = order else { return };
                    self.obey(order).await;
                    // The test that sent the order may have panicked.
                    let _ = answer.send(self.connections.len());
                }
                client = self.listener.accept() => {
                    if let Ok((client, _)) = client {
                        self.admit(client);
                    }
                }
                Some(ended) = self.connections.join_next() => ended.expect("a connection that ends by itself"),
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        // The kernel connects clients before the proxy knows of them. Those that wait came before the order.
        while let Ok((client, _)) = self.waiting.accept() {
            client.set_nonblocking(true).expect("a socket of our own");
            self.admit(TcpStream::from_std(client).expect("a socket of our own"));
        }
        match order {
            Order::Set(mode) => {
                self.subscriptions.store(0, Ordering::Relaxed);
                self.mode.send_replace(mode);
                if mode == Mode::Refuse {
                    self.connections.shutdown().await;
                }
            }
            Order::Move(server) => self.server = server,
            Order::Cut => self.connections.shutdown().await,
            Order::Count => {
                while let Some(ended) = self.connections.try_join_next() {
                    ended.expect("a connection that ends by itself");
                }
            }
        }
    }

    fn admit(&mut self, client: TcpStream) {
        if *self.mode.borrow() == Mode::Refuse {
            return;
        }
        let connection = Connection {
            client,
            server: self.server,
            mode: self.mode.subscribe(),
            has_lost: AtomicBool::new(false),
            has_subscribed: Notify::new(),
            subscriptions: self.subscriptions.clone(),
        };
        self.connections.spawn(connection.run());
    }
}

/// The connection of a client.
struct Connection {
    client: TcpStream,
    server: SocketAddr,
    mode: watch::Receiver<Mode>,
    /// Whether bytes were taken from this connection.
    has_lost: AtomicBool,
    has_subscribed: Notify,
    /// The number of subscriptions that [`Mode::DropSubscriptions`] has picked for closing.
    subscriptions: Arc<AtomicU64>,
}

impl Connection {
    async fn run(self) {
        let _ = self.client.set_nodelay(true);
        tokio::select! {
            biased;
            () = self.until(Mode::forwards) => {}
            () = self.forward_requests(None) => return,
        }
        if self.has_lost() {
            return;
        }
        // If the server is down, the client sees the end of the connection.
        let Ok(server) = TcpStream::connect(self.server).await else { return };
        let _ = server.set_nodelay(true);
        tokio::select! {
            // The check for lost bytes comes first, so that nothing is forwarded after a loss.
            biased;
            () = self.until(|mode| mode.forwards() && self.has_lost()) => {}
            () = self.condemned() => {}
            () = self.forward_requests(Some(&server)) => {}
            () = self.forward_answers(&server) => {}
        }
    }

    /// Forwards requests until the client closes its side. The server is only needed in modes that forward.
    async fn forward_requests(&self, server: Option<&TcpStream>) {
        let mut buffer = vec![0; CHUNK];
        let mut recent = Vec::new();
        let mut number = 0;
        while let Some(length) = read(&self.client, &mut buffer).await {
            let chunk = &buffer[..length];
            number += 1;
            self.notice_subscription(&mut recent, chunk);
            match (self.mode_for_chunk().await, server) {
                (Mode::Garbage(garbage), _) => {
                    self.lose();
                    let is_sent = send(&self.client, &garbage.answer(number)).await;
                    if !is_sent || garbage == Garbage::Truncated {
                        return;
                    }
                }
                (mode, Some(server)) if mode.forwards() => {
                    if !send(server, chunk).await {
                        return;
                    }
                }
                _ => self.lose(),
            }
        }
    }

    /// Forwards answers until the server closes its side.
    async fn forward_answers(&self, server: &TcpStream) {
        let mut buffer = vec![0; CHUNK];
        while let Some(length) = read(server, &mut buffer).await {
            if !self.mode_for_chunk().await.forwards() {
                self.lose();
            } else if !send(&self.client, &buffer[..length]).await {
                return;
            }
        }
        if !self.mode.borrow().forwards() {
            // The end of the server is hidden from the client as well.
            self.lose();
            pending::<()>().await;
        }
    }

    /// The mode that applies to a chunk that has arrived. In [`Mode::Slow`] this waits for the delay, unless the mode
    /// changes before.
    async fn mode_for_chunk(&self) -> Mode {
        let mut mode = self.mode.clone();
        loop {
            let now = *mode.borrow_and_update();
            let Mode::Slow(delay) = now else { return now };
            tokio::select! {
                () = sleep(delay) => return now,
                changed = mode.changed() => {
                    if changed.is_err() {
                        return now;
                    }
                }
            }
        }
    }

    /// Waits until the mode meets the condition.
    async fn until(&self, is_such: impl Fn(Mode) -> bool) {
        let mut mode = self.mode.clone();
        // If the proxy is dropped, the runtime ends, and this connection with it.
        let _ = mode.wait_for(|mode| is_such(*mode)).await;
    }

    /// Waits until [`Mode::DropSubscriptions`] closes this connection.
    async fn condemned(&self) {
        self.has_subscribed.notified().await;
        let mut mode = self.mode.clone();
        loop {
            let now = *mode.borrow_and_update();
            let rest = async {
                let Mode::DropSubscriptions { seed, within } = now else { return pending().await };
                let number = self.subscriptions.fetch_add(1, Ordering::Relaxed);
                sleep(lifetime(seed, number, within)).await;
            };
            tokio::select! {
                () = rest => return,
                changed = mode.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Notices a subscription in a chunk. `recent` is the end of what came before.
    fn notice_subscription(&self, recent: &mut Vec<u8>, chunk: &[u8]) {
        recent.extend(chunk.iter().map(u8::to_ascii_uppercase));
        if SUBSCRIBE.iter().any(|subscribe| recent.windows(subscribe.len()).any(|window| window == *subscribe)) {
            self.has_subscribed.notify_one();
        }
        recent.drain(..recent.len().saturating_sub(SUBSCRIBE_REST));
    }

    fn lose(&self) {
        self.has_lost.store(true, Ordering::Relaxed);
    }

    fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::Relaxed)
    }
}

/// How long the `number`-th subscription lives.
fn lifetime(seed: u64, number: u64, within: Duration) -> Duration {
    within.mul_f64(StdRng::seed_from_u64(seed.wrapping_add(number)).random())
}

/// Reads a chunk and returns its length. `None` if the other side has closed the connection.
async fn read(stream: &TcpStream, buffer: &mut [u8]) -> Option<usize> {
    loop {
        stream.readable().await.ok()?;
        match stream.try_read(buffer) {
            Ok(0) => return None,
            Ok(length) => return Some(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

/// Sends all bytes, and returns whether that succeeded. Both directions may send to a client, so this takes no
/// exclusive reference.
async fn send(stream: &TcpStream, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        if stream.writable().await.is_err() {
            return false;
        }
        match stream.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
    true
}
