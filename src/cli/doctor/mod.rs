//! `windfall doctor`: examines a running configuration and says what to change, with what was measured.
//!
//! It changes nothing, joins no consumer group and takes no lock. A part that is down is a finding, and every wait has a limit. Each
//! subject has a module: one function measures, and a pure one decides.

mod database;
mod files;
mod finding;
mod kafka;
mod memory;
mod nodes;
mod postgres;
mod redis;
mod sqlite;
mod tokens;
mod topics;
mod units;

use std::io::stdout;
use std::process::ExitCode;

use self::finding::{Finding, Severity};
use crate::config::Config;

/// The exit code if the configuration is not valid, as for a command line that is not.
pub(super) const INVALID: u8 = 2;
/// How many messages a second the nodes are assumed to record: an eighth of the slowest import in docs/performance.md.
const RATE: u32 = 1_000;

/// Examine the configuration and everything that it names, and say what to change. Changes nothing.
///
/// Exits with 0 if there is no problem, with 1 if there is one, and with 2 if the command line or the configuration is not valid.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print one JSON document: a list of findings, each with its code, severity, subject, measured figure and advice.
    #[arg(long)]
    json: bool,
    /// How many messages of topics all nodes record together in a second. It is used if it cannot be measured, because no message
    /// waits.
    #[arg(long, value_name = "MESSAGES", default_value_t = RATE, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let mut findings = examine(args, config).await;
    findings.sort_by_key(|finding| finding.severity);
    let mut out = stdout().lock();
    if args.json {
        finding::print_json(&mut out, &findings)?;
    } else {
        finding::print(&mut out, &findings)?;
    }
    let has_problem = findings.iter().any(|finding| finding.severity == Severity::Problem);
    Ok(if has_problem { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(args: &Args, config: &Config) -> Vec<Finding> {
    let mut findings = memory::examine(config);
    findings.extend(files::examine(config));
    findings.extend(tokens::examine(&config.auth).await);
    findings.extend(redis::examine(&config.redis).await);
    let examined = database::examine(config, &mut findings).await;
    findings.extend(kafka::examine(config, examined.as_ref(), f64::from(args.rate)).await);
    findings
}
