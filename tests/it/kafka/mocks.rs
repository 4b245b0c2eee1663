//! Faults that a real broker does not make on demand: the brokers of librdkafka's own mock cluster.

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey as Request, RDKafkaRespErr as Fault};

use super::*;

/// A mock cluster with a topic of two partitions.
fn mock() -> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, Topic) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 2, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let topic = Topic { producer: producer(&brokers), brokers, name: "orders".to_owned() };
    (cluster, topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn round_trips_of_two_seconds_cost_time_and_nothing_else() {
    let (cluster, topic) = mock();
    topic.send(purchases(0, 100));
    cluster.broker_round_trip_time(1, Duration::from_secs(2)).unwrap();
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = Shop::open_with(topic.command(&database).env("WINDFALL__KAFKA__SESSION_TIMEOUT_MS", "45000")).await;
    shop.campaign(json!({})).await;
    // To join the group alone takes a dozen round trips.
    wait_for(PATIENCE * 6, async || points(&shop).await == 1_000, "all purchases are recorded").await;
    assert_eq!(fetched(&shop, "/readyz").await, "ok");
    drop(shop);
    audit_is_clean(&database);
}

/// Requests of each kind fail. The last two answers are those to a member that the group has given up.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_fail_are_made_again() {
    let (cluster, topic) = mock();
    for (request, fault) in [
        (Request::Fetch, Fault::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION),
        (Request::ListOffsets, Fault::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE),
        (Request::FindCoordinator, Fault::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE),
        (Request::JoinGroup, Fault::RD_KAFKA_RESP_ERR_NOT_COORDINATOR),
        (Request::Heartbeat, Fault::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS),
        (Request::OffsetCommit, Fault::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID),
        (Request::OffsetCommit, Fault::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION),
    ] {
        cluster.request_errors(request, &[fault]);
    }
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = topic.read(&database).await;
    shop.campaign(json!({})).await;
    for n in 0..5 {
        topic.send(purchases(n * 40, n * 40 + 40));
        have_points(&shop, n * 40 + 40).await;
        // The commit is refused, and the position in the database moves nevertheless.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    wait(async || metric(&shop, "windfall_ingest_lag_messages").await == 0.0, "there is no lag").await;
    assert_eq!(shop.server.terminate().code(), Some(0));
    // Nothing was recorded twice, and a restart reads nothing again, although Kafka has refused offsets.
    let shop = topic.read(&database).await;
    topic.send(purchases(200, 201));
    have_points(&shop, 201).await;
    let taken = metric(&shop, "windfall_ingest_messages_total").await;
    assert!(taken < 60.0, "{taken}");
    drop(shop);
    audit_is_clean(&database);
}
