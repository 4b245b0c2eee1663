//! Checks refunds that a shop sends, and hands them to the recorder. The check needs the recorded purchase, so the purchase is
//! loaded first.

use std::collections::HashMap;

use entity::{CustomerId, purchase, purchase_revision};
use futures_util::TryStreamExt as _;
use schemars::JsonSchema;
use sea_orm::{ColumnTrait as _, EntityTrait, QueryFilter, QueryOrder as _};
use serde::{Deserialize, Serialize};

use super::App;
use super::clock::Clock;
use super::database::Database;
use super::error::{Check, Error, UserError, UserErrorCode};
use super::purchase::{AHEAD, MAX_AHEAD};
use super::recorder::fact::{Fact, MAX_LINES, NewRefund, Recorded};
use super::rows::any;
use super::stored::customer::load_by_ids;
use super::stored::erased_name::{self, ErasureKey, Named};
use super::stored::{purchase as purchases, purchase_revision as revisions};
use super::viewer::Shop;
use crate::engine::external_id::{ExternalId, is_erased};
use crate::engine::money::Currency;
use crate::engine::purchase::{Line, Refund, RefundLine, RefundRefusal, Refundable, check_refund};
use crate::engine::time::{Instant, parse_instant};

/// A refund as the shop sent it, by GraphQL, in a file or in a message.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordRefundLine {
    pub sku: String,
    pub amount: String,
}

/// The recorded purchase of a refund, and its customer.
#[derive(Clone, Debug)]
pub struct RefundedPurchase {
    /// `None` if the customer was erased, and the purchase with it.
    row: Option<purchase::Model>,
    customer_external_id: ExternalId,
}

/// Finds the purchases of refunds by external id. A purchase that was never recorded is missing.
pub async fn find_purchases(app: &App, external_ids: Vec<String>) -> Result<HashMap<String, RefundedPurchase>, Error> {
    let db = app.database.read();
    let recorded = any(app.database.backend(), purchase::Column::ExternalId, external_ids.iter().cloned());
    let recorded = purchase::Entity::find().filter(recorded).all(db).await?;
    let mut found: HashMap<String, (CustomerId, Option<purchase::Model>)> =
        recorded.into_iter().map(|row| (row.external_id.clone(), (row.customer_id, Some(row)))).collect();
    if found.len() < external_ids.len() {
        let key = app.campaigns().await?.erasure_key.clone();
        let hashed = |key: &ErasureKey| -> HashMap<String, String> {
            let missing = external_ids.into_iter().filter(|id| !found.contains_key(id));
            missing.map(|id| (key.stored_hash(Named::Purchase, &id), id)).collect()
        };
        let mut missing = key.as_ref().map(hashed).unwrap_or_default();
        let erased =
            if missing.is_empty() { HashMap::new() } else { erased_name::load(db, missing.keys().cloned()).await? };
        found
            .extend(erased.into_iter().filter_map(|(hash, customer)| Some((missing.remove(&hash)?, (customer, None)))));
    }
    let customers = load_by_ids(db, found.values().map(|(customer, _)| *customer).collect()).await?;
    let with_customer = |(id, (customer, row)): (String, (CustomerId, Option<purchase::Model>))| {
        let name = &customers.get(&customer)?.external_id;
        // The purchase of an erased customer may be there for a while.
        let row = row.filter(|_| !is_erased(name));
        Some((id, RefundedPurchase { row, customer_external_id: ExternalId::stored(name) }))
    };
    Ok(found.into_iter().filter_map(with_customer).collect())
}

/// A content of the purchase, against which a refund is checked.
struct Content<'a> {
    total: i64,
    currency: Currency,
    /// JSON: an array of `Line`s.
    lines: &'a str,
}

impl<'a> Content<'a> {
    fn that_counts(row: &'a purchase::Model) -> Result<Self, Error> {
        Ok(Self { total: row.total, currency: purchases::currency(row)?, lines: &row.lines })
    }

    fn that_does_not_count(row: &'a purchase_revision::Model) -> Result<Self, Error> {
        Ok(Self { total: row.total, currency: revisions::currency(row)?, lines: &row.lines })
    }
}

/// Whether a refund that was refused with this error may be accepted by another content, or once its purchase is recorded.
pub fn may_be_allowed_by_another(error: &Error) -> bool {
    use UserErrorCode::{PurchaseNotFound, RefundTooLarge, SkuNotInPurchase, TooManyDecimals};
    let of_content = |error: &UserError| {
        matches!(error.code, PurchaseNotFound | SkuNotInPurchase | RefundTooLarge | TooManyDecimals)
    };
    matches!(error, Error::Refused(errors) if errors.iter().all(of_content))
}

impl RecordRefund {
    /// Checks the refund against its purchase, which is `None` if it is not recorded. `path` is the path of the input; the paths
    /// of errors begin with it. If the clock may be wrong and the only fault is that the refund is in the future, fails with
    /// [`Error::ClockInDoubt`].
    pub async fn check_by(
        self,
        database: &Database,
        clock: &Clock,
        path: &[String],
        purchase: Option<&RefundedPurchase>,
    ) -> Result<NewRefund, Error> {
        let now = clock.now();
        let new = match purchase {
            None => self.check(path, now, None)?,
            Some(RefundedPurchase { row: None, customer_external_id }) => {
                self.check(path, now, Some((customer_external_id, None)))?
            }
            Some(RefundedPurchase { row: Some(row), customer_external_id }) => {
                let counting = Content::that_counts(row)?;
                match self.clone().check(path, now, Some((customer_external_id, Some(counting)))) {
                    Err(error) if may_be_allowed_by_another(&error) => {
                        let others = self.check_by_others(database, path, now, row, customer_external_id).await?;
                        others.ok_or(error)?
                    }
                    checked => checked?,
                }
            }
        };
        if !new.ahead.is_empty() && clock.is_in_doubt() { Err(Error::ClockInDoubt) } else { Ok(new) }
    }

    /// Checks what can be checked without the purchase, of which nothing is known. Amounts are not: their form depends on its currency.
    pub fn check_alone(&self, now: Instant) -> Result<(), Error> {
        match self.clone().check(&[], now, None) {
            Err(error) if !may_be_allowed_by_another(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Checks the refund against the contents of its purchase that do not count. Returns `None` if none of them allows it. Loads one
    /// content at a time, because they may have many lines.
    async fn check_by_others(
        self,
        database: &Database,
        path: &[String],
        now: Instant,
        purchase: &purchase::Model,
        customer: &ExternalId,
    ) -> Result<Option<NewRefund>, Error> {
        use purchase_revision::Column;
        let snapshot = database.snapshot().await?;
        let mut others = purchase_revision::Entity::find()
            .filter(Column::ExternalId.eq(&purchase.external_id))
            .order_by_asc(Column::Revision)
            .stream(&snapshot)
            .await?;
        while let Some(other) = others.try_next().await? {
            let content = Content::that_does_not_count(&other)?;
            match self.clone().check(path, now, Some((customer, Some(content)))) {
                Err(error) if may_be_allowed_by_another(&error) => {}
                checked => return checked.map(Some),
            }
        }
        Ok(None)
    }

    /// Checks the refund against one content of its purchase. Without a content, the purchase is erased: whatever the refund takes
    /// back, it changes nothing.
    fn check(
        self,
        path: &[String],
        now: Instant,
        purchase: Option<(&ExternalId, Option<Content<'_>>)>,
    ) -> Result<NewRefund, Error> {
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
        let Some((customer, content)) = purchase else {
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
        let refund = match content {
            Some(content) => settle(&mut check, &content, self.amount.as_deref(), &lines)?,
            None => Some(Refund {
                amount: None,
                lines: Vec::new(),
                currency: any_currency()?,
                refunded_at,
                set_revision: 0,
            }),
        };
        let customer_external_id = customer.clone();
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

/// The currency of a refund that nobody looks at.
fn any_currency() -> Result<Currency, Error> {
    Currency::recorded("EUR").map_err(|error| Error::Internal(error.to_string()))
}

/// Returns the refund if the content allows it. Otherwise, adds its faults to `check`.
fn settle(
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
    let purchases = find_purchases(app, vec![input.purchase_external_id.clone()]).await?;
    let purchase = purchases.get(&input.purchase_external_id);
    let fact = input.check_by(&app.database, &app.clock, &path, purchase).await.map(Fact::Refund);
    app.recorder.record_one(shop.who(), path, fact).await
}
