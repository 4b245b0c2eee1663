//! The programs that run on the database.

use std::collections::BTreeSet;

use super::finding::{Code, Finding};
use crate::app::jobs::presence::Present;

/// Decides whether the programs fit together.
pub(super) fn decide(present: &[Present]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let formats: BTreeSet<i64> = present.iter().map(|program| program.format).collect();
    if formats.len() > 1 {
        findings.push(Finding::advice(
            Code::NodeFormats,
            "nodes",
            format!("the programs that ran within the last minute know the formats {}", listed(&formats)),
            "Finish the upgrade: as long as a program of an older release runs, nodes write the older format.",
        ));
    }
    let zones: BTreeSet<&str> = present.iter().map(|program| program.zone_data.as_str()).collect();
    if zones.len() > 1 {
        findings.push(Finding::problem(
            Code::NodeZoneData,
            "nodes",
            format!("the programs that ran within the last minute have the time zone data {}", listed(&zones)),
            "Bring all nodes to the same release: they may disagree about when a day begins, and so about points.",
        ));
    }
    findings
}

fn listed<T: ToString>(values: &BTreeSet<T>) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_differ_are_told() {
        let program = |format, zone_data: &str| Present { format, zone_data: zone_data.to_owned() };
        assert_eq!(decide(&[]), []);
        assert_eq!(decide(&[program(5, "2026a"), program(5, "2026a")]), []);
        let found = decide(&[program(4, "2025b"), program(5, "2026a"), program(5, "2026a")]);
        let [formats, zones] = &found[..] else { panic!("{found:?}") };
        assert_eq!((formats.code, zones.code), (Code::NodeFormats, Code::NodeZoneData));
        assert!(formats.measured.ends_with("4, 5") && zones.measured.ends_with("2025b, 2026a"), "{found:?}");
    }
}
