//! Writes down everything that is recorded of a customer, as lines of JSON. `docs/data-rights.md` lists them.
//!
//! The rows are read page by page in one snapshot, so the export shows the customer at one instant, whatever is recorded
//! meanwhile. The lines are cut into chunks. Each chunk is a commit that holds the lease of the job, so a worker that has lost its
//! lease cannot add to the result of another one. An attempt deletes what earlier ones have written, and begins again. Nobody reads
//! a result before its job is done.
//!
//! Left out is what only repeats other rows in a form of the server: the states of the fold (`customer.head`, `checkpoint`), the order of the
//! decisions of budgets (`budget_decision`), and jobs.

use std::mem;

use entity::{
    CustomerId, award, customer, export_chunk, idempotency_key, job, ledger_entry, lot, purchase, purchase_revision,
    raised_revision, redemption, refund, reward_code, taking, trail_entry, waiting_fact,
};
use sea_orm::{
    ActiveEnum, ActiveModelTrait as _, ConnectionTrait, DatabaseBackend, DatabaseTransaction, EntityTrait,
    FromQueryResult, IntoActiveModel as _, Statement, Value,
};
use serde_json::{Value as Json, json};

use super::queue::{self, End, LEASE};
use crate::app::App;
use crate::app::error::Error;
use crate::app::stored::award::points_before_cap;
use crate::engine::money::Currency;
use crate::engine::purchase::{Line, RefundLine};
use crate::engine::time::Instant;

/// The number of rows that are read at a time. A purchase has at most 500 lines of some 400 bytes, so a page has at most some 10 MiB.
const PAGE: usize = 50;
/// The size of a chunk, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;
/// The maximum number of chunks of an earlier result that one commit deletes.
const MAX_DELETED: u64 = 64;

/// Exports a customer. The export of a customer that is gone is empty.
pub async fn run(app: &App, job: &job::Model, id: CustomerId) -> Result<End, Error> {
    delete_earlier(app, job).await?;
    let snapshot = app.database.snapshot().await?;
    if app.database.backend() == DatabaseBackend::Postgres {
        // The snapshot is idle while a chunk waits for its turn. It holds no lock that anybody waits for.
        let patience = format!("SET LOCAL idle_in_transaction_session_timeout = {}", LEASE.as_millis());
        snapshot.execute_unprepared(&patience).await?;
    }
    if let Some(customer) = customer::Entity::find_by_id(id).one(&snapshot).await? {
        let mut export = Export { app, job, snapshot, customer, unsaved: Vec::new(), chunks: 0 };
        export.write_all().await?;
        export.save_rest().await?;
    }
    Ok(End::Done)
}

/// Deletes what earlier attempts and exports have written.
async fn delete_earlier(app: &App, job: &job::Model) -> Result<(), Error> {
    let sql = format!(
        "DELETE FROM export_chunk WHERE job_id = $1 AND number IN (\
         SELECT c.number FROM export_chunk AS c WHERE c.job_id = $1 ORDER BY c.number LIMIT {MAX_DELETED})"
    );
    loop {
        let _turn = app.recorder.job_turn().await;
        let tx = app.database.begin().await?;
        queue::hold_in(&tx, app.clock.now(), job).await?;
        let values = [job.id.into()];
        let deleted = tx.execute_raw(Statement::from_sql_and_values(app.database.backend(), &sql, values)).await?;
        tx.commit().await?;
        if deleted.rows_affected() < MAX_DELETED {
            return Ok(());
        }
    }
}

struct Export<'a> {
    app: &'a App,
    job: &'a job::Model,
    snapshot: DatabaseTransaction,
    customer: customer::Model,
    /// The lines that are in no chunk yet.
    unsaved: Vec<u8>,
    /// The number of chunks that are saved.
    chunks: i64,
}

/// A list of rows, which is read in pages.
struct List {
    table: &'static str,
    /// The condition of the rows, which are called `t`.
    of: &'static str,
    /// The parameters of the condition.
    values: Vec<Value>,
    /// Columns that tell the rows apart, in an order that an index has.
    order: &'static [&'static str],
    /// The name of what a row refers to: an SQL expression.
    name: &'static str,
}

const NO_NAME: &str = "NULL";
const OF_CUSTOMER: &str = "t.customer_id = $1";
/// The purchases of a customer from one place in their order to another.
const OF_PURCHASES: [&str; 2] = [
    "t.purchase_external_id IN (SELECT p.external_id FROM purchase AS p WHERE p.customer_id = $1 \
     AND (p.purchased_at, p.external_id) >= ($2, $3) AND (p.purchased_at, p.external_id) <= ($4, $5))",
    "t.external_id IN (SELECT p.external_id FROM purchase AS p WHERE p.customer_id = $1 \
     AND (p.purchased_at, p.external_id) >= ($2, $3) AND (p.purchased_at, p.external_id) <= ($4, $5))",
];
const OF_OWN_PURCHASES: &str =
    "t.purchase_external_id IN (SELECT p.external_id FROM purchase AS p WHERE p.customer_id = $1)";
/// The refunds that were recorded while a purchase was that of the customer, which is now that of another one.
const OF_LOST_PURCHASES: &str = "t.customer_id = $1 AND t.purchase_external_id IN (\
    SELECT r.external_id FROM purchase_revision AS r JOIN purchase AS p ON p.external_id = r.external_id \
    WHERE r.customer_external_id = $2 AND p.customer_id <> $1)";

impl Export<'_> {
    async fn write_all(&mut self) -> Result<(), Error> {
        let line = customer_line(&self.customer);
        self.write_line(line).await?;
        self.write_purchases().await?;
        let (id, name): (Value, Value) = (self.customer.id.0.into(), self.customer.external_id.clone().into());
        // A content belongs to the customer that it names. It may be one of a purchase that is now that of another customer.
        let list = List {
            table: "purchase_revision",
            of: "t.customer_external_id = $1",
            values: vec![name.clone()],
            order: &["external_id", "revision"],
            name: NO_NAME,
        };
        let key = |row: &purchase_revision::Model| vec![row.external_id.clone().into(), row.revision.into()];
        self.write_list(&list, key, revision_line).await?;
        let list = List { of: OF_OWN_PURCHASES, ..self.own("waiting_fact", &["id"]) };
        self.write_list(&list, |row: &waiting_fact::Model| vec![row.id.into()], waiting_line).await?;
        let list = List { of: OF_LOST_PURCHASES, values: vec![id, name], ..REFUNDS };
        self.write_list(&list, refund_key, refund_line).await?;

        let campaign = "(SELECT c.name FROM campaign AS c WHERE c.id = t.campaign_id)";
        let list = List { name: campaign, ..self.own("award", &["number"]) };
        self.write_list(&list, |row: &award::Model| vec![row.number.into()], award_line).await?;
        let list = self.own("ledger_entry", &["sequence"]);
        self.write_list(&list, |row: &ledger_entry::Model| vec![row.sequence.into()], entry_line).await?;
        let list = self.own("lot", &["matures_at", "expires_at"]);
        let key = |row: &lot::Model| vec![row.matures_at.into(), row.expires_at.into()];
        self.write_list(&list, key, lot_line).await?;

        let reward = "(SELECT w.name FROM reward AS w WHERE w.id = t.reward_id)";
        let list = List { name: reward, ..self.own("redemption", &["number"]) };
        self.write_list(&list, |row: &redemption::Model| vec![row.number.into()], redemption_line).await?;
        let list = self.own("taking", &["redemption_number", "expires_at"]);
        let key = |row: &taking::Model| vec![row.redemption_number.into(), row.expires_at.into()];
        self.write_list(&list, key, taking_line).await?;
        let list = self.own("reward_code", &["redemption_number", "reward_id", "position"]);
        let key =
            |row: &reward_code::Model| vec![row.redemption_number.into(), row.reward_id.0.into(), row.position.into()];
        self.write_list(&list, key, code_line).await?;

        let list = self.own("idempotency_key", &["key"]);
        self.write_list(&list, |row: &idempotency_key::Model| vec![row.key.clone().into()], key_line).await?;
        let list = self.own("trail_entry", &["id"]);
        self.write_list(&list, |row: &trail_entry::Model| vec![row.id.into()], trail_line).await
    }

    /// The list of all rows of a table that have the customer's key.
    fn own(&self, table: &'static str, order: &'static [&'static str]) -> List {
        List { table, of: OF_CUSTOMER, values: vec![self.customer.id.0.into()], order, name: NO_NAME }
    }

    /// Writes the purchases, and after each page of them what was taken back of these.
    async fn write_purchases(&mut self) -> Result<(), Error> {
        let list = self.own("purchase", &["purchased_at", "external_id"]);
        let key = |row: &purchase::Model| vec![row.purchased_at.into(), row.external_id.clone().into()];
        let mut after = Vec::new();
        loop {
            let rows = self.page::<purchase::Model>(&list, &after).await?;
            for (row, _) in &rows {
                self.write_line(purchase_line(row)?).await?;
            }
            let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) else { return Ok(()) };
            after = key(last);
            let values = [list.values.clone(), key(first), after.clone()].concat();
            let [refunds, raised] = OF_PURCHASES;
            let of_page = List { of: refunds, values: values.clone(), ..REFUNDS };
            self.write_list(&of_page, refund_key, refund_line).await?;
            let order = &["external_id", "revision"];
            let of_page = List { table: "raised_revision", of: raised, values, order, name: NO_NAME };
            let key = |row: &raised_revision::Model| vec![row.external_id.clone().into(), row.revision.into()];
            self.write_list(&of_page, key, raised_line).await?;
        }
    }

    /// Writes a line for each row of the list. `key` returns the values of the columns of its order.
    async fn write_list<M: FromQueryResult>(
        &mut self,
        list: &List,
        key: fn(&M) -> Vec<Value>,
        line: fn(&M, Option<&str>) -> Result<Json, Error>,
    ) -> Result<(), Error> {
        let mut after = Vec::new();
        loop {
            let rows = self.page::<M>(list, &after).await?;
            let is_last = rows.len() < PAGE;
            if let Some((last, _)) = rows.last() {
                after = key(last);
            }
            for (row, name) in rows {
                self.write_line(line(&row, name.as_deref())?).await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Reads the rows that follow a key in the list, with their names. Without a key, reads the first ones.
    async fn page<M: FromQueryResult>(&self, list: &List, after: &[Value]) -> Result<Vec<(M, Option<String>)>, Error> {
        let List { table, of, values, order, name } = list;
        let order = order.iter().map(|column| format!("t.{column}")).collect::<Vec<_>>().join(", ");
        let places = (1..=after.len()).map(|place| format!("${}", values.len() + place)).collect::<Vec<_>>().join(", ");
        let follows = if after.is_empty() { String::new() } else { format!(" AND ({order}) > ({places})") };
        let sql =
            format!("SELECT t.*, {name} AS name FROM {table} AS t WHERE {of}{follows} ORDER BY {order} LIMIT {PAGE}");
        let values = [values.as_slice(), after].concat();
        let statement = Statement::from_sql_and_values(self.app.database.backend(), sql, values);
        let rows = self.snapshot.query_all_raw(statement).await?;
        let read = |row| Ok((M::from_query_result(row, "")?, row.try_get("", "name")?));
        rows.iter().map(read).collect()
    }

    async fn write_line(&mut self, line: Json) -> Result<(), Error> {
        self.unsaved.extend_from_slice(line.to_string().as_bytes());
        self.unsaved.push(b'\n');
        while self.unsaved.len() >= CHUNK_BYTES {
            let rest = self.unsaved.split_off(CHUNK_BYTES);
            let content = mem::replace(&mut self.unsaved, rest);
            self.save(content).await?;
        }
        Ok(())
    }

    async fn save_rest(&mut self) -> Result<(), Error> {
        let content = mem::take(&mut self.unsaved);
        if content.is_empty() { Ok(()) } else { self.save(content).await }
    }

    /// Saves a chunk under the lease of the job. Fails if the lease is lost.
    async fn save(&mut self, content: Vec<u8>) -> Result<(), Error> {
        self.chunks += 1;
        let chunk = export_chunk::Model { job_id: self.job.id, number: self.chunks, content };
        let _turn = self.app.recorder.job_turn().await;
        let tx = self.app.database.begin().await?;
        queue::hold_in(&tx, self.app.clock.now(), self.job).await?;
        export_chunk::Entity::insert(chunk.into_active_model().reset_all()).exec_without_returning(&tx).await?;
        Ok(tx.commit().await?)
    }
}

const REFUNDS: List = List {
    table: "refund",
    of: OF_CUSTOMER,
    values: Vec::new(),
    order: &["purchase_external_id", "external_id"],
    name: NO_NAME,
};

fn refund_key(row: &refund::Model) -> Vec<Value> {
    vec![row.purchase_external_id.clone().into(), row.external_id.clone().into()]
}

fn instant(at: i64) -> String {
    Instant(at).to_string()
}

/// An instant for which the greatest integer stands for "never".
fn instant_unless_never(at: i64) -> Option<String> {
    (Instant(at) != Instant::FOREVER).then(|| instant(at))
}

/// The name that the API has for a value.
fn api_name(value: &impl ActiveEnum<Value = String>) -> String {
    value.to_value().to_uppercase()
}

fn broken(what: &str, error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("{what}: {error}"))
}

fn currency(code: &str) -> Result<Currency, Error> {
    Currency::recorded(code).map_err(|error| broken(code, error))
}

fn amount(minor: i64, currency: Currency) -> String {
    currency.format(minor.into())
}

fn lines_of(text: &str, currency: Currency) -> Result<Vec<Json>, Error> {
    let lines: Vec<Line> = serde_json::from_str(text).map_err(|error| broken("the lines of a purchase", error))?;
    let line = |Line { sku, category, quantity, amount: minor }| json!({ "sku": sku, "category": category, "quantity": quantity, "amount": amount(minor, currency) });
    Ok(lines.into_iter().map(line).collect())
}

fn customer_line(row: &customer::Model) -> Json {
    json!({
        "type": "customer",
        "externalId": row.external_id,
        "recordedAt": instant(row.recorded_at),
        "version": row.version,
        "balance": row.balance,
        "lifetime": row.lifetime,
    })
}

fn purchase_line(row: &purchase::Model) -> Result<Json, Error> {
    let currency = currency(&row.currency)?;
    Ok(json!({
        "type": "purchase",
        "externalId": row.external_id,
        "revision": row.revision,
        "purchasedAt": instant(row.purchased_at),
        "recordedAt": instant(row.recorded_at),
        "total": amount(row.total, currency),
        "currency": row.currency,
        "channel": row.channel,
        "lines": lines_of(&row.lines, currency)?,
        "refunded": row.refunded.map(|minor| amount(minor, currency)),
        "refundedUntil": row.refunded_until.map(instant),
        "refundedRevision": row.refunded_revision,
    }))
}

fn revision_line(row: &purchase_revision::Model, _: Option<&str>) -> Result<Json, Error> {
    let currency = currency(&row.currency)?;
    Ok(json!({
        "type": "purchaseRevision",
        "externalId": row.external_id,
        "revision": row.revision,
        "counted": row.ended_version.is_some(),
        "purchasedAt": instant(row.purchased_at),
        "recordedAt": instant(row.recorded_at),
        "total": amount(row.total, currency),
        "currency": row.currency,
        "channel": row.channel,
        "lines": lines_of(&row.lines, currency)?,
        "refunded": row.refunded.map(|minor| amount(minor, currency)),
        "refundedUntil": row.refunded_until.map(instant),
    }))
}

fn raised_line(row: &raised_revision::Model, _: Option<&str>) -> Result<Json, Error> {
    Ok(json!({
        "type": "raisedRevision",
        "externalId": row.external_id,
        "revision": row.revision,
        "raisedTo": row.raised_to,
    }))
}

fn refund_line(row: &refund::Model, _: Option<&str>) -> Result<Json, Error> {
    let currency = row.currency.as_deref().map(currency).transpose()?;
    let lines: Vec<RefundLine> =
        serde_json::from_str(&row.lines).map_err(|error| broken("the lines of a refund", error))?;
    let formatted = |minor: i64| currency.map(|currency| amount(minor, currency));
    let line = |line: RefundLine| json!({ "sku": line.sku, "amount": formatted(line.amount) });
    Ok(json!({
        "type": "refund",
        "externalId": row.external_id,
        "purchaseExternalId": row.purchase_external_id,
        "refundedAt": instant(row.refunded_at),
        "recordedAt": instant(row.recorded_at),
        "amount": row.amount.and_then(formatted),
        "currency": row.currency,
        "lines": lines.into_iter().map(line).collect::<Vec<_>>(),
    }))
}

/// A refund from a topic that no content of its purchase allows yet.
fn waiting_line(row: &waiting_fact::Model, _: Option<&str>) -> Result<Json, Error> {
    let refund: Json = serde_json::from_str(&row.content).map_err(|error| broken("a waiting refund", error))?;
    Ok(json!({
        "type": "waitingRefund",
        "refund": refund,
        "reason": row.reason,
        "recordedAt": instant(row.recorded_at),
        "waitsUntil": instant(row.expires_at),
    }))
}

fn award_line(row: &award::Model, campaign: Option<&str>) -> Result<Json, Error> {
    Ok(json!({
        "type": "award",
        "number": row.number,
        "campaign": campaign,
        "status": api_name(&row.status),
        "points": row.points,
        "pointsBeforeCap": points_before_cap(row),
        "ordinal": row.ordinal,
        "purchaseExternalId": row.purchase_external_id,
        "earnedAt": instant(row.earned_at),
        "availableAt": row.available_at.map(instant),
        "expiresAt": row.expires_at.map(instant),
        "windowOpensAt": instant(row.opens_at),
        "windowClosesAt": row.closes_at.map(instant),
        "evidenceFromAt": instant(row.evidence_from_at),
        "evidenceFromExternalId": row.evidence_from_external_id,
    }))
}

fn entry_line(row: &ledger_entry::Model, _: Option<&str>) -> Result<Json, Error> {
    Ok(json!({
        "type": "ledgerEntry",
        "sequence": row.sequence,
        "kind": api_name(&row.kind),
        "points": row.points,
        "balanceAfter": row.balance_after,
        "awardNumber": row.award_number,
        "redemptionNumber": row.redemption_number,
        "purchaseExternalId": row.purchase_external_id,
        "reason": row.reason,
        "availableAt": row.available_at.map(instant),
        "expiresAt": row.expires_at.map(instant),
        "createdAt": instant(row.created_at),
    }))
}

fn lot_line(row: &lot::Model, _: Option<&str>) -> Result<Json, Error> {
    Ok(json!({
        "type": "lot",
        "availableAt": (row.matures_at != 0).then(|| instant(row.matures_at)),
        "expiresAt": instant_unless_never(row.expires_at),
        "left": row.left,
        "reserved": row.reserved,
        "spent": row.spent,
        "expired": row.expired,
    }))
}

fn redemption_line(row: &redemption::Model, reward: Option<&str>) -> Result<Json, Error> {
    Ok(json!({
        "type": "redemption",
        "number": row.number,
        "reward": reward,
        "quantity": row.quantity,
        "points": row.points,
        "state": api_name(&row.state),
        "createdAt": instant(row.created_at),
        "reservedUntil": row.reserved_until.map(instant),
        "redeemedAt": row.redeemed_at.map(instant),
        "endedAt": row.ended_at.map(instant),
        "reason": row.reason,
    }))
}

fn taking_line(row: &taking::Model, _: Option<&str>) -> Result<Json, Error> {
    Ok(json!({
        "type": "taking",
        "redemptionNumber": row.redemption_number,
        "expiresAt": instant_unless_never(row.expires_at),
        "points": row.points,
    }))
}

fn code_line(row: &reward_code::Model, _: Option<&str>) -> Result<Json, Error> {
    Ok(json!({ "type": "rewardCode", "redemptionNumber": row.redemption_number, "code": row.code }))
}

fn key_line(row: &idempotency_key::Model, _: Option<&str>) -> Result<Json, Error> {
    Ok(json!({
        "type": "idempotencyKey",
        "key": row.key,
        "request": row.request,
        "ledgerSequence": row.sequence,
        "redemptionNumber": row.redemption_number,
    }))
}

/// The admin's subject and address are data of the admin, so they are left out.
fn trail_line(row: &trail_entry::Model, _: Option<&str>) -> Result<Json, Error> {
    let state = |text: &Option<String>| -> Result<Json, Error> {
        let Some(text) = text else { return Ok(Json::Null) };
        serde_json::from_str(text).map_err(|error| broken("a state of the trail", error))
    };
    Ok(json!({
        "type": "trailEntry",
        "at": instant(row.at),
        "action": row.action,
        "role": row.role,
        "before": state(&row.before)?,
        "after": state(&row.after)?,
        "refused": serde_json::from_str::<Json>(&row.refused).map_err(|error| broken("the codes of the trail", error))?,
    }))
}
