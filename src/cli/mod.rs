//! The command line. Each subcommand has a module of its own.

mod audit;
mod backup;
mod demo;
mod doctor;
mod events;
mod import;
mod ingest;
mod migrate;
mod printable;
mod schema;
mod serve;
mod simulate;
mod span;
mod telemetry;
pub mod token;

use std::io::{Write as _, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use self::telemetry::Telemetry;
use crate::app::App;
use crate::app::clock::Clock;
use crate::app::database::Database;
use crate::app::error::Error;
use crate::app::jobs::presence;
use crate::config::{self, Config};

/// The exit code if the database has a format that this program does not know.
const OUTDATED: u8 = 3;

/// A self-hosted GraphQL gamification API server: purchases in, points out.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// The configuration file. Default: `windfall.toml` in the current directory, if it exists.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Serve(serve::Args),
    Migrate(migrate::Args),
    Import(import::Args),
    Ingest(ingest::Args),
    Events(events::Args),
    Simulate(simulate::Args),
    Audit(audit::Args),
    Backup(backup::Args),
    Doctor(doctor::Args),
    Schema(schema::Args),
    Token(token::Args),
}

impl Cli {
    /// Runs the subcommand and returns its exit code: 1 if it found something wrong, 2 if an import found faulty lines or `doctor` a
    /// configuration that is not valid, 3 if this program is outdated.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let config = match Config::load(self.config.as_deref()) {
            Err(error) if matches!(self.command, Command::Doctor(_)) => {
                writeln!(stderr(), "Error: {error}")?;
                return Ok(ExitCode::from(doctor::INVALID));
            }
            loaded => loaded?,
        };
        let filter = match self.command {
            // The demo prints its own messages for people, so its log shows warnings only.
            Command::Demo(_) => "warn",
            // What doctor meets is a finding.
            Command::Doctor(_) => "off",
            _ => &config.log.filter,
        };
        let _telemetry = Telemetry::start(filter, &config.log)?;
        let result = self.command.run(config).await;
        match result.as_ref().err().and_then(|error| error.downcast_ref()) {
            Some(outdated @ Error::Outdated { .. }) => {
                writeln!(stderr(), "Error: {outdated}")?;
                Ok(ExitCode::from(OUTDATED))
            }
            _ => result,
        }
    }
}

impl Command {
    async fn run(self, config: Config) -> anyhow::Result<ExitCode> {
        match self {
            Self::Demo(args) => demo::run(&args, config).await,
            Self::Serve(args) => serve::run(&args, &config).await,
            Self::Migrate(args) => migrate::run(&args, &config).await,
            Self::Import(args) => import::run(args, &config).await,
            Self::Events(args) => events::run(&args, &config).await,
            Self::Ingest(args) => ingest::run(args, &config).await,
            Self::Simulate(args) => simulate::run(args, &config).await,
            Self::Audit(args) => audit::run(&args, &config).await,
            Self::Backup(args) => backup::run(&args, &config).await,
            Self::Doctor(args) => doctor::run(&args, &config).await,
            Self::Schema(args) => schema::run(&args),
            Self::Token(args) => {
                token::run(&args, &config.auth, Clock::System.now().0)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Connects to the database without applying migrations.
async fn connect(config: &config::Database) -> anyhow::Result<Database> {
    // The driver's message says little if no server responds, so the context names the configuration key.
    let opened = Database::connect(config).await;
    opened.context("the database cannot be opened: see `database.url` (WINDFALL__DATABASE__URL)")
}

/// Connects and applies pending migrations. If `database.migrate` is false, fails if there are any.
async fn open_database(config: &config::Database) -> anyhow::Result<Database> {
    let database = connect(config).await?;
    if config.migrate {
        database.migrate().await.context("the database cannot be migrated")?;
    } else if database.is_behind().await? {
        anyhow::bail!("the database's schema is older than this program: run `windfall migrate`");
    }
    Ok(database)
}

/// Returns the file of an SQLite database, or `None` for PostgreSQL.
fn sqlite_file(config: &config::Database) -> Option<&str> {
    let rest = config.url.expose().strip_prefix("sqlite://")?;
    Some(rest.split('?').next().unwrap_or(rest))
}

/// Starts the application on the configured database, and announces it to the other programs there. Fails if this program does
/// not know the format of the database.
async fn start_app(config: &Config) -> anyhow::Result<Arc<App>> {
    let database = open_database(&config.database).await?;
    let clock = Clock::of_database(&database).await?;
    let app = App::start(database, clock, config).await?;
    app.check_format().await?;
    tokio::spawn(presence::run(Arc::clone(&app)));
    Ok(app)
}
