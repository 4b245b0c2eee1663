//! The ledger entries that the awards of a customer lead to, before they are posted.

use crate::engine::account::Draft;

/// The ledger entries of a customer that have no sequence yet. Reversals are posted before awards.
#[derive(Default)]
pub(super) struct Drafts {
    pub(super) reversals: Vec<Draft>,
    pub(super) awards: Vec<Draft>,
}
