//! Compares what was sent with what is recorded under the same key. If nothing differs, the fact is a duplicate. Otherwise it is a
//! conflict, which names each field that differs, with both values.

use std::collections::{BTreeMap, BTreeSet};

use entity::{purchase_revision, refund};

use super::fact::{AdjustmentRequest, NewAdjustment, Refusal};
use crate::app::error::{Error, UserError, UserErrorCode};
use crate::app::stored::{purchase_revision as revisions, refund as refunds};
use crate::engine::external_id::is_erased;
use crate::engine::money::Currency;
use crate::engine::purchase::{Line, Refund};
use crate::engine::time::Instant;

/// The maximum number of lines that a conflict lists of each side.
const LISTED_LINES: usize = 5;

/// An amount of money in minor units.
pub(super) type Amount = (i64, Currency);

/// The fields in which two contents under one key differ.
#[derive(Default)]
pub(super) struct Differences(Vec<UserError>);

impl Differences {
    /// Returns the refusal of a conflict, or `None` if nothing differs.
    pub(super) fn into_conflict(self) -> Option<Refusal> {
        (!self.0.is_empty()).then(|| Refusal::of(self.0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this field is the only one that differs.
    pub(super) fn only(&self, field: &str) -> bool {
        self.0.len() == 1 && self.0.iter().all(|error| error.path == [field])
    }

    fn compare(&mut self, field: &str, sent: &str, recorded: &str) {
        if sent != recorded {
            self.add(field, &format!("was recorded as {recorded} under this id, but {sent} was sent"));
        }
    }

    fn add(&mut self, field: &str, message: &str) {
        let (path, code) = (vec![field.to_owned()], UserErrorCode::IdempotencyConflict);
        self.0.push(UserError { path, code, message: message.to_owned() });
    }
}

/// Compares two contents of a purchase, whatever their revisions. Lines are compared as a multiset.
pub(super) fn of_purchases(
    sent: &purchase_revision::Model,
    recorded: &purchase_revision::Model,
) -> Result<Differences, Error> {
    let mut differences = Differences::default();
    // The recorded content may name a customer that was erased, whose name is unknown.
    if !is_erased(&recorded.customer_external_id) {
        differences.compare("customerExternalId", &sent.customer_external_id, &recorded.customer_external_id);
    }
    differences.compare("purchasedAt", &instant(sent.purchased_at), &instant(recorded.purchased_at));
    let (currency, recorded_currency) = (revisions::currency(sent)?, revisions::currency(recorded)?);
    let total = Some((sent.total, currency));
    compare_amounts(&mut differences, "total", total, Some((recorded.total, recorded_currency)));
    differences.compare("currency", &sent.currency, &recorded.currency);
    let of = |amount: Option<i64>, currency| amount.map(|amount| (amount, currency));
    let (refunded, recorded_refunded) = (of(sent.refunded, currency), of(recorded.refunded, recorded_currency));
    compare_amounts(&mut differences, "refunded", refunded, recorded_refunded);
    let until = |row: &purchase_revision::Model| or_null(row.refunded_until.map(instant));
    differences.compare("refundedUntil", &until(sent), &until(recorded));
    let channel = |row: &purchase_revision::Model| or_null(row.channel.clone());
    differences.compare("channel", &channel(sent), &channel(recorded));
    if sent.lines != recorded.lines {
        let counted = |row: &purchase_revision::Model, currency: Currency| -> Result<BTreeMap<String, usize>, Error> {
            let broken = |error| Error::Internal(format!("purchase {}: {error}", row.external_id));
            let lines: Vec<Line> = serde_json::from_str(&row.lines).map_err(broken)?;
            let mut counted = BTreeMap::new();
            for line in lines {
                *counted.entry(show_line(&line, currency)).or_default() += 1;
            }
            Ok(counted)
        };
        compare_lines(&mut differences, &counted(sent, currency)?, &counted(recorded, recorded_currency)?);
    }
    Ok(differences)
}

/// Compares two refunds. Lines are added up by sku. `totals` are those of the contents of the purchase; an earlier release recorded
/// a refund of the whole total alike, whether the shop gave the amount or not.
pub(super) fn of_refunds(
    sent: &refund::Model,
    recorded: &refund::Model,
    totals: &[Amount],
) -> Result<Differences, Error> {
    let mut differences = Differences::default();
    differences.compare("purchaseExternalId", &sent.purchase_external_id, &recorded.purchase_external_id);
    differences.compare("refundedAt", &instant(sent.refunded_at), &instant(recorded.refunded_at));
    let (sent_refund, recorded_refund) = (refunds::from_row(sent)?, refunds::from_row(recorded)?);
    let amount = |refund: &Refund| refund.amount.map(|amount| (amount, refund.currency));
    let is_total = |amount: Amount| totals.iter().any(|total| shown(Some(*total)) == shown(Some(amount)));
    let may_differ = recorded.currency.is_some() || amount(&sent_refund).is_some_and(|amount| !is_total(amount));
    // The amount of a refund with lines is their sum.
    if may_differ && sent_refund.lines.is_empty() && recorded_refund.lines.is_empty() {
        compare_amounts(&mut differences, "amount", amount(&sent_refund), amount(&recorded_refund));
    }
    let by_sku = |refund: &Refund| {
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        for line in &refund.lines {
            *sums.entry(&line.sku).or_default() += line.amount;
        }
        let show = |(sku, amount): (&str, i64)| (format!("{sku}: {}", decimal(amount, refund.currency)), 1);
        sums.into_iter().map(show).collect::<BTreeMap<String, usize>>()
    };
    compare_lines(&mut differences, &by_sku(&sent_refund), &by_sku(&recorded_refund));
    Ok(differences)
}

/// Compares an adjustment with what is recorded under its idempotency key.
pub(super) fn of_adjustments(sent: &NewAdjustment, recorded: &str) -> Differences {
    let mut differences = Differences::default();
    if sent.request() == recorded {
        return differences;
    }
    match NewAdjustment::parse_request(recorded) {
        Some(AdjustmentRequest { customer, points, reason, expires_at, allow_negative }) => {
            differences.compare("customerExternalId", &sent.customer_external_id, &customer);
            differences.compare("points", &sent.points.to_string(), &points.to_string());
            differences.compare("reason", &sent.reason, &reason);
            let shown = |at: Option<Instant>| or_null(at.map(|at| at.to_string()));
            differences.compare("expiresAt", &shown(sent.expires_at), &shown(expires_at.map(Instant)));
            differences.compare("allowNegative", &sent.allow_negative.to_string(), &allow_negative.to_string());
        }
        None => differences.add("idempotencyKey", "was used before for another mutation"),
    }
    differences
}

fn compare_amounts(differences: &mut Differences, field: &str, sent: Option<Amount>, recorded: Option<Amount>) {
    differences.compare(field, &shown(sent), &shown(recorded));
}

fn shown(amount: Option<Amount>) -> String {
    or_null(amount.map(|(amount, currency)| decimal(amount, currency)))
}

fn compare_lines(differences: &mut Differences, sent: &BTreeMap<String, usize>, recorded: &BTreeMap<String, usize>) {
    let differ: BTreeSet<&String> =
        sent.keys().chain(recorded.keys()).filter(|line| sent.get(*line) != recorded.get(*line)).collect();
    if differ.is_empty() {
        return;
    }
    let list = |lines: &BTreeMap<String, usize>| {
        let of_side: Vec<(&String, usize)> =
            differ.iter().filter_map(|line| Some((*line, *lines.get(*line)?))).collect();
        let shown = of_side.iter().take(LISTED_LINES);
        let mut shown: Vec<String> = shown
            .map(|(line, count)| if *count > 1 { format!("{count} times {line}") } else { (*line).clone() })
            .collect();
        if of_side.len() > LISTED_LINES {
            shown.push(format!("{} more", of_side.len() - LISTED_LINES));
        }
        if shown.is_empty() { "none".to_owned() } else { format!("[{}]", shown.join("; ")) }
    };
    let (sent, recorded) = (list(sent), list(recorded));
    differences.add("lines", &format!("differ under this id: recorded were {recorded}, but sent were {sent}"));
}

fn show_line(line: &Line, currency: Currency) -> String {
    let category = line.category.as_ref().map_or_else(String::new, |category| format!(" ({category})"));
    format!("{} × {}{category}: {}", line.quantity, line.sku, decimal(line.amount, currency))
}

/// The decimal number, written in one way: without zeros at its end.
fn decimal(amount: i64, currency: Currency) -> String {
    let text = currency.format(amount.into());
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn instant(micros: i64) -> String {
    Instant(micros).to_string()
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "null".to_owned())
}

#[cfg(test)]
mod tests {
    use entity::CustomerId;

    use super::*;

    fn content(total: i64, currency: &str, lines: &str) -> purchase_revision::Model {
        purchase_revision::Model {
            external_id: "p".to_owned(),
            revision: 0,
            customer_external_id: "ada".to_owned(),
            customer_id: CustomerId(1),
            purchased_at: 0,
            recorded_at: 0,
            total,
            currency: currency.to_owned(),
            channel: None,
            lines: lines.to_owned(),
            refunded: None,
            refunded_until: None,
            set_revision: 1,
            version: 1,
            ended_set_revision: None,
            ended_version: None,
        }
    }

    fn told(sent: &purchase_revision::Model, recorded: &purchase_revision::Model) -> Vec<(String, String)> {
        let Differences(errors) = of_purchases(sent, recorded).unwrap();
        errors.into_iter().map(|error| (error.path.join("."), error.message)).collect()
    }

    #[test]
    fn each_field_that_differs_is_named_with_both_values() {
        let a = r#"{"sku":"a","quantity":1,"amount":500}"#;
        let b = r#"{"sku":"b","category":"food","quantity":2,"amount":1500}"#;
        let recorded = content(2_000, "EUR", &format!("[{a},{b},{b}]"));
        assert!(told(&content(2_000, "EUR", &format!("[{b},{a},{b}]")), &recorded).is_empty());
        let sent = purchase_revision::Model {
            channel: Some("web".to_owned()),
            ..content(2_550, "EUR", &format!("[{a},{b}]"))
        };
        let expected = [
            ("total", "was recorded as 20 under this id, but 25.5 was sent"),
            ("channel", "was recorded as null under this id, but web was sent"),
            (
                "lines",
                "differ under this id: recorded were [2 times 2 × b (food): 15], but sent were [2 × b (food): 15]",
            ),
        ];
        assert_eq!(told(&sent, &recorded), expected.map(|(path, message)| (path.to_owned(), message.to_owned())));
    }

    #[test]
    fn the_same_number_in_another_currency_differs_in_the_currency_alone() {
        let fields: Vec<String> =
            told(&content(20, "JPY", "[]"), &content(2_000, "EUR", "[]")).into_iter().map(|(path, _)| path).collect();
        assert_eq!(fields, ["currency"]);
    }

    #[test]
    fn many_lines_are_cut() {
        let lines: Vec<String> = (0..9).map(|n| format!(r#"{{"sku":"s{n}","quantity":1,"amount":{n}}}"#)).collect();
        let told = told(&content(0, "EUR", &format!("[{}]", lines.join(","))), &content(0, "EUR", "[]"));
        assert!(told[0].1.ends_with("recorded were none, but sent were [1 × s0: 0; 1 × s1: 0.01; 1 × s2: 0.02; 1 × s3: 0.03; 1 × s4: 0.04; 4 more]"), "{told:?}");
    }
}
