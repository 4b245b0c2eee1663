//! `windfall schema`: prints the GraphQL schema in its definition language (SDL), or the AsyncAPI document.

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use crate::graphql;
use crate::ingest::asyncapi;

/// Print the GraphQL schema.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the AsyncAPI document instead: what messages of topics contain.
    #[arg(long)]
    asyncapi: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let document = if args.asyncapi { asyncapi::document() } else { graphql::sdl() };
    stdout().write_all(document.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
