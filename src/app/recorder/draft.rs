//! A ledger entry of an award in the making, before it has a number.

/// Points that an award gains, or loses where they are negative.
pub(super) struct Draft {
    pub(super) points: i64,
    pub(super) award_number: i64,
    pub(super) purchase: Option<String>,
}
