//! Checks refunds that a shop sends, and hands them to the recorder. The check needs the recorded purchase, so the purchase is
//! loaded first.

use std::collections::HashMap;

use entity::{customer, purchase};
use sea_orm::{EntityTrait, QueryFilter};
use serde::Deserialize;

use super::App;
use super::database::Database;
use super::error::{Check, Error, UserErrorCode};
use super::recorder::fact::{Fact, NewRefund, Recorded};
use super::rows::any;
use super::viewer::Shop;
use crate::engine::external_id::ExternalId;
use crate::engine::money::Currency;
use crate::engine::purchase::{Line, Refund, RefundLine, RefundRefusal, settle_refund};
use crate::engine::time::parse_instant;

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
    customer_external_id: ExternalId,
}

/// Finds the purchases of refunds by external id. A purchase that is not recorded is missing.
pub async fn find_purchases(
    database: &Database,
    external_ids: Vec<String>,
) -> Result<HashMap<String, RefundedPurchase>, Error> {
    let backend = database.backend();
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
        Some((row.external_id.clone(), RefundedPurchase { row, customer_external_id }))
    };
    Ok(purchases.into_iter().filter_map(with_customer).collect())
}

impl RecordRefund {
    /// Checks the refund against its purchase, which is `None` if it is not recorded. `path` is the path of the input; the paths
    /// of errors begin with it.
    pub fn check(self, path: &[String], purchase: Option<&RefundedPurchase>) -> Result<NewRefund, Error> {
        let mut check = Check::at(path);
        let external_id = check.external_id(&["externalId"], self.external_id);
        let purchase_external_id = check.external_id(&["purchaseExternalId"], self.purchase_external_id);
        let refunded_at = check.parsed(&["refundedAt"], parse_instant(&self.refunded_at), |_| UserErrorCode::Invalid);
        let Some(purchase) = purchase else {
            if check.is_clean() {
                let message = "no such purchase has been recorded: record the purchase, then send the refund again";
                check.fail(&["purchaseExternalId"], UserErrorCode::PurchaseNotFound, message);
            }
            return check.finish(None);
        };
        let refund = settle(&mut check, &purchase.row, self.amount.as_deref(), self.lines.unwrap_or_default())?;
        let new = match (external_id, purchase_external_id, refunded_at, refund) {
            (Some(external_id), Some(purchase_external_id), Some(refunded_at), Some(refund)) => Some(NewRefund {
                external_id,
                purchase_external_id,
                customer_external_id: purchase.customer_external_id.clone(),
                refunded_at,
                refund,
            }),
            _ => None,
        };
        check.finish(new)
    }
}

fn settle(
    check: &mut Check,
    purchase: &purchase::Model,
    amount: Option<&str>,
    lines: Vec<RecordRefundLine>,
) -> Result<Option<Refund>, Error> {
    let broken = |error: String| Error::Internal(format!("purchase {}: {error}", purchase.external_id));
    let currency = Currency::recorded(&purchase.currency).map_err(|error| broken(error.to_string()))?;
    let bought: Vec<Line> = serde_json::from_str(&purchase.lines).map_err(|error| broken(error.to_string()))?;
    if lines.len() > crate::app::recorder::fact::MAX_LINES {
        let message = format!(
            "must have at most {} lines: add up the lines of the same sku",
            crate::app::recorder::fact::MAX_LINES
        );
        check.fail(&["lines"], UserErrorCode::OutOfRange, message);
        return Ok(None);
    }
    let amount = amount.map(|text| check.amount(&["amount"], currency, text));
    let mut refunded = Vec::with_capacity(lines.len());
    for (index, line) in lines.into_iter().enumerate() {
        let index = index.to_string();
        check.text(&["lines", &index, "sku"], &line.sku);
        let amount = check.amount(&["lines", &index, "amount"], currency, &line.amount);
        refunded.extend(amount.map(|amount| RefundLine { sku: line.sku, amount }));
    }
    if !check.is_clean() {
        return Ok(None);
    }
    Ok(settle_refund(purchase.total, &bought, amount.flatten(), refunded)
        .map_err(|refusal| refuse(check, &refusal))
        .ok())
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
    let fact = input.check(&path, purchase).map(Fact::Refund);
    app.recorder.record_one(shop.who(), path, fact).await
}
