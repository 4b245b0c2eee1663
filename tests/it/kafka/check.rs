//! `windfall ingest check`: what would become of the messages of a topic. Nothing is recorded or committed, and there is no database.

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::*;
use crate::support::server::{Ran, run};

/// Runs the command for the topic.
fn check(topic: &Topic, arguments: &[&str]) -> Ran {
    run(topic.command("sqlite:///nowhere/windfall.db").args(["ingest", "check", &topic.name]).args(arguments))
}

fn found(topic: &Topic, arguments: &[&str]) -> (Option<i32>, Value) {
    let ran = check(topic, &[arguments, &["--json"]].concat());
    (ran.code, serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_the_newest_messages_of_each_partition() {
    let topic = Topic::shared(3).await;
    topic.send(purchases(0, 600));
    let refund = refund_of("p0", "r0");
    let adjustment =
        json!({ "adjustment": { "customerExternalId": "bob", "points": 1, "reason": "r", "idempotencyKey": "k" } });
    topic.send([("ada", refund.clone()), ("p1", refund), ("eve", adjustment.to_string())]);
    let (code, all) = found(&topic, &[]);
    assert_eq!(
        (code, &all["partitions"], &all["messages"], &all["endedBy"]),
        (Some(0), &json!(3), &json!(603), &json!(null))
    );
    let outcomes = json!({ "purchases": 600, "refunds": 2, "adjustments": 1, "leftOut": 0, "deadLetters": 0 });
    assert_eq!(all["found"]["outcomes"], outcomes);
    // Of a refund, the customer is not known.
    assert_eq!(all["found"]["remarks"]["keyIsNotTheCustomer"], 1);
    let (code, few) = found(&topic, &["--sample", "30"]);
    assert_eq!((code, &few["messages"], &few["available"]), (Some(0), &json!(30), &json!(603)));
    assert!(few["found"]["outcomes"]["refunds"].as_u64() > Some(0), "the newest: {few}");
    let ran = check(&topic, &[]);
    assert!(ran.stdout.starts_with(&format!("{}: 603 of 603 messages in 3 partitions\n", topic.name)), "{ran:?}");
    assert!(ran.stdout.contains("      600    purchases\n"), "{ran:?}");
    assert_eq!(committed(&topic), Some(0), "nothing is committed");
}

/// The number of partitions for which the group of the topic has committed an offset.
fn committed(topic: &Topic) -> Option<usize> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &topic.brokers).set("group.id", &topic.name);
    let client: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_range(&topic.name, 0, 2);
    let offsets = client.committed_offsets(partitions, PATIENCE).ok()?;
    Some(offsets.elements().iter().filter(|it| it.offset().to_raw().is_some_and(|offset| offset >= 0)).count())
}

/// The messages of the example in the documentation. Its output must be that of the program.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_documentation_is_what_is_printed() {
    let topic = Topic::shared(3).await;
    topic.send(purchases(0, 1_200));
    let refunds: Vec<String> = (0..9).map(|n| refund_of(&format!("p{n}"), &format!("r{n}"))).collect();
    topic.send(["ada", "bob", "cyd"].into_iter().cycle().zip(refunds));
    let with = |id: &str, field: &str, value: Value| {
        let mut fact: Value = serde_json::from_str(&purchase(id, "eve")).unwrap();
        fact[field] = value;
        fact.to_string()
    };
    let number = |n: usize| ("eve", with(&format!("n{n}"), "total", json!(10.5)));
    topic.send((0..4).map(number));
    topic.send((0..3).map(|n| ("eve", with(&format!("c{n}"), "loyaltyTier", json!("gold")))));
    topic.send([("till-7", purchase("t", "eve"))]);
    let ran = check(&topic, &[]);
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md")).unwrap();
    let (_, rest) = text.split_once("windfall ingest check orders\n```\n\n```text\n").expect("the example");
    let (shown, _) = rest.split_once("```").expect("its end");
    assert_eq!(ran.stdout.replace(&topic.name, "orders"), shown);
    assert_eq!(ran.code, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_told_by_its_reason() {
    let topic = Topic::shared(1).await;
    let with = |field: &str, value: Value| {
        let mut fact: Value = serde_json::from_str(&purchase("p", "ada")).unwrap();
        fact[field] = value;
        fact.to_string()
    };
    let poison = [
        String::new(),
        "[".repeat(100_000),
        "x".repeat((1 << 20) + 1),
        r#"{"externalId":"n","customerExternalId":"ada","purchasedAt":"2026-11-02T10:00:00Z","total":NaN}"#.to_owned(),
        with("total", json!("99999999999999999999999")),
        with("total", json!("1e400")),
        with("purchasedAt", json!("2999-01-01T00:00:00Z")),
        with("externalId", json!("a\0b")),
        with("currency", Value::Null),
    ];
    let bad = poison.len() as u64;
    let (large, others): (Vec<String>, Vec<String>) = poison.into_iter().partition(|value| value.len() > 1 << 20);
    topic.send(others.into_iter().map(|value| ("ada", value)));
    topic.send_large(&large[0]);
    topic.send([("ada", format!("\0\0\0\0\x05{}", with("colour", json!("red")))), ("bob", purchase("p2", "ada"))]);
    topic.send_tombstone();
    let (code, told) = found(&topic, &[]);
    assert_eq!(code, Some(1));
    let found = &told["found"];
    let outcomes = json!({ "purchases": 2, "refunds": 0, "adjustments": 0, "leftOut": 0, "deadLetters": bad + 1 });
    assert_eq!(found["outcomes"], outcomes, "{told}");
    let remarks = json!({
        "withoutKey": 1, "keyIsNotTheCustomer": 1, "registryMark": 1, "tombstones": 1, "tooLarge": 1, "withRefunds": 0,
    });
    assert_eq!(found["remarks"], remarks);
    assert_eq!(found["unknownFields"], json!([{ "count": 1, "text": "colour", "partition": 0, "offset": 9 }]));
    let reasons = found["deadLetters"].as_array().unwrap();
    let reason = |text: &str| reasons.iter().find(|it| it["text"].as_str().unwrap().contains(text));
    for text in
        ["is empty", "recursion limit", "the limit is", "total", "purchasedAt", "externalId", "currency", "tombstone"]
    {
        assert!(reason(text).is_some(), "{text}: {found}");
    }
    let lost = reason("is empty").unwrap();
    assert_eq!((&lost["count"], &lost["offset"]), (&json!(1), &json!(0)));
    let ran = check(&topic, &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("why dead letters") && ran.stdout.contains("  is empty (0, 0)\n"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_is_applied_and_a_row_of_dead_letters_is_told() {
    let topic = Topic::shared(1).await;
    let map = tempfile::NamedTempFile::new().unwrap();
    let columns = "currency = \"EUR\"\n[columns]\nno = \"externalId\"\nbuyer = \"customerExternalId\"\nat = \"purchasedAt\"\n\
        sum = \"total\"\nstatus = \"status\"\n";
    std::fs::write(map.path(), columns).unwrap();
    let order = |n: usize, status: &str| {
        json!({ "no": n, "buyer": "ada", "at": "2026-11-01T10:00:00Z", "sum": 12.5, "status": status }).to_string()
    };
    topic.send((0..7).map(|n| ("ada", order(n, "paid"))));
    topic.send((7..9).map(|n| ("ada", order(n, "pending"))));
    let mapped = || {
        let mut command = topic.command("sqlite:///nowhere/windfall.db");
        command.env("WINDFALL__KAFKA__FACTS_MAP", map.path());
        let ran = run(command.args(["ingest", "check", &topic.name, "--json"]));
        (ran.code, serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}")))
    };
    let (code, told) = mapped();
    let outcomes = &told["found"]["outcomes"];
    assert_eq!((code, &outcomes["purchases"], &outcomes["leftOut"]), (Some(0), &json!(7), &json!(2)), "{told}");
    assert_eq!(told["found"]["leftOut"][0]["count"], 2);
    // Without the map, none of them is a fact. These are too few to stop the partition.
    let (code, told) = found(&topic, &[]);
    assert_eq!((code, &told["found"]["stoppingPartitions"]), (Some(1), &json!([])));
    topic.send((0..100).map(|n| ("ada", order(n, "paid"))));
    assert_eq!(found(&topic, &[]).1["found"]["stoppingPartitions"], json!([0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_topic_is_clean_and_a_missing_one_is_told() {
    let topic = Topic::shared(2).await;
    let (code, told) = found(&topic, &[]);
    assert_eq!((code, &told["messages"], &told["available"]), (Some(0), &json!(0), &json!(0)));
    let missing = run(topic.command("sqlite:///nowhere/windfall.db").args(["ingest", "check", "no-such-topic"]));
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(1), ""));
    assert!(missing.stderr.contains("there is no topic `no-such-topic`"), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_do_not_answer_are_told() {
    // Nobody listens on this port of the machine.
    let mut command = command("sqlite:///nowhere/windfall.db");
    command.env("WINDFALL__KAFKA__BROKERS", "127.0.0.1:1").env("WINDFALL__KAFKA__FACTS_TOPICS", "orders");
    let ran = run(command.args(["ingest", "check", "orders"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("have not answered within 15 s: no broker can be reached"), "{ran:?}");
    let unset =
        run(crate::support::server::command("sqlite:///nowhere/windfall.db").args(["ingest", "check", "orders"]));
    assert!(unset.stderr.contains("`kafka.brokers`") && unset.code == Some(1), "{unset:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_takes_its_trace_from_a_topic() {
    let topic = Topic::shared(3).await;
    topic.send(purchases(0, 500));
    let file = tempfile::NamedTempFile::new().unwrap();
    let simulate = |topic_name: &str, last: &str| {
        let mut command = topic.command("sqlite:///nowhere/windfall.db");
        command.args(["simulate", "ingest", "--topic", topic_name, "--last", last, "--cost-batch-ms", "2"]);
        run(command.args(["--cost-message-ms", "0.1", "--save-trace"]).arg(file.path()))
    };
    let ran = simulate(&topic.name, "1h");
    assert!(ran.code == Some(0) && ran.stdout.starts_with("trace   500 messages in "), "{ran:?}");
    let saved = std::fs::read_to_string(file.path()).unwrap();
    assert!(saved.lines().count() == 500 && !saved.contains("ada"), "{saved}");
    let missing = simulate("no-such-topic", "1h");
    assert!(missing.code == Some(1) && missing.stderr.contains("there is no topic `no-such-topic`"), "{missing:?}");
    // All of it is older than that.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let old = simulate(&topic.name, "1s");
    assert!(old.code == Some(1) && old.stderr.contains("there are no messages"), "{old:?}");
    assert_eq!(committed(&topic), Some(0));
}
