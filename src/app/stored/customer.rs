//! Customers of whom no row is stored.

use entity::{CustomerId, customer};

/// A customer that was never heard of: no row has its key, so it has nothing.
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
        running: "{}".to_owned(),
    }
}
