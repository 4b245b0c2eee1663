//! Customers that have no row in the database.

use entity::{CustomerId, customer};

/// Returns a customer for which nothing is recorded. No row has the id 0, so this customer has no awards and no entries.
pub fn blank(external_id: &str) -> customer::Model {
    customer::Model {
        id: CustomerId(0),
        external_id: external_id.to_owned(),
        recorded_at: 0,
        version: 0,
        stamp: 0,
        evaluated_revision: 0,
        ledger_sequence: 0,
        posted_at: 0,
        award_number: 0,
        balance: 0,
        lifetime: 0,
        head: Vec::new(),
    }
}
