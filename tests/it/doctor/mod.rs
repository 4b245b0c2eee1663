//! `windfall doctor`: one deliberately bad configuration for each finding, and no finding where all is well.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::server::{Ran, command, run};

mod common;
mod databases;
#[cfg(feature = "kafka")]
mod kafka;
mod well;

/// Codes whose cause the tests cannot make. Unit tests decide about them.
const NOT_MADE: [(&str, &str); 4] = [
    ("kafka-client-missing", "these tests are built with the client"),
    ("kafka-settings-unknown", "the test brokers have no access rules"),
    ("postgres-version", "an old PostgreSQL is not installed"),
    ("sqlite-network-filesystem", "a network file system cannot be mounted without another machine"),
];

/// What `windfall doctor --json` found.
struct Report {
    ran: Ran,
    document: Value,
}

impl Report {
    fn of(command: &mut Command) -> Self {
        Self::read(run(command.args(["doctor", "--json"])))
    }

    fn read(ran: Ran) -> Self {
        let document = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        Self { ran, document }
    }

    fn findings(&self) -> &Vec<Value> {
        self.document["findings"].as_array().expect("a list")
    }

    /// Asserts that there is a finding, and that the exit code fits. Returns what was measured.
    #[track_caller]
    fn has(&self, severity: &str, code: &str) -> &str {
        let is_it = |finding: &&Value| finding["code"] == code && finding["severity"] == severity;
        let found = self.findings().iter().find(is_it);
        let found = found.unwrap_or_else(|| panic!("{severity} {code} is missing: {:#}", self.document));
        let is_problem = self.document["problems"].as_u64() > Some(0);
        assert_eq!(self.ran.code, Some(i32::from(is_problem)), "{:?}", self.ran);
        found["measured"].as_str().expect("a figure")
    }

    #[track_caller]
    fn lacks(&self, code: &str) {
        assert!(self.findings().iter().all(|finding| finding["code"] != code), "{:#}", self.document);
    }

    #[track_caller]
    fn is_empty(&self) {
        assert_eq!(self.document, json!({ "findings": [], "problems": 0, "advice": 0 }));
        assert_eq!((self.ran.code, self.ran.stderr.as_str()), (Some(0), ""), "{:?}", self.ran);
    }
}

/// An address on which nobody listens.
fn nobody() -> String {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The codes in the source.
fn codes() -> BTreeSet<String> {
    let source = fs::read_to_string(root().join("src/cli/doctor/finding.rs")).unwrap();
    let (_, names) = source.split_once("impl Code {").expect("the names of the codes");
    let (names, _) = names.split_once("\n}\n").expect("the end of the names");
    names.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
}

/// The Rust files of these tests, without this one.
fn sources() -> Vec<PathBuf> {
    let files = fs::read_dir(root().join("tests/it/doctor")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.file_name().is_some_and(|name| name != "mod.rs")).collect()
}

#[test]
fn every_code_has_a_test() {
    let codes = codes();
    assert!(codes.len() > 40, "{codes:?}");
    let tests: String = sources().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for code in &codes {
        let is_made =
            tests.contains(&format!("\"problem\", \"{code}\"")) || tests.contains(&format!("\"advice\", \"{code}\""));
        let is_excused = NOT_MADE.iter().any(|(excused, _)| excused == code);
        assert!(is_made != is_excused, "{code}: no test makes it, or a test makes it although it is excused");
    }
    for (code, why) in NOT_MADE {
        assert!(codes.contains(code), "{code}: {why}");
        let name: String = code.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let subject = fs::read_to_string(root().join(format!("src/cli/doctor/{}.rs", code.split('-').next().unwrap())));
        let (_, unit_tests) = subject.as_ref().unwrap().split_once("#[cfg(test)]").expect("unit tests");
        assert!(unit_tests.contains(&format!("Code::{name}")), "{code} has no unit test");
    }
}

#[test]
fn the_operators_page_has_every_code() {
    let page = fs::read_to_string(root().join("docs/operations/README.md")).unwrap();
    let (_, section) = page.split_once("\n## Doctor\n").expect("a section");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let told: Vec<String> = rows.map(|(code, _)| code.to_owned()).collect();
    assert_eq!(told.iter().cloned().collect::<BTreeSet<_>>(), codes());
    assert_eq!(told.len(), codes().len(), "a code is there twice");
}
