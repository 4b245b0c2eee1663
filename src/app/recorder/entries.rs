//! Posts the ledger entries of one customer, and moves its points between the pool and the lots.
//!
//! The order within a commit is fixed: what expired since the last commit, all reversals, all awards, what came in past its expiry, then
//! adjustments in the order in which they came in. Each adjustment is decided on what is left by all before it.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{LedgerEntryKind, ledger_entry};

use super::fact::{NewAdjustment, Refusal};
use super::purses::Opened;
use super::touched::Touched;
use crate::app::error::UserErrorCode;
use crate::engine::account::{Account, Draft};
use crate::engine::dates::Dates;
use crate::engine::purse::{Expiry, Moving};
use crate::engine::time::Instant;

/// The entries of a customer in a commit.
pub(super) struct Entries<'a> {
    customer: &'a Touched,
    pub(super) opened: Opened,
    pub(super) account: Account,
    /// The reason of the entries of a repair.
    reason: Option<&'static str>,
    pub(super) posted: Vec<Arc<ledger_entry::Model>>,
}

impl<'a> Entries<'a> {
    /// Begins with what expired since the last commit.
    pub(super) fn begin(customer: &'a Touched, mut opened: Opened, reason: Option<&'static str>) -> Self {
        let expired = std::mem::take(&mut opened.passed.expiries);
        let mut entries = Self { customer, opened, account: customer.account(), reason, posted: Vec::new() };
        entries.expire(expired);
        entries
    }

    /// Posts the reversals. Those that only change dates take points after the others. The entries stay in award order.
    pub(super) fn reverse(&mut self, drafts: Vec<Draft>) -> HashMap<i64, Moving> {
        let mut revived = vec![0; drafts.len()];
        for (draft, revived) in drafts.iter().zip(&mut revived).filter(|(draft, _)| draft.redated.is_none()) {
            *revived = self.opened.purse.reverse(draft.dates, -draft.points);
        }
        let mut moving = HashMap::new();
        for (draft, revived) in drafts.iter().zip(&mut revived) {
            let Some(to) = draft.redated else { continue };
            let taken = self.opened.purse.take_along(draft.dates, to, -draft.points);
            *revived = taken.revived;
            moving.insert(draft.award_number, taken);
        }
        for (draft, revived) in drafts.into_iter().zip(revived) {
            if let Some(expires_at) = draft.dates.expires_at.filter(|_| revived > 0) {
                self.expire(vec![Expiry { expires_at, points: revived }]);
            }
            // The points leave a lot that is known by the award. Only an entry that adds points has dates.
            self.post_draft(LedgerEntryKind::Reversal, Draft { dates: Dates::default(), ..draft });
        }
        moving
    }

    /// Posts the awards. `moving` contains the points whose dates change.
    pub(super) fn award(&mut self, drafts: Vec<Draft>, mut moving: HashMap<i64, Moving>) {
        for draft in drafts {
            match draft.redated.and_then(|_| moving.remove(&draft.award_number)) {
                Some(moving) => self.opened.purse.put_along(draft.dates, moving),
                None => self.opened.purse.put(draft.dates, draft.points),
            }
            self.post_draft(LedgerEntryKind::Award, draft);
        }
    }

    /// Covers the deficit, and posts what is left of points that came in past their expiry.
    pub(super) fn settle(&mut self) {
        let expired = self.opened.purse.settle();
        self.expire(expired);
    }

    /// Posts an adjustment, unless it is refused.
    pub(super) fn adjust(&mut self, adjustment: &NewAdjustment) -> Result<(), Refusal> {
        let refuse = |code, field, message| Err(Refusal::new(code, field, message));
        let available = self.opened.purse.available();
        if adjustment.expires_at.is_some_and(|at| at <= self.customer.now) {
            return refuse(UserErrorCode::BoundaryInPast, "expiresAt", "must lie ahead");
        }
        if !adjustment.fits(available) {
            return refuse(UserErrorCode::OutOfRange, "points", "would take the balance past ±10^15");
        }
        if !adjustment.allow_negative && adjustment.points < 0 && available + adjustment.points < 0 {
            let message = format!("only {} points are available", available.max(0));
            return refuse(UserErrorCode::InsufficientPoints, "points", &message);
        }
        if adjustment.points > 0 {
            self.opened.purse.put(adjustment.dates(), adjustment.points);
        } else {
            self.opened.purse.owe(-adjustment.points);
        }
        let entry = self.entry(LedgerEntryKind::Adjustment, adjustment.points, adjustment.dates());
        self.posted.push(Arc::new(ledger_entry::Model { reason: Some(adjustment.reason.clone()), ..entry }));
        self.settle();
        Ok(())
    }

    /// Posts what the ledger lacks to be the sum of what the customer holds. Only a ledger that was damaged lacks anything.
    pub(super) fn correct(&mut self) {
        let lacking = self.opened.purse.total() - self.account.balance;
        if lacking != 0 {
            self.expire(vec![Expiry { expires_at: self.customer.now, points: lacking }]);
        }
    }

    fn expire(&mut self, expiries: Vec<Expiry>) {
        for Expiry { expires_at, points } in expiries {
            let dates = Dates { available_at: None, expires_at: Some(expires_at) };
            let entry = self.entry(LedgerEntryKind::Expiry, points, dates);
            self.posted.push(Arc::new(ledger_entry::Model { reason: self.reason.map(str::to_owned), ..entry }));
        }
    }

    fn post_draft(&mut self, kind: LedgerEntryKind, draft: Draft) {
        let entry = self.entry(kind, draft.points, draft.dates);
        self.posted.push(Arc::new(ledger_entry::Model {
            award_number: Some(draft.award_number),
            purchase_external_id: draft.purchase,
            reason: self.reason.map(str::to_owned),
            ..entry
        }));
    }

    fn entry(&mut self, kind: LedgerEntryKind, points: i64, dates: Dates) -> ledger_entry::Model {
        let posted = self.account.post(points);
        let micros = |at: Option<Instant>| at.map(|at| at.0);
        ledger_entry::Model {
            customer_id: self.customer.row.id,
            sequence: posted.sequence,
            kind,
            points,
            balance_after: posted.balance,
            award_number: None,
            purchase_external_id: None,
            reason: None,
            available_at: micros(dates.available_at),
            expires_at: micros(dates.expires_at),
            created_at: self.opened.purse.now().0,
            version: self.customer.next_version(),
        }
    }
}
