//! The settings and the state of PostgreSQL.

use std::time::Duration;

use super::finding::{Code, Finding};
use super::units::{count, duration};
use crate::app::clock::MAX_SKEW;
use crate::app::doctor::postgres::Server;
use crate::config::Database;

/// The oldest version that Windfall is tested with.
const MIN_VERSION: i64 = 150_000;
/// How far the clocks of this machine and of the database may differ before that is told, in µs.
const SKEW: i64 = 5 * 1_000_000;
const SUBJECT: &str = "PostgreSQL";

/// Decides about the server. `programs` is the number of programs that run on it.
pub(super) fn decide(server: &Server, config: &Database, programs: usize) -> Vec<Finding> {
    let mut findings = durability(server);
    findings.extend(version(server.version));
    findings.extend(autovacuum(&server.autovacuum));
    findings.extend(timeouts(server, config));
    findings.extend(idle_transactions(server, config));
    // A session of a pooler is shared.
    if !config.pooler {
        findings.extend(connections(server.max_sessions, i64::from(config.connections), programs));
    }
    if server.is_read_only || server.is_standby {
        let measured = if server.is_standby { "the server is a standby" } else { "transactions are read-only" };
        findings.push(read_only(measured));
    }
    findings
}

fn durability(server: &Server) -> Vec<Finding> {
    let settings = [
        (
            Code::PostgresSynchronousCommit,
            "synchronous_commit",
            &server.synchronous_commit,
            "a crash of the server loses purchases that were acknowledged",
        ),
        (Code::PostgresFsync, "fsync", &server.fsync, "a crash of the machine can destroy the whole database"),
        (
            Code::PostgresFullPageWrites,
            "full_page_writes",
            &server.full_page_writes,
            "a crash of the machine can leave pages that are half written",
        ),
    ];
    let off = settings.into_iter().filter(|(_, _, value, _)| *value == "off");
    off.map(|(code, name, _, effect)| {
        Finding::problem(
            code,
            SUBJECT,
            format!("`{name}` is off"),
            format!("Set `{name}` to on: without it, {effect}."),
        )
    })
    .collect()
}

fn version(version: i64) -> Option<Finding> {
    (version < MIN_VERSION).then(|| {
        let measured = format!("the version is {}.{}", version / 10_000, version % 10_000);
        let advice =
            format!("Upgrade to {} or later: Windfall is not tested with older versions.", MIN_VERSION / 10_000);
        Finding::advice(Code::PostgresVersion, SUBJECT, measured, advice)
    })
}

fn autovacuum(value: &str) -> Option<Finding> {
    (value == "off").then(|| {
        Finding::advice(
            Code::PostgresAutovacuum,
            SUBJECT,
            "`autovacuum` is off",
            "Set `autovacuum` to on: without it, tables grow with each change of a balance, and statements take longer and longer.",
        )
    })
}

/// The timeouts of the configuration must have reached the session. A pooler of sessions may ignore them.
fn timeouts(server: &Server, config: &Database) -> Vec<Finding> {
    let timeouts = [
        ("statement_timeout", server.statement_timeout_ms, config.statement_timeout),
        ("idle_in_transaction_session_timeout", server.idle_transaction_timeout_ms, config.idle_transaction_timeout),
    ];
    let finding = |(name, millis, wanted): (&str, i64, Duration)| {
        let advice = format!(
            "Set `{name}` to {} ms for the user of Windfall (`ALTER ROLE … SET {name} = {0}`): a pooler ignores the value that nodes ask for.",
            wanted.as_millis()
        );
        match u64::try_from(millis).map(Duration::from_millis) {
            Ok(Duration::ZERO) => Some(Finding::problem(
                Code::PostgresTimeouts,
                SUBJECT,
                format!("`{name}` is 0, so there is no limit"),
                format!("{advice} Without a limit, a frozen node holds its locks for ever."),
            )),
            Ok(limit) if limit != wanted => {
                let measured = format!("`{name}` is {millis} ms");
                Some(Finding::advice(Code::PostgresTimeouts, SUBJECT, measured, advice))
            }
            _ => None,
        }
    };
    timeouts.into_iter().filter_map(finding).collect()
}

fn idle_transactions(server: &Server, config: &Database) -> Option<Finding> {
    let sessions = u64::try_from(server.idle_transactions).ok().filter(|sessions| *sessions > 0)?;
    let longest = Duration::try_from_secs_f64(server.longest_idle_seconds).unwrap_or_default();
    let measured = format!(
        "{}, the longest for {}; nodes may be idle for {}",
        count(sessions, "idle transaction"),
        duration(longest),
        duration(config.idle_transaction_timeout)
    );
    let advice = "Find the sessions in `pg_stat_activity` and end them: an open transaction keeps its locks, and old versions of rows \
        cannot be removed.";
    Some(Finding::advice(Code::PostgresIdleTransactions, SUBJECT, measured, advice))
}

/// The pools of all programs must fit into the sessions of the server. The next program, such as an audit, should too.
fn connections(max_sessions: i64, pool: i64, programs: usize) -> Option<Finding> {
    let programs = programs.max(1);
    let pools = |programs: usize| pool.saturating_mul(i64::try_from(programs).unwrap_or(i64::MAX));
    let measured = format!(
        "{} with `database.connections` = {pool} use up to {} of {max_sessions} sessions",
        count(programs as u64, "program"),
        pools(programs)
    );
    let advice = "Raise `max_connections` of PostgreSQL or the limit of the user or the database, or lower `database.connections`:";
    if pools(programs) > max_sessions {
        let advice = format!("{advice} a node that gets no session returns UNAVAILABLE.");
        Some(Finding::problem(Code::PostgresConnections, SUBJECT, measured, advice))
    } else if pools(programs + 1) > max_sessions {
        let advice = format!("{advice} one more node or an audit does not fit.");
        Some(Finding::advice(Code::PostgresConnections, SUBJECT, measured, advice))
    } else {
        None
    }
}

/// Decides whether the clock of this machine and that of the database agree. `skew` is their difference in µs.
pub(super) fn clocks(skew: i64) -> Option<Finding> {
    if skew.abs() <= SKEW {
        return None;
    }
    let ahead = if skew > 0 { "ahead of" } else { "behind" };
    let measured = format!(
        "the clock of this machine is {} {ahead} that of the database",
        duration(Duration::from_micros(skew.unsigned_abs()))
    );
    let advice = "Run NTP on all machines:";
    Some(if skew.abs() > MAX_SKEW {
        let advice = format!("{advice} one of the clocks is wrong, and nodes on this machine settle no campaign.");
        Finding::problem(Code::ClockSkew, "clocks", measured, advice)
    } else {
        let advice = format!("{advice} from a minute on, nodes on this machine settle no campaign.");
        Finding::advice(Code::ClockSkew, "clocks", measured, advice)
    })
}

pub(super) fn read_only(measured: &str) -> Finding {
    Finding::problem(
        Code::DatabaseReadOnly,
        "`database.url`",
        measured,
        "Let the URL lead to a database that accepts writes: until then, nothing is recorded.",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use crate::config::Config;

    fn good() -> Server {
        Server {
            version: 150_018,
            synchronous_commit: "on".to_owned(),
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            autovacuum: "on".to_owned(),
            max_sessions: 97,
            statement_timeout_ms: 30_000,
            idle_transaction_timeout_ms: 5_000,
            is_read_only: false,
            is_standby: false,
            idle_transactions: 0,
            longest_idle_seconds: 0.0,
        }
    }

    fn decided(server: &Server, programs: usize) -> Vec<(Code, Severity)> {
        let config = Config::defaults().unwrap().database;
        decide(server, &config, programs).into_iter().map(|finding| (finding.code, finding.severity)).collect()
    }

    #[test]
    fn a_good_server_is_left_alone() {
        assert_eq!(decided(&good(), 0), []);
        assert_eq!(decided(&good(), 2), []);
    }

    #[test]
    fn each_setting_is_told() {
        use Severity::{Advice, Problem};
        let off = || "off".to_owned();
        for (server, found) in [
            (Server { synchronous_commit: off(), ..good() }, (Code::PostgresSynchronousCommit, Problem)),
            (Server { fsync: off(), ..good() }, (Code::PostgresFsync, Problem)),
            (Server { full_page_writes: off(), ..good() }, (Code::PostgresFullPageWrites, Problem)),
            (Server { autovacuum: off(), ..good() }, (Code::PostgresAutovacuum, Advice)),
            (Server { version: 149_999, ..good() }, (Code::PostgresVersion, Advice)),
            (Server { statement_timeout_ms: 0, ..good() }, (Code::PostgresTimeouts, Problem)),
            (Server { statement_timeout_ms: 29_999, ..good() }, (Code::PostgresTimeouts, Advice)),
            (Server { idle_transaction_timeout_ms: 0, ..good() }, (Code::PostgresTimeouts, Problem)),
            (Server { idle_transactions: 1, ..good() }, (Code::PostgresIdleTransactions, Advice)),
            (Server { is_read_only: true, ..good() }, (Code::DatabaseReadOnly, Problem)),
            (Server { is_standby: true, ..good() }, (Code::DatabaseReadOnly, Problem)),
        ] {
            assert_eq!(decided(&server, 1), [found]);
        }
        let remote = Server { synchronous_commit: "remote_apply".to_owned(), ..good() };
        assert_eq!(decided(&remote, 1), []);
    }

    #[test]
    fn pools_fit_into_the_sessions() {
        let severity = |sessions, programs| connections(sessions, 8, programs).map(|finding| finding.severity);
        assert_eq!(severity(16, 1), None);
        assert_eq!(severity(16, 0), None, "the first node is about to start");
        assert_eq!(severity(15, 1), Some(Severity::Advice));
        assert_eq!(severity(16, 2), Some(Severity::Advice));
        assert_eq!(severity(15, 2), Some(Severity::Problem));
        let mut config = Config::defaults().unwrap().database;
        let small = Server { max_sessions: 1, ..good() };
        assert_eq!(decide(&small, &config, 1).len(), 1);
        config.pooler = true;
        assert_eq!(decide(&small, &config, 1), []);
    }

    #[test]
    fn clocks_differ_by_seconds_or_by_more_than_a_minute() {
        let severity = |skew| clocks(skew).map(|finding| finding.severity);
        for (skew, found) in [
            (0, None),
            (SKEW, None),
            (SKEW + 1, Some(Severity::Advice)),
            (MAX_SKEW, Some(Severity::Advice)),
            (MAX_SKEW + 1, Some(Severity::Problem)),
        ] {
            assert_eq!((severity(skew), severity(-skew)), (found, found), "{skew}");
        }
        assert!(clocks(-90_000_000).unwrap().measured.ends_with("90 s behind that of the database"));
    }
}
