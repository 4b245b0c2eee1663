//! Budgets: how many points of a campaign may stand at a time, over all customers.
//!
//! Each newly reached award is decided once, whole or not at all. Within a commit customers come by externalId,
//! campaigns in activation order, reversals before awards, awards in award order; the caller keeps that order.

/// What a campaign has given out of its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Points that may stand at a time; ≥ 0.
    pub limit: i64,
    /// Points that stand. Above `limit` after the limit was lowered.
    pub used: i64,
}

/// What changed the points that stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionKind {
    /// An award stands, and its points are used.
    Standing,
    /// An award is declined.
    Declined,
    /// Points no longer stand.
    Released,
}

/// One numbered step of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What was decided.
    pub kind: DecisionKind,
    /// The customer's award.
    pub award_number: i64,
    /// Points of the award, or the points that were released.
    pub points: i64,
    /// The budget's used points after the decision.
    pub used: i64,
}

impl Budget {
    /// Whether an award of so many points may stand beside those that stand already.
    pub fn fits(self, points: i64) -> bool {
        self.used.checked_add(points).is_some_and(|used| used <= self.limit)
    }

    /// Carries out a decision that was made.
    pub fn carry_out(&mut self, kind: DecisionKind, points: i64) {
        match kind {
            DecisionKind::Standing => self.used += points,
            DecisionKind::Declined => {}
            DecisionKind::Released => self.used -= points,
        }
    }

    /// Decides a newly reached award.
    pub fn decide(&mut self, award_number: i64, points: i64) -> Decision {
        let kind = if self.fits(points) { DecisionKind::Standing } else { DecisionKind::Declined };
        self.carry_out(kind, points);
        Decision { kind, award_number, points, used: self.used }
    }

    /// Gives back points that no longer stand.
    pub fn release(&mut self, award_number: i64, points: i64) -> Decision {
        let kind = DecisionKind::Released;
        self.carry_out(kind, points);
        Decision { kind, award_number, points, used: self.used }
    }

    /// Points that are left; never negative.
    pub fn left(self) -> i64 {
        (self.limit - self.used).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_award_stands_whole_or_is_declined() {
        let mut budget = Budget { limit: 10, used: 0 };
        let kinds = [8, 3, 2, 1].map(|points| budget.decide(1, points).kind);
        use DecisionKind::{Declined, Standing};
        assert_eq!(kinds, [Standing, Declined, Standing, Declined]);
        let released = budget.release(1, 8);
        assert_eq!(released, Decision { kind: DecisionKind::Released, award_number: 1, points: 8, used: 2 });
        assert_eq!(budget.left(), 8);
        budget.limit = 1;
        assert_eq!((budget.left(), budget.decide(2, 1).kind), (0, Declined));
    }
}
