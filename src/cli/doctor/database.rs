//! The database: opens it only to read, and asks what all other parts need to know.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::finding::{Code, Finding};
use super::units::{count, duration};
use super::{nodes, postgres, sqlite, topics};
use crate::app::clock::Clock;
use crate::app::database::Database;
use crate::app::doctor::postgres::server;
use crate::app::doctor::{Schema, schema};
use crate::app::error::Error;
use crate::app::jobs::presence::{Present, present};
use crate::app::node::{FORMAT, check_format};
use crate::cli::sqlite_file;
use crate::config::{self, Config};

/// How long it may take to connect to the database. The pool itself gives up after ten seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long all queries about the database may take together.
const QUERY_TIMEOUT: Duration = Duration::from_secs(15);

/// A database that can be read and has all tables.
pub(super) struct Examined {
    pub(super) database: Database,
    pub(super) clock: Clock,
    /// The programs that run on it.
    pub(super) present: Vec<Present>,
}

/// Examines the database, and returns it if it can be read and has all tables.
pub(super) async fn examine(config: &Config, findings: &mut Vec<Finding>) -> Option<Examined> {
    let file = sqlite_file(&config.database).map(Path::new);
    // `serve` creates the file, so there is nothing to find yet.
    if let Some(file) = file
        && !file.exists()
        && directory_of(file).is_dir()
    {
        return None;
    }
    let examined = match open(&config.database).await {
        Ok(database) => match timeout(QUERY_TIMEOUT, read(database, config, findings)).await {
            Ok(examined) => examined.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the queries took longer than {}", duration(QUERY_TIMEOUT))),
        },
        Err(reason) => Err(reason),
    };
    examined.unwrap_or_else(|reason| {
        findings.push(unreachable(&reason));
        None
    })
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

async fn open(config: &config::Database) -> Result<Database, String> {
    match timeout(CONNECT_TIMEOUT, Database::connect_to_read(config)).await {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no connection within {}", duration(CONNECT_TIMEOUT))),
    }
}

fn unreachable(reason: &str) -> Finding {
    Finding::problem(
        Code::DatabaseUnreachable,
        "`database.url`",
        reason,
        "Start the database, or correct the URL or the login: `serve` does not start without it, and nodes that run return UNAVAILABLE.",
    )
}

/// Reads everything about the database. Without all tables, only what needs none of them.
async fn read(database: Database, config: &Config, findings: &mut Vec<Finding>) -> Result<Option<Examined>, Error> {
    let clock = Clock::of_database(&database).await?;
    findings.extend(clock.skew().and_then(postgres::clocks));
    let schema = schema(&database).await?;
    findings.extend(format(schema.format));
    findings.extend(migrations(&schema, config.database.migrate));
    let is_whole = schema.pending.is_empty();
    let present = if is_whole { present(database.read(), clock.now()).await? } else { Vec::new() };
    findings.extend(nodes::decide(&present));
    match sqlite_file(&config.database) {
        None => {
            let server = server(database.read(), config.database.idle_transaction_timeout).await?;
            findings.extend(postgres::decide(&server, &config.database, present.len()));
        }
        Some(file) => match sqlite::measure(Path::new(file), !present.is_empty()) {
            Ok(facts) => findings.extend(sqlite::decide(&facts)),
            Err(error) => findings.push(unreachable(&error.to_string())),
        },
    }
    if !is_whole {
        return Ok(None);
    }
    findings.extend(topics::unrecorded(&database, clock.now()).await?);
    if let Some(kafka) = &config.kafka {
        findings.extend(topics::stopped(&database, kafka).await?);
    }
    Ok(Some(Examined { database, clock, present }))
}

fn format(stored: Option<i64>) -> Option<Finding> {
    let stored = stored?;
    check_format(stored).is_err().then(|| {
        Finding::problem(
            Code::DatabaseNewer,
            "`database.url`",
            format!("the database has format {stored}, and this program knows format {FORMAT}"),
            "Use the release that the other nodes have: this program refuses to write.",
        )
    })
}

fn migrations(schema: &Schema, applies_them: bool) -> Option<Finding> {
    let last = schema.pending.last()?;
    let pending = schema.pending.len() as u64;
    let measured = format!("{} of the schema, up to {last}", count(pending, "pending migration"));
    Some(if applies_them {
        let advice = "Restart the nodes with this release, which applies the migrations. Take a backup before.";
        Finding::advice(Code::MigrationsPending, "`database.migrate`", measured, advice)
    } else {
        let advice = "Run `windfall migrate`: until then, `serve` does not start.";
        Finding::problem(Code::MigrationsPending, "`database.migrate`", measured, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    #[test]
    fn only_a_newer_format_is_a_problem() {
        assert_eq!([format(None), format(Some(FORMAT - 1)), format(Some(FORMAT))], [None, None, None]);
        assert_eq!(format(Some(FORMAT + 1)).unwrap().code, Code::DatabaseNewer);
    }

    #[test]
    fn pending_migrations_keep_serve_from_starting_only_if_it_may_not_apply_them() {
        let schema =
            |pending: &[&str]| Schema { pending: pending.iter().map(ToString::to_string).collect(), format: None };
        assert_eq!(migrations(&schema(&[]), false), None);
        let severity = |applies_them| migrations(&schema(&["a", "b"]), applies_them).unwrap().severity;
        assert_eq!((severity(true), severity(false)), (Severity::Advice, Severity::Problem));
    }
}
