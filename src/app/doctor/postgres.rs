//! The settings and the state of PostgreSQL, as a session of Windfall has them.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, FromQueryResult, Statement};

/// What PostgreSQL says.
#[derive(Clone, Debug, PartialEq, FromQueryResult)]
pub struct Server {
    /// Such as 170002 for 17.2.
    pub version: i64,
    pub synchronous_commit: String,
    pub fsync: String,
    pub full_page_writes: String,
    pub autovacuum: String,
    /// The number of sessions that the user of Windfall may have in this database, together with those of other users.
    pub max_sessions: i64,
    pub statement_timeout_ms: i64,
    pub idle_transaction_timeout_ms: i64,
    pub is_read_only: bool,
    pub is_standby: bool,
    /// The number of sessions in this database that are idle in a transaction for longer than the limit that was asked for.
    pub idle_transactions: i64,
    /// For how long the first of them has been idle, in seconds.
    pub longest_idle_seconds: f64,
}

/// The limits of a role and of a database are -1 if there is none.
const SERVER: &str = "\
    SELECT current_setting('server_version_num')::bigint AS version, \
        current_setting('synchronous_commit') AS synchronous_commit, \
        current_setting('fsync') AS fsync, \
        current_setting('full_page_writes') AS full_page_writes, \
        current_setting('autovacuum') AS autovacuum, \
        least( \
            current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint \
                - coalesce(current_setting('reserved_connections', true)::bigint, 0), \
            (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0), \
            (SELECT datconnlimit FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0) \
        ) AS max_sessions, \
        (SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout') AS statement_timeout_ms, \
        (SELECT setting::bigint FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout') \
            AS idle_transaction_timeout_ms, \
        current_setting('transaction_read_only') = 'on' OR current_setting('default_transaction_read_only') = 'on' \
            AS is_read_only, \
        pg_is_in_recovery() AS is_standby, \
        idle.sessions AS idle_transactions, idle.seconds AS longest_idle_seconds \
    FROM ( \
        SELECT count(*) AS sessions, coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)::float8 AS seconds \
        FROM pg_stat_activity \
        WHERE datname = current_database() AND state IN ('idle in transaction', 'idle in transaction (aborted)') \
            AND state_change < clock_timestamp() - make_interval(secs => $1) \
    ) AS idle";

/// Reads what PostgreSQL says. A session counts as idle in a transaction if it is so for longer than `idle_for`.
pub async fn server(db: &impl ConnectionTrait, idle_for: Duration) -> Result<Server, DbErr> {
    let statement = Statement::from_sql_and_values(DatabaseBackend::Postgres, SERVER, [idle_for.as_secs_f64().into()]);
    let row = db.query_one_raw(statement).await?;
    let row = row.ok_or_else(|| DbErr::Custom("PostgreSQL did not return its settings".to_owned()))?;
    Server::from_query_result(&row, "")
}
