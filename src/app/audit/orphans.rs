//! Finds rows whose customer or purchase is missing. The database does not check this: a commit holds the lock of the customer, and
//! each check would lock it again.

use sea_orm::{ConnectionTrait, DatabaseTransaction, Statement};

use super::difference::{Difference, Tell};
use crate::app::error::Error;

/// A table, the column that refers to a row of another table, and that table with its key.
const REFERENCES: [(&str, &str, &str, &str); 12] = [
    ("purchase", "customer_id", "customer", "id"),
    ("purchase_revision", "customer_id", "customer", "id"),
    ("purchase_revision", "external_id", "purchase", "external_id"),
    ("raised_revision", "external_id", "purchase", "external_id"),
    ("refund", "purchase_external_id", "purchase", "external_id"),
    ("award", "customer_id", "customer", "id"),
    ("ledger_entry", "customer_id", "customer", "id"),
    ("checkpoint", "customer_id", "customer", "id"),
    ("lot", "customer_id", "customer", "id"),
    ("redemption", "customer_id", "customer", "id"),
    ("redemption", "reward_id", "reward", "id"),
    ("taking", "customer_id", "customer", "id"),
];

/// Reports the tables that have orphans. Returns their number.
pub(super) async fn audit(snapshot: &DatabaseTransaction, tell: Tell<'_>) -> Result<u64, Error> {
    let mut differences = 0;
    for (table, column, parent, key) in REFERENCES {
        let sql = format!(
            "SELECT COUNT(*) AS orphans FROM {table} AS s \
             WHERE NOT EXISTS (SELECT 1 FROM {parent} AS t WHERE t.{key} = s.{column})"
        );
        let row = snapshot.query_one_raw(Statement::from_string(snapshot.get_database_backend(), sql)).await?;
        let orphans = row.map_or(Ok(0), |row| row.try_get::<i64>("", "orphans"))?;
        if orphans > 0 {
            let what = format!("rows of the table {table} without a {parent}");
            let (recorded, expected) = (orphans.to_string(), "0".to_owned());
            tell(&Difference { customer: None, campaign: None, what, recorded, expected });
            differences += 1;
        }
    }
    Ok(differences)
}
