//! Says in which form a value of a JSON line must be written. The words are those that the GraphQL API uses for variables.

use serde_json::Value;

use crate::engine::money::{CURRENCY_FORM, DECIMAL_FORM};
use crate::engine::time::INSTANT_FORM;

/// The maximum number of faults that are told of one line.
const MAX_TOLD: usize = 10;
const ID_FORM: &str = "write an id as text, such as \"1001\"";
const TEXT_FORM: &str = "write a text in quotes";
const FLAG_FORM: &str = "write true or false without quotes";
const WHOLE_FORM: &str = "write a whole number without quotes, such as 2";

/// The form of a value.
#[derive(Clone, Copy)]
enum Form {
    Id,
    Text,
    Decimal,
    Instant,
    Currency,
    Whole,
    Flag,
    Object(&'static [Field]),
    List(&'static [Field]),
}

struct Field {
    name: &'static str,
    form: Form,
    is_required: bool,
}

const fn required(name: &'static str, form: Form) -> Field {
    Field { name, form, is_required: true }
}

const fn optional(name: &'static str, form: Form) -> Field {
    Field { name, form, is_required: false }
}

const LINE: &[Field] = &[
    required("sku", Form::Text),
    optional("category", Form::Text),
    optional("quantity", Form::Whole),
    required("amount", Form::Decimal),
];
const PURCHASE: &[Field] = &[
    required("externalId", Form::Id),
    required("customerExternalId", Form::Id),
    required("purchasedAt", Form::Instant),
    required("total", Form::Decimal),
    required("currency", Form::Currency),
    optional("refunded", Form::Decimal),
    optional("refundedUntil", Form::Instant),
    optional("channel", Form::Text),
    optional("lines", Form::List(LINE)),
    optional("revision", Form::Whole),
];
const REFUND_LINE: &[Field] = &[required("sku", Form::Text), required("amount", Form::Decimal)];
const REFUND: &[Field] = &[
    required("externalId", Form::Id),
    required("purchaseExternalId", Form::Id),
    required("refundedAt", Form::Instant),
    optional("amount", Form::Decimal),
    optional("lines", Form::List(REFUND_LINE)),
];
const ADJUSTMENT: &[Field] = &[
    required("customerExternalId", Form::Id),
    required("points", Form::Whole),
    required("reason", Form::Text),
    required("idempotencyKey", Form::Id),
    optional("expiresAt", Form::Instant),
    optional("allowNegative", Form::Flag),
];
const REFUND_RECORD: &[Field] = &[required("refund", Form::Object(REFUND))];
const ADJUSTMENT_RECORD: &[Field] = &[required("adjustment", Form::Object(ADJUSTMENT))];

/// Returns an error that names each value of a line with a wrong form, ten at most. Whether a value is allowed is checked elsewhere.
pub(super) fn check(line: &Value) -> Result<(), String> {
    let mut faults = Vec::new();
    walk("", line, Form::Object(record(line)), &mut faults);
    told(&faults)
}

/// Returns the fields of what the line records.
fn record(line: &Value) -> &'static [Field] {
    match line {
        Value::Object(fields) if fields.contains_key("refund") => REFUND_RECORD,
        Value::Object(fields) if fields.contains_key("adjustment") => ADJUSTMENT_RECORD,
        _ => PURCHASE,
    }
}

/// Removes the fields that have no meaning, with all that is in them. Returns their paths, such as `lines[].weight`.
pub(super) fn remove_unknown(message: &mut Value) -> Vec<String> {
    let mut removed = Vec::new();
    remove_in("", message, Form::Object(record(message)), &mut removed);
    removed
}

fn remove_in(path: &str, value: &mut Value, form: Form, removed: &mut Vec<String>) {
    match (form, value) {
        (Form::Object(fields), Value::Object(values)) => {
            values.retain(|name, _| {
                let is_known = fields.iter().any(|field| field.name == name);
                if !is_known {
                    removed.push(inside(path, name));
                }
                is_known
            });
            for (name, value) in values {
                if let Some(field) = fields.iter().find(|field| field.name == name)
                    && matches!(field.form, Form::Object(_) | Form::List(_))
                {
                    remove_in(&inside(path, name), value, field.form, removed);
                }
            }
        }
        (Form::List(fields), Value::Array(items)) => {
            let path = format!("{path}[]");
            for item in items {
                remove_in(&path, item, Form::Object(fields), removed);
            }
        }
        _ => {}
    }
}

/// Returns the path of a field of the object at `path`.
fn inside(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Like [`check`], for a list of lines of a purchase that stands by itself.
pub(super) fn check_lines(lines: &Value) -> Result<(), String> {
    let mut faults = Vec::new();
    walk("lines", lines, Form::List(LINE), &mut faults);
    told(&faults)
}

fn told(faults: &[String]) -> Result<(), String> {
    if faults.is_empty() { Ok(()) } else { Err(faults[..faults.len().min(MAX_TOLD)].join("; ")) }
}

fn walk(path: &str, value: &Value, form: Form, faults: &mut Vec<String>) {
    let expected = match (form, value) {
        (Form::Id | Form::Text | Form::Currency | Form::Decimal | Form::Instant, Value::String(_)) => return,
        // The limits are checked with the other values.
        (Form::Whole, Value::Number(number)) if number.is_i64() => return,
        (Form::Flag, Value::Bool(_)) => return,
        (Form::Object(fields), Value::Object(_)) => return walk_fields(path, value, fields, faults),
        (Form::List(fields), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{path}[{index}]"), item, Form::Object(fields), faults);
            }
            return;
        }
        (Form::Id, _) => ID_FORM,
        (Form::Text, _) => TEXT_FORM,
        (Form::Decimal, _) => DECIMAL_FORM,
        (Form::Instant, _) => INSTANT_FORM,
        (Form::Currency, _) => CURRENCY_FORM,
        (Form::Whole, _) => WHOLE_FORM,
        (Form::Flag, _) => FLAG_FORM,
        (Form::Object(_), _) => "write an object, such as {\"name\": \"value\"}",
        (Form::List(_), _) => "write a list of objects, such as [{\"name\": \"value\"}]",
    };
    faults.push(if path.is_empty() { expected.to_owned() } else { format!("{path}: {expected}") });
}

fn walk_fields(path: &str, value: &Value, fields: &[Field], faults: &mut Vec<String>) {
    let Value::Object(values) = value else { return };
    for (name, value) in values {
        match fields.iter().find(|field| field.name == name) {
            Some(field) if value.is_null() && !field.is_required => {}
            Some(field) => walk(&inside(path, name), value, field.form, faults),
            None => {
                let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
                let at = inside(path, name);
                faults.push(format!("{at}: there is no such field: the fields are {}", known.join(", ")));
            }
        }
    }
    for field in fields.iter().filter(|field| field.is_required && !values.contains_key(field.name)) {
        faults.push(format!("{}: is missing", inside(path, field.name)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::app::adjustment::AdjustPoints;
    use crate::app::purchase::{PurchaseLine, RecordPurchase};
    use crate::app::refund::{RecordRefund, RecordRefundLine};

    /// An object with all fields of these forms.
    fn example(fields: &[Field]) -> Value {
        let value = |form| match form {
            Form::Whole => json!(1),
            Form::Flag => json!(true),
            Form::Object(fields) => example(fields),
            Form::List(fields) => json!([example(fields)]),
            _ => json!("1"),
        };
        Value::Object(fields.iter().map(|field| (field.name.to_owned(), value(field.form))).collect())
    }

    /// The patterns name all fields of the structs, so a new field does not compile until it is here and in the forms.
    #[test]
    fn the_forms_have_the_fields_of_what_is_parsed() {
        let RecordPurchase {
            external_id: _,
            customer_external_id: _,
            purchased_at: _,
            total: _,
            currency: _,
            refunded: Some(_),
            refunded_until: Some(_),
            channel: Some(_),
            lines: Some(lines),
            revision: 1,
        } = serde_json::from_value(example(PURCHASE)).unwrap()
        else {
            panic!("a field of a purchase has no form");
        };
        let [PurchaseLine { sku: _, category: Some(_), quantity: 1, amount: _ }] = &lines[..] else {
            panic!("a field of a line has no form");
        };
        let RecordRefund {
            external_id: _,
            purchase_external_id: _,
            refunded_at: _,
            amount: Some(_),
            lines: Some(lines),
        } = serde_json::from_value(example(REFUND)).unwrap()
        else {
            panic!("a field of a refund has no form");
        };
        assert!(matches!(&lines[..], [RecordRefundLine { sku: _, amount: _ }]));
        let AdjustPoints {
            customer_external_id: _,
            points: _,
            reason: _,
            idempotency_key: _,
            expires_at: Some(_),
            allow_negative: true,
        } = serde_json::from_value(example(ADJUSTMENT)).unwrap()
        else {
            panic!("a field of an adjustment has no form");
        };
    }

    #[test]
    fn each_fault_is_told_with_its_place_and_form() {
        let line = json!({
            "externalId": 1001, "customerExternalId": "c", "purchasedAt": 5, "total": 19.99, "colour": "red",
            "lines": [{"sku": "a", "amount": "1"}, {"sku": 7, "amount": 2, "quantity": "3"}], "channel": null,
        });
        let told = check(&line).unwrap_err();
        for expected in [
            "externalId: write an id as text, such as \"1001\"",
            "purchasedAt: write an instant as RFC 3339 with an offset",
            "total: write a decimal as a string, such as \"19.99\"",
            "colour: there is no such field: the fields are externalId, ",
            "lines[1].sku: write a text in quotes",
            "lines[1].amount: write a decimal as a string, such as \"19.99\"",
            "lines[1].quantity: write a whole number without quotes, such as 2",
            "currency: is missing",
        ] {
            assert!(told.contains(expected), "{expected}: {told}");
        }
        assert!(!told.contains("channel:") && !told.contains("lines[0]"), "{told}");
        assert_eq!(
            check(&json!({"refund": {"externalId": "r", "purchaseExternalId": "p", "refundedAt": "x"}})),
            Ok(())
        );
        let told = check(&json!({"refund": {}, "adjustment": {}})).unwrap_err();
        assert!(
            told.contains("refund.externalId: is missing") && told.contains("adjustment: there is no such"),
            "{told}"
        );
        let many: Vec<_> = (0..50).map(|number| json!({"sku": number, "amount": "1"})).collect();
        assert_eq!(check(&json!({"lines": many})).unwrap_err().split("; ").count(), 10);
    }
}
