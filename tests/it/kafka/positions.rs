//! Where reading goes on: the database decides, and it is compared with what the topic has.

use super::*;

async fn delete_topic(topic: &Topic) {
    let gone = admin_of(&topic.brokers).delete_topics(&[&topic.name], &AdminOptions::new()).await.unwrap();
    assert!(gone.iter().all(Result::is_ok), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_stops_until_it_is_resumed() {
    let mut topic = Topic::shared(1).await;
    topic.send(purchases(0, 20));
    let (database, _kept) = scratch(Engine::Postgres).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    have_points(&shop, 20).await;
    shop.server.terminate();
    delete_topic(&topic).await;
    make_topic(&topic.brokers, &topic.name, 1, 1).await;
    topic.producer = producer(&topic.brokers);
    // As many messages as before, and more, but others.
    topic.send(purchases(100, 130));
    let shop = topic.read(&database).await;
    wait(async || stopped(&shop).await, "the partition stops").await;
    assert_eq!(points(&shop).await, 200, "nothing is skipped silently, and nothing is taken for read");
    let resumed = resume(&topic, &database, &[]);
    assert_eq!((resumed.code, &*resumed.stdout), (Some(0), &*format!("{} 0 goes on at its beginning\n", topic.name)));
    have_points(&shop, 50).await;
    assert!(!stopped(&shop).await);
    let again = resume(&topic, &database, &[]);
    assert!(again.code == Some(1) && again.stderr.contains("has not stopped"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_made_again_while_it_is_read_stops() {
    let topic = Topic::shared(1).await;
    topic.send(purchases(0, 20));
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    have_points(&shop, 20).await;
    // Until the position is stored.
    wait(async || metric(&shop, "windfall_ingest_lag_messages").await == 0.0, "there is no lag").await;
    delete_topic(&topic).await;
    make_topic(&topic.brokers, &topic.name, 1, 1).await;
    let after = Topic { producer: producer(&topic.brokers), ..topic };
    after.send(purchases(100, 105));
    wait(async || stopped(&shop).await, "the partition stops").await;
    let resumed = resume(&after, &database, &["--from", "0"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    have_points(&shop, 25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_retention_has_taken_stop_the_partition() {
    let topic = Topic::shared(1).await;
    topic.send(purchases(0, 10));
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    have_points(&shop, 10).await;
    shop.server.terminate();
    topic.send(purchases(10, 30));
    let mut before = rdkafka::topic_partition_list::TopicPartitionList::new();
    before.add_partition_offset(&topic.name, 0, rdkafka::topic_partition_list::Offset::Offset(10)).unwrap();
    let admin = admin_of(&topic.brokers);
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    let shop = topic.read(&database).await;
    // Nothing that was not read is gone.
    have_points(&shop, 30).await;
    shop.server.terminate();
    topic.send(purchases(30, 50));
    let mut before = rdkafka::topic_partition_list::TopicPartitionList::new();
    before.add_partition_offset(&topic.name, 0, rdkafka::topic_partition_list::Offset::Offset(35)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    let shop = topic.read(&database).await;
    wait(async || stopped(&shop).await, "the partition stops").await;
    let lost = shop.data(&shop.admin, "{ __typename }", json!({})).await;
    assert_eq!(lost["__typename"], "Query", "requests are served");
    assert_eq!(points(&shop).await, 300);
    assert_eq!(resume(&topic, &database, &[]).code, Some(0));
    have_points(&shop, 45).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_read_again_from_an_offset_while_it_is_read() {
    let topic = Topic::shared(1).await;
    topic.send(purchases(0, 30));
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    have_points(&shop, 30).await;
    wait(async || metric(&shop, "windfall_ingest_messages_total").await == 30.0, "all are read").await;
    assert_eq!(resume(&topic, &database, &["--from", "10"]).code, Some(0));
    wait(async || metric(&shop, "windfall_ingest_messages_total").await == 50.0, "twenty are read again").await;
    topic.send(purchases(30, 40));
    have_points(&shop, 40).await;
    wait(async || metric(&shop, "windfall_ingest_lag_messages").await == 0.0, "the position follows").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_noticed_and_read_from_their_beginning() {
    let topic = Topic::shared(1).await;
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    topic.send(purchases(0, 10));
    have_points(&shop, 10).await;
    let more = NewPartitions::new(&topic.name, 5);
    admin_of(&topic.brokers).create_partitions([&more], &AdminOptions::new()).await.unwrap();
    let after = Topic { producer: producer(&topic.brokers), ..topic };
    after.send(purchases(10, 200));
    have_points(&shop, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_restored_reads_again_what_it_lost() {
    let topic = Topic::shared(2).await;
    topic.send(purchases(0, 100));
    let folder = tempfile::tempdir().unwrap();
    let (database, backup) = (folder.path().join("windfall.db"), folder.path().join("backup.db"));
    let url = format!("sqlite://{}", database.display());
    let shop = topic.read(&url).await;
    shop.campaign(json!({})).await;
    have_points(&shop, 100).await;
    let ran = crate::support::server::run(command(&url).arg("backup").arg(&backup));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    topic.send(purchases(100, 250));
    have_points(&shop, 250).await;
    shop.server.kill9();
    for ending in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{ending}", database.display()));
    }
    std::fs::rename(&backup, &database).unwrap();
    let shop = topic.read(&url).await;
    have_points(&shop, 250).await;
    drop(shop);
    audit_is_clean(&url);
}
