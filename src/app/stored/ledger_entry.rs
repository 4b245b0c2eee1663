//! Converts ledger entries to the form that the engine replays.

use entity::{LedgerEntryKind, ledger_entry};

use crate::engine::dates::Dates;
use crate::engine::replay::{Entry, Kind};
use crate::engine::time::Instant;

/// The entry in the form that the engine replays.
pub fn to_replay(row: &ledger_entry::Model) -> Entry {
    let kind = match row.kind {
        LedgerEntryKind::Award => Kind::Award,
        LedgerEntryKind::Reversal => Kind::Reversal,
        LedgerEntryKind::Adjustment => Kind::Adjustment,
        LedgerEntryKind::Expiry => Kind::Expiry,
        LedgerEntryKind::Redemption => Kind::Redemption,
        LedgerEntryKind::Cancellation => Kind::Cancellation,
    };
    Entry {
        sequence: row.sequence,
        kind,
        points: row.points,
        award: row.award_number,
        dates: Dates { available_at: row.available_at.map(Instant), expires_at: row.expires_at.map(Instant) },
        at: Instant(row.created_at),
        version: row.version,
        redemption: row.redemption_number,
        repairs: row.reason.is_some() && matches!(kind, Kind::Award | Kind::Reversal | Kind::Expiry),
    }
}
