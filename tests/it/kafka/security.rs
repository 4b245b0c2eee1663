//! Logins and certificates: right ones work, and wrong ones are told apart.

use super::*;
use crate::support::kafka::{Options, PASSWORD, Security, USER};

/// Waits until `/readyz` says what is wrong. Requests are served nevertheless.
async fn told(shop: &Shop) -> String {
    let waiting = async {
        loop {
            let answer = shop.client.get(format!("{}/readyz", shop.address())).send().await.unwrap();
            assert!(answer.status().is_success());
            let text = answer.text().await.unwrap();
            if text.contains("topics are not read") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the server says what is wrong")
}

/// A topic that a producer with these settings fills.
async fn secured(kafka: &Kafka, settings: &[(&str, &str)]) -> Topic {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    for (key, value) in settings {
        config.set(*key, *value);
    }
    let name = format!("orders-{}", rand::random::<u32>());
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let topic = Topic { brokers: kafka.brokers(), producer: config.create().unwrap(), name };
    topic.send(purchases(0, 10));
    topic
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_over_tls_works_and_a_wrong_one_is_told() {
    let kafka = Kafka::with(Options { security: Security::SaslTls, ..Options::default() }).await;
    let (ca, other_ca) = (kafka.ca(), kafka.other_ca());
    let settings = [
        ("security.protocol", "sasl_ssl"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", USER),
        ("sasl.password", PASSWORD),
        ("ssl.ca.location", ca.to_str().unwrap()),
    ];
    let topic = secured(&kafka, &settings).await;
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let (database, _kept) = scratch(Engine::Sqlite).await;
        let with = |password: &str, ca: &std::path::Path| {
            let mut command = topic.command(&database);
            command
                .env("WINDFALL__KAFKA__TLS", "true")
                .env("WINDFALL__KAFKA__CA_FILE", ca)
                .env("WINDFALL__KAFKA__SASL_MECHANISM", mechanism)
                .env("WINDFALL__KAFKA__USERNAME", USER)
                .env("WINDFALL__KAFKA__PASSWORD", password);
            command
        };
        let shop = Shop::open_with(&mut with("wrong", &ca)).await;
        assert!(told(&shop).await.contains("`kafka.password`"), "{mechanism}");
        shop.server.terminate();
        if mechanism == "PLAIN" {
            let shop = Shop::open_with(&mut with(PASSWORD, &other_ca)).await;
            assert!(told(&shop).await.contains("`kafka.ca_file`"));
            shop.server.terminate();
        }
        let shop = Shop::open_with(&mut with(PASSWORD, &ca)).await;
        shop.campaign(json!({})).await;
        have_points(&shop, 10).await;
        assert_eq!(fetched(&shop, "/readyz").await, "ok");
    }
    // The client itself says only that it cannot connect.
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let shop = topic.read(&database).await;
    assert!(told(&shop).await.contains("no broker can be reached"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_works_and_a_missing_one_is_told() {
    let kafka = Kafka::with(Options { security: Security::MutualTls, ..Options::default() }).await;
    let (ca, certificate, key) = (kafka.ca(), kafka.client_certificate(), kafka.client_key());
    let settings = [
        ("security.protocol", "ssl"),
        ("ssl.ca.location", ca.to_str().unwrap()),
        ("ssl.certificate.location", certificate.to_str().unwrap()),
        ("ssl.key.location", key.to_str().unwrap()),
    ];
    let topic = secured(&kafka, &settings).await;
    let (database, _kept) = scratch(Engine::Sqlite).await;
    let mut without = topic.command(&database);
    without.env("WINDFALL__KAFKA__TLS", "true").env("WINDFALL__KAFKA__CA_FILE", &ca);
    let shop = Shop::open_with(&mut without).await;
    assert!(told(&shop).await.contains("`kafka.client_cert_file`"));
    shop.server.terminate();
    let mut with = topic.command(&database);
    with.env("WINDFALL__KAFKA__TLS", "true")
        .env("WINDFALL__KAFKA__CA_FILE", &ca)
        .env("WINDFALL__KAFKA__CLIENT_CERT_FILE", &certificate)
        .env("WINDFALL__KAFKA__CLIENT_KEY_FILE", &key);
    let shop = Shop::open_with(&mut with).await;
    shop.campaign(json!({})).await;
    have_points(&shop, 10).await;
}
