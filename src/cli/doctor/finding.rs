//! What `windfall doctor` finds, and how it is printed: as text for people, or as JSON for programs.

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::printable::Printable;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// It loses or delays data, or something does not work.
    Problem,
    /// It works, but something else would be better.
    Advice,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Problem => "problem",
            Self::Advice => "advice",
        }
    }
}

/// Names a kind of finding. The names never change: scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    MemoryBudgets,
    DocumentsUnusable,
    FactsMapUnusable,
    TokenKeyMissing,
    TokenSecretShort,
    TokenKeysUnusable,
    TokenKeysLeftOut,
    TokenKeysUnencrypted,
    RedisUnreachable,
    RedisMemoryUnknown,
    RedisMemoryLimit,
    RedisEviction,
    DatabaseUnreachable,
    DatabaseReadOnly,
    DatabaseNewer,
    MigrationsPending,
    ClockSkew,
    PostgresVersion,
    PostgresSynchronousCommit,
    PostgresFsync,
    PostgresFullPageWrites,
    PostgresAutovacuum,
    PostgresConnections,
    PostgresTimeouts,
    PostgresIdleTransactions,
    SqliteJournalMode,
    SqliteDiskSpace,
    SqliteNetworkFilesystem,
    NodeFormats,
    NodeZoneData,
    PartitionStopped,
    DeadLetters,
    WaitingFacts,
    KafkaClientMissing,
    KafkaUnreachable,
    KafkaSettingsUnknown,
    KafkaTopicMissing,
    KafkaPartitionOffline,
    KafkaPartitions,
    KafkaReplication,
    KafkaMinInsyncReplicas,
    KafkaUncleanLeaderElection,
    KafkaAutoCreateTopics,
    KafkaCompaction,
    KafkaRetention,
    KafkaCatchUp,
    KafkaLag,
}

impl Code {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MemoryBudgets => "memory-budgets",
            Self::DocumentsUnusable => "documents-unusable",
            Self::FactsMapUnusable => "facts-map-unusable",
            Self::TokenKeyMissing => "token-key-missing",
            Self::TokenSecretShort => "token-secret-short",
            Self::TokenKeysUnusable => "token-keys-unusable",
            Self::TokenKeysLeftOut => "token-keys-left-out",
            Self::TokenKeysUnencrypted => "token-keys-unencrypted",
            Self::RedisUnreachable => "redis-unreachable",
            Self::RedisMemoryUnknown => "redis-memory-unknown",
            Self::RedisMemoryLimit => "redis-memory-limit",
            Self::RedisEviction => "redis-eviction",
            Self::DatabaseUnreachable => "database-unreachable",
            Self::DatabaseReadOnly => "database-read-only",
            Self::DatabaseNewer => "database-newer",
            Self::MigrationsPending => "migrations-pending",
            Self::ClockSkew => "clock-skew",
            Self::PostgresVersion => "postgres-version",
            Self::PostgresSynchronousCommit => "postgres-synchronous-commit",
            Self::PostgresFsync => "postgres-fsync",
            Self::PostgresFullPageWrites => "postgres-full-page-writes",
            Self::PostgresAutovacuum => "postgres-autovacuum",
            Self::PostgresConnections => "postgres-connections",
            Self::PostgresTimeouts => "postgres-timeouts",
            Self::PostgresIdleTransactions => "postgres-idle-transactions",
            Self::SqliteJournalMode => "sqlite-journal-mode",
            Self::SqliteDiskSpace => "sqlite-disk-space",
            Self::SqliteNetworkFilesystem => "sqlite-network-filesystem",
            Self::NodeFormats => "node-formats",
            Self::NodeZoneData => "node-zone-data",
            Self::PartitionStopped => "partition-stopped",
            Self::DeadLetters => "dead-letters",
            Self::WaitingFacts => "waiting-facts",
            Self::KafkaClientMissing => "kafka-client-missing",
            Self::KafkaUnreachable => "kafka-unreachable",
            Self::KafkaSettingsUnknown => "kafka-settings-unknown",
            Self::KafkaTopicMissing => "kafka-topic-missing",
            Self::KafkaPartitionOffline => "kafka-partition-offline",
            Self::KafkaPartitions => "kafka-partitions",
            Self::KafkaReplication => "kafka-replication",
            Self::KafkaMinInsyncReplicas => "kafka-min-insync-replicas",
            Self::KafkaUncleanLeaderElection => "kafka-unclean-leader-election",
            Self::KafkaAutoCreateTopics => "kafka-auto-create-topics",
            Self::KafkaCompaction => "kafka-compaction",
            Self::KafkaRetention => "kafka-retention",
            Self::KafkaCatchUp => "kafka-catch-up",
            Self::KafkaLag => "kafka-lag",
        }
    }
}

/// Something that should be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) code: Code,
    pub(super) severity: Severity,
    /// The setting, the server or the part that it is about.
    pub(super) subject: String,
    /// What was measured.
    pub(super) measured: String,
    /// What to change, and why.
    pub(super) advice: String,
}

impl Finding {
    pub(super) fn problem(
        code: Code,
        subject: impl Into<String>,
        measured: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let (subject, measured, advice) = (subject.into(), measured.into(), advice.into());
        Self { code, severity: Severity::Problem, subject, measured, advice }
    }

    pub(super) fn advice(
        code: Code,
        subject: impl Into<String>,
        measured: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Advice, ..Self::problem(code, subject, measured, advice) }
    }
}

/// The numbers of problems and of pieces of advice.
fn counts(findings: &[Finding]) -> (usize, usize) {
    let problems = findings.iter().filter(|finding| finding.severity == Severity::Problem).count();
    (problems, findings.len() - problems)
}

/// Prints three lines for each finding, and a summary.
pub(super) fn print(out: &mut impl Write, findings: &[Finding]) -> std::io::Result<()> {
    for Finding { code, severity, subject, measured, advice } in findings {
        writeln!(out, "{} {}: {}", severity.name(), code.name(), Printable(subject))?;
        writeln!(out, "  {}", Printable(measured))?;
        writeln!(out, "  {}", Printable(advice))?;
    }
    let (problems, advice) = counts(findings);
    writeln!(out, "problems: {problems}, advice: {advice}")
}

/// Prints all findings as one JSON document.
pub(super) fn print_json(out: &mut impl Write, findings: &[Finding]) -> std::io::Result<()> {
    let (problems, advice) = counts(findings);
    let findings: Vec<Value> = findings.iter().map(document).collect();
    let document = json!({ "findings": findings, "problems": problems, "advice": advice });
    writeln!(out, "{document:#}")
}

fn document(Finding { code, severity, subject, measured, advice }: &Finding) -> Value {
    json!({
        "code": code.name(), "severity": severity.name(), "subject": subject, "measured": measured, "advice": advice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![
            Finding::problem(Code::PostgresFsync, "`fsync`", "off", "Turn it on."),
            Finding::advice(Code::DeadLetters, "a\u{1b}[2Jb", "2", "Replay them."),
        ]
    }

    #[test]
    fn text_is_for_people() {
        let mut out = Vec::new();
        print(&mut out, &findings()).unwrap();
        let shown = "problem postgres-fsync: `fsync`\n  off\n  Turn it on.\n\
            advice dead-letters: a\\u{1b}[2Jb\n  2\n  Replay them.\nproblems: 1, advice: 1\n";
        assert_eq!(String::from_utf8(out).unwrap(), shown);
    }

    #[test]
    fn json_is_for_programs() {
        let mut out = Vec::new();
        print_json(&mut out, &findings()).unwrap();
        let document: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&document["problems"], &document["advice"]), (&json!(1), &json!(1)));
        let first = json!({
            "code": "postgres-fsync", "severity": "problem", "subject": "`fsync`", "measured": "off", "advice": "Turn it on.",
        });
        assert_eq!(document["findings"][0], first);
        assert_eq!(document["findings"][1]["subject"], "a\u{1b}[2Jb");
    }
}
