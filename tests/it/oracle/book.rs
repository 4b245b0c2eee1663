//! The section "When history changes" of `docs/semantics.md`: the awards of one customer in one campaign, and what each
//! commit posts.

use super::reached::reached;
use super::{Award, Campaign, Purchase};

/// The budget of the campaign, which all customers share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// `None` if the budget is unlimited.
    pub(crate) limit: Option<i64>,
    /// The points of all awards that stand.
    pub(crate) used: i64,
    /// The number of decisions made so far.
    pub(crate) decisions: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Standing,
    Reversed,
    Declined,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// The index in [`Book::awards`]. It never changes.
    pub(crate) id: usize,
    pub(crate) award: Award,
    pub(crate) status: Status,
    /// The number of the budget decision, from 1. `None` if the campaign has no budget.
    pub(crate) decision: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Award,
    Reversal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: EntryKind,
    /// Negative for a REVERSAL.
    pub(crate) points: i64,
    /// The [`Recorded::id`] of the award.
    pub(crate) award: usize,
    /// "`purchase` is the purchase that reached the award when the entry was posted."
    pub(crate) purchase: String,
}

/// The awards and ledger entries of one customer in one campaign. Nothing is ever removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) awards: Vec<Recorded>,
    pub(crate) ledger: Vec<Entry>,
}

impl Book {
    /// Posts the difference between the recorded awards and those that `purchases` reach. `purchases` are all that are
    /// known now. Returns the entries of this commit.
    pub(crate) fn commit(&mut self, c: &Campaign, purchases: &[Purchase], budget: &mut Budget) -> Vec<Entry> {
        let reached = reached(c, purchases);

        // "G is the list of the recorded awards that are no longer reached, N the list of the newly reached awards,
        // both in award order."
        let recorded = self.current();
        let mut gone: Vec<Recorded> =
            recorded.iter().filter(|r| !reached.iter().any(|a| a.name() == r.award.name())).cloned().collect();
        let mut new: Vec<Award> =
            reached.iter().filter(|a| !recorded.iter().any(|r| r.award.name() == a.name())).cloned().collect();
        let same: Vec<(Recorded, Award)> = recorded
            .iter()
            .filter_map(|r| reached.iter().find(|a| a.name() == r.award.name()).map(|a| (r.clone(), a.clone())))
            .collect();

        // "Among awards with equal points, the first of G **moves** to the first of N, the second of G to the second of
        // N, and so on."
        let mut moves: Vec<(Recorded, Award)> = Vec::new();
        for from in gone.clone() {
            if let Some(to) = new.iter().position(|a| a.points == from.award.points) {
                gone.retain(|r| r.id != from.id);
                moves.push((from, new.remove(to)));
            }
        }

        // Each entry is kept with the award that determines its place.
        let mut reversals: Vec<(Award, Entry)> = Vec::new();
        let mut awards: Vec<(Award, Entry)> = Vec::new();

        // "A move, or another earnedAt under one name, posts nothing, unless the award is STANDING and goes to another lot (or the pool):
        // then REVERSAL of what it had and AWARD of what it has". All points are pending here, so other dates are another lot.
        let goes_to_another_lot =
            |from: &Recorded, to: &Award| from.status == Status::Standing && from.award.dates(c) != to.dates(c);
        for (from, to) in moves {
            if goes_to_another_lot(&from, &to) {
                reversals.push((from.award.clone(), reversal(from.id, &from.award, from.award.points)));
                awards.push((to.clone(), award(from.id, &to)));
            }
            self.awards[from.id].award = to;
        }
        // "Each award that is left in G becomes `REVERSED`. If it was `STANDING`, a `REVERSAL` of all its points is
        // posted."
        for lost in gone {
            if lost.status == Status::Standing {
                reversals.push((lost.award.clone(), reversal(lost.id, &lost.award, lost.award.points)));
                budget.used -= lost.award.points;
            }
            self.awards[lost.id].status = Status::Reversed;
        }
        // "Under one name, fewer points post a REVERSAL of the difference, more an AWARD of the difference." "growth may pass a
        // budget"
        let mut grown: Vec<(usize, Award, i64)> = Vec::new();
        for (from, to) in same {
            let fewer = from.award.points - to.points;
            if fewer > 0 && from.status == Status::Standing {
                reversals.push((from.award.clone(), reversal(from.id, &from.award, fewer)));
                budget.used -= fewer;
            }
            // "An award shrinks before its dates change and grows after."
            if goes_to_another_lot(&from, &to) {
                let stays = from.award.points.min(to.points);
                reversals.push((from.award.clone(), reversal(from.id, &from.award, stays)));
                awards.push((to.clone(), award(from.id, &Award { points: stays, ..to.clone() })));
            }
            if fewer < 0 && from.status == Status::Standing {
                grown.push((from.id, to.clone(), -fewer));
            }
            self.awards[from.id].award = to;
        }
        // "Each award that is left in N becomes a new award." "If all its points fit beside those that stand, it
        // becomes `STANDING`. Otherwise it becomes `DECLINED`."
        let mut grow = |until: Option<&Award>, budget: &mut Budget, awards: &mut Vec<(Award, Entry)>| {
            for (id, to, more) in grown.extract_if(.., |(_, to, _)| until.is_none_or(|next| to.order() < next.order()))
            {
                awards.push((to.clone(), award(id, &Award { points: more, ..to })));
                budget.used += more;
            }
        };
        for newly in new {
            // Growth and new awards follow each other in award order.
            grow(Some(&newly), budget, &mut awards);
            let id = self.awards.len();
            let fits = budget.limit.is_none_or(|limit| budget.used + newly.points <= limit);
            // "The decisions of a campaign with a budget are recorded in a numbered sequence"
            let decision = budget.limit.map(|_| {
                budget.decisions += 1;
                budget.decisions
            });
            if fits {
                awards.push((newly.clone(), award(id, &newly)));
                budget.used += newly.points;
            }
            let status = if fits { Status::Standing } else { Status::Declined };
            self.awards.push(Recorded { id, award: newly, status, decision });
        }

        grow(None, budget, &mut awards);

        // "all `REVERSAL` entries; all `AWARD` entries", each "in award order"
        reversals.sort_by_key(|(a, _)| a.order());
        awards.sort_by_key(|(a, _)| a.order());
        let entries: Vec<Entry> = reversals.into_iter().chain(awards).map(|(_, entry)| entry).collect();
        self.ledger.extend(entries.clone());
        entries
    }

    /// The STANDING and DECLINED awards, in award order.
    pub(crate) fn current(&self) -> Vec<Recorded> {
        let mut current: Vec<Recorded> = self.awards.iter().filter(|r| r.status != Status::Reversed).cloned().collect();
        current.sort_by_key(|r| r.award.order());
        current
    }

    /// "`lifetime` is the sum of all `AWARD` and `REVERSAL` entries."
    pub(crate) fn lifetime(&self) -> i64 {
        self.ledger.iter().map(|entry| entry.points).sum()
    }

    /// "It equals the points of all `STANDING` awards."
    pub(crate) fn standing(&self) -> i64 {
        self.awards.iter().filter(|r| r.status == Status::Standing).map(|r| r.award.points).sum()
    }
}

fn award(id: usize, award: &Award) -> Entry {
    Entry { kind: EntryKind::Award, points: award.points, award: id, purchase: award.purchase.clone() }
}

fn reversal(id: usize, award: &Award, points: i64) -> Entry {
    Entry { kind: EntryKind::Reversal, points: -points, award: id, purchase: award.purchase.clone() }
}
