//! Reads what the modules of `src` import from their text: `use` declarations and paths inside the code. Comments,
//! strings and tests are ignored.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::rust_files;

/// The path of a module, such as `["app", "recorder", "batch"]`. The path of the root is empty.
pub(super) type Module = Vec<String>;

/// The modules of a source folder, each with the paths that it mentions.
pub(super) struct Imports {
    paths: BTreeMap<Module, Vec<Module>>,
    /// The public `use` declarations: the target of each, by module and name.
    passed_on: BTreeMap<(Module, String), Module>,
}

impl Imports {
    pub(super) fn read(source: &Path) -> Self {
        let mut imports = Self { paths: BTreeMap::new(), passed_on: BTreeMap::new() };
        for file in rust_files(source) {
            let module = module_of(&file, source);
            let is_test = module.iter().any(|part| part == "tests" || part == "fixture");
            if !is_test {
                let code = code(&fs::read_to_string(&file).unwrap());
                imports.add(module, &code);
            }
        }
        imports
    }

    fn add(&mut self, module: Module, code: &str) {
        let mut paths = Vec::new();
        let (declarations, rest) = split_uses(code);
        for (is_public, declaration) in declarations {
            for path in expand(&[], declaration) {
                if let Some(name) = path.last().filter(|_| is_public) {
                    self.passed_on.insert((module.clone(), name.clone()), path.clone());
                }
                paths.push(path);
            }
        }
        // A path that begins with an imported name is covered by the import.
        let imported: BTreeSet<String> = paths.iter().filter_map(|path: &Module| path.last().cloned()).collect();
        paths.extend(inline_paths(&rest).into_iter().filter(|path| !imported.contains(&path[0])));
        self.paths.insert(module, paths);
    }

    /// The modules that a module uses. The module itself and the modules that it only declares are left out.
    pub(super) fn used_by(&self, module: &Module) -> BTreeSet<Module> {
        let named = self.paths[module].iter().filter_map(|path| self.resolve(module, path));
        named.filter(|used| used != module).collect()
    }

    /// The first parts of the paths that lead to no module of `src`. Crates are among them.
    pub(super) fn foreign(&self, module: &Module) -> BTreeSet<&str> {
        let foreign = self.paths[module].iter().filter(|path| self.resolve(module, path).is_none());
        foreign.filter_map(|path| path.first().map(String::as_str)).collect()
    }

    pub(super) fn modules(&self) -> impl Iterator<Item = &Module> {
        self.paths.keys()
    }

    fn resolve(&self, module: &Module, path: &[String]) -> Option<Module> {
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" | "super" => (module.clone(), path),
            first => {
                let child = [module.as_slice(), &[first.to_owned()]].concat();
                self.paths.contains_key(&child).then_some(())?;
                (module.clone(), path)
            }
        };
        while let Some((first, behind)) = rest.split_first().filter(|(first, _)| *first == "self" || *first == "super")
        {
            if first == "super" {
                at.pop();
            }
            rest = behind;
        }
        while let Some((first, behind)) = rest.split_first() {
            let child = [at.as_slice(), std::slice::from_ref(first)].concat();
            if !self.paths.contains_key(&child) {
                break;
            }
            (at, rest) = (child, behind);
        }
        let passed_on = rest.first().and_then(|name| self.passed_on.get(&(at.clone(), name.clone())));
        Some(passed_on.and_then(|path| self.resolve(&at, path)).unwrap_or(at))
    }

    /// The sets of modules of a layer that use each other in a circle, each set once.
    pub(super) fn circles(&self, layer: &str) -> Vec<BTreeSet<Module>> {
        let inside: Vec<&Module> =
            self.modules().filter(|module| module.first().is_some_and(|first| first == layer)).collect();
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            inside.iter().map(|module| (*module, self.reached_from(module))).collect();
        let mut circles = BTreeSet::new();
        for module in &inside {
            let circle: BTreeSet<Module> = reached[module]
                .iter()
                .filter(|other| reached.get(*other).is_some_and(|back| back.contains(*module)))
                .cloned()
                .collect();
            if !circle.is_empty() {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    /// All modules that a module uses, directly or indirectly.
    fn reached_from(&self, module: &Module) -> BTreeSet<Module> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<Module> = self.used_by(module).into_iter().collect();
        while let Some(module) = next.pop() {
            if reached.insert(module.clone()) {
                next.extend(self.used_by(&module));
            }
        }
        reached
    }
}

/// `src/app/recorder/mod.rs` is `["app", "recorder"]`.
fn module_of(file: &Path, source: &Path) -> Module {
    let relative: PathBuf = file.strip_prefix(source).unwrap().with_extension("");
    let mut module: Module = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// The text without comments, strings, restrictions of visibility such as `pub(crate)`, and the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\n").next().unwrap_or(text);
    let mut code = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or(line);
        let mut inside = false;
        let mut previous = ' ';
        for c in line.chars() {
            if c == '"' && previous != '\\' && previous != '\'' {
                inside = !inside;
            } else if !inside {
                code.push(c);
            }
            previous = c;
        }
        code.push('\n');
    }
    while let Some((before, behind)) = code.split_once("pub(") {
        let Some((_, behind)) = behind.split_once(')') else { break };
        code = format!("{before}pub{behind}");
    }
    code
}

/// Splits the code into `use` declarations, each with whether it is public, and the rest.
fn split_uses(code: &str) -> (Vec<(bool, &str)>, String) {
    let mut declarations = Vec::new();
    let mut rest = String::new();
    let mut left = code;
    while let Some(line_end) = left.find('\n') {
        let line = left[..line_end].trim_start();
        let declared = line.strip_prefix("pub use ").map(|_| true).or(line.strip_prefix("use ").map(|_| false));
        let Some(is_public) = declared else {
            rest.push_str(&left[..=line_end]);
            left = &left[line_end + 1..];
            continue;
        };
        let start = left.find("use ").unwrap() + "use ".len();
        let Some(end) = left.find(';') else { break };
        declarations.push((is_public, &left[start..end]));
        left = &left[end + 1..];
    }
    (declarations, rest)
}

/// The paths of a declaration. For example, `a::{b, c::{self, d}}` has three.
fn expand(before: &[String], declaration: &str) -> Vec<Module> {
    let declaration = declaration.trim();
    let Some((head, list)) = declaration.split_once('{') else {
        let path = declaration.split(" as ").next().unwrap_or(declaration).trim();
        let own =
            path.split("::").map(str::trim).filter(|part| !part.is_empty() && *part != "self" || before.is_empty());
        return vec![before.iter().cloned().chain(own.map(str::to_owned)).collect()];
    };
    let before: Vec<String> = before
        .iter()
        .cloned()
        .chain(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned))
        .collect();
    let list = list.trim().strip_suffix('}').unwrap_or(list);
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = list[start..at].trim();
                if !part.is_empty() {
                    paths.extend(expand(&before, part));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// Paths inside the code, such as `crate::app::error::Error` and `batch::commit`.
fn inline_paths(code: &str) -> Vec<Module> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c| !is_part(c)).filter(|word| word.contains("::"));
    let path = |word: &str| -> Module { word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect() };
    words.map(path).filter(|path| path.len() > 1).collect()
}

#[test]
fn a_circle_is_found() {
    let mut imports = Imports { paths: BTreeMap::new(), passed_on: BTreeMap::new() };
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    for (name, text) in [
        ("app", "pub use crate::app::b::B;"),
        ("app::a", "use super::b::{self, B};\nuse std::fmt;"),
        ("app::b", "fn f() { crate::app::c::run(\"crate::app::d\") } // crate::app::d"),
        ("app::c", "pub(in crate::app) use crate::{\n    app::{a::A, d},\n};"),
        ("app::d", "#[cfg(test)]\nuse super::a::A;"),
        ("app::e", "use super::B;"),
    ] {
        imports.add(module(name), &code(text));
    }
    let circle: BTreeSet<Module> = ["app::a", "app::b", "app::c"].map(module).into();
    assert_eq!(imports.circles("app"), [circle]);
    assert_eq!(imports.used_by(&module("app::e")), [module("app::b")].into());
    assert_eq!(imports.foreign(&module("app::a")), ["std"].into());
}
