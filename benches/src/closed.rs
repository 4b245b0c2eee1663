//! The closed loop: each connection sends its next request when it has the response to the last one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::clock;
use crate::cpu::{Snapshot, Watched};
use crate::http::{Connection, head};
use crate::operation::{Operation, failure};
use crate::report::{Results, report};

/// How long a connection waits after a failure, so that a server that refuses at once is not asked all the time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

pub struct Closed {
    pub address: SocketAddr,
    /// Empty for a server that asks for none.
    pub tokens: Vec<String>,
    pub connections: usize,
    pub threads: usize,
    pub length: Length,
    pub watched: Vec<Watched>,
}

/// How long a run is.
#[derive(Clone, Copy)]
pub enum Length {
    /// It is measured for a time, after a time in which nothing is counted.
    Time { warmup: Duration, measured: Duration },
    /// It is measured until so many requests have succeeded or failed.
    Count(u64),
}

/// What all connections share.
struct Shared {
    operation: Operation,
    address: SocketAddr,
    heads: Vec<Vec<u8>>,
    next: AtomicU64,
    last: u64,
    counting: AtomicBool,
    stopping: AtomicBool,
}

/// Runs the loop and returns the report.
pub fn run(closed: &Closed, operation: Operation) -> anyhow::Result<Value> {
    ensure!(closed.connections >= closed.threads && closed.threads > 0, "each thread needs a connection");
    let heads = if closed.tokens.is_empty() {
        vec![head(closed.address, None)]
    } else {
        closed.tokens.iter().map(|token| head(closed.address, Some(token))).collect()
    };
    let last = match closed.length {
        Length::Time { .. } => u64::MAX,
        Length::Count(count) => count,
    };
    let shared = Arc::new(Shared {
        operation,
        address: closed.address,
        heads,
        next: AtomicU64::new(0),
        last,
        counting: AtomicBool::new(matches!(closed.length, Length::Count(_))),
        stopping: AtomicBool::new(false),
    });
    let mut before = Snapshot::take(&closed.watched)?;
    let threads: Vec<_> = (0..closed.threads)
        .map(|thread| {
            let connections =
                closed.connections / closed.threads + usize::from(thread < closed.connections % closed.threads);
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(&shared, connections))
        })
        .collect();
    let mut after = None;
    if let Length::Time { warmup, measured } = closed.length {
        thread::sleep(warmup);
        before = Snapshot::take(&closed.watched)?;
        shared.counting.store(true, Ordering::Relaxed);
        thread::sleep(measured);
        shared.counting.store(false, Ordering::Relaxed);
        after = Some(Snapshot::take(&closed.watched)?);
        shared.stopping.store(true, Ordering::Relaxed);
    }
    let mut results = Results::default();
    for thread in threads {
        results.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread of the load generator panicked"))??);
    }
    let after = match after {
        Some(after) => after,
        None => Snapshot::take(&closed.watched)?,
    };
    let cpu = after.since(&before, &closed.watched);
    Ok(report(results, after.at.duration_since(before.at), &cpu))
}

fn work(shared: &Arc<Shared>, connections: usize) -> anyhow::Result<Results> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        let mut tasks: JoinSet<Results> = (0..connections).map(|_| drive(Arc::clone(shared))).collect();
        let mut results = Results::default();
        while let Some(done) = tasks.join_next().await {
            results.extend(done?);
        }
        Ok(results)
    })
}

/// Sends one request after the other over a connection, and over a new one after a fault.
async fn drive(shared: Arc<Shared>) -> Results {
    let mut results = Results::default();
    let mut body = Vec::new();
    let mut connection = None;
    while !shared.stopping.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.last {
            break;
        }
        shared.operation.write(number, &mut body);
        let head = &shared.heads[shared.operation.token(number, shared.heads.len())];
        let began = clock::now();
        let failed = match exchange(&mut connection, &shared, head, &body).await {
            Ok(()) if shared.counting.load(Ordering::Relaxed) => {
                results.latencies.record(clock::now().duration_since(began));
                false
            }
            Ok(()) => false,
            Err((kind, response)) => {
                if shared.counting.load(Ordering::Relaxed) {
                    results.fail(kind, &response);
                }
                true
            }
        };
        if failed {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
    results
}

/// Sends a request. If it fails, returns the kind of the failure and the response.
async fn exchange(
    connection: &mut Option<Connection>,
    shared: &Shared,
    head: &[u8],
    body: &[u8],
) -> Result<(), (String, Vec<u8>)> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(shared.address).await.map_err(|fault| (fault.as_str().to_owned(), Vec::new()))?,
    };
    match open.exchange(head, body).await {
        Ok(response) if shared.operation.succeeded(&response) => {}
        Ok(response) => {
            let failed = (failure(&response), response.body.to_vec());
            *connection = Some(open);
            return Err(failed);
        }
        Err(fault) => return Err((fault.as_str().to_owned(), Vec::new())),
    }
    *connection = Some(open);
    Ok(())
}
