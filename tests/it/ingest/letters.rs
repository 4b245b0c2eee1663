//! Dead letters in the API: what they show, replays and discards.

use super::*;

const LETTERS: &str = "query($topic: String) { deadLetters(topic: $topic) { nodes { id topic partition offset reason recordedAt key \
    size payload headers { name value } } } }";

async fn letters(app: &GraphqlApp, topic: Option<&str>) -> Vec<Value> {
    let mut answer = app.data(&admin(), LETTERS, json!({ "topic": topic })).await;
    let Value::Array(letters) = answer["deadLetters"]["nodes"].take() else { panic!("a list") };
    letters
}

async fn mutate(app: &GraphqlApp, mutation: &str, id: &str) -> Value {
    let query = format!(
        "mutation($id: ID!) {{ done: {mutation} {{ deadLetter {{ id }} userErrors {{ code path message }} }} }}"
    );
    app.data(&admin(), &query, json!({ "id": id })).await["done"].take()
}

const REPLAY: &str = "replayDeadLetter(id: $id)";

on_both! {
    async fn a_dead_letter_shows_its_message(app: &GraphqlApp) {
        let reading = Reading::begin(&app.app, 7, 0);
        reading.send_message(Some(b"{".to_vec()), Some("ada"));
        reading.send_message(None, None);
        reading.end().await;
        let [tombstone, broken] = &letters(app, Some(TOPIC)).await[..] else { panic!("two, the newest first") };
        assert_eq!(broken["offset"], 7);
        assert_eq!(
            (&broken["topic"], &broken["partition"], &broken["key"], &broken["size"], &broken["payload"]),
            (&json!(TOPIC), &json!(3), &json!("ada"), &json!(1), &json!("ew=="))
        );
        assert_eq!(broken["headers"], json!([{ "name": "source", "value": "till 7" }]));
        assert_eq!(broken["recordedAt"], "2026-11-02T12:00:00Z");
        assert!(text(&broken["reason"]).contains("EOF"), "{broken}");
        assert_eq!((&tombstone["size"], &tombstone["key"], &tombstone["payload"]), (&json!(0), &Value::Null, &json!("")));
        assert_eq!(letters(app, Some("other")).await, Vec::<Value>::new());
        assert_eq!(letters(app, Some("a\0b")).await, Vec::<Value>::new());
        assert_eq!(letters(app, None).await.len(), 2);
        let node = "query($id: ID!) { node(id: $id) { ... on DeadLetter { offset } } }";
        let id = json!({ "id": broken["id"] });
        assert_eq!(app.data(&admin(), node, id.clone()).await["node"]["offset"], 7);
        assert_eq!(app.data(&crate::support::graphql::storefront(), node, id).await["node"], Value::Null);
    }

    async fn a_replay_records_what_could_not_be_recorded(app: &GraphqlApp) {
        each(app).await;
        let reading = Reading::begin(&app.app, 0, 0);
        let early = purchase("p", "ada").replace("2026-11-02T10", "2026-11-02T13");
        reading.send(&early);
        reading.send("{");
        reading.end().await;
        let [broken, early] = &letters(app, None).await[..] else { panic!("two") };
        let id = text(&early["id"]);
        let refused = mutate(app, REPLAY, &id).await;
        assert_eq!(refused["userErrors"][0]["code"], "INVALID", "still in the future");
        assert_eq!((&refused["deadLetter"], balance(app, "ada").await), (&Value::Null, 0));
        app.set_clock("2026-11-02T14:00:00Z");
        assert_eq!(mutate(app, REPLAY, &id).await, json!({ "deadLetter": { "id": id }, "userErrors": [] }));
        assert_eq!(balance(app, "ada").await, 10);
        assert_eq!(mutate(app, REPLAY, &id).await["userErrors"][0]["code"], "NOT_FOUND", "it is gone");
        let discard = "discardDeadLetter(id: $id, reason: \"a test\")";
        let id = text(&broken["id"]);
        assert_eq!(mutate(app, discard, &id).await["userErrors"], json!([]));
        assert_eq!(letters(app, None).await, Vec::<Value>::new());
        assert_eq!(mutate(app, discard, &id).await["userErrors"][0]["code"], "NOT_FOUND");
    }

    async fn a_replayed_refund_waits_again(app: &GraphqlApp) {
        let reading = Reading::begin(&app.app, 0, 0);
        reading.send(refund_of("p", "r").replace("2026-11-02T11", "2026-11-02T13"));
        reading.end().await;
        // Its purchase is unknown, which hides that it is in the future.
        assert_eq!((waits(app).await.len(), dead(app).await.len()), (1, 0));
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "10").await;
        waiting::try_those_of(&app.app, vec!["p".to_owned()]).await.unwrap();
        assert_eq!((waits(app).await.len(), dead(app).await.len()), (0, 1), "now it is known");
        app.set_clock("2026-11-02T14:00:00Z");
        let id = text(&letters(app, None).await[0]["id"]);
        assert_eq!(mutate(app, REPLAY, &id).await["userErrors"], json!([]));
        assert_eq!((refunds(app).await, dead(app).await.len()), (1, 0));
    }

    async fn a_large_message_is_replayed_only_from_its_topic(app: &GraphqlApp) {
        let reading = Reading::begin(&app.app, 0, 0);
        reading.send_message(Some(vec![b'x'; 70_000]), None);
        reading.end().await;
        let id = text(&letters(app, None).await[0]["id"]);
        let refused = mutate(app, REPLAY, &id).await;
        assert!(text(&refused["userErrors"][0]["message"]).contains("64 KiB"), "{refused}");
        let other = app.run(&crate::support::graphql::customer("ada"), LETTERS, json!({})).await;
        assert_eq!(codes(&other), ["FORBIDDEN"]);
    }
}
