//! Rules for the source that no lint can hold.

use std::fs;
use std::path::{Path, PathBuf};

/// All Rust files below a directory.
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

/// The names that a text takes from `async_graphql`: `Result` in `async_graphql::Result` and in `async_graphql::{Object, Result}`.
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

/// With them, `?` on any error would show its text, SQL included, to the client: resolvers return `ApiError`.
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

/// What each module may use, by the table in the design: the paths that must not occur in it.
const LAYERS: [(&str, &[&str]); 10] = [
    (
        "src/engine",
        &[
            "sea_orm",
            "tokio",
            "async ",
            "crate::app",
            "crate::graphql",
            "crate::http",
            "crate::gate",
            "crate::config",
            "crate::cli",
            "entity::",
            "std::fs",
            "std::net",
            "SystemTime",
            "::now(",
        ],
    ),
    ("entity/src", &["windfall", "sea_orm_migration", "tokio"]),
    ("migration/src", &["entity", "windfall::", "tokio"]),
    (
        "src/app",
        &["axum", "async_graphql", "apollo_compiler", "crate::graphql", "crate::http", "crate::gate", "crate::cli"],
    ),
    (
        "src/cache",
        &["crate::app", "crate::engine", "crate::graphql", "crate::http", "crate::config", "entity", "sea_orm", "axum"],
    ),
    (
        "src/live",
        &[
            "crate::app",
            "crate::engine",
            "crate::graphql",
            "crate::http",
            "crate::config",
            "entity",
            "sea_orm",
            "axum",
            "async_graphql",
        ],
    ),
    (
        "src/graphql",
        &["sea_orm", "axum", "redis", "entity::prelude", "crate::http", "crate::gate", "crate::cli", "SELECT "],
    ),
    (
        "src/gate",
        &[
            "async_graphql",
            "sea_orm",
            "axum",
            "tokio",
            "crate::app",
            "crate::engine",
            "crate::graphql",
            "crate::http",
            "crate::cli",
            "crate::config",
        ],
    ),
    ("src/http", &["crate::cli", "sea_orm", "SELECT "]),
    ("src/config", &["crate::app", "crate::graphql", "crate::http", "crate::gate", "crate::cli", "crate::engine"]),
];

/// The source without comments and without the tests at its end.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\n").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn layers_use_only_what_they_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (layer, banned) in LAYERS {
        let files: Vec<PathBuf> = rust_files(&root.join(layer))
            .into_iter()
            .filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
            .filter(|file| file.file_name().is_none_or(|name| name != "tests.rs"))
            .collect();
        assert!(!files.is_empty(), "{layer}");
        for file in files {
            let code = code(&fs::read_to_string(&file).unwrap());
            for path in banned {
                assert!(!code.contains(path), "{}: {path}", file.display());
            }
        }
    }
}
