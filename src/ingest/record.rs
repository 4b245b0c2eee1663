//! What a line of a file records, checked as far as that is possible without the database. Parses lines of JSON.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::form;
use crate::app::adjustment::AdjustPoints;
use crate::app::clock::Clock;
use crate::app::purchase::RecordPurchase;
use crate::app::recorder::fact::{Kept, NewAdjustment, NewPurchase};
use crate::app::refund::RecordRefund;

/// What a line, or the rows of an order, records.
#[derive(Debug)]
pub enum Record {
    /// A purchase that passed all checks.
    Purchase(Box<NewPurchase>),
    /// A refund. It can be checked only once its purchase is found.
    Refund(Box<RecordRefund>),
    /// An adjustment of points, such as an opening balance.
    Adjustment(Box<NewAdjustment>),
    /// Nothing, by a rule.
    LeftOut(LeftOut),
}

/// An order that is left out by a rule. This is no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The rule. Orders are counted by it.
    pub reason: String,
    /// The external id of the order.
    pub order: String,
}

/// A line that was parsed.
#[derive(Debug)]
pub struct Parsed {
    pub record: Record,
    /// Refunds that the rows of a purchase state beside it.
    pub refunds: Vec<RecordRefund>,
    /// The customer of the purchase has no account.
    pub is_guest: bool,
    /// Why the purchase is recorded with a total of 0, if a rule says so.
    pub void: Option<String>,
}

impl From<Record> for Parsed {
    fn from(record: Record) -> Self {
        Self { record, refunds: Vec::new(), is_guest: false, void: None }
    }
}

/// Checks a purchase. `kept` is what it leaves as it is recorded. `clock` is used to refuse purchases from the future.
pub(super) fn check(purchase: RecordPurchase, kept: Kept, clock: &Clock) -> Result<Parsed, String> {
    match purchase.check_by(clock, &[]) {
        Ok(purchase) => Ok(Record::Purchase(Box::new(NewPurchase { kept, ..purchase })).into()),
        Err(error) => Err(error.to_string()),
    }
}

/// A line with a refund: `{"refund": {…}}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RefundFact")]
pub(super) struct RefundLine {
    refund: RecordRefund,
}

/// A line with an adjustment: `{"adjustment": {…}}`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AdjustmentFact")]
pub(super) struct AdjustmentLine {
    adjustment: AdjustPoints,
}

/// Parses a line of JSON: a purchase, a refund or an adjustment. `clock` is used to refuse purchases from the future.
pub(super) fn parse_json(line: &[u8], clock: &Clock) -> Result<Parsed, String> {
    let not_a_purchase = match serde_json::from_slice::<RecordPurchase>(line) {
        Ok(purchase) if has_only_lines_as_list(line, purchase.lines.is_some()) => {
            return check(purchase, Kept::default(), clock);
        }
        Ok(_) => None,
        Err(error) => Some(error),
    };
    // This is slower, but tells all faults, and where they are.
    let value: Value = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
    form::check(&value)?;
    if value.get("refund").is_some() {
        let line: RefundLine = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
        return Ok(Record::Refund(Box::new(line.refund)).into());
    }
    if value.get("adjustment").is_some() {
        let line: AdjustmentLine = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
        let adjustment = line.adjustment.check(&[]).map_err(|error| error.to_string())?;
        return Ok(Record::Adjustment(Box::new(adjustment)).into());
    }
    match not_a_purchase {
        Some(error) => Err(malformed(&error)),
        // A text contains a bracket.
        None => {
            let purchase = serde_json::from_slice(line).map_err(|error| malformed(&error))?;
            check(purchase, Kept::default(), clock)
        }
    }
}

/// Whether the list of lines is the only list. serde takes a list where an object is expected, for its fields in order; such lines
/// are refused. A bracket in a text makes this `false` too.
fn has_only_lines_as_list(line: &[u8], has_lines: bool) -> bool {
    line.iter().filter(|byte| **byte == b'[').count() == usize::from(has_lines)
}

fn malformed(error: &serde_json::Error) -> String {
    // serde_json counts lines within this one line, so only the column helps.
    let text = error.to_string();
    text.split(" at line 1").next().unwrap_or(&text).to_owned() + &format!(" (column {})", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positional_lists_are_refused_and_texts_may_have_brackets() {
        let parse = |line: &str| parse_json(line.as_bytes(), &Clock::System).map(|_| ());
        let lists = [
            r#"["p","c","2026-01-01T00:00:00Z","1","EUR"]"#,
            r#"{"externalId":"p","customerExternalId":"c","purchasedAt":"2026-01-01T00:00:00Z","total":"1","currency":"EUR","lines":[["tea",null,1,"1"]]}"#,
            r#"{"refund":["r","p","2026-01-01T00:00:00Z"]}"#,
            r#"{"adjustment":["c",5,"hello","k"]}"#,
        ];
        for line in lists {
            assert!(parse(line).unwrap_err().contains("write an object"), "{line}: {:?}", parse(line));
        }
        let brackets = r#"{"externalId":"[p]","customerExternalId":"c","purchasedAt":"2026-01-01T00:00:00Z","total":"1","currency":"EUR","lines":[{"sku":"[[","amount":"1"}]}"#;
        assert_eq!(parse(brackets), Ok(()));
    }
}
