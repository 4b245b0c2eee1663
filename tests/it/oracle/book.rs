//! The section "When history changes": a customer's awards in one campaign and what each commit posts.

use super::reached::reached;
use super::{Award, Campaign, Purchase};

/// The campaign's budget over all customers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// None: unlimited.
    pub(crate) limit: Option<i64>,
    /// Points standing at once.
    pub(crate) used: i64,
    /// Decisions made so far.
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
    /// Its place in `Book::awards`, for ever.
    pub(crate) id: usize,
    pub(crate) award: Award,
    pub(crate) status: Status,
    /// `decisionNo`, from 1; none without a budget.
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
    /// `Recorded::id`.
    pub(crate) award: usize,
    /// "the purchase that reached the award at that time"
    pub(crate) purchase: String,
}

/// One customer's awards and ledger entries in one campaign; nothing is ever removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) awards: Vec<Recorded>,
    pub(crate) ledger: Vec<Entry>,
}

impl Book {
    /// Posts the difference between what is recorded and what `purchases`, all that are known now, reach.
    /// Returns this commit's entries.
    pub(crate) fn commit(&mut self, c: &Campaign, purchases: &[Purchase], budget: &mut Budget) -> Vec<Entry> {
        let reached = reached(c, purchases);

        // "*G* = recorded awards no longer reached, *N* = newly reached ones, both in award order."
        let recorded = self.current();
        let mut gone: Vec<Recorded> =
            recorded.iter().filter(|r| !reached.iter().any(|a| a.name() == r.award.name())).cloned().collect();
        let mut new: Vec<Award> =
            reached.iter().filter(|a| !recorded.iter().any(|r| r.award.name() == a.name())).cloned().collect();
        let same: Vec<(Recorded, Award)> = recorded
            .iter()
            .filter_map(|r| reached.iter().find(|a| a.name() == r.award.name()).map(|a| (r.clone(), a.clone())))
            .collect();

        // "Among equal points, the i-th of G **moves** to the i-th of N"
        let mut moves: Vec<(Recorded, Award)> = Vec::new();
        for from in gone.clone() {
            if let Some(to) = new.iter().position(|a| a.points == from.award.points) {
                gone.retain(|r| r.id != from.id);
                moves.push((from, new.remove(to)));
            }
        }

        // Entries with the award whose order they follow.
        let mut reversals: Vec<(Award, Entry)> = Vec::new();
        let mut awards: Vec<(Award, Entry)> = Vec::new();

        // "same id, points and status; new earnedAt, window, ordinal, evidence. A move posts nothing, unless it is
        // STANDING, its earnedAt changed and the campaign has `holdFor` or `expiresAfter`: then REVERSAL and AWARD."
        for (from, to) in moves {
            let timed = c.hold_for.is_some() || c.expires_after.is_some();
            if from.status == Status::Standing && from.award.earned_at != to.earned_at && timed {
                reversals.push((from.award.clone(), reversal(from.id, &from.award, from.award.points)));
                awards.push((to.clone(), award(from.id, &to)));
            }
            self.awards[from.id].award = to;
        }
        // "The rest of G is REVERSED"
        for lost in gone {
            if lost.status == Status::Standing {
                reversals.push((lost.award.clone(), reversal(lost.id, &lost.award, lost.award.points)));
                budget.used -= lost.award.points;
            }
            self.awards[lost.id].status = Status::Reversed;
        }
        // "Fewer points under the same name post a REVERSAL of the difference."
        for (from, to) in same {
            let fewer = from.award.points - to.points;
            assert!(fewer >= 0, "points grew under the name {:?}", to.name());
            if fewer > 0 && from.status == Status::Standing {
                reversals.push((from.award.clone(), reversal(from.id, &from.award, fewer)));
                budget.used -= fewer;
            }
            self.awards[from.id].award = to;
        }
        // "the rest of N is awarded." "reversals before awards, awards in award order. A newly reached award is decided
        // once: STANDING if it fits whole, else DECLINED with its would-be points."
        for newly in new {
            let id = self.awards.len();
            let fits = budget.limit.is_none_or(|limit| budget.used + newly.points <= limit);
            // "Decisions of a budgeted campaign are numbered"
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

        // "In one commit: due EXPIRY, then REVERSAL, then AWARD."
        reversals.sort_by_key(|(a, _)| a.order());
        awards.sort_by_key(|(a, _)| a.order());
        let entries: Vec<Entry> = reversals.into_iter().chain(awards).map(|(_, entry)| entry).collect();
        self.ledger.extend(entries.clone());
        entries
    }

    /// STANDING ∪ DECLINED in award order.
    pub(crate) fn current(&self) -> Vec<Recorded> {
        let mut current: Vec<Recorded> = self.awards.iter().filter(|r| r.status != Status::Reversed).cloned().collect();
        current.sort_by_key(|r| r.award.order());
        current
    }

    /// "`lifetime` = Σ AWARD + REVERSAL"
    pub(crate) fn lifetime(&self) -> i64 {
        self.ledger.iter().map(|entry| entry.points).sum()
    }

    /// "points of the STANDING awards"
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
