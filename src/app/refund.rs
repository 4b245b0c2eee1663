//! Checks refunds that a shop sends, and hands them to the recorder. The check needs the recorded purchase, so the purchase is
//! loaded first.

use std::collections::HashMap;

use entity::{customer, purchase, purchase_revision};
use sea_orm::{EntityTrait, QueryFilter};
use serde::Deserialize;

use super::App;
use super::clock::Clock;
use super::database::Database;
use super::error::{Check, Error, UserErrorCode};
use super::purchase::{AHEAD, MAX_AHEAD};
use super::recorder::fact::{Fact, MAX_LINES, NewRefund, Recorded};
use super::rows::any;
use super::stored::history::{self, Lines};
use super::stored::{purchase as purchases, purchase_revision as revisions};
use super::viewer::Shop;
use crate::engine::external_id::ExternalId;
use crate::engine::money::Currency;
use crate::engine::purchase::{Line, Refund, RefundLine, RefundRefusal, Refundable, check_refund};
use crate::engine::time::{Instant, parse_instant};

/// A refund as the shop sent it, by GraphQL or in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordRefund {
    pub external_id: String,
    pub purchase_external_id: String,
    pub refunded_at: String,
    #[serde(default)]
    pub amount: Option<String>,
    #[serde(default)]
    pub lines: Option<Vec<RecordRefundLine>>,
}

/// A line of a refund as the shop sent it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordRefundLine {
    pub sku: String,
    pub amount: String,
}

/// The recorded purchase of a refund, and its customer.
#[derive(Clone, Debug)]
pub struct RefundedPurchase {
    row: purchase::Model,
    /// The contents of the purchase that do not count. A refund may be of one of them.
    others: Vec<purchase_revision::Model>,
    customer_external_id: ExternalId,
}

/// Finds the purchases of refunds by external id. A purchase that is not recorded is missing.
pub async fn find_purchases(
    database: &Database,
    external_ids: Vec<String>,
) -> Result<HashMap<String, RefundedPurchase>, Error> {
    let backend = database.backend();
    let mut others = history::contents(database.read(), external_ids.iter().cloned(), Lines::Loaded).await?;
    let purchases = purchase::Entity::find()
        .filter(any(backend, purchase::Column::ExternalId, external_ids))
        .all(database.read())
        .await?;
    let ids: Vec<i64> = purchases.iter().map(|purchase| purchase.customer_id.0).collect();
    let customers =
        customer::Entity::find().filter(any(backend, customer::Column::Id, ids)).all(database.read()).await?;
    let names: HashMap<_, _> = customers.into_iter().map(|customer| (customer.id, customer.external_id)).collect();
    let with_customer = |row: purchase::Model| {
        let customer_external_id = ExternalId::stored(names.get(&row.customer_id)?);
        let others = others.remove(&row.external_id).unwrap_or_default();
        Some((row.external_id.clone(), RefundedPurchase { row, others, customer_external_id }))
    };
    Ok(purchases.into_iter().filter_map(with_customer).collect())
}

/// A content of the purchase, against which a refund is checked.
struct Content<'a> {
    total: i64,
    currency: Currency,
    /// JSON: an array of `Line`s.
    lines: &'a str,
}

impl RefundedPurchase {
    /// Returns all contents, the one that counts first.
    fn contents(&self) -> Result<Vec<Content<'_>>, Error> {
        let Self { row, others, .. } = self;
        let mut contents = vec![Content { total: row.total, currency: purchases::currency(row)?, lines: &row.lines }];
        for other in others {
            let currency = revisions::currency(other)?;
            contents.push(Content { total: other.total, currency, lines: &other.lines });
        }
        Ok(contents)
    }
}

impl RecordRefund {
    /// Checks the refund against its purchase, which is `None` if it is not recorded. `path` is the path of the input; the paths
    /// of errors begin with it. If the clock may be wrong and the only fault is that the refund is in the future, fails with
    /// [`Error::ClockInDoubt`].
    pub fn check_by(
        self,
        clock: &Clock,
        path: &[String],
        purchase: Option<&RefundedPurchase>,
    ) -> Result<NewRefund, Error> {
        let new = self.check(path, clock.now(), purchase)?;
        if !new.ahead.is_empty() && clock.is_in_doubt() { Err(Error::ClockInDoubt) } else { Ok(new) }
    }

    fn check(self, path: &[String], now: Instant, purchase: Option<&RefundedPurchase>) -> Result<NewRefund, Error> {
        let (mut check, mut ahead) = (Check::at(path), Check::default());
        let external_id = check.external_id(&["externalId"], self.external_id);
        let purchase_external_id = check.external_id(&["purchaseExternalId"], self.purchase_external_id);
        let refunded_at = check.parsed(&["refundedAt"], parse_instant(&self.refunded_at), |_| UserErrorCode::Invalid);
        if refunded_at.is_some_and(|at| at > now.plus(MAX_AHEAD)) {
            ahead.fail(&["refundedAt"], UserErrorCode::RefundedInFuture, AHEAD);
        }
        let lines = self.lines.unwrap_or_default();
        if lines.len() > MAX_LINES {
            let message = format!("must have at most {MAX_LINES} lines: add up the lines of the same sku");
            check.fail(&["lines"], UserErrorCode::OutOfRange, message);
            return check.finish(None);
        }
        for (index, line) in lines.iter().enumerate() {
            check.text(&["lines", &index.to_string(), "sku"], &line.sku);
        }
        let Some(purchase) = purchase else {
            if check.is_clean() {
                let message = "no such purchase has been recorded: record the purchase, then send the refund again";
                check.fail(&["purchaseExternalId"], UserErrorCode::PurchaseNotFound, message);
            }
            return check.finish(None);
        };
        let (Some(external_id), Some(purchase_external_id), Some(refunded_at)) =
            (external_id, purchase_external_id, refunded_at)
        else {
            return check.finish(None);
        };
        let refund = settle(&mut check, path, &purchase.contents()?, self.amount.as_deref(), &lines)?;
        let customer_external_id = purchase.customer_external_id.clone();
        let ahead = ahead.into_faults(&mut check);
        let new = |refund| NewRefund {
            external_id,
            purchase_external_id,
            customer_external_id,
            refund: Refund { refunded_at, ..refund },
            ahead,
        };
        check.finish(refund.map(new))
    }
}

/// Returns the refund if one of the contents allows it. Otherwise, notes the faults that it has by the first content.
fn settle(
    check: &mut Check,
    path: &[String],
    contents: &[Content<'_>],
    amount: Option<&str>,
    lines: &[RecordRefundLine],
) -> Result<Option<Refund>, Error> {
    let mut first = None;
    for content in contents {
        let mut of_content = Check::at(path);
        let refund = settle_by(&mut of_content, content, amount, lines)?;
        if let Some(refund) = refund.filter(|_| of_content.is_clean()) {
            return Ok(Some(refund));
        }
        first.get_or_insert(of_content);
    }
    check.add(first.unwrap_or_default());
    Ok(None)
}

fn settle_by(
    check: &mut Check,
    content: &Content<'_>,
    amount: Option<&str>,
    lines: &[RecordRefundLine],
) -> Result<Option<Refund>, Error> {
    let Content { total, currency, .. } = *content;
    let bought: Vec<Line> = serde_json::from_str(content.lines)
        .map_err(|error| Error::Internal(format!("the lines of a purchase: {error}")))?;
    let amount = amount.map(|text| check.amount(&["amount"], currency, text));
    let mut refunded = Vec::with_capacity(lines.len());
    for (index, line) in lines.iter().enumerate() {
        let amount = check.amount(&["lines", &index.to_string(), "amount"], currency, &line.amount);
        refunded.extend(amount.map(|amount| RefundLine { sku: line.sku.clone(), amount }));
    }
    if !check.is_clean() {
        return Ok(None);
    }
    let checked = check_refund(Refundable { total, lines: &bought }, amount.flatten(), &refunded);
    let amount = match checked {
        Ok(amount) => amount,
        Err(refusal) => {
            refuse(check, &refusal);
            return Ok(None);
        }
    };
    Ok(Some(Refund { amount, lines: refunded, currency, refunded_at: Instant::EPOCH, set_revision: 0 }))
}

fn refuse(check: &mut Check, refusal: &RefundRefusal) {
    let message = refusal.to_string();
    match refusal {
        RefundRefusal::NotPositive { line: None } => check.fail(&["amount"], UserErrorCode::OutOfRange, message),
        RefundRefusal::NotPositive { line: Some(line) } => {
            check.fail(&["lines", &line.to_string(), "amount"], UserErrorCode::OutOfRange, message);
        }
        RefundRefusal::AboveTotal => check.fail(&["amount"], UserErrorCode::RefundTooLarge, message),
        RefundRefusal::AboveLines { line } => {
            check.fail(&["lines", &line.to_string(), "amount"], UserErrorCode::RefundTooLarge, message);
        }
        RefundRefusal::SkuNotInPurchase { line } => {
            check.fail(&["lines", &line.to_string(), "sku"], UserErrorCode::SkuNotInPurchase, message);
        }
        RefundRefusal::NotTheSum => check.fail(&["amount"], UserErrorCode::Invalid, message),
    }
}

/// Records a refund. `path` is the path of the input; the paths of errors begin with it.
pub async fn record(app: &App, shop: &Shop, path: Vec<String>, input: RecordRefund) -> Result<Recorded, Error> {
    let purchases = find_purchases(&app.database, vec![input.purchase_external_id.clone()]).await?;
    let purchase = purchases.get(&input.purchase_external_id);
    let fact = input.check_by(&app.clock, &path, purchase).map(Fact::Refund);
    app.recorder.record_one(shop.who(), path, fact).await
}
