//! What somebody does to the points of a customer by hand: adjustments and redemptions. Acts are decided one after the other, in the
//! order in which they came in, on what the purchases and refunds of the commit left.

use super::fact::{Fact, NewAdjustment, NewRedemption, RedemptionStep};

/// An act that is accepted as far as its idempotency key goes, and not decided yet.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Adjust(NewAdjustment),
    Redeem(NewRedemption),
    Step(RedemptionStep),
}

impl Act {
    /// Returns the act of a fact, or `None` if the fact is no act.
    pub(super) fn of(fact: &Fact) -> Option<Self> {
        match fact {
            Fact::Adjustment(adjustment) => Some(Self::Adjust(adjustment.clone())),
            Fact::Redemption(redemption) => Some(Self::Redeem(redemption.clone())),
            Fact::RedemptionStep(step) => Some(Self::Step(step.clone())),
            _ => None,
        }
    }

    /// The external id of the customer.
    pub(super) fn customer(&self) -> &str {
        match self {
            Self::Adjust(adjustment) => &adjustment.customer_external_id,
            Self::Redeem(redemption) => &redemption.customer_external_id,
            Self::Step(step) => &step.customer_external_id,
        }
    }

    /// The idempotency key, and the content that a duplicate must have. A step needs no key: the redemption knows what was done.
    pub(super) fn key(&self) -> Option<(&str, String)> {
        match self {
            Self::Adjust(adjustment) => Some((&adjustment.idempotency_key, adjustment.request())),
            Self::Redeem(redemption) => Some((&redemption.idempotency_key, redemption.request())),
            Self::Step(_) => None,
        }
    }

    /// The points that the act takes at most, given the cost of the reward.
    pub(super) fn takes_at_most(&self, cost: impl FnOnce(&NewRedemption) -> i64) -> i64 {
        match self {
            Self::Adjust(adjustment) => -adjustment.points.min(0),
            Self::Redeem(redemption) => cost(redemption).saturating_mul(redemption.quantity),
            // The points of a reservation are set aside already.
            Self::Step(_) => 0,
        }
    }
}
