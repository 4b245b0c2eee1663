//! Checks purchases that a shop sends, and hands them to the recorder. Reads purchases.

use std::collections::HashMap;

use entity::{CustomerId, purchase, refund};
use schemars::JsonSchema;
use sea_orm::{EntityTrait, QueryFilter};
use serde::Deserialize;

use super::App;
use super::clock::Clock;
use super::customer::scope;
use super::error::{Check, Error, UserErrorCode};
use super::reading::page::{Filter, List, Listed, Page, Part, Position, Slice, of_customers};
use super::recorder::fact::{Fact, Kept, MAX_LINES, NewPurchase, Recorded};
use super::rows::{Kind, any};
use super::stored::history::refunds;
use super::stored::purchase::with_refunds;
use super::viewer::{Reader, Shop};
use crate::engine::account::MAX_EXACT;
use crate::engine::money::{Currency, MAX_MINOR, MoneyError};
use crate::engine::purchase::{Key, Line, Purchase, Rounding, RunningSum};
use crate::engine::time::{Instant, parse_instant};

/// How far the instants of a fact may be ahead of the server's clock, in µs.
pub const MAX_AHEAD: i64 = 5 * 60 * 1_000_000;

/// Why an instant is refused that is further ahead than [`MAX_AHEAD`].
pub(super) const AHEAD: &str =
    "must not be more than 5 minutes ahead of the server's clock: check your clock and the UTC offset";

/// A purchase as the shop sent it, by GraphQL, in a file or in a message.
#[derive(Clone, Debug, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "PurchaseFact")]
pub struct RecordPurchase {
    /// The shop's id of the order.
    pub external_id: String,
    /// The shop's id of the customer.
    pub customer_external_id: String,
    /// RFC 3339 with an offset.
    pub purchased_at: String,
    /// What the customer paid in all, as a decimal such as 19.99.
    pub total: String,
    /// ISO 4217.
    pub currency: String,
    /// The sum of all refunds so far, if the shop states it with the purchase.
    #[serde(default)]
    pub refunded: Option<String>,
    /// Until when that sum includes the refunds.
    #[serde(default)]
    pub refunded_until: Option<String>,
    /// Where the purchase was made.
    #[serde(default)]
    pub channel: Option<String>,
    #[serde(default)]
    pub lines: Option<Vec<PurchaseLine>>,
    /// Grows with each edit of the order. Of several contents, the one with the greatest counts.
    #[serde(default)]
    pub revision: i64,
}

/// A line as the shop sent it.
#[derive(Clone, Debug, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PurchaseLine {
    pub sku: String,
    #[serde(default)]
    pub category: Option<String>,
    #[serde(default = "one")]
    pub quantity: i32,
    pub amount: String,
}

fn one() -> i32 {
    1
}

impl RecordPurchase {
    /// Like [`Self::check`], at the current time of the clock. If the clock may be wrong and the only fault is that the purchase
    /// is in the future, fails with [`Error::ClockInDoubt`] instead.
    pub fn check_by(self, clock: &Clock, path: &[String]) -> Result<NewPurchase, Error> {
        let new = self.check(path, clock.now())?;
        if !new.ahead.is_empty() && clock.is_in_doubt() { Err(Error::ClockInDoubt) } else { Ok(new) }
    }

    /// Checks everything that can be checked without the database. Instants that are ahead of `now` are noted in
    /// [`NewPurchase::ahead`], because a duplicate is recognised before anything is refused. `path` is the path of
    /// the input; the paths of errors begin with it.
    pub fn check(self, path: &[String], now: Instant) -> Result<NewPurchase, Error> {
        let (mut check, mut ahead) = (Check::at(path), Check::default());
        let external_id = check.external_id(&["externalId"], self.external_id);
        let customer_external_id = check.external_id(&["customerExternalId"], self.customer_external_id);
        let at = check.parsed(&["purchasedAt"], parse_instant(&self.purchased_at), |_| UserErrorCode::Invalid);
        if at.is_some_and(|at| at < Instant::EPOCH) {
            check.fail(&["purchasedAt"], UserErrorCode::OutOfRange, "must not be before 1970");
        }
        if at.is_some_and(|at| at > now.plus(MAX_AHEAD)) {
            ahead.fail(&["purchasedAt"], UserErrorCode::PurchasedInFuture, AHEAD);
        }
        if !(0..=MAX_EXACT).contains(&self.revision) {
            check.fail(&["revision"], UserErrorCode::OutOfRange, "must be from 0 to 2^53 − 1");
        }
        let currency = check.currency(&["currency"], &self.currency);
        let total = currency.and_then(|currency| check.not_negative(&["total"], currency, &self.total));
        let sum = sum(&mut check, currency, self.refunded.as_deref(), self.refunded_until.as_deref());
        let until = sum.as_ref().and_then(|sum| sum.until);
        if until.is_some_and(|until| until > now.plus(MAX_AHEAD)) {
            ahead.fail(&["refundedUntil"], UserErrorCode::Invalid, AHEAD);
        }
        if let Some(channel) = &self.channel {
            check.text(&["channel"], channel);
        }
        let lines = self.lines.unwrap_or_default();
        if lines.len() > MAX_LINES {
            check.fail(
                &["lines"],
                UserErrorCode::OutOfRange,
                format!("must have at most {MAX_LINES} lines: merge lines of the same sku and category"),
            );
        }
        let mut checked = Vec::with_capacity(lines.len().min(MAX_LINES));
        for (index, line) in lines.into_iter().take(MAX_LINES).enumerate() {
            checked.extend(line.check(&mut check, index, currency));
        }
        let purchase = match (external_id, at, currency, total) {
            (Some(external_id), Some(at), Some(currency), Some(total)) => Some(Purchase {
                key: Key { at, external_id: external_id.into() },
                total,
                currency,
                channel: self.channel,
                lines: checked,
                refunds: Vec::new(),
                sums: sum.map(|sum| RunningSum { revision: self.revision, ..sum }).into_iter().collect(),
                set_revision: 0,
                replaced_at: None,
            }),
            _ => None,
        };
        let (new, revision) = (purchase.zip(customer_external_id), self.revision);
        let ahead = ahead.into_faults(&mut check);
        let new = new.map(|(purchase, customer_external_id)| NewPurchase {
            customer_external_id,
            revision,
            purchase,
            ahead,
            kept: Kept::default(),
        });
        check.finish(new)
    }
}

/// Checks a running sum and the instant up to which it was counted. Returns `None` if no sum was stated.
fn sum(
    check: &mut Check,
    currency: Option<Currency>,
    refunded: Option<&str>,
    until: Option<&str>,
) -> Option<RunningSum> {
    let until = until.and_then(|until| {
        let at = check.parsed(&["refundedUntil"], parse_instant(until), |_| UserErrorCode::Invalid)?;
        if refunded.is_none() {
            check.fail(&["refundedUntil"], UserErrorCode::Invalid, "must not be given without refunded");
        }
        Some(at)
    });
    let (currency, refunded) = (currency?, refunded?);
    let amount = check.not_negative(&["refunded"], currency, refunded)?;
    Some(RunningSum { revision: 0, amount, currency, until, set_revision: 0 })
}

impl PurchaseLine {
    fn check(self, check: &mut Check, index: usize, currency: Option<Currency>) -> Option<Line> {
        let index = index.to_string();
        check.text(&["lines", &index, "sku"], &self.sku);
        if let Some(category) = &self.category {
            check.text(&["lines", &index, "category"], category);
        }
        if self.quantity < 1 {
            check.fail(&["lines", &index, "quantity"], UserErrorCode::OutOfRange, "must be at least 1");
        }
        let amount = check.not_negative(&["lines", &index, "amount"], currency?, &self.amount)?;
        Some(Line { sku: self.sku, category: self.category, quantity: self.quantity, amount })
    }
}

impl Check {
    /// Parses the code of an ISO 4217 currency. If it is unknown, notes a fault and returns `None`.
    pub fn currency(&mut self, path: &[&str], code: &str) -> Option<Currency> {
        self.parsed(path, Currency::parse(code), |_: &MoneyError| UserErrorCode::UnknownCurrency)
    }

    fn not_negative(&mut self, path: &[&str], currency: Currency, text: &str) -> Option<i64> {
        let amount = self.amount(path, currency, text)?;
        if (0..=MAX_MINOR).contains(&amount) {
            return Some(amount);
        }
        self.fail(
            path,
            UserErrorCode::OutOfRange,
            "must not be negative: record returns as refunds or in `refunded`, and subtract discounts from the lines",
        );
        None
    }
}

/// Records purchases. The queue accepts all of them or none. Each purchase has a result of its own, in the order of the inputs.
/// Each input comes with its path; the paths of errors begin with it.
pub async fn record(
    app: &App,
    shop: &Shop,
    inputs: Vec<(Vec<String>, RecordPurchase)>,
) -> Result<Vec<Result<Recorded, Error>>, Error> {
    let checked = inputs
        .into_iter()
        .map(|(path, input)| {
            let fact = input.check_by(&app.clock, &path).map(Fact::Purchase);
            (path, fact)
        })
        .collect();
    app.recorder.record_checked(shop.who(), checked).await
}

impl Listed for purchase::Model {
    const LIST: List = List {
        name: "purchase",
        table: "purchase",
        order: &[("purchased_at", Kind::Int), ("external_id", Kind::Text)],
        descending: true,
    };

    fn position(&self) -> Position {
        [Part::Int(self.purchased_at), Part::Text(self.external_id.clone())].into()
    }
}

/// Loads the same page of the purchases of each customer.
pub async fn of_customers_by_page(
    app: &App,
    customers: Vec<CustomerId>,
    page: &Page,
) -> Result<HashMap<CustomerId, Slice<purchase::Model>>, Error> {
    of_customers(app.database.read(), customers, page, &Filter::default(), |row: &purchase::Model| row.customer_id)
        .await
}

/// Finds purchases by external id. Leaves out those that the reader may not see.
pub async fn find(
    app: &App,
    reader: Reader<'_>,
    external_ids: Vec<String>,
) -> Result<HashMap<String, purchase::Model>, Error> {
    let scope = scope(app, reader).await?;
    let found = by_external_ids(app, external_ids).await?;
    Ok(found.into_iter().filter(|(_, row)| scope.sees(row.customer_id)).collect())
}

/// Loads purchases by external id without checking rights: for ledger entries and payloads that the caller already sees.
pub async fn by_external_ids(app: &App, external_ids: Vec<String>) -> Result<HashMap<String, purchase::Model>, Error> {
    let named = any(app.database.backend(), purchase::Column::ExternalId, external_ids);
    let rows = purchase::Entity::find().filter(named).all(app.database.read()).await?;
    Ok(rows.into_iter().map(|row| (row.external_id.clone(), row)).collect())
}

/// Loads all refunds of these purchases, newest first.
pub async fn refunds_of(app: &App, external_ids: Vec<String>) -> Result<HashMap<String, Vec<refund::Model>>, Error> {
    let mut refunds = refunds(app.database.read(), external_ids).await?;
    for rows in refunds.values_mut() {
        rows.sort_by(|a, b| (b.refunded_at, &b.external_id).cmp(&(a.refunded_at, &a.external_id)));
    }
    Ok(refunds)
}

/// What is left of a purchase after all its refunds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// The net of the purchase, in minor units.
    pub total: i64,
    /// What was taken back in all, in minor units.
    pub refunded: i128,
    /// What each refund takes back, in minor units.
    pub refunds: Vec<i128>,
    /// The lines of the purchase, each with its net in minor units.
    pub lines: Vec<(Line, i64)>,
    /// The currency of all amounts.
    pub currency: Currency,
}

/// Computes the net of a purchase and of its lines.
pub fn net(row: &purchase::Model, refunds: &[refund::Model]) -> Result<Net, Error> {
    let purchase = with_refunds(row, refunds)?;
    let (total, left, currency) = (purchase.net(), purchase.net_lines(Rounding::Down), purchase.currency);
    let (refunded, refunds) =
        (purchase.refunded(), purchase.refunds.iter().map(|refund| purchase.amount_of(refund)).collect());
    Ok(Net { total, refunded, refunds, lines: purchase.lines.into_iter().zip(left).collect(), currency })
}
