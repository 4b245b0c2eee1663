//! A network that fails as told: a proxy in front of a server, whose behaviour changes at any time, also for the connections
//! that are open.
//!
//! It runs on a thread of its own, so that it goes on while a test blocks. On that one thread, a change of behaviour holds for
//! every byte that comes after it.
//!
//! What TCP never does, it does not do either: a connection from which bytes were taken away is not used again. It is closed as
//! soon as the proxy forwards again, else the answers that follow would be taken for those of earlier requests.

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

/// How much is read at once: a chunk.
const CHUNK: usize = 16 * 1024;

/// What begins a subscription, in capital letters.
const SUBSCRIBE: [&[u8]; 3] = [b"$9\r\nSUBSCRIBE\r\n", b"$10\r\nPSUBSCRIBE\r\n", b"$10\r\nSSUBSCRIBE\r\n"];

/// The end of a chunk that may be the beginning of [`SUBSCRIBE`].
const SUBSCRIBE_REST: usize = 16;

/// What the proxy does with bytes and connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Forwards all.
    Pass,
    /// Takes connections and keeps them, and swallows what comes from either side, the end of the server's included.
    Blackhole,
    /// Closes every connection, those that come at once.
    Refuse,
    /// Forwards nothing, and answers each chunk of the client with this.
    Garbage(Garbage),
    /// Forwards each chunk, in either direction, after this time.
    Slow(Duration),
    /// Forwards all, but closes each connection on which the client has subscribed, at a random moment within this time from its
    /// subscription or from the beginning of this mode. The n-th to be closed lives as long for the same seed.
    DropSubscriptions { seed: u64, within: Duration },
}

impl Mode {
    fn forwards(self) -> bool {
        matches!(self, Self::Pass | Self::Slow(_) | Self::DropSubscriptions { .. })
    }
}

/// What no Redis that was asked for a value answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Garbage {
    /// Random bytes, the first of which begins nothing in RESP; the same ones for the same seed.
    Noise(u64),
    /// A number.
    WrongType,
    /// A bulk string of this content.
    Bulk(&'static str),
    /// A bulk string's beginning, and then the end of the connection.
    Truncated,
}

impl Garbage {
    /// The answer to a connection's `number`-th chunk.
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

/// What the test wants of the proxy's thread. The answer to each is how many connections there are then.
#[derive(Clone, Copy)]
enum Order {
    Set(Mode),
    Move(SocketAddr),
    Cut,
    Count,
}

/// A proxy; all its connections end with it.
pub(crate) struct Proxy {
    address: SocketAddr,
    /// None only while it is dropped.
    orders: Option<mpsc::UnboundedSender<(Order, blocking::Sender<usize>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of this server, with [`Mode::Pass`].
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

    /// As a client of Redis takes it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// From now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.order(Order::Set(mode));
    }

    /// Connections that come from now on lead to this server.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        self.order(Order::Move(server));
    }

    /// Closes all connections that there are now, on both sides.
    pub(crate) fn cut(&self) {
        self.order(Order::Cut);
    }

    /// How many connections of clients are open.
    pub(crate) fn connections(&self) -> usize {
        self.order(Order::Count)
    }

    fn order(&self, order: Order) -> usize {
        let (answer, answered) = blocking::channel();
        let orders = self.orders.as_ref().expect("it is dropped last");
        assert!(orders.send((order, answer)).is_ok(), "the proxy has ended");
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

/// The proxy's thread.
struct Listening {
    /// The listener's other half: tells at once whether a client waits.
    waiting: std::net::TcpListener,
    listener: TcpListener,
    server: SocketAddr,
    mode: watch::Sender<Mode>,
    subscriptions: Arc<AtomicU64>,
    connections: JoinSet<()>,
}

impl Listening {
    /// Within a runtime.
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

    /// Until the proxy is dropped. The connections end with the runtime.
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<(Order, blocking::Sender<usize>)>) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some((order, answer)) = order else { return };
                    self.obey(order).await;
                    // Whoever asked may have panicked.
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
        // A client is connected before the proxy knows of it: those that wait belong to the time before the order.
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

/// A client's connection.
struct Connection {
    client: TcpStream,
    server: SocketAddr,
    mode: watch::Receiver<Mode>,
    /// Whether bytes were taken away.
    has_lost: AtomicBool,
    has_subscribed: Notify,
    /// How many subscriptions [`Mode::DropSubscriptions`] has condemned.
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
        // A server that is down shows as the end of the connection.
        let Ok(server) = TcpStream::connect(self.server).await else { return };
        let _ = server.set_nodelay(true);
        tokio::select! {
            // The loss first: nothing is forwarded after it.
            biased;
            () = self.until(|mode| mode.forwards() && self.has_lost()) => {}
            () = self.condemned() => {}
            () = self.forward_requests(Some(&server)) => {}
            () = self.forward_answers(&server) => {}
        }
    }

    /// Until the client ends. Without a server, in the modes that need none.
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

    /// Until the server ends.
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
            // The end is swallowed as well.
            self.lose();
            pending::<()>().await;
        }
    }

    /// The mode that decides about a chunk that has come: a slow one when its time is over, unless another one follows before.
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

    /// Until the mode is such.
    async fn until(&self, is_such: impl Fn(Mode) -> bool) {
        let mut mode = self.mode.clone();
        // Without a proxy, the runtime ends, and the connection with it.
        let _ = mode.wait_for(|mode| is_such(*mode)).await;
    }

    /// Until [`Mode::DropSubscriptions`] closes this connection.
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

    /// `recent` is the end of what came before.
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

/// None: the other side has ended the connection.
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

/// Whether all was sent. Both directions may send to a client, so this takes no exclusive reference.
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
