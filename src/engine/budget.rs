//! Budgets: how many points of a campaign may stand at a time, over all customers.
//!
//! Each newly reached award is decided once: all its points fit, or the award is declined. The caller keeps the order of
//! the decisions of a commit: customers by `externalId`, campaigns in activation order, reversals before awards, and both
//! in award order.

/// The budget of a campaign, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// The points that may stand at a time, at least 0.
    pub limit: i64,
    /// The points that stand. They can be above `limit` after the limit was lowered.
    pub used: i64,
}

/// What happened to the points of an award.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionKind {
    /// The award stands, and its points are used.
    Standing,
    /// The award is declined, because its points do not fit.
    Declined,
    /// Some or all points of a standing award became free.
    Released,
    /// A standing award gained points. They are used even if they do not fit.
    Grown,
}

/// One step in the sequence of a budget. The caller numbers the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub kind: DecisionKind,
    /// The number of the award among the customer's awards.
    pub award_number: i64,
    /// The points of the award, or the points that were released or gained.
    pub points: i64,
    /// The budget's used points after the decision.
    pub used: i64,
}

impl Budget {
    /// Whether an award with this many points fits into what is left of the budget.
    pub fn fits(self, points: i64) -> bool {
        self.used.checked_add(points).is_some_and(|used| used <= self.limit)
    }

    /// Applies a new or a recorded decision to the used points.
    pub fn carry_out(&mut self, kind: DecisionKind, points: i64) {
        match kind {
            DecisionKind::Standing | DecisionKind::Grown => self.used += points,
            DecisionKind::Declined => {}
            DecisionKind::Released => self.used -= points,
        }
    }

    /// Decides a newly reached award and applies the decision.
    pub fn decide(&mut self, award_number: i64, points: i64) -> Decision {
        let kind = if self.fits(points) { DecisionKind::Standing } else { DecisionKind::Declined };
        self.carry_out(kind, points);
        Decision { kind, award_number, points, used: self.used }
    }

    /// Uses the points that a standing award gained.
    pub fn grow(&mut self, award_number: i64, points: i64) -> Decision {
        let kind = DecisionKind::Grown;
        self.carry_out(kind, points);
        Decision { kind, award_number, points, used: self.used }
    }

    /// Frees points that no longer stand.
    pub fn release(&mut self, award_number: i64, points: i64) -> Decision {
        let kind = DecisionKind::Released;
        self.carry_out(kind, points);
        Decision { kind, award_number, points, used: self.used }
    }

    /// Returns the points that are left, never below 0.
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
        assert_eq!(budget.grow(3, 9), Decision { kind: DecisionKind::Grown, award_number: 3, points: 9, used: 11 });
        assert_eq!(budget.release(3, 9).used, 2);
        budget.limit = 1;
        assert_eq!((budget.left(), budget.decide(2, 1).kind), (0, Declined));
    }
}
