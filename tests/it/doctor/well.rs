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

/// PostgreSQL and Redis have the settings of compose.yaml. Other servers of compose.yaml belong here too.
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
