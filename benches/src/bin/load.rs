//! The load generator. It prints what it measured as one line of JSON.

use std::fs;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use benches::clock;
use benches::closed::{self, Closed, Length};
use benches::cpu::Watched;
use benches::live::{self, Live, Server};
use benches::open::{self, Open, Phase};
use benches::operation::{Api, Kind, Operation};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends the next request of each connection when the last one is answered.
    Closed {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        operation: OperationArguments,
        #[arg(long, default_value_t = 32)]
        connections: usize,
        /// Threads of the load generator.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// How long the run is measured, in seconds.
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// How long the load runs before it is measured, in seconds.
        #[arg(long, default_value_t = 2.0)]
        warmup: f64,
        /// Send this number of requests instead, and measure all of them.
        #[arg(long)]
        count: Option<u64>,
    },
    /// Sends requests at a rate, whether or not earlier ones are answered.
    Open {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        operation: OperationArguments,
        #[arg(long, default_value_t = 2000)]
        connections: usize,
        /// A span with a constant rate, as RATE:SECONDS. Can be repeated.
        #[arg(long = "phase", required = true)]
        phases: Vec<Phase>,
    },
    /// Follows customers c1 to cN, prints a line, waits for a line, and then makes updates at a rate.
    Live {
        #[command(flatten)]
        target: Target,
        #[arg(long, value_enum, default_value = "windfall")]
        server: Server,
        /// The address of Redis, for graphql-ws.
        #[arg(long)]
        redis: Option<SocketAddr>,
        /// The file with the token that records purchases.
        #[arg(long)]
        shop_tokens: Option<PathBuf>,
        #[arg(long)]
        followers: usize,
        /// Updates per second.
        #[arg(long, default_value_t = 1000.0)]
        rate: f64,
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// The sequence of each customer's last ledger entry.
        #[arg(long, default_value_t = 0)]
        sequence: u64,
        #[arg(long, default_value = "p")]
        prefix: String,
    },
    /// Prints purchases, separated by tabs: external id, customer, cents, category, instant.
    Purchases {
        #[command(flatten)]
        operation: OperationArguments,
        #[arg(long)]
        count: u64,
    },
}

#[derive(Args)]
struct Target {
    /// The address of the server, such as 127.0.0.1:8080.
    #[arg(long)]
    address: SocketAddr,
    /// A file with one token a line.
    #[arg(long)]
    tokens: Option<PathBuf>,
    /// A process whose CPU time is measured with its descendants, as NAME=PID. Can be repeated.
    #[arg(long = "process")]
    processes: Vec<Watched>,
}

impl Target {
    fn tokens(&self) -> anyhow::Result<Vec<String>> {
        self.tokens.as_deref().map_or(Ok(Vec::new()), lines)
    }
}

fn lines(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[derive(Args)]
struct OperationArguments {
    #[arg(long, value_enum)]
    operation: Kind,
    #[arg(long, value_enum, default_value = "windfall")]
    api: Api,
    /// Customers are named c1 to cN.
    #[arg(long, default_value_t = 20_000)]
    customers: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The external ids of purchases begin with it. It must be new in each run.
    #[arg(long, default_value = "p")]
    prefix: String,
    /// The instant before which late purchases were made, in seconds since 1970. The default is now.
    #[arg(long)]
    began_at: Option<i64>,
}

impl OperationArguments {
    fn operation(self) -> Operation {
        let Self { operation: kind, api, customers, seed, prefix, began_at } = self;
        let began_at = began_at.unwrap_or_else(|| clock::wall().as_second());
        Operation { api, kind, customers, seed, prefix, began_at }
    }
}

fn main() -> anyhow::Result<()> {
    let mut out = stdout();
    match Arguments::parse().command {
        Command::Closed { target, operation, connections, threads, seconds, warmup, count } => {
            let measured = Duration::try_from_secs_f64(seconds)?;
            let length = match count {
                Some(count) => Length::Count(count),
                None => Length::Time { warmup: Duration::try_from_secs_f64(warmup)?, measured },
            };
            let tokens = target.tokens()?;
            let Target { address, processes: watched, .. } = target;
            let closed = Closed { address, tokens, connections, threads, length, watched };
            writeln!(out, "{}", closed::run(&closed, operation.operation())?)?;
        }
        Command::Open { target, operation, connections, phases } => {
            let tokens = target.tokens()?;
            let Target { address, processes: watched, .. } = target;
            let open = Open { address, tokens, connections, phases, watched };
            writeln!(out, "{}", open::run(&open, operation.operation())?)?;
        }
        Command::Live { target, server, redis, shop_tokens, followers, rate, seconds, sequence, prefix } => {
            let tokens = target.tokens()?;
            let shop_token = shop_tokens.as_deref().map(lines).transpose()?.and_then(|lines| lines.into_iter().next());
            let Target { address, processes: watched, .. } = target;
            let live = Live {
                server,
                address,
                redis,
                tokens,
                shop_token,
                followers,
                rate,
                seconds,
                sequence,
                prefix,
                watched,
            };
            let report = live::run(live)?;
            writeln!(out, "{report}")?;
        }
        Command::Purchases { operation, count } => {
            let operation = operation.operation();
            for number in 0..count {
                let purchase = operation.purchase(number);
                let (prefix, at) = (&operation.prefix, operation.instant(number));
                let (customer, cents, category) = (purchase.customer, purchase.total_cents, purchase.category);
                writeln!(out, "{prefix}{number}\tc{customer}\t{cents}\t{category}\t{at}")?;
            }
        }
    }
    Ok(())
}
