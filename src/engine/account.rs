//! What a difference does to a customer's account: which ledger entries are posted, how the sums of the customer change,
//! and what the budget of the campaign decides.
//!
//! Within a difference, and within a commit, reversals come before awards, and both are in award order. The caller keeps the order of customers
//! and campaigns, locks the budget and stores what this module returns.

use std::ops::{Add, AddAssign, Sub};

use super::award::Reached;
use super::budget::{Budget, Decision, DecisionKind};
use super::dates::Dates;
use super::diff::{Changed, Diff, RecordedAward};

/// The largest whole number that every JSON parser represents exactly: 2^53 − 1.
pub const MAX_EXACT: i64 = (1 << 53) - 1;

/// The sums and counters of one customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The sum of all ledger entries.
    pub balance: i64,
    /// The points of all standing awards.
    pub lifetime: i64,
    /// The number of the last award.
    pub awards: i64,
    /// The sequence of the last ledger entry.
    pub entries: i64,
}

/// How many recorded awards a customer has in one campaign.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub standing: i64,
    pub declined: i64,
}

/// The totals of a campaign over all customers, or how they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The number of standing awards.
    pub awards: i64,
    /// The number of customers with at least one standing award.
    pub customers: i64,
    /// The points of standing awards.
    pub points_standing: i64,
    /// The points of declined awards.
    pub points_declined: i64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.awards += other.awards;
        self.customers += other.customers;
        self.points_standing += other.points_standing;
        self.points_declined += other.points_declined;
    }
}

impl Add for Totals {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for Totals {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            awards: self.awards - other.awards,
            customers: self.customers - other.customers,
            points_standing: self.points_standing - other.points_standing,
            points_declined: self.points_declined - other.points_declined,
        }
    }
}

/// A ledger entry of an award, before it has a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The points that the award gains. They are negative if the award loses points.
    pub points: i64,
    /// The number of the award among the customer's awards.
    pub award_number: i64,
    /// The external id of the purchase that the entry names: the reaching purchase of the award.
    pub purchase: Option<String>,
    /// The dates of the points.
    pub dates: Dates,
    /// If only the dates of the points change: those that they get, for a reversal, or had, for an award.
    pub redated: Option<Dates>,
}

/// The place of a posted entry in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The entry's sequence: 1, 2, 3 …
    pub sequence: i64,
    /// The balance of the customer after the entry.
    pub balance: i64,
}

/// A newly reached award and its decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The number of the award among the customer's awards.
    pub number: i64,
    /// Whether the award stands. Otherwise the budget declined it.
    pub standing: bool,
    pub reached: Reached,
}

/// What a difference does to a customer and a campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The `REVERSAL` entries, in award order.
    pub reversals: Vec<Draft>,
    /// The `AWARD` entries, in award order.
    pub awards: Vec<Draft>,
    /// The newly reached awards, in award order.
    pub given: Vec<Given>,
    /// The decisions of the budget, in order. Empty if the campaign has no budget.
    pub decisions: Vec<Decision>,
    /// What is added to the totals of the campaign.
    pub totals: Totals,
}

impl Effect {
    /// Notes how the number of the customer's standing awards changed.
    fn count_standing(&mut self, before: i64, after: i64) {
        self.totals.awards = after - before;
        self.totals.customers = i64::from(after > 0) - i64::from(before > 0);
    }
}

impl Account {
    /// Adds an entry to the balance and returns its place in the ledger.
    pub fn post(&mut self, points: i64) -> Posted {
        self.entries += 1;
        self.balance += points;
        Posted { sequence: self.entries, balance: self.balance }
    }

    /// Applies the difference of one customer in one campaign: [`Self::take_back`], then [`Self::give`].
    pub fn apply(&mut self, tally: &mut Tally, mut budget: Option<&mut Budget>, diff: &Diff) -> Effect {
        let taken_back = self.take_back(tally, budget.as_deref_mut(), diff);
        let given = self.give(tally, budget, diff);
        Effect {
            reversals: taken_back.reversals,
            decisions: [taken_back.decisions, given.decisions].concat(),
            totals: taken_back.totals + given.totals,
            ..given
        }
    }

    /// Takes back what the awards of a difference lose. If several customers have a difference, this comes first for all of them, so
    /// that a budget has what it gets back before it decides. The balance stays as it is; [`Self::post`] changes it when the entries
    /// are posted.
    pub fn take_back(&mut self, tally: &mut Tally, mut budget: Option<&mut Budget>, diff: &Diff) -> Effect {
        let mut effect = Effect::default();
        let standing_before = tally.standing;
        for taken in taken_back(diff) {
            self.lose(&taken, budget.as_deref_mut(), &mut effect);
        }
        for gone in &diff.reversed {
            *(if gone.standing { &mut tally.standing } else { &mut tally.declined }) -= 1;
        }
        effect.count_standing(standing_before, tally.standing);
        effect
    }

    /// Gives what the awards of a difference gain. The balance stays as it is, like in [`Self::take_back`].
    pub fn give(&mut self, tally: &mut Tally, mut budget: Option<&mut Budget>, diff: &Diff) -> Effect {
        let mut effect = Effect::default();
        let standing_before = tally.standing;
        for gained in gained(diff) {
            match gained {
                Gained::New(reached) => self.gain(reached, tally, budget.as_deref_mut(), &mut effect),
                Gained::Redated(changed, points) => {
                    let redated = Some(changed.recorded.reached.dates);
                    effect.awards.push(draft(points, changed.recorded.number, &changed.reached, redated));
                }
                Gained::More(changed) => self.grow(changed, budget.as_deref_mut(), &mut effect),
            }
        }
        effect.count_standing(standing_before, tally.standing);
        effect
    }

    fn lose(&mut self, taken: &Taken<'_>, budget: Option<&mut Budget>, effect: &mut Effect) {
        let Taken { award, points, redated } = *taken;
        if !award.standing {
            effect.totals.points_declined -= points;
            return;
        }
        effect.reversals.push(draft(-points, award.number, &award.reached, redated));
        if redated.is_some() {
            return;
        }
        self.lifetime -= points;
        effect.totals.points_standing -= points;
        effect.decisions.extend(budget.map(|budget| budget.release(award.number, points)));
    }

    /// Gives a recorded award more points, even if they do not fit into the budget.
    fn grow(&mut self, changed: &Changed, budget: Option<&mut Budget>, effect: &mut Effect) {
        let (award, points) = (&changed.recorded, changed.more());
        if !award.standing {
            effect.totals.points_declined += points;
            return;
        }
        effect.awards.push(draft(points, award.number, &changed.reached, None));
        self.lifetime += points;
        effect.totals.points_standing += points;
        effect.decisions.extend(budget.map(|budget| budget.grow(award.number, points)));
    }

    fn gain(&mut self, reached: &Reached, tally: &mut Tally, budget: Option<&mut Budget>, effect: &mut Effect) {
        self.awards += 1;
        let (number, points) = (self.awards, reached.points);
        let decision = budget.map(|budget| budget.decide(number, points));
        let standing = decision.is_none_or(|decision| decision.kind == DecisionKind::Standing);
        effect.decisions.extend(decision);
        if standing {
            tally.standing += 1;
            self.lifetime += points;
            effect.totals.points_standing += points;
            effect.awards.push(draft(points, number, reached, None));
        } else {
            tally.declined += 1;
            effect.totals.points_declined += points;
        }
        effect.given.push(Given { number, standing, reached: reached.clone() });
    }
}

/// Points that a recorded award loses.
struct Taken<'a> {
    award: &'a RecordedAward,
    points: i64,
    /// The award gets the points again in the same commit, with these dates.
    redated: Option<Dates>,
}

/// Returns the points that recorded awards lose, in the award order of the recorded awards. An award shrinks before its dates change.
fn taken_back(diff: &Diff) -> Vec<Taken<'_>> {
    let reversed = |award| Taken { award, points: award.reached.points, redated: None };
    let lost = |changed: &'_ Changed| {
        let fewer = Some(-changed.more()).filter(|fewer| *fewer > 0).map(|fewer| (fewer, None));
        let redated = changed.reposted.then(|| (points_that_stay(changed), Some(changed.reached.dates)));
        fewer.into_iter().chain(redated)
    };
    let changed = diff
        .changed
        .iter()
        .flat_map(|changed| lost(changed).map(|(points, redated)| Taken { award: &changed.recorded, points, redated }));
    let mut taken: Vec<Taken<'_>> = diff.reversed.iter().map(reversed).chain(changed).collect();
    taken.sort_by(|one, other| one.award.reached.order().cmp(&other.award.reached.order()));
    taken
}

fn points_that_stay(changed: &Changed) -> i64 {
    changed.recorded.reached.points.min(changed.reached.points)
}

/// Points that an award gains.
enum Gained<'a> {
    New(&'a Reached),
    /// A recorded award gets back so many points, which it lost in the same commit, with other dates.
    Redated(&'a Changed, i64),
    /// A recorded award has more points.
    More(&'a Changed),
}

impl Gained<'_> {
    fn reached(&self) -> &Reached {
        match self {
            Self::New(reached) => reached,
            Self::Redated(changed, _) | Self::More(changed) => &changed.reached,
        }
    }
}

/// Returns what awards gain, in award order. An award grows after its dates change.
fn gained(diff: &Diff) -> Vec<Gained<'_>> {
    let recorded = diff.changed.iter().flat_map(|changed| {
        let redated = changed.reposted.then(|| Gained::Redated(changed, points_that_stay(changed)));
        redated.into_iter().chain((changed.more() > 0).then_some(Gained::More(changed)))
    });
    let mut gained: Vec<Gained<'_>> = diff.awarded.iter().map(Gained::New).chain(recorded).collect();
    gained.sort_by(|one, other| one.reached().order().cmp(&other.reached().order()));
    gained
}

fn draft(points: i64, award_number: i64, reached: &Reached, redated: Option<Dates>) -> Draft {
    Draft { points, award_number, purchase: Some(reached.by.external_id.clone()), dates: reached.dates, redated }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::purchase::Key;
    use crate::engine::time::Instant;
    use crate::engine::window::Interval;

    fn reached(at: i64, points: i64) -> Reached {
        let by = Key { at: Instant(at), external_id: format!("p{at}") };
        let window = Interval { opens: Instant(0), closes: Instant(100) };
        Reached {
            evidence_from: by.clone(),
            by,
            nth: 1,
            ordinal: 1,
            points,
            points_before_cap: points,
            window,
            dates: Dates::default(),
        }
    }

    fn recorded(number: i64, standing: bool, at: i64, points: i64) -> RecordedAward {
        RecordedAward { number, standing, reached: reached(at, points) }
    }

    fn points(drafts: &[Draft]) -> Vec<(i64, i64)> {
        drafts.iter().map(|draft| (draft.award_number, draft.points)).collect()
    }

    /// A standing award of 10 points is reversed, one of 7 shrinks to 5, a declined one of 4 is reversed, and two awards of
    /// 6 are newly reached.
    fn a_difference() -> Diff {
        let shrunk = recorded(2, true, 30, 7);
        Diff {
            changed: vec![Changed { reached: reached(30, 5), recorded: shrunk, reposted: false }],
            reversed: vec![recorded(1, true, 40, 10), recorded(3, false, 20, 4)],
            awarded: vec![reached(50, 6), reached(60, 6)],
        }
    }

    #[test]
    fn a_difference_is_posted_reversals_first_each_in_award_order() {
        let mut account = Account { balance: 17, lifetime: 17, awards: 3, entries: 2 };
        let mut tally = Tally { standing: 2, declined: 1 };
        let effect = account.apply(&mut tally, None, &a_difference());
        assert_eq!(points(&effect.reversals), [(2, -2), (1, -10)]);
        assert_eq!(points(&effect.awards), [(4, 6), (5, 6)]);
        assert_eq!(tally, Tally { standing: 3, declined: 0 });
        assert_eq!((account.lifetime, account.awards), (17, 5));
        let totals = Totals { awards: 1, customers: 0, points_standing: 0, points_declined: -4 };
        assert_eq!(effect.totals, totals);
        assert!(effect.decisions.is_empty());
        let posted = effect.reversals.iter().chain(&effect.awards).map(|draft| account.post(draft.points));
        let posted: Vec<(i64, i64)> = posted.map(|posted| (posted.sequence, posted.balance)).collect();
        assert_eq!(posted, [(3, 15), (4, 5), (5, 11), (6, 17)]);
    }

    #[test]
    fn a_budget_gets_back_what_is_reversed_before_it_decides_what_is_reached() {
        let mut budget = Budget { limit: 17, used: 17 };
        let mut tally = Tally { standing: 2, declined: 1 };
        let mut account = Account { awards: 3, lifetime: 17, ..Account::default() };
        let effect = account.apply(&mut tally, Some(&mut budget), &a_difference());
        let decisions: Vec<_> = effect.decisions.iter().map(|one| (one.kind, one.award_number, one.used)).collect();
        use DecisionKind::{Released, Standing};
        assert_eq!(decisions, [(Released, 2, 15), (Released, 1, 5), (Standing, 4, 11), (Standing, 5, 17)]);
        budget = Budget { limit: 10, used: 17 };
        let effect =
            Account::default().apply(&mut Tally { standing: 2, declined: 1 }, Some(&mut budget), &a_difference());
        let standing: Vec<bool> = effect.given.iter().map(|given| given.standing).collect();
        assert_eq!((standing, budget.used), (vec![false, false], 5));
    }

    #[test]
    fn an_award_shrinks_before_its_dates_change_and_grows_after() {
        let apply = |before, after| {
            let changed =
                Changed { recorded: recorded(1, true, 10, before), reached: reached(20, after), reposted: true };
            let diff = Diff { changed: vec![changed], ..Diff::default() };
            let mut account = Account { awards: 1, lifetime: before, ..Account::default() };
            let effect = account.apply(&mut Tally { standing: 1, declined: 0 }, None, &diff);
            assert_eq!(account.lifetime, after);
            let drafts = |drafts: &[Draft]| -> Vec<_> {
                drafts.iter().map(|draft| (draft.points, draft.redated.is_some())).collect()
            };
            (drafts(&effect.reversals), drafts(&effect.awards))
        };
        assert_eq!(apply(8, 5), (vec![(-3, false), (-5, true)], vec![(5, true)]));
        assert_eq!(apply(5, 8), (vec![(-5, true)], vec![(5, true), (3, false)]));
    }

    #[test]
    fn points_that_are_posted_again_neither_use_the_budget_nor_change_the_sums() {
        let moved = Changed { recorded: recorded(1, true, 10, 8), reached: reached(20, 8), reposted: true };
        let diff = Diff { changed: vec![moved], ..Diff::default() };
        let (mut budget, mut tally) = (Budget { limit: 8, used: 8 }, Tally { standing: 1, declined: 0 });
        let mut account = Account { balance: 8, lifetime: 8, awards: 1, entries: 1 };
        let effect = account.apply(&mut tally, Some(&mut budget), &diff);
        assert_eq!((points(&effect.reversals), points(&effect.awards)), (vec![(1, -8)], vec![(1, 8)]));
        assert!(effect.decisions.is_empty() && effect.given.is_empty());
        assert_eq!((effect.totals, budget.used, account.lifetime), (Totals::default(), 8, 8));
    }
}
