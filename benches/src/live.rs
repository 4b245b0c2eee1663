//! Followers of live updates: how long an update takes, whether one is missing, and, for the caller, how much memory
//! the server needs for them.
//!
//! Each follower follows a customer of its own, `c1` to `cN`. The updates go round the customers, so that the next
//! update of a customer belongs to its last purchase.

use std::cell::{Cell, RefCell};
use std::io::{Write as _, stdin, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, sleep_until};

use crate::clock;
use crate::cpu::{Snapshot, Watched};
use crate::http::{Connection, head};
use crate::latency::Latencies;
use crate::operation::{Api, Kind, Operation};
use crate::websocket::Socket;

/// Sockets from one address of this machine. It stays below the server's default `http.sockets_per_address`, and below
/// the number of ports of an address.
const SOCKETS_PER_SOURCE: usize = 1000;
/// The address of the first followers. Each further address is one higher.
const FIRST_SOURCE: u32 = u32::from_be_bytes([127, 0, 1, 1]);
/// Sockets that are opened at a time.
const OPENING: usize = 64;
/// Connections that record purchases.
const RECORDERS: usize = 128;
/// The time until the server has begun all subscriptions and is idle again.
const SETTLING: Duration = Duration::from_secs(3);
/// How long the last updates may take.
const PATIENCE: Duration = Duration::from_secs(3);

const WINDFALL: &str =
    "subscription { pointsUpdated { cursor change balance { available version } entries { sequence points } } }";
const GRAPHQL_WS: &str =
    "subscription($customer: String!) { pointsUpdated(customer: $customer) { points balance at } }";

/// The server whose updates are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Server {
    /// A recorded purchase is an update.
    Windfall,
    /// `peers/live`: a message that is published in Redis is an update.
    GraphqlWs,
}

pub struct Live {
    pub server: Server,
    pub address: SocketAddr,
    /// Redis, for [`Server::GraphqlWs`].
    pub redis: Option<SocketAddr>,
    /// The n-th token is that of the n-th customer.
    pub tokens: Vec<String>,
    pub shop_token: Option<String>,
    pub followers: usize,
    pub rate: f64,
    pub seconds: f64,
    /// The sequence of each customer's last ledger entry before the run.
    pub sequence: u64,
    pub prefix: String,
    pub watched: Vec<Watched>,
}

/// What is known of one customer.
#[derive(Default)]
struct Followed {
    /// When the update that is awaited was sent.
    sent: Cell<Option<Instant>>,
    acknowledged: Cell<Option<Instant>>,
    arrived: Cell<Option<Instant>>,
    sequence: Cell<u64>,
}

struct State {
    live: Live,
    customers: Vec<Followed>,
    /// From the request to the update.
    from_request: RefCell<Latencies>,
    /// From the response, which says that the purchase is committed, to the update. 0 if the update came first.
    from_response: RefCell<Latencies>,
    gaps: Cell<u64>,
    missing: Cell<u64>,
    lost: RefCell<Vec<String>>,
    failed: RefCell<Vec<String>>,
}

/// Opens the followers, prints a line, waits for a line, and then sends updates. Returns the report.
pub fn run(live: Live) -> anyhow::Result<Value> {
    ensure!(live.server == Server::GraphqlWs || live.tokens.len() >= live.followers, "each follower needs a token");
    let customers: Vec<Followed> = (0..live.followers).map(|_| Followed::default()).collect();
    customers.iter().for_each(|followed| followed.sequence.set(live.sequence));
    let state = Rc::new(State {
        live,
        customers,
        from_request: RefCell::default(),
        from_response: RefCell::default(),
        gaps: Cell::default(),
        missing: Cell::default(),
        lost: RefCell::default(),
        failed: RefCell::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, follow_and_send(state))
}

async fn follow_and_send(state: Rc<State>) -> anyhow::Result<Value> {
    let began = clock::now();
    open_all(&state).await?;
    let opened = clock::now().duration_since(began);
    sleep(SETTLING).await;
    writeln!(stdout(), "{}", json!({ "followers": state.live.followers, "opened_in_seconds": opened.as_secs_f64() }))?;
    // The sockets need no attention meanwhile: nothing is sent to them.
    stdin().read_line(&mut String::new())?;
    let before = Snapshot::take(&state.live.watched)?;
    let sent = match state.live.server {
        Server::Windfall => record(&state).await?,
        Server::GraphqlWs => publish(&state).await?,
    };
    let after = Snapshot::take(&state.live.watched)?;
    sleep(PATIENCE).await;
    let missing = state.missing.get() + count(state.customers.iter().filter(|followed| followed.sent.get().is_some()));
    let (lost, failed) = (state.lost.borrow(), state.failed.borrow());
    Ok(json!({
        "followers": state.live.followers,
        "sent": sent,
        "rate": f64::from(u32::try_from(sent)?) / after.at.duration_since(before.at).as_secs_f64(),
        "received": state.from_request.borrow().count(),
        "from_request_ms": state.from_request.take().summary(),
        "from_response_ms": state.from_response.take().summary(),
        "gaps": state.gaps.get(),
        "missing": missing,
        "lost_sockets": lost.len(),
        "failed_requests": failed.len(),
        "first_failure": lost.first().or(failed.first()),
        "cpu_seconds": after.since(&before, &state.live.watched),
    }))
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.map(|_| 1).sum()
}

async fn open_all(state: &Rc<State>) -> anyhow::Result<()> {
    let next = Rc::new(Cell::new(0));
    let opening: Vec<_> = (0..OPENING)
        .map(|_| {
            let (state, next) = (Rc::clone(state), Rc::clone(&next));
            tokio::task::spawn_local(async move {
                loop {
                    let at = next.get();
                    if at >= state.live.followers {
                        return anyhow::Ok(());
                    }
                    next.set(at + 1);
                    let socket = open(&state, at).await.with_context(|| format!("follower {at}"))?;
                    tokio::task::spawn_local(follow(Rc::clone(&state), at, socket));
                }
            })
        })
        .collect();
    for opener in opening {
        opener.await??;
    }
    Ok(())
}

async fn open(state: &State, at: usize) -> anyhow::Result<Socket> {
    let Live { server, address, tokens, .. } = &state.live;
    let source = Ipv4Addr::from(FIRST_SOURCE + u32::try_from(at / SOCKETS_PER_SOURCE)?);
    let mut socket = Socket::open(*address, source, tokens.get(at).map(String::as_str)).await?;
    match server {
        Server::Windfall => socket.subscribe(WINDFALL, json!({})).await?,
        Server::GraphqlWs => socket.subscribe(GRAPHQL_WS, json!({ "customer": format!("c{}", at + 1) })).await?,
    }
    Ok(socket)
}

/// Notes the updates of a customer until the socket is closed.
async fn follow(state: Rc<State>, at: usize, mut socket: Socket) {
    loop {
        match socket.event().await {
            Ok(event) => state.arrived(at, &event["pointsUpdated"]),
            Err(error) => return state.lost.borrow_mut().push(format!("follower {at}: {error:#}")),
        }
    }
}

impl State {
    fn arrived(&self, at: usize, update: &Value) {
        let now = clock::now();
        let sequences: Vec<u64> = match self.live.server {
            Server::Windfall => {
                update["entries"].as_array().into_iter().flatten().filter_map(|e| e["sequence"].as_u64()).collect()
            }
            // The publisher counts in this field.
            Server::GraphqlWs => update["balance"].as_u64().into_iter().collect(),
        };
        if sequences.is_empty() {
            return;
        }
        let followed = &self.customers[at];
        for sequence in sequences {
            self.gaps.set(self.gaps.get() + u64::from(sequence != followed.sequence.get() + 1));
            followed.sequence.set(sequence);
        }
        if let Some(sent) = followed.sent.take() {
            self.from_request.borrow_mut().record(now.duration_since(sent));
            followed.arrived.set(Some(now));
            self.compare(followed);
        }
    }

    fn acknowledged(&self, at: usize) {
        let followed = &self.customers[at];
        followed.acknowledged.set(Some(clock::now()));
        self.compare(followed);
    }

    fn compare(&self, followed: &Followed) {
        if let (Some(acknowledged), Some(arrived)) = (followed.acknowledged.get(), followed.arrived.get()) {
            self.from_response.borrow_mut().record(arrived.saturating_duration_since(acknowledged));
        }
    }

    /// Notes that an update of a customer is sent now.
    fn sending(&self, at: usize) {
        let followed = &self.customers[at];
        followed.acknowledged.set(None);
        followed.arrived.set(None);
        if followed.sent.replace(Some(clock::now())).is_some() {
            self.missing.set(self.missing.get() + 1);
        }
    }

    /// The number of updates, and the instant of each.
    fn schedule(&self) -> (u64, impl Fn(u64) -> tokio::time::Instant + use<>) {
        let (began, rate) = (clock::now(), self.live.rate);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of updates")]
        let updates = (rate * self.live.seconds) as u64;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 updates")]
        let instant = move |number: u64| (began + Duration::from_secs_f64(number as f64 / rate)).into();
        (updates, instant)
    }
}

/// Records purchases at the rate. Returns how many there were.
async fn record(state: &Rc<State>) -> anyhow::Result<u64> {
    let operation = Rc::new(Operation {
        api: Api::Windfall,
        kind: Kind::RecordNow,
        customers: u64::try_from(state.live.followers)?,
        seed: 1,
        prefix: state.live.prefix.clone(),
        began_at: 0,
    });
    let (updates, instant) = state.schedule();
    let (next, instant) = (Rc::new(Cell::new(0)), Rc::new(instant));
    let recorders: Vec<_> = (0..RECORDERS)
        .map(|_| {
            let (state, operation, next, instant) =
                (Rc::clone(state), Rc::clone(&operation), Rc::clone(&next), Rc::clone(&instant));
            tokio::task::spawn_local(async move {
                let head = head(state.live.address, state.live.shop_token.as_deref());
                let mut connection =
                    Connection::open(state.live.address).await.map_err(|fault| fault.as_str().to_owned())?;
                let mut body = Vec::new();
                loop {
                    let number: u64 = next.get();
                    if number >= updates {
                        return Ok::<(), String>(());
                    }
                    next.set(number + 1);
                    let customer = number % operation.customers;
                    operation.write_for(number, customer + 1, &mut body);
                    sleep_until(instant(number)).await;
                    let at = usize::try_from(customer).unwrap_or_default();
                    state.sending(at);
                    let response =
                        connection.exchange(&head, &body).await.map_err(|fault| fault.as_str().to_owned())?;
                    if operation.succeeded(&response) {
                        state.acknowledged(at);
                    } else {
                        state.customers[at].sent.set(None);
                        state.failed.borrow_mut().push(String::from_utf8_lossy(response.body).into_owned());
                    }
                }
            })
        })
        .collect();
    for recorder in recorders {
        if let Err(fault) = recorder.await? {
            state.failed.borrow_mut().push(fault);
        }
    }
    Ok(updates)
}

/// Publishes messages in Redis at the rate. Returns how many there were.
async fn publish(state: &Rc<State>) -> anyhow::Result<u64> {
    let address = state.live.redis.context("the address of Redis is missing")?;
    let (mut replies, mut commands) = TcpStream::connect(address).await?.into_split();
    tokio::task::spawn_local(async move {
        let mut buffer = [0; 4096];
        while replies.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    });
    let (updates, instant) = state.schedule();
    for number in 0..updates {
        sleep_until(instant(number)).await;
        let at = usize::try_from(number)? % state.live.followers;
        let sequence = state.customers[at].sequence.get() + 1;
        let channel = format!("points:c{}", at + 1);
        let message = json!({ "points": 5, "balance": sequence, "at": clock::wall().as_millisecond() }).to_string();
        state.sending(at);
        state.acknowledged(at);
        let command =
            format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n${}\r\n{message}\r\n", channel.len(), message.len());
        commands.write_all(command.as_bytes()).await?;
    }
    Ok(updates)
}
