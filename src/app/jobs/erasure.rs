//! Erases a customer: what names it, and what it bought. Its points stay, so that the sums of campaigns, budgets and stocks stay right.
//!
//! What goes, and what stays:
//! - The customer gets another name. Its ledger, its lots, its awards and its redemptions stay under it, without reasons and without
//!   the purchases that they come from. Nothing more is evaluated of it. Its lots run on.
//! - Its purchases, their contents and their refunds go. Of the ids of its orders, hashes stay (`stored::erased_name`), so that an order
//!   that is sent again is recognised. The same applies to its idempotency keys.
//! - If another customer had a purchase before, what that one got for it stays explained: the purchase stays, under another id and
//!   without its lines. A content that names the customer, of a purchase that another one has now, names its new name.
//! - Messages of topics that wait or could not be recorded go if they name it, or refund one of its purchases.
//! - Events of it that are kept go. One tells consumers that it was erased.
//! - The trail says what an admin did to it, but not with which points and why. Its exports go.
//!
//! The steps are commits that are bounded in rows. Each can be repeated, so another worker can continue anywhere. The first ones
//! need the old name, so the name is replaced after them, in one commit with the end of all reservations, through the write path. No
//! batch may miss that an order is erased. So the names are hashed first, then all batches are waited for, and only then the rows go.

use entity::{CustomerId, customer, job, purchase, purchase_revision, raised_revision, refund};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryResult, Statement, Value,
};

use super::queue::{self, End};
use super::request::Wanted;
use crate::app::App;
use crate::app::campaign::{choose_erasure_key, wait_for_batches};
use crate::app::error::Error;
use crate::app::message;
use crate::app::outbox;
use crate::app::recorder::fact::Fact;
use crate::app::recorder::job_turns::JobTurn;
use crate::app::rows::any;
use crate::app::stored::erased_name::{self, ErasureKey, Named};
use crate::engine::external_id::{erased, is_erased};

/// The maximum number of rows that one commit changes, of small rows.
const MAX_ROWS: i64 = 500;
/// The maximum number of purchases that one commit deletes. Each has at most 100 refunds and 1 000 contents, but most have none.
const MAX_PURCHASES: i64 = 100;
/// The maximum number of messages of topics that are read at a time. Each has at most 64 KiB, and some more of headers.
const MAX_MESSAGES: i64 = 100;
/// The maximum number of parts of an export that one commit deletes. Together they are at most 16 MiB.
const MAX_CHUNKS: i64 = 64;

/// Erases a customer.
pub async fn run(app: &App, job: &job::Model, id: CustomerId) -> Result<End, Error> {
    let key = choose_erasure_key(app).await?;
    let Some(row) = customer::Entity::find_by_id(id).one(app.database.write()).await? else { return Ok(End::Done) };
    let name = erased(key.hash(Named::Customer, &id.0.to_string()));
    let erasure = Erasure { app, job, id, key, name };
    if !is_erased(&row.external_id) {
        erasure.rename_contents(&row.external_id).await?;
        erasure.delete_messages(&row.external_id).await?;
        erasure.close(row.external_id).await?;
    }
    erasure.forget_events().await?;
    erasure.delete_exports().await?;
    erasure.hash_names().await?;
    wait_for_batches(app).await?;
    erasure.strip_points().await?;
    erasure.repeat(DELETE_CHECKPOINTS, vec![id.0.into()], MAX_ROWS).await?;
    erasure.repeat(STRIP_TRAIL, vec![id.0.into()], MAX_ROWS).await?;
    erasure.repeat(DELETE_KEYS, vec![id.0.into()], MAX_ROWS).await?;
    erasure.delete_purchases().await?;
    erasure.end().await?;
    Ok(End::Done)
}

const RENAME_CONTENTS: &str = "UPDATE purchase_revision SET customer_external_id = $2 WHERE (external_id, revision) IN (\
    SELECT r.external_id, r.revision FROM purchase_revision AS r WHERE r.customer_external_id = $1 LIMIT $3)";
const DELETE_CHECKPOINTS: &str = "DELETE FROM checkpoint WHERE (customer_id, campaign_id, purchased_at, external_id) IN (\
    SELECT c.customer_id, c.campaign_id, c.purchased_at, c.external_id FROM checkpoint AS c WHERE c.customer_id = $1 LIMIT $2)";
const STRIP_TRAIL: &str = "UPDATE trail_entry SET \"before\" = NULL, \"after\" = NULL WHERE id IN (\
    SELECT e.id FROM trail_entry AS e WHERE e.customer_id = $1 AND (e.\"before\" IS NOT NULL OR e.\"after\" IS NOT NULL) LIMIT $2)";
const DELETE_KEYS: &str = "DELETE FROM idempotency_key WHERE key IN (\
    SELECT k.key FROM idempotency_key AS k WHERE k.customer_id = $1 LIMIT $2)";
const DELETE_WAITING: &str = "DELETE FROM waiting_fact WHERE id IN (\
    SELECT w.id FROM waiting_fact AS w JOIN purchase AS p ON p.external_id = w.purchase_external_id WHERE p.customer_id = $1 LIMIT $2)";
const DELETE_CHUNKS: &str = "DELETE FROM export_chunk WHERE (job_id, number) IN (\
    SELECT c.job_id, c.number FROM export_chunk AS c WHERE c.job_id = $1 LIMIT $2)";
/// What points were for, from one number to another. The reason of a repair is not of the customer.
const STRIP_ENTRIES: &str = "UPDATE ledger_entry SET purchase_external_id = NULL, \
    reason = CASE WHEN kind IN ('adjustment', 'cancellation') THEN NULL ELSE reason END \
    WHERE customer_id = $1 AND sequence > $2 AND sequence <= $3";
const STRIP_AWARDS: &str = "UPDATE award SET purchase_external_id = '', evidence_from_external_id = '' \
    WHERE customer_id = $1 AND number > $2 AND number <= $3";
const STRIP_REDEMPTIONS: &str =
    "UPDATE redemption SET reason = NULL WHERE customer_id = $1 AND number > $2 AND number <= $3";

/// The next purchases of a customer, and whether another customer had each of them before.
const NEXT_PURCHASES: &str = "SELECT p.purchased_at, p.external_id, EXISTS (\
    SELECT 1 FROM purchase_revision AS r WHERE r.external_id = p.external_id AND r.customer_id <> p.customer_id) AS is_shared \
    FROM purchase AS p WHERE p.customer_id = $1 AND (p.purchased_at, p.external_id) > ($2, $3) \
    ORDER BY p.purchased_at, p.external_id LIMIT $4";
/// The customers that had the purchase `$1` of the customer `$2` before.
const OTHERS: &str =
    "SELECT r.customer_id FROM purchase_revision AS r WHERE r.external_id = $1 AND r.customer_id <> $2";
/// The refunds of the purchase `$1` that were recorded while it was that of the customer `$2`.
const DELETE_OWN_REFUNDS: &str = "DELETE FROM refund WHERE purchase_external_id = $1 AND customer_id = $2";
/// Gives the purchase `$1` of the customer `$2` the id `$3`, everywhere. [`OTHERS`] reads the contents, so these get it last.
const RENAME_PURCHASE: [&str; 7] = [
    "UPDATE refund SET purchase_external_id = $3 WHERE purchase_external_id = $1 AND customer_id <> $2",
    "UPDATE raised_revision SET external_id = $3 WHERE external_id = $1 AND EXISTS ({others})",
    "UPDATE award SET purchase_external_id = $3 WHERE purchase_external_id = $1 AND customer_id IN ({others})",
    "UPDATE award SET evidence_from_external_id = $3 WHERE evidence_from_external_id = $1 AND customer_id IN ({others})",
    "UPDATE ledger_entry SET purchase_external_id = $3 WHERE purchase_external_id = $1 AND customer_id IN ({others})",
    "UPDATE checkpoint SET external_id = $3 WHERE external_id = $1 AND customer_id IN ({others})",
    "UPDATE purchase SET external_id = $3, lines = '[]', channel = NULL WHERE external_id = $1 AND customer_id = $2",
];
/// Replaces the text `$3` by `$4` in the states of settled campaigns of the customers that had the purchase. A campaign that is not
/// settled no longer counts the purchase for them.
const RENAME_IN_STATES: &str = "UPDATE checkpoint SET state = REPLACE(state, $3, $4) WHERE customer_id IN ({others}) \
    AND state <> REPLACE(state, $3, $4) AND campaign_id IN (SELECT c.id FROM campaign AS c WHERE c.settled_revision IS NOT NULL)";
/// Like [`RENAME_PURCHASE`]. Of the contents of the customer itself, no more than their sums stay.
const RENAME_CONTENTS_OF: &str = "UPDATE purchase_revision SET external_id = $3, \
    lines = CASE WHEN customer_id = $2 THEN '[]' ELSE lines END, \
    channel = CASE WHEN customer_id = $2 THEN NULL ELSE channel END WHERE external_id = $1";

/// The erasure of a customer.
struct Erasure<'a> {
    app: &'a App,
    job: &'a job::Model,
    id: CustomerId,
    key: ErasureKey,
    /// The name that the customer gets. It does not depend on the old one, and is the same in each attempt.
    name: String,
}

impl Erasure<'_> {
    /// Replaces the old name in contents of purchases.
    async fn rename_contents(&self, old: &str) -> Result<(), Error> {
        let values = vec![old.to_owned().into(), self.name.clone().into()];
        self.repeat(RENAME_CONTENTS, values, MAX_ROWS).await
    }

    /// Deletes the messages of topics that are kept and name the customer, or are about a purchase of it.
    async fn delete_messages(&self, old: &str) -> Result<(), Error> {
        self.repeat(DELETE_WAITING, vec![self.id.0.into()], MAX_ROWS).await?;
        for table in ["waiting_fact", "dead_letter"] {
            let mut after: i64 = 0;
            loop {
                let (_turn, tx) = self.begin().await?;
                let next = format!("SELECT id, key, headers, payload FROM {table} WHERE id > $1 ORDER BY id LIMIT $2");
                let found = self.query(&tx, &next, vec![after.into(), MAX_MESSAGES.into()]).await?;
                for row in &found {
                    after = row.try_get("", "id")?;
                    let key: Option<Vec<u8>> = row.try_get("", "key")?;
                    let (headers, payload): (String, Vec<u8>) =
                        (row.try_get("", "headers")?, row.try_get("", "payload")?);
                    if message::names(old, key.as_deref(), &headers, &payload) {
                        self.execute(&tx, &format!("DELETE FROM {table} WHERE id = $1"), vec![after.into()]).await?;
                    }
                }
                tx.commit().await?;
                if found.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Evaluates what is deferred. Then ends the reservations and replaces the name of the customer, in one commit.
    async fn close(&self, old: String) -> Result<(), Error> {
        let fact = Fact::Erasure { customer: old, erased_as: self.name.clone() };
        loop {
            let answer = self.app.recorder.record_when_free(fact.clone()).await?;
            match answer.await.map_err(|_| Error::Unavailable)?? {
                Ok(recorded) if recorded.deferred => queue::renew(self.app, self.job, None).await?,
                // Refused if another worker has just replaced the name.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }

    /// Deletes the events of the customer that are not published, or not gone yet.
    async fn forget_events(&self) -> Result<(), Error> {
        self.repeat(outbox::FORGET, vec![self.id.0.into(), self.name.clone().into()], MAX_ROWS).await
    }

    /// Deletes the exports of the customer. One that is running fails, because its job is gone.
    async fn delete_exports(&self) -> Result<(), Error> {
        let key = Wanted::Export(self.id).unique_key();
        let (turn, tx) = self.begin().await?;
        let found = self.query(&tx, "SELECT id FROM job WHERE unique_key = $1", vec![key.into()]).await?;
        let ids = found.iter().map(|row| row.try_get("", "id")).collect::<Result<Vec<i64>, _>>()?;
        for id in &ids {
            self.execute(&tx, "DELETE FROM job WHERE id = $1", vec![(*id).into()]).await?;
        }
        tx.commit().await?;
        drop(turn);
        for id in ids {
            self.repeat(DELETE_CHUNKS, vec![id.into()], MAX_CHUNKS).await?;
        }
        Ok(())
    }

    /// Stores the hashes of the ids of all orders, and of the idempotency keys.
    async fn hash_names(&self) -> Result<(), Error> {
        let orders = "SELECT external_id AS name FROM purchase WHERE customer_id = $1 AND external_id > $2 ORDER BY external_id LIMIT $3";
        self.hash(Named::Purchase, orders).await?;
        let keys = "SELECT key AS name FROM idempotency_key WHERE customer_id = $1 AND key > $2 ORDER BY key LIMIT $3";
        self.hash(Named::IdempotencyKey, keys).await
    }

    async fn hash(&self, named: Named, sql: &str) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let (_turn, tx) = self.begin().await?;
            let found = self.query(&tx, sql, vec![self.id.0.into(), after.into(), MAX_ROWS.into()]).await?;
            let names = found.iter().map(|row| row.try_get("", "name")).collect::<Result<Vec<String>, _>>()?;
            let Some(last) = names.last().cloned() else { return Ok(tx.commit().await?) };
            let names: Vec<String> = names.into_iter().filter(|name| !is_erased(name)).collect();
            erased_name::keep(&tx, &self.key, self.id, named, &names).await?;
            tx.commit().await?;
            after = last;
        }
    }

    /// Removes from awards, ledger entries and redemptions what they were for.
    async fn strip_points(&self) -> Result<(), Error> {
        let ends = "SELECT award_number, \
            COALESCE((SELECT MAX(r.number) FROM redemption AS r WHERE r.customer_id = c.id), 0) AS redemption_number, \
            ledger_sequence FROM customer AS c WHERE id = $1";
        let (turn, tx) = self.begin().await?;
        let found = self.query(&tx, ends, vec![self.id.0.into()]).await?;
        tx.commit().await?;
        drop(turn);
        let Some(row) = found.first() else { return Ok(()) };
        for (sql, last) in [
            (STRIP_ENTRIES, row.try_get("", "ledger_sequence")?),
            (STRIP_AWARDS, row.try_get("", "award_number")?),
            (STRIP_REDEMPTIONS, row.try_get("", "redemption_number")?),
        ] {
            let mut done = 0;
            while done < last {
                let to = done + MAX_ROWS;
                let (_turn, tx) = self.begin().await?;
                self.execute(&tx, sql, vec![self.id.0.into(), done.into(), to.into()]).await?;
                tx.commit().await?;
                done = to;
            }
        }
        Ok(())
    }

    /// Deletes the purchases. Those that another customer had before stay under another id.
    async fn delete_purchases(&self) -> Result<(), Error> {
        let (mut at, mut after) = (i64::MIN, String::new());
        loop {
            let (_turn, tx) = self.begin().await?;
            let values = vec![self.id.0.into(), at.into(), after.clone().into(), MAX_PURCHASES.into()];
            let found = self.query(&tx, NEXT_PURCHASES, values).await?;
            let Some(last) = found.last() else { return Ok(tx.commit().await?) };
            (at, after) = (last.try_get("", "purchased_at")?, last.try_get("", "external_id")?);
            queue::renew_in(&tx, self.app.clock.now(), self.job, None).await?;
            let mut own: Vec<String> = Vec::new();
            for row in &found {
                let id: String = row.try_get("", "external_id")?;
                if !row.try_get("", "is_shared")? {
                    own.push(id);
                } else if !is_erased(&id) {
                    self.rename_purchase(&tx, &id).await?;
                }
            }
            delete_whole(&tx, &own).await?;
            tx.commit().await?;
        }
    }

    async fn rename_purchase(&self, tx: &DatabaseTransaction, id: &str) -> Result<(), Error> {
        let new = erased(self.key.hash(Named::Purchase, id));
        let named = || -> Vec<Value> { vec![id.into(), self.id.0.into()] };
        let renamed = || [named(), vec![new.as_str().into()]].concat();
        self.execute(tx, DELETE_OWN_REFUNDS, named()).await?;
        let json = |name: &str| Value::from(serde_json::Value::from(name).to_string());
        let in_states = [named(), vec![json(id), json(&new)]].concat();
        self.execute(tx, &RENAME_IN_STATES.replace("{others}", OTHERS), in_states).await?;
        for sql in RENAME_PURCHASE {
            self.execute(tx, &sql.replace("{others}", OTHERS), renamed()).await?;
        }
        self.execute(tx, RENAME_CONTENTS_OF, renamed()).await?;
        Ok(())
    }

    /// Gives the customer another version, so that no cache returns what it had before.
    async fn end(&self) -> Result<(), Error> {
        let (_turn, tx) = self.begin().await?;
        let stamp: i64 = rand::random();
        let sql = "UPDATE customer SET version = version + 1, stamp = $2 WHERE id = $1";
        self.execute(&tx, sql, vec![self.id.0.into(), stamp.into()]).await?;
        Ok(tx.commit().await?)
    }

    /// Repeats a statement that changes at most `most` rows until it finds no more. The limit is its last parameter.
    async fn repeat(&self, sql: &str, mut values: Vec<Value>, most: i64) -> Result<(), Error> {
        values.push(most.into());
        loop {
            let (_turn, tx) = self.begin().await?;
            let changed = self.execute(&tx, sql, values.clone()).await?;
            tx.commit().await?;
            if changed < most.unsigned_abs() {
                return Ok(());
            }
        }
    }

    /// Begins a commit that holds the lease of the job. It is no progress: the next attempt does most of it again.
    async fn begin(&self) -> Result<(JobTurn<'_>, DatabaseTransaction), Error> {
        let turn = self.app.recorder.job_turn().await;
        let tx = self.app.database.begin().await?;
        queue::hold_in(&tx, self.app.clock.now(), self.job).await?;
        Ok((turn, tx))
    }

    async fn execute(&self, tx: &DatabaseTransaction, sql: &str, values: Vec<Value>) -> Result<u64, Error> {
        let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
        Ok(tx.execute_raw(statement).await?.rows_affected())
    }

    async fn query(&self, tx: &DatabaseTransaction, sql: &str, values: Vec<Value>) -> Result<Vec<QueryResult>, Error> {
        let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, values);
        Ok(tx.query_all_raw(statement).await?)
    }
}

/// Deletes purchases with everything that belongs to them.
async fn delete_whole(tx: &DatabaseTransaction, ids: &[String]) -> Result<(), Error> {
    async fn delete<C>(tx: &DatabaseTransaction, of: C, ids: &[String]) -> Result<(), Error>
    where
        C: ColumnTrait,
        C::EntityName: EntityTrait,
    {
        let named = any(tx.get_database_backend(), of, ids.iter().cloned());
        C::EntityName::delete_many().filter(named).exec(tx).await?;
        Ok(())
    }
    delete(tx, raised_revision::Column::ExternalId, ids).await?;
    delete(tx, refund::Column::PurchaseExternalId, ids).await?;
    delete(tx, purchase_revision::Column::ExternalId, ids).await?;
    delete(tx, purchase::Column::ExternalId, ids).await
}
