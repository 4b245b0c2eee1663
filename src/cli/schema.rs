//! `windfall schema`: prints the GraphQL schema in its definition language (SDL).

use std::io::{Write as _, stdout};
use std::process::ExitCode;

use crate::graphql;

/// Print the GraphQL schema.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> anyhow::Result<ExitCode> {
    stdout().write_all(graphql::sdl().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
