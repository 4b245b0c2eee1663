//! Configurations in which all is well: the demo's and that of compose.yaml.

use std::collections::BTreeMap;

use super::*;
use crate::demo::Demo;
use crate::operations::container::{filled, pairs, services, words_of};
use crate::support::app::open;
use crate::support::postgres::{Durability, Postgres};
use crate::support::redis::Redis;
use crate::support::server::Server;

#[test]
fn the_demo_has_no_finding() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Demo::start(folder.path(), &[]);
    demo.until("Points as they come and go");
    let url = format!("sqlite://{}/windfall.db", folder.path().display());
    let secret = folder.path().join("secret");
    let doctor = || {
        let mut command = command(&url);
        command.env_remove("WINDFALL__AUTH__HS256_SECRET").env("WINDFALL__AUTH__HS256_SECRET_FILE", &secret);
        Report::of(&mut command)
    };
    doctor().is_empty();
    demo.stop();
    let files = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        names.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let before = files();
    doctor().is_empty();
    assert!(files() == before, "all files are as they were, and there is no other");
}

/// The settings of the brokers in compose.yaml that do not depend on the place where they run.
#[cfg(feature = "kafka")]
fn broker_settings() -> Vec<String> {
    const OF_PLACE: [&str; 8] = [
        "PROCESS_ROLES",
        "CONTROLLER_QUORUM_VOTERS",
        "LISTENERS",
        "LISTENER_NAMES",
        "PROTOCOL_MAP",
        "LOG_DIRS",
        "HEAP_OPTS",
        "NODE_ID",
    ];
    let variables = pairs(&services()["kafka-1"]["environment"]);
    let named = variables.iter().filter_map(|(name, value)| Some((name.strip_prefix("KAFKA_")?, value)));
    let of_brokers = named.filter(|(name, _)| !OF_PLACE.iter().any(|place| name.ends_with(place)));
    of_brokers.map(|(name, value)| format!("{}={value}", name.to_lowercase().replace('_', "."))).collect()
}

/// Makes the topics that compose.yaml makes: its lines `make NAME --partitions N --config KEY=VALUE`.
#[cfg(feature = "kafka")]
async fn make_topics(kafka: &crate::support::kafka::Kafka) -> usize {
    let words = words_of(&services()[crate::operations::container::KAFKA_TOPICS]["command"]);
    let script = words.last().unwrap();
    let lines: Vec<&str> = script.lines().filter_map(|line| line.strip_prefix("make ")).collect();
    for line in &lines {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let options: Vec<(&str, &str)> =
            words.clone().zip(words.skip(1)).filter(|(option, _)| option.starts_with("--")).collect();
        let value = |option: &str| options.iter().find(|(name, _)| *name == option).map(|(_, value)| *value);
        let settings: Vec<(&str, &str)> =
            value("--config").iter().map(|setting| setting.split_once('=').unwrap()).collect();
        super::kafka::make(kafka, name, value("--partitions").unwrap().parse().unwrap(), 3, &settings).await;
    }
    lines.len()
}

/// The brokers and the topics have the settings of compose.yaml.
#[cfg(feature = "kafka")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_in_compose_has_no_finding() {
    use crate::operations::container::with_kafka;
    use crate::support::kafka::{Kafka, Options};

    let settings = broker_settings();
    assert!(settings.contains(&"min.insync.replicas=2".to_owned()), "{settings:?}");
    let properties: Vec<&str> = settings.iter().map(String::as_str).collect();
    let kafka = Kafka::with(Options { nodes: 3, properties: &properties, ..Options::default() }).await;
    assert_eq!(make_topics(&kafka).await, 3);
    let sqlite = crate::support::sqlite::Sqlite::new();
    let node = || {
        let mut node = command(&sqlite.url());
        let variables = pairs(&services()["windfall-1"]["environment"]);
        let of_kafka = variables.into_iter().filter(|(name, _)| name.contains("KAFKA"));
        node.envs(of_kafka.map(|(name, value)| (name, with_kafka(&value, Some(&kafka.brokers())))));
        node
    };
    let server = Server::start_with(&mut node()).await.0;
    Report::of(&mut node()).is_empty();
    assert!(server.terminate().success());
}

/// The variables of a node in compose.yaml, with a database and a Redis of this test.
fn node(database: &str, redis: &str) -> Command {
    let mut node = command(database);
    let of_test = ["WINDFALL__DATABASE__URL", "WINDFALL__HTTP__LISTEN", "WINDFALL__HTTP__INTERNAL_LISTEN"];
    let variables = pairs(&services()["windfall-1"]["environment"]);
    let secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let variables = variables.into_iter().map(|(name, value)| (name, filled(&value, secret).0));
    node.envs(variables.filter(|(name, _)| !of_test.contains(&name.as_str())));
    node.env("WINDFALL__REDIS__URL", redis);
    node
}

/// PostgreSQL and Redis have the settings of compose.yaml.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_has_no_finding() {
    let services = services();
    // The image takes the defaults of PostgreSQL, as this server does.
    assert_eq!(services["postgres"].get("command"), None);
    let postgres = Postgres::start(Durability::Fsync);
    let url = postgres.create_database().await;
    // The default of `max_connections`, less those that are reserved. The test server has more.
    limit_sessions(&url, 97).await;
    let words = words_of(&services["redis"]["command"]);
    let arguments: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let redis = Redis::start_with(&arguments);
    let (first, second) = (node(&url, &redis.url()), node(&url, &redis.url()));
    let mut nodes = Vec::new();
    for mut node in [first, second] {
        nodes.push(Server::start_with(&mut node).await.0);
    }
    Report::of(&mut node(&url, &redis.url())).is_empty();
}

/// Limits the sessions of a database, whatever its server allows.
pub(super) async fn limit_sessions(url: &str, sessions: u32) {
    use sea_orm::ConnectionTrait as _;

    let name = url.rsplit('/').next().unwrap();
    let database = open(url).await;
    let sql = format!("ALTER DATABASE {name} CONNECTION LIMIT {sessions}");
    database.write().execute_unprepared(&sql).await.unwrap();
    database.close().await.unwrap();
}
