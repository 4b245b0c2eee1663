//! Compares the files for operators (docs/operations, compose.yaml, Dockerfile) with the metrics, configuration keys and files
//! that exist, and runs the programs that they name.

mod backup;
pub(crate) mod container;
pub(crate) mod programs;
mod proxy;
mod sizes;
mod trail;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

const README: &str = "docs/operations/README.md";
const DASHBOARD: &str = "docs/operations/grafana-dashboard.json";
const ALERTS: &str = "docs/operations/alerts.yml";
const COMPOSE: &str = "compose.yaml";
const DOCKERFILE: &str = "Dockerfile";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    let python = root().join("tests/clients/.venv/bin/python");
    assert!(python.exists(), "{} is missing: scripts/test installs it", python.display());
    let mut command = Command::new(python);
    command.arg(root().join("tests/clients/yaml_to_json.py"));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("Python runs");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

#[track_caller]
fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(|item| text(item).to_owned()).collect()
}

/// Returns the fenced blocks of the operators' README that are marked with `kind`.
fn blocks(kind: &str) -> Vec<String> {
    let readme = read(README);
    let parts: Vec<&str> = readme.split("```").collect();
    assert_eq!(parts.len() % 2, 1, "a fence that is not closed");
    let fenced = parts.into_iter().skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    fenced.filter(|(of, _)| *of == kind).map(|(_, block)| block.to_owned()).collect()
}

/// Returns the words that begin with `prefix` and consist of characters of `is_word`, each with the rest of the text.
fn words<'a>(text: &'a str, prefix: &str, is_word: impl Fn(char) -> bool) -> Vec<(&'a str, &'a str)> {
    let mut words = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].chars().next_back().is_none_or(|before| !is_word(before)) {
            let rest = &text[at..];
            words.push(rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len())));
        }
    }
    words
}

fn metric_names(text: &str) -> Vec<(&str, &str)> {
    words(text, "windfall_", |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Returns the names of all metrics in src/metrics.rs.
fn metrics() -> BTreeSet<String> {
    let source = read("src/metrics.rs");
    let literals = source.split("\"windfall_").skip(1).filter_map(|rest| rest.split('"').next());
    literals.map(|rest| format!("windfall_{rest}")).collect()
}

/// A row of the README's table of metrics.
struct Metric {
    kind: String,
    /// The labels, with the values that each may have.
    labels: BTreeMap<String, Vec<String>>,
}

fn table() -> BTreeMap<String, Metric> {
    let readme = read(README);
    let mut table = BTreeMap::new();
    for line in readme.lines().filter(|line| line.starts_with("| `windfall_")) {
        let [_, name, kind, labels, meaning, _] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("not four columns: {line}")
        };
        assert!(meaning.len() > 10, "{line}");
        let labels = labels.split(';').map(str::trim).filter(|label| !label.is_empty());
        let labels = labels.flat_map(|label| {
            let (names, values) = label.split_once(": ").unwrap_or((label, ""));
            let values: Vec<String> = values.split(", ").filter(|value| !value.is_empty()).map(str::to_owned).collect();
            let names = names.split(", ").map(|name| name.trim_matches('`').to_owned());
            names.map(move |name| (name, values.clone()))
        });
        let metric = Metric { kind: kind.to_owned(), labels: labels.collect() };
        assert!(table.insert(name.trim_matches('`').to_owned(), metric).is_none(), "{name} is there twice");
    }
    table
}

/// Returns the metric that a series belongs to.
fn metric_of<'a>(table: &'a BTreeMap<String, Metric>, series: &str) -> &'a Metric {
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
        let metric = table.get(series.strip_suffix(suffix)?)?;
        (metric.kind == "histogram").then_some(metric)
    });
    let plain = table.get(series).filter(|metric| metric.kind != "histogram");
    histogram.or(plain).unwrap_or_else(|| panic!("there is no series {series}"))
}

/// Returns the queries of the dashboard and of the alerts.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let targets = list(&dashboard["panels"]).iter().filter_map(|panel| panel.get("targets")).flat_map(list);
    let mut queries: Vec<String> = targets.map(|target| text(&target["expr"]).to_owned()).collect();
    let variables = list(&dashboard["templating"]["list"]).iter().filter(|variable| variable["type"] == "query");
    queries.extend(variables.map(|variable| text(&variable["query"]["query"]).to_owned()));
    queries.extend(rules(&yaml(&read(ALERTS))).iter().map(|rule| text(&rule["expr"]).to_owned()));
    queries
}

fn rules(alerts: &Value) -> Vec<Value> {
    list(&alerts["groups"]).iter().flat_map(|group| list(&group["rules"]).clone()).collect()
}

#[test]
fn the_readme_has_every_metric() {
    let told: BTreeSet<String> = table().into_keys().collect();
    assert_eq!(told, metrics(), "the README's table has the metrics of src/metrics.rs");
    for (name, metric) in table() {
        assert!(["counter", "gauge", "histogram"].contains(&metric.kind.as_str()), "{name}: {}", metric.kind);
        assert_eq!(name.ends_with("_total"), metric.kind == "counter", "{name}");
    }
}

#[test]
fn every_metric_that_is_named_exists() {
    let metrics = metrics();
    for path in [README, ALERTS, DASHBOARD, "docs/operations/nginx.conf", COMPOSE] {
        for (name, _) in metric_names(&read(path)) {
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            assert!(metrics.contains(name) || plain.is_some_and(|name| metrics.contains(name)), "{path}: {name}");
        }
    }
}

/// Prometheus does not report a query for a label that does not exist. Such a query finds nothing.
#[test]
fn queries_ask_for_labels_that_exist() {
    let table = table();
    let from_prometheus = ["job", "instance", "le"];
    let everywhere: BTreeSet<&str> =
        table.values().flat_map(|metric| metric.labels.keys().map(String::as_str)).collect();
    let mut matchers_seen = 0;
    for query in queries() {
        assert_eq!(query.matches('(').count(), query.matches(')').count(), "{query}");
        let names = metric_names(&query);
        assert!(!names.is_empty(), "{query}");
        for (name, rest) in names {
            // These queries name a metric, and not one of its series.
            let known = if query.starts_with("label_values(") || query.starts_with("absent(") {
                &table[name]
            } else {
                metric_of(&table, name)
            };
            let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inner, _)| inner);
            for matcher in matchers.split(',').map(str::trim).filter(|matcher| !matcher.is_empty()) {
                let at = matcher.find(['=', '!']).expect("a matcher");
                let (label, value) = (&matcher[..at], matcher[at..].trim_matches(['=', '!', '~', '"']));
                if from_prometheus.contains(&label) {
                    continue;
                }
                assert!(known.labels.contains_key(label), "{name} has no label {label}");
                for value in value.split('|') {
                    // The table gives the values of a label only once, for all metrics that have the label.
                    let mut labels = table.values().filter_map(|metric| metric.labels.get(label));
                    assert!(labels.any(|values| values.iter().any(|known| known == value)), "{label} is never {value}");
                    matchers_seen += 1;
                }
            }
        }
        for by in query.split("by (").skip(1) {
            for label in by.split(')').next().unwrap_or_default().split(", ") {
                assert!(from_prometheus.contains(&label) || everywhere.contains(label), "{query}: {label}");
            }
        }
    }
    assert!(matchers_seen > 10, "{matchers_seen}");
}

#[test]
fn the_dashboard_can_be_imported_and_read() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let variables = list(&dashboard["templating"]["list"]);
    assert!(variables.iter().any(|variable| variable["name"] == "datasource" && variable["type"] == "datasource"));
    let (mut ids, mut titles, mut rows) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let mut taken = BTreeMap::new();
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        let id = panel["id"].as_u64().expect("an id");
        assert!(ids.insert(id), "{title}: the id {id} is there twice");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a position"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            let other = taken.insert(place, title.to_owned());
            assert_eq!(other, None, "{title} overlaps");
        }
        if panel["type"] == "row" {
            rows.push(title);
            continue;
        }
        assert!(!title.is_empty() && titles.insert(title), "{title}: the title is empty or there twice");
        let unit = text(&panel["fieldConfig"]["defaults"]["unit"]);
        assert!(!unit.is_empty() && text(&panel["description"]).ends_with('.'), "{title}: unit or description");
        assert!(!list(&panel["targets"]).is_empty(), "{title}");
        for of in list(&panel["targets"]).iter().chain([panel]) {
            assert_eq!(of["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    assert_eq!(rows, ["Requests", "Write path", "Jobs", "Cache", "Redis", "Live updates", "Database", "Topics"]);
}

#[test]
fn alerts_say_what_to_do() {
    let alerts = yaml(&read(ALERTS));
    let rules = rules(&alerts);
    let mut names = BTreeSet::new();
    for rule in &rules {
        let name = text(&rule["alert"]);
        assert!(name.starts_with("Windfall") && names.insert(name), "{name}");
        assert!(["critical", "warning", "info"].contains(&text(&rule["labels"]["severity"])), "{name}");
        assert!(!text(&rule["expr"]).is_empty() && !text(&rule["annotations"]["summary"]).is_empty(), "{name}");
        let description = text(&rule["annotations"]["description"]);
        assert!(description.len() > 80 && description.ends_with('.'), "{name}: {description}");
    }
    assert!(names.contains("WindfallCacheDrift") && names.len() > 10, "{names:?}");
}

#[test]
fn variables_are_configuration_keys() {
    let documented = read("config/default.toml");
    let mut seen = BTreeSet::new();
    for path in [COMPOSE, DOCKERFILE, README, ALERTS] {
        let told = read(path);
        for (name, _) in words(&told, "WINDFALL__", |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_') {
            assert!(documented.contains(&format!("# {name}: ")), "{path}: {name}");
            seen.insert(name.to_owned());
        }
    }
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn links_lead_somewhere() {
    let readme = read(README);
    let mut checked = 0;
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
        let path = root().join("docs/operations").join(if path.is_empty() { "README.md" } else { path });
        assert!(path.exists(), "{}", path.display());
        if let Some(heading) = heading {
            let text = fs::read_to_string(&path).unwrap();
            let headings = text.lines().filter(|line| line.starts_with('#'));
            let mut anchors = headings.map(|line| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-"));
            assert!(anchors.any(|anchor| anchor == heading), "{link}");
        }
        checked += 1;
    }
    assert!(checked >= 6, "{checked}");
}

#[test]
fn prometheus_is_told_where_the_nodes_are() {
    let blocks = blocks("yaml");
    let [block] = &blocks[..] else { panic!("not one block of YAML") };
    let prometheus = yaml(block);
    let compose = yaml(&read(COMPOSE));
    let targets = texts(&prometheus["scrape_configs"][0]["static_configs"][0]["targets"]);
    assert_eq!(targets.len(), 2);
    for target in targets {
        let node = target.strip_suffix(":9090").expect("the internal port of a node");
        assert!(compose["services"].get(node).is_some(), "{node}");
    }
    assert_eq!(prometheus["rule_files"], serde_json::json!(["alerts.yml"]));
}

/// Returns the path of an installed program, which is in the `PATH` or in a directory that Debian does not put into the `PATH`
/// of every user.
pub(crate) fn program(name: &str) -> PathBuf {
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let mut postgres: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    // The newest version comes first, because it can read from older servers.
    postgres.sort_by_key(|entry| std::cmp::Reverse(entry.file_name().to_string_lossy().parse::<u32>().unwrap_or(0)));
    std::env::split_paths(&in_path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .chain(postgres.into_iter().map(|entry| entry.path().join("bin")))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} must be installed to run these tests: scripts/test does it"))
}
