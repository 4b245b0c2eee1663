//! The files of rules that the configuration names, which `serve` reads at its start.

use super::finding::{Code, Finding};
use crate::config::Config;
use crate::http::router::check_documents;
use crate::ingest::json::JsonMap;

/// Reads the files as `serve` does.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = check_documents(config) {
        findings.push(Finding::problem(
            Code::DocumentsUnusable,
            "`http.documents`",
            error.to_string(),
            "`serve` does not start until all documents can be used.",
        ));
    }
    let map = config.kafka.as_ref().and_then(|kafka| kafka.facts_map.as_deref());
    if let Some(Err(error)) = map.map(JsonMap::read) {
        findings.push(Finding::problem(
            Code::FactsMapUnusable,
            "`kafka.facts_map`",
            format!("{error:#}"),
            "`serve` does not start until the map can be used.",
        ));
    }
    findings
}
