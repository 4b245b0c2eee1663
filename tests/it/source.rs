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
