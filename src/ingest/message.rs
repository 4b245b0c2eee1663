//! What a message of a topic records. Its value is a fact in JSON as `docs/events.md` describes it, or an order of the shop's own that a
//! map explains.
//!
//! Producers add fields before their consumers know them. So fields without a meaning are ignored and counted, unlike those of a file.

use serde_json::Value;

use super::form;
use super::json::JsonMap;
use super::record::{Parsed, parse_json};
use super::rows::MAX_ROW_BYTES;
use crate::app::clock::Clock;
use crate::app::message::Message;
use crate::app::recorder::fact::MAX_REFUNDS;

/// The first byte of a value whose producer uses a schema registry. Four bytes with the number of the schema follow.
const REGISTRY_MARK: u8 = 0;
const REGISTRY_BYTES: usize = 5;

/// A message that was parsed.
#[derive(Debug)]
pub(super) struct Fact {
    pub(super) parsed: Parsed,
    /// The paths of the fields that have no meaning.
    pub(super) unknown_fields: Vec<String>,
}

/// Whether the value has the mark of a schema registry.
pub(super) fn has_registry_mark(value: &[u8]) -> bool {
    value.first() == Some(&REGISTRY_MARK)
}

/// Whether the value is longer than any fact.
pub(super) fn is_too_large(value: &[u8]) -> bool {
    value.len() > MAX_ROW_BYTES
}

/// Parses a message. `clock` is used to refuse purchases from the future.
pub(super) fn parse(message: &Message, map: Option<&JsonMap>, clock: &Clock) -> Result<Fact, String> {
    let fact = parse_value(message, map, clock)?;
    if fact.parsed.refunds.len() > MAX_REFUNDS {
        return Err(format!("has more than {MAX_REFUNDS} refunds"));
    }
    Ok(fact)
}

fn parse_value(message: &Message, map: Option<&JsonMap>, clock: &Clock) -> Result<Fact, String> {
    let Some(value) = &message.value else { return Err("has no value: it is a tombstone".to_owned()) };
    if is_too_large(value) {
        return Err(format!("has {} bytes: the limit is {MAX_ROW_BYTES}", value.len()));
    }
    let json = if has_registry_mark(value) { value.get(REGISTRY_BYTES..).unwrap_or(&[]) } else { value };
    if json.trim_ascii().is_empty() {
        return Err("is empty".to_owned());
    }
    if let Some(map) = map {
        return Ok(Fact { parsed: map.parse(json, clock)?, unknown_fields: Vec::new() });
    }
    let fault = match parse_json(json, clock) {
        Ok(parsed) => return Ok(Fact { parsed, unknown_fields: Vec::new() }),
        Err(fault) => fault,
    };
    // This is slower, but such messages may be all that a producer sends.
    let Ok(mut known) = serde_json::from_slice::<Value>(json) else { return Err(fault) };
    let unknown_fields = form::remove_unknown(&mut known);
    if unknown_fields.is_empty() {
        return Err(fault);
    }
    Ok(Fact { parsed: parse_json(known.to_string().as_bytes(), clock)?, unknown_fields })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ingest::record::Record;

    const PURCHASE: &str = r#"{"externalId":"p","customerExternalId":"c","purchasedAt":"2026-01-01T00:00:00Z","total":"1","currency":"EUR"}"#;

    fn message(value: Option<&[u8]>) -> Message {
        let value = value.map(<[u8]>::to_vec);
        Message { topic: "t".into(), partition: 0, offset: 0, key: None, headers: Vec::new(), value, sent_at: None }
    }

    fn parsed(value: impl AsRef<[u8]>) -> Result<Fact, String> {
        parse(&message(Some(value.as_ref())), None, &Clock::System)
    }

    #[test]
    fn unknown_fields_are_ignored_and_counted() {
        assert!(parsed(PURCHASE).unwrap().unknown_fields.is_empty());
        let mut value: Value = serde_json::from_str(PURCHASE).unwrap();
        value["colour"] = json!({ "deep": [1] });
        value["lines"] = json!([{ "sku": "a", "amount": "1", "weight": 2, "size": "L" }]);
        let fact = parsed(value.to_string()).unwrap();
        assert_eq!(fact.unknown_fields, ["colour", "lines[].size", "lines[].weight"]);
        assert!(matches!(fact.parsed.record, Record::Purchase(purchase) if purchase.purchase.lines.len() == 1));
        let refund =
            json!({ "refund": { "externalId": "r", "purchaseExternalId": "p", "refundedAt": "x", "by": 1 }, "v": 2 });
        assert_eq!(parsed(refund.to_string()).unwrap().unknown_fields, ["v", "refund.by"]);
    }

    #[test]
    fn the_mark_of_a_schema_registry_is_skipped() {
        assert!(parsed([b"\0\0\0\x01\x02", PURCHASE.as_bytes()].concat()).is_ok());
        for value in [&b"\0"[..], b"\0\0\0\0\0", b"\0\0\0\x01\x02\x0a\x06purchase"] {
            assert!(parsed(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn poison_is_refused_with_a_reason() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let large = "x".repeat(MAX_ROW_BYTES + 1);
        let with = |field: &str, value: &str| {
            let mut purchase: Value = serde_json::from_str(PURCHASE).unwrap();
            purchase[field] = value.into();
            purchase.to_string()
        };
        let nul = with("externalId", "a\0b");
        let overflow = with("total", "99999999999999999999");
        let cases: [(&[u8], &str); 12] = [
            (b"", "is empty"),
            (b"  \n", "is empty"),
            (b"null", "write an object"),
            (b"\xff\xfe", "expected value"),
            (b"{\"externalId\": \"\xff\"}", "invalid unicode"),
            (deep.as_bytes(), "recursion limit"),
            (large.as_bytes(), "the limit is"),
            (nul.as_bytes(), "externalId"),
            (overflow.as_bytes(), "total"),
            (&with("total", "NaN").into_bytes(), "total"),
            (b"{\"total\": NaN}", "expected"),
            (b"{\"total\": \"1\"}", "externalId: is missing"),
        ];
        for (value, reason) in cases {
            let told = parsed(value).unwrap_err();
            assert!(told.contains(reason), "{:?}: {told}", String::from_utf8_lossy(&value[..value.len().min(40)]));
        }
        assert!(parse(&message(None), None, &Clock::System).unwrap_err().contains("tombstone"));
    }
}
