//! The AsyncAPI document: what messages of topics contain, generated from the types that read and write them. `asyncapi.json` is this
//! document; a test compares the two.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::record::{AdjustmentLine, RefundLine};
use crate::app::event::{BALANCE, Balance, CUSTOMER_ERASED, Erased, Event, POINTS_CHANGED};
use crate::app::purchase::RecordPurchase;

/// The version of the specification.
const VERSION: &str = "3.0.0";

/// Returns the document as JSON, in the form of the shipped file.
pub fn document() -> String {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let facts = [
        message::<RecordPurchase>(&mut schemas, "purchase", "A purchase, or a new content of one."),
        message::<RefundLine>(&mut schemas, "refund", "A refund."),
        message::<AdjustmentLine>(&mut schemas, "adjustment", "An adjustment of points."),
    ];
    let events = [
        event::<Event>(&mut schemas, "pointsChanged", POINTS_CHANGED, "A commit changed the points of a customer."),
        event::<Erased>(&mut schemas, "customerErased", CUSTOMER_ERASED, "A customer was erased. Forget it."),
    ];
    let mut balance = event::<Balance>(
        &mut schemas,
        "balance",
        BALANCE,
        "The balance of a customer. A tombstone: the customer was erased.",
    );
    balance.1["payload"] = json!({ "oneOf": [balance.1["payload"].take(), { "type": "null" }] });
    let balances = [balance];
    let channel = |about: &str, messages: &[(&'static str, Value)]| {
        let refer = |(name, _): &(&'static str, Value)| ((*name).to_owned(), reference("messages", name));
        // The configuration names the topics.
        json!({ "address": null, "description": about, "messages": messages.iter().map(refer).collect::<Map<_, _>>() })
    };
    let channels = json!({
        "facts": channel("The topics of `kafka.facts_topics`. The key should be the external id of the customer.", &facts),
        "events": channel("The topic `kafka.events_topic`. The key is the external id of the customer.", &events),
        "balances": channel("The topic `kafka.balances_topic`, which should be compacted. The key is the external id of the customer.", &balances),
    });
    let operation = |action: &str, channel: &str, about: &str| json!({ "action": action, "channel": { "$ref": format!("#/channels/{channel}") }, "summary": about });
    let operations = json!({
        "recordFacts": operation("receive", "facts", "Windfall records facts, each of them once."),
        "publishEvents": operation("send", "events", "Windfall publishes what commits change, at least once and in order for each customer."),
        "publishBalances": operation("send", "balances", "Windfall publishes the balance of each customer after each commit that changes it."),
    });
    let messages: Map<String, Value> =
        facts.into_iter().chain(events).chain(balances).map(|(name, message)| (name.to_owned(), message)).collect();
    let definitions: Map<String, Value> =
        schemas.take_definitions(true).into_iter().map(|(name, schema)| (name, grown(schema))).collect();
    let document = json!({
        "asyncapi": VERSION,
        "info": {
            "title": "Windfall",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Facts that Windfall reads from topics of Kafka, and events that it publishes. docs/events.md explains them.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": definitions },
    });
    format!("{document:#}\n")
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// Describes a message whose value is of this type.
fn message<T: schemars::JsonSchema>(
    schemas: &mut SchemaGenerator,
    name: &'static str,
    about: &str,
) -> (&'static str, Value) {
    let payload = schemas.subschema_for::<T>().to_value();
    (name, json!({ "summary": about, "payload": payload, "bindings": { "kafka": { "key": { "type": "string" } } } }))
}

/// Describes a message with the headers of a CloudEvent.
fn event<T: schemars::JsonSchema>(
    schemas: &mut SchemaGenerator,
    name: &'static str,
    kind: &str,
    about: &str,
) -> (&'static str, Value) {
    let (name, mut message) = message::<T>(schemas, name, about);
    let text = |about: &str| json!({ "type": "string", "description": about });
    message["headers"] = json!({
        "type": "object",
        "properties": {
            "ce_specversion": { "type": "string", "const": "1.0" },
            "ce_type": { "type": "string", "const": kind },
            "ce_source": text("The installation that the event comes from."),
            "ce_id": text("Unique within the source. Of the last `pointsChanged` of a commit, it is the cursor that `pointsUpdated` and `Customer.ledger` have after the commit."),
            "ce_time": text("The instant of the commit."),
            "ce_subject": text("The external id of the customer."),
            "ce_partitionkey": text("The same."),
            "ce_sequence": text("The version of the customer and the part, as a text that sorts like them."),
            "content-type": { "type": "string", "const": "application/json" },
        },
        "required": ["ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time"],
    });
    (name, message)
}

/// Allows further fields: both sides ignore those that they do not know.
fn grown(mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("additionalProperties");
    }
    schema
}
