//! Budgets: how many points of a campaign may stand at once, over all customers.
//!
//! Each newly reached award is decided once, whole or not at all. Within a commit customers come by externalId,
//! campaigns in activation order, reversals before awards, awards in award order; the caller keeps that order.

/// What a campaign has given out of its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Points that may stand at once; ≥ 0.
    pub limit: i64,
    /// Points that stand. Above `limit` after the budget was lowered.
    pub used: i64,
}

impl Budget {
    /// Decides a newly reached award: true: STANDING, and its points are taken; false: DECLINED.
    pub fn decide(&mut self, points: i64) -> bool {
        let fits = self.used.checked_add(points).is_some_and(|used| used <= self.limit);
        if fits {
            self.used += points;
        }
        fits
    }

    /// Gives back points that stand no longer.
    pub fn release(&mut self, points: i64) {
        self.used -= points;
    }

    /// What is left; never negative.
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
        assert_eq!([8, 3, 2, 1].map(|points| budget.decide(points)), [true, false, true, false]);
        budget.release(8);
        assert_eq!(budget.left(), 8);
        budget.limit = 1;
        assert_eq!((budget.left(), budget.decide(1)), (0, false));
    }
}
