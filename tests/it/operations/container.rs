//! Checks of compose.yaml and the Dockerfile that need no container.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{COMPOSE, DOCKERFILE, read, root, text, texts, yaml};
use crate::support::server::{command, run};

pub(crate) fn services() -> Value {
    yaml(&read(COMPOSE))["services"].take()
}

/// Returns the words of a command in compose.yaml, as the container gets them.
pub(crate) fn words_of(command: &Value) -> Vec<String> {
    let words = texts(command).into_iter().skip_while(|word| word == "CMD");
    words.map(|word| word.replace("$$", "$")).collect()
}

/// Returns the name and the arguments of each instruction of the Dockerfile. Continued lines are joined.
pub(super) fn instructions() -> Vec<(String, String)> {
    let file = read(DOCKERFILE);
    let lines: Vec<&str> = file.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let lines = joined.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, rest) = line.split_once(' ').expect("an instruction with arguments");
            (name.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" "))
        })
        .collect()
}

pub(super) fn all(name: &str) -> Vec<String> {
    instructions().into_iter().filter(|(of, _)| of == name).map(|(_, rest)| rest).collect()
}

pub(super) fn only(name: &str) -> String {
    let mut all = all(name);
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all.remove(0)
}

/// Returns the words of an instruction that is written in JSON form.
pub(super) fn json_words(instruction: &str) -> Vec<String> {
    let json = &instruction[instruction.find('[').expect("the JSON form, which needs no shell")..];
    texts(&serde_json::from_str(json).unwrap())
}

/// Returns the variables that the Dockerfile sets.
fn environment() -> Vec<(String, String)> {
    let set = only("ENV");
    set.split(' ').map(|pair| pair.split_once('=').expect("NAME=VALUE")).map(|(k, v)| (k.into(), v.into())).collect()
}

/// The variable that switches Kafka on.
const BROKERS: &str = "${WINDFALL_KAFKA_BROKERS:";

/// Replaces `${WINDFALL_KAFKA_BROKERS:-}`, and `${WINDFALL_KAFKA_BROKERS:+…}`.
pub(crate) fn with_kafka(value: &str, brokers: Option<&str>) -> String {
    let Some(rest) = value.strip_prefix(BROKERS) else { return value.to_owned() };
    let (otherwise, topic) = (rest == "-}", rest.strip_prefix('+').and_then(|rest| rest.strip_suffix('}')));
    match (brokers, topic) {
        (None, _) => String::new(),
        (Some(_), Some(topic)) => topic.to_owned(),
        (Some(brokers), None) if otherwise => brokers.to_owned(),
        (Some(_), None) => panic!("{value}"),
    }
}

/// Replaces each `${NAME:?…}` in a text. Returns the text, and whether there was any.
pub(crate) fn filled(value: &str, with: &str) -> (String, bool) {
    let value = &with_kafka(value, None);
    let Some((before, rest)) = value.split_once("${") else { return (value.to_owned(), false) };
    let (variable, after) = rest.split_once('}').expect("a closed variable");
    let (name, message) = variable.split_once(":?").expect("a variable that must be set");
    assert!(name.starts_with("WINDFALL_") && !message.is_empty(), "{value}");
    (format!("{before}{with}{}", filled(after, with).0), true)
}

pub(crate) fn pairs(environment: &Value) -> Vec<(String, String)> {
    let pairs = environment.as_object().into_iter().flatten();
    pairs.map(|(name, value)| (name.clone(), text(value).to_owned())).collect()
}

/// The service that makes topics and ends.
pub(crate) const KAFKA_TOPICS: &str = "kafka-topics";

#[test]
fn services_wait_for_what_they_need() {
    let services = services();
    let names: BTreeSet<&str> = services.as_object().unwrap().keys().map(String::as_str).collect();
    let kafka = ["kafka-1", "kafka-2", "kafka-3", KAFKA_TOPICS];
    let always = ["postgres", "proxy", "redis", "windfall-1", "windfall-2"];
    assert_eq!(names, always.into_iter().chain(kafka).collect());
    for name in names {
        let profiles = services[name].get("profiles").map(texts).unwrap_or_default();
        let expected: &[&str] = if kafka.contains(&name) { &["kafka"] } else { &[] };
        assert_eq!(profiles, expected, "{name}");
    }
    assert_eq!(services["windfall-1"], services["windfall-2"]);
    for (name, service) in services.as_object().unwrap() {
        if name == KAFKA_TOPICS {
            assert_eq!(service["restart"], "on-failure", "it ends when it is done");
        } else {
            assert!(words_of(&service["healthcheck"]["test"]).len() > 1, "{name}");
            assert_eq!(service["restart"], "unless-stopped", "{name}");
        }
        let (_, tag) = text(&service["image"]).split_once(':').expect("a version");
        assert_ne!(tag, "latest", "{name}");
        // Only the proxy can be reached from outside the containers, and only from this machine, because it does not speak TLS.
        match service.get("ports") {
            Some(ports) => {
                assert!(name == "proxy" && texts(ports).iter().all(|port| port.starts_with("127.0.0.1:")), "{ports}");
            }
            None => assert_ne!(name, "proxy"),
        }
    }
    // A node can run without Redis, so it does not wait until Redis is healthy.
    let node = json!({ "postgres": { "condition": "service_healthy" }, "redis": { "condition": "service_started" } });
    assert_eq!(services["windfall-1"]["depends_on"], node);
    let healthy = json!({ "condition": "service_healthy" });
    assert_eq!(services["proxy"]["depends_on"], json!({ "windfall-1": healthy, "windfall-2": healthy }));
    for mount in texts(&services["proxy"]["volumes"]) {
        let [source, _, mode] = mount.split(':').collect::<Vec<_>>()[..] else { panic!("{mount}") };
        assert!(root().join(source).is_file() && mode == "ro", "{mount}");
    }
}

#[test]
fn no_secret_is_in_compose() {
    let mut secrets = BTreeSet::new();
    for (service, of) in services().as_object().unwrap() {
        for (name, value) in pairs(&of["environment"]) {
            let (rest, is_filled) = filled(&value, "");
            // The password of a URL is between the user and the `@`.
            let in_url = rest.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
            let password = in_url.and_then(|user| user.split_once(':')).map(|(_, password)| password);
            assert_eq!(password.unwrap_or_default(), "", "{service}: {name}");
            if name.contains("SECRET") || name.contains("PASSWORD") || password.is_some() {
                assert!(is_filled, "{service}: {name} has its secret in the file");
                secrets.insert(name);
            }
        }
    }
    let expected = ["POSTGRES_PASSWORD", "WINDFALL__AUTH__HS256_SECRET", "WINDFALL__DATABASE__URL"];
    assert_eq!(secrets, expected.map(str::to_owned).into());
}

/// The program accepts the configuration of each container. It reads the configuration before any command, so `schema` shows
/// that.
#[test]
fn the_program_takes_its_containers_configuration() {
    let image = environment();
    let mut node = image.clone();
    node.extend(pairs(&services()["windfall-1"]["environment"]).into_iter().map(|(k, v)| (k, filled(&v, "s3cret").0)));
    let mut with_brokers = node.clone();
    let of_kafka = pairs(&services()["windfall-1"]["environment"]).into_iter().filter(|(_, v)| v.starts_with(BROKERS));
    with_brokers.extend(of_kafka.map(|(k, v)| (k, with_kafka(&v, Some("kafka-1:9092")))));
    for environment in [image, node.clone(), with_brokers] {
        let ran = run(command("sqlite://unused.db").envs(environment).arg("schema"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    }
    // The configuration refers to the other containers by their names and ports.
    let value = |name: &str| node.iter().rev().find(|(of, _)| of == name).map(|(_, value)| value.as_str());
    let database = services()["postgres"]["environment"].take();
    let [user, name] = ["POSTGRES_USER", "POSTGRES_DB"].map(|key| text(&database[key]).to_owned());
    let url = format!("postgres://{user}:s3cret@postgres:5432/{name}");
    assert_eq!(value("WINDFALL__DATABASE__URL"), Some(url.as_str()));
    assert_eq!(value("WINDFALL__REDIS__URL"), Some("redis://redis:6379"));
    assert_eq!(value("WINDFALL__HTTP__LISTEN"), Some("0.0.0.0:8080"));
    assert_eq!(value("WINDFALL__HTTP__INTERNAL_LISTEN"), Some("0.0.0.0:9090"));
    let password = pairs(&database).into_iter().find(|(name, _)| name == "POSTGRES_PASSWORD").unwrap().1;
    let in_url = text(&services()["windfall-1"]["environment"]["WINDFALL__DATABASE__URL"]).to_owned();
    assert!(in_url.contains(&password), "the URL uses the variable of the password");
}

#[test]
fn the_image_runs_the_program_as_nobody_special() {
    let mut program = json_words(&only("ENTRYPOINT"));
    assert_eq!(program, ["windfall"]);
    program.extend(json_words(&only("CMD")));
    let help = run(command("sqlite://unused.db").args(&program[1..]).arg("--help"));
    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(help.stdout.contains("Run the server"), "{help:?}");

    let user = only("USER");
    assert!(user.split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user}");
    let names: Vec<String> = instructions().into_iter().map(|(name, _)| name).collect();
    let position = |name: &str| names.iter().rposition(|of| of == name).expect("an instruction");
    assert!(position("RUN") < position("USER"), "`USER` comes after the last `RUN`, which needs root");
    let listen = environment().into_iter().find(|(name, _)| name == "WINDFALL__HTTP__LISTEN").unwrap().1;
    assert_eq!(listen, format!("0.0.0.0:{}", only("EXPOSE")));
    assert!(!all("ENV").concat().contains("SECRET") && all("ARG").is_empty());
}

#[test]
fn the_images_are_of_one_release_and_new_enough() {
    let from = all("FROM");
    let [builder, runtime] = &from[..] else { panic!("not two stages: {from:?}") };
    let builder =
        builder.strip_prefix("rust:").and_then(|rest| rest.strip_suffix(" AS builder")).expect("Rust's image");
    let [rust, "slim", debian] = builder.split('-').collect::<Vec<_>>()[..] else { panic!("{builder}") };
    assert_eq!(*runtime, format!("debian:{debian}-slim"), "the runtime has another C library than the builder");
    let manifest = read("Cargo.toml");
    let needed = manifest.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let number = |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap()).collect() };
    assert!(number(rust) >= number(needed), "{rust} is older than {needed}");
}

/// Collects the files that `include_str!` and `include_bytes!` embed.
fn embedded(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            embedded(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            for rest in ["include_str!(", "include_bytes!("].iter().flat_map(|of| source.split(of).skip(1)) {
                let literal = rest.split('"').nth(1).unwrap();
                let mut target = path.parent().unwrap().to_owned();
                for part in literal.split('/') {
                    if part == ".." { assert!(target.pop()) } else { target.push(part) }
                }
                found.insert(target.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
}

#[test]
fn the_builder_is_given_all_that_it_compiles() {
    let mut copied = BTreeSet::new();
    for copy in all("COPY").into_iter().filter(|copy| !copy.starts_with("--from=builder ")) {
        let words: Vec<&str> = copy.split(' ').collect();
        let (_, sources) = words.split_last().unwrap();
        for source in sources {
            assert!(root().join(source).exists(), "{source}");
            copied.insert((*source).to_owned());
        }
    }
    let ignore = read(".dockerignore");
    let mut admitted: Vec<&str> = ignore.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(admitted.remove(0), "*");
    let admitted: BTreeSet<String> = admitted.iter().map(|line| line.strip_prefix('!').unwrap().to_owned()).collect();
    assert_eq!(admitted, copied, ".dockerignore admits exactly what is copied");

    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).unwrap();
    let members = members.split('"').skip(1).step_by(2);
    for needed in members.chain(["Cargo.toml", "Cargo.lock", "src"]) {
        assert!(copied.contains(needed), "{needed}");
    }
    // Cargo refuses a manifest that names missing targets.
    for (section, folder) in [("[[bench]]", "benches"), ("[[test]]", "tests"), ("[[example]]", "examples")] {
        assert!(!manifest.contains(section) || copied.contains(folder), "{folder}");
    }
    assert!(!root().join("build.rs").exists() || copied.contains("build.rs"));
    let mut files = BTreeSet::new();
    for crate_ in ["src", "entity/src", "migration/src"] {
        embedded(&root().join(crate_), &mut files);
    }
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        assert!(copied.iter().any(|source| file.starts_with(source)), "{} is embedded", file.display());
    }
}
