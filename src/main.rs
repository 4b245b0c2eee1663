//! Parses the command line and runs the subcommand.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use windfall::cli::Cli;

/// A request allocates on one thread and frees on another, for which the allocator of glibc takes locks.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Only the stack bounds a deep recursion. The gate refuses deep documents, and a large stack is the second line of defence.
const STACK_BYTES: usize = 16 << 20;

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    let ran = runtime.block_on(cli.run());
    // A thread that is still blocked, for example in a DNS look-up, must not keep the process from exiting.
    runtime.shutdown_background();
    ran
}
