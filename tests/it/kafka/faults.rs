//! Brokers that die, consumers that freeze or are killed, and partitions that move.

use super::*;
use crate::support::process::anonymous_bytes;
use crate::support::stall::Stall;

/// Sends purchases bit by bit from a thread of its own.
fn trickle(topic: &Topic, from: usize, to: usize) -> std::thread::JoinHandle<()> {
    let topic = Topic { brokers: topic.brokers.clone(), name: topic.name.clone(), producer: producer(&topic.brokers) };
    std::thread::spawn(move || {
        for n in (from..to).step_by(20) {
            topic.send(purchases(n, to.min(n + 20)));
            std::thread::sleep(Duration::from_millis(40));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_costs_time_and_nothing_else() {
    let mut kafka = Kafka::start().await;
    let topic = Topic::make(&kafka.brokers(), 3, 1).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    let sending = trickle(&topic, 0, 600);
    wait(async || points(&shop).await > 500, "some are recorded").await;
    kafka.freeze(0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    kafka.thaw(0);
    kafka.kill(0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    kafka.restart(0).await;
    have_points(&shop, 600).await;
    sending.join().unwrap();
    wait(async || fetched(&shop, "/readyz").await == "ok", "the broker is used again").await;
    drop(shop);
    audit_is_clean(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_three_brokers_is_killed() {
    let mut kafka = Kafka::cluster(3).await;
    let topic = Topic::make(&kafka.brokers(), 6, 3).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let (shop, other) = (topic.read(&database).await, topic.read(&database).await);
    shop.campaign(json!({})).await;
    let sending = trickle(&topic, 0, 1_000);
    wait(async || points(&shop).await > 500, "some are recorded").await;
    // Each node leads two partitions. One of the three coordinates the group.
    kafka.kill(0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    kafka.restart(0).await;
    kafka.kill(1).await;
    have_points(&shop, 1_000).await;
    kafka.restart(1).await;
    sending.join().unwrap();
    drop((shop, other));
    audit_is_clean(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_loses_nothing() {
    for engine in ENGINES {
        let topic = Topic::shared(3).await;
        let (database, _kept) = scratch(engine).await;
        let mut shop = topic.read(&database).await;
        shop.campaign(json!({})).await;
        let sending = trickle(&topic, 0, 1_500);
        for round in 1..6 {
            wait(async || points(&shop).await > round * 2_000, "more are recorded").await;
            shop.server.kill9();
            shop = topic.read(&database).await;
        }
        have_points(&shop, 1_500).await;
        sending.join().unwrap();
        drop(shop);
        audit_is_clean(&database);
    }
}

/// The server is killed at each step of a batch: while it inserts a fact, an award and an entry, while it changes the customer, and while it
/// stores the position.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_at_a_step_of_a_batch_records_it_once() {
    let steps = [
        ("INSERT", "purchase", "true"),
        ("INSERT", "ledger_entry", "true"),
        ("UPDATE", "customer", "true"),
        ("INSERT", "ingest_position", "true"),
    ];
    for engine in ENGINES {
        for step in steps {
            let topic = Topic::shared(1).await;
            let (database, _kept) = scratch(engine).await;
            // With the name of the one that was killed, the next one need not wait until the group has given it up.
            let read =
                async || Shop::open_with(topic.command(&database).env("WINDFALL__KAFKA__INSTANCE_ID", "node")).await;
            let shop = read().await;
            shop.campaign(json!({})).await;
            if step.0 == "UPDATE" {
                topic.send(purchases(0, 10));
                have_points(&shop, 10).await;
                wait(async || metric(&shop, "windfall_ingest_lag_messages").await == 0.0, "the position is stored")
                    .await;
            }
            let stall = Stall::at(engine, &database, step).await;
            topic.send(purchases(0, 40));
            stall.is_reached().await;
            shop.server.kill9();
            stall.bury().await;
            stall.end().await;
            let shop = read().await;
            have_points(&shop, 40).await;
            wait(async || metric(&shop, "windfall_ingest_lag_messages").await == 0.0, "all are done").await;
            assert!(shop.server.terminate().success(), "{engine:?} {step:?}");
            audit_is_clean(&database);
        }
    }
}

/// While the database stands still, messages take the memory that they may take, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_wait_take_no_more_memory_than_they_may() {
    const BUFFER: u64 = 4 << 20;
    // What the client fetches ahead.
    const CLIENT: u64 = windfall::ingest::topics::CLIENT_BUFFER_BYTES;
    let topic = Topic::shared(1).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = Shop::open_with(topic.command(&database).env("WINDFALL__KAFKA__BUFFER_BYTES", BUFFER.to_string())).await;
    shop.campaign(json!({})).await;
    let filler = |id: usize| {
        let mut fact: Value = serde_json::from_str(&purchase(&format!("p{id}"), "ada")).unwrap();
        fact["note"] = json!("x".repeat(3_000));
        fact.to_string()
    };
    // Warm: what the first batches take is not what waits.
    topic.send((0..200).map(|id| ("ada", filler(id))));
    have_points(&shop, 200).await;
    let memory = || anonymous_bytes(shop.server.pid());
    let before = memory();
    let stall = Stall::at(Engine::Postgres, &database, ("INSERT", "purchase", "true")).await;
    // 60 MB, five times as much as may be in memory.
    topic.send((200..20_200).map(|id| ("ada", filler(id))));
    stall.is_reached().await;
    wait(async || metric(&shop, "windfall_ingest_pauses_total").await > 0.0, "the partition is paused").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let taken = memory().saturating_sub(before);
    // What the allocator rounds up, and the batch that is parsed.
    assert!(taken < BUFFER + CLIENT + (16 << 20), "{taken}");
    stall.end().await;
    stall.bury().await;
    drop(shop);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_while_nodes_come_and_go() {
    let topic = Topic::shared(8).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    let sending = trickle(&topic, 0, 5_000);
    for _ in 0..2 {
        let (one, other) = (topic.read(&database).await, topic.read(&database).await);
        for node in [&one, &other] {
            wait(async || metric(node, "windfall_ingest_rebalances_total").await > 0.0, "all three have partitions")
                .await;
        }
        one.server.kill9();
        assert_eq!(other.server.terminate().code(), Some(0));
    }
    have_points(&shop, 5_000).await;
    sending.join().unwrap();
    assert!(metric(&shop, "windfall_ingest_rebalances_total").await >= 2.0);
    drop(shop);
    audit_is_clean(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_stop_together_all_stop() {
    let topic = Topic::shared(6).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let mut nodes = vec![topic.read(&database).await, topic.read(&database).await, topic.read(&database).await];
    for node in &nodes {
        wait(async || metric(node, "windfall_ingest_rebalances_total").await > 0.0, "all have partitions").await;
    }
    topic.send(purchases(0, 500));
    // One after the other, so that the group assigns partitions to nodes that are about to leave it.
    for node in &nodes {
        node.server.ask_to_stop();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for node in nodes.drain(..) {
        assert_eq!(node.server.stops().await.code(), Some(0));
    }
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    have_points(&shop, 500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_holds_up_no_other_one() {
    let (gone, topic) = (Topic::shared(2).await, Topic::shared(2).await);
    let (database, _kept) = scratch(Engine::Postgres).await;
    let mut command = topic.command(&database);
    command.env("WINDFALL__KAFKA__FACTS_TOPICS", format!("{},{}", topic.name, gone.name));
    let shop = Shop::open_with(&mut command).await;
    shop.campaign(json!({})).await;
    gone.send(purchases(0, 50));
    topic.send(purchases(50, 100));
    have_points(&shop, 100).await;
    admin_of(&gone.brokers).delete_topics(&[&gone.name], &AdminOptions::new()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7)).await;
    topic.send(purchases(100, 150));
    have_points(&shop, 150).await;
    assert_eq!(shop.server.terminate().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_frozen_for_longer_than_its_session_does_no_harm() {
    let topic = Topic::shared(4).await;
    let (database, _kept) = scratch(Engine::Postgres).await;
    let (shop, frozen) = (topic.read(&database).await, topic.read(&database).await);
    shop.campaign(json!({})).await;
    wait(async || metric(&frozen, "windfall_ingest_rebalances_total").await >= 1.0, "both have partitions").await;
    let sending = trickle(&topic, 0, 1_000);
    wait(async || points(&shop).await > 500, "some are recorded").await;
    frozen.server.signal("STOP");
    // The session of the frozen node ends after six seconds.
    have_points(&shop, 1_000).await;
    sending.join().unwrap();
    frozen.server.signal("CONT");
    topic.send(purchases(1_000, 1_200));
    have_points(&shop, 1_200).await;
    assert_eq!(frozen.server.terminate().code(), Some(0));
    drop(shop);
    audit_is_clean(&database);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_group_protocol_and_static_members_read_as_well() {
    for settings in [&[("GROUP_PROTOCOL", "consumer")][..], &[("INSTANCE_ID", "pod-1")]] {
        let topic = Topic::shared(3).await;
        let (database, _kept) = scratch(Engine::Postgres).await;
        let start = async || {
            let mut command = topic.command(&database);
            for (key, value) in settings {
                command.env(format!("WINDFALL__KAFKA__{key}"), value);
            }
            Shop::open_with(&mut command).await
        };
        let shop = start().await;
        shop.campaign(json!({})).await;
        topic.send(purchases(0, 300));
        have_points(&shop, 300).await;
        assert_eq!(shop.server.terminate().code(), Some(0));
        let shop = start().await;
        topic.send(purchases(300, 400));
        have_points(&shop, 400).await;
    }
}
