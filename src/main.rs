//! Parses the command line, loads the configuration, dispatches.

use std::process::ExitCode;

use clap::Parser;
use windfall::cli::Cli;

/// Deep recursion has no other bound than the stack; the gate refuses deep documents, this is the second line.
const STACK_BYTES: usize = 16 << 20;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    let ran = runtime.block_on(cli.run());
    // What still blocks a thread, such as a name that is looked up, must not hold the process.
    runtime.shutdown_background();
    ran
}
