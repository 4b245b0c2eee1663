//! Posts the ledger entries of one customer, and moves its points between the pool and the lots.
//!
//! The order within a commit is fixed: what expired since the last commit, all reversals, all awards, what came in past its expiry, then
//! adjustments, redemptions and cancellations in the order in which they came in. Each of these is decided on what is left by all before
//! it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use entity::{LedgerEntryKind, RedemptionState, ledger_entry, redemption, taking};

use super::act::Act;
use super::fact::{Done, NewAdjustment, NewRedemption, RedemptionStep, Refusal, StepKind};
use super::purses::Opened;
use super::stocks::Stocks;
use super::touched::Touched;
use crate::app::error::UserErrorCode;
use crate::app::stored::redemption as redemptions;
use crate::engine::account::{Account, Draft};
use crate::engine::dates::Dates;
use crate::engine::purse::{Expiry, Moving, Passed};
use crate::engine::reward::Obstacle;
use crate::engine::time::Instant;

/// The entries of a customer in a commit.
pub(super) struct Entries<'a> {
    customer: &'a Touched,
    opened: Opened,
    account: Account,
    stocks: &'a mut Stocks,
    /// The reason of the entries of a repair.
    reason: Option<&'static str>,
    posted: Vec<Arc<ledger_entry::Model>>,
    /// The numbers of the redemptions that are new, and of those that changed.
    made: BTreeSet<i64>,
    changed: BTreeSet<i64>,
    takings: Vec<taking::Model>,
    has_acted: bool,
}

/// What the entries lead to.
pub(super) struct Closed {
    pub(super) opened: Opened,
    pub(super) account: Account,
    pub(super) posted: Vec<Arc<ledger_entry::Model>>,
    pub(super) redemptions: Redemptions,
    pub(super) takings: Vec<taking::Model>,
    /// Whether an act was done, or a reservation was over.
    pub(super) has_acted: bool,
}

/// The redemptions of a commit.
pub(super) struct Redemptions {
    pub(super) made: Vec<Arc<redemption::Model>>,
    pub(super) changed: Vec<Arc<redemption::Model>>,
}

impl<'a> Entries<'a> {
    /// Begins with what the clock did since the last commit.
    pub(super) fn begin(
        customer: &'a Touched,
        mut opened: Opened,
        reason: Option<&'static str>,
        stocks: &'a mut Stocks,
    ) -> Self {
        let Passed { expiries, lapsed } = std::mem::take(&mut opened.passed);
        let mut entries = Self {
            customer,
            opened,
            account: customer.account(),
            stocks,
            reason,
            posted: Vec::new(),
            made: BTreeSet::new(),
            changed: BTreeSet::new(),
            takings: Vec::new(),
            has_acted: false,
        };
        for number in lapsed {
            entries.lapse(number);
        }
        entries.expire(expiries);
        entries
    }

    /// Notes that a reservation is over.
    fn lapse(&mut self, number: i64) {
        let Some(row) = self.opened.redemptions.get_mut(&number) else { return };
        row.state = RedemptionState::Lapsed;
        (row.ended_at, row.version) = (row.reserved_until, self.customer.next_version());
        self.stocks.end(row);
        self.changed.insert(number);
        self.has_acted = true;
    }

    /// Decides an act.
    pub(super) fn decide(&mut self, act: &Act) -> Result<Done, Refusal> {
        let done = match act {
            Act::Adjust(adjustment) => self.adjust(adjustment),
            Act::Redeem(redeem) => self.redeem(redeem),
            Act::Step(step) => self.step(step),
        }?;
        self.has_acted |= !done.replayed;
        Ok(done)
    }

    /// Cancels all reservations, because the customer is erased.
    pub(super) fn end_reservations(&mut self) {
        let is_reserved = |row: &&redemption::Model| row.state == RedemptionState::Reserved;
        let reserved = self.opened.redemptions.values().filter(is_reserved);
        let reserved: Vec<(i64, i64)> =
            reserved.map(|row| (row.number, row.reserved_until.unwrap_or_default())).collect();
        for (number, until) in reserved {
            self.opened.purse.cancel_reservation(Instant(until), number);
            self.end(number, None);
            self.settle();
        }
    }

    /// Ends the commit.
    pub(super) fn close(self) -> Closed {
        let Self { opened, account, posted, made, changed, takings, has_acted, .. } = self;
        let of = |numbers: &BTreeSet<i64>| {
            numbers.iter().filter_map(|number| opened.redemptions.get(number).cloned().map(Arc::new)).collect()
        };
        // What is made and changed by one commit is inserted as it is in the end.
        let changed = changed.difference(&made).copied().collect();
        let redemptions = Redemptions { made: of(&made), changed: of(&changed) };
        Closed { opened, account, posted, redemptions, takings, has_acted }
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

    fn adjust(&mut self, adjustment: &NewAdjustment) -> Result<Done, Refusal> {
        let refuse = |code, field, message| Err(Refusal::new(code, field, message));
        let available = self.opened.purse.available();
        if adjustment.expires_at.is_some_and(|at| at <= self.customer.now) {
            return refuse(UserErrorCode::BoundaryInPast, "expiresAt", "must lie ahead");
        }
        if !adjustment.fits(available) {
            return refuse(UserErrorCode::OutOfRange, "points", "would take the balance past ±10^15");
        }
        if !adjustment.allow_negative && adjustment.points < 0 && available + adjustment.points < 0 {
            return Err(insufficient("points", available));
        }
        if adjustment.points > 0 {
            self.opened.purse.put(adjustment.dates(), adjustment.points);
        } else {
            self.opened.purse.owe(-adjustment.points);
        }
        let entry = self.entry(LedgerEntryKind::Adjustment, adjustment.points, adjustment.dates());
        let entry = self.post(ledger_entry::Model { reason: Some(adjustment.reason.clone()), ..entry });
        self.settle();
        Ok(Done { entry: Some(entry), ..Done::default() })
    }

    /// Spends points on a reward, or sets them aside.
    fn redeem(&mut self, redeem: &NewRedemption) -> Result<Done, Refusal> {
        let refuse = |code, field, message| Err(Refusal::new(code, field, message));
        let now = self.customer.now;
        let offered = self.stocks.offer(redeem.reward).zip(self.stocks.reward(redeem.reward));
        let Some((offer, _)) = offered.filter(|(_, row)| row.self_service || !redeem.by_customer) else {
            return refuse(UserErrorCode::NotFound, "rewardId", "no reward has this id");
        };
        let Some(points) = offer.points(redeem.quantity) else {
            return refuse(UserErrorCode::OutOfRange, "quantity", "would cost more than 10^12 points");
        };
        let has = self.opened.units.get(&redeem.reward).copied().unwrap_or_default();
        let (units, available) = (self.stocks.units(redeem.reward), self.opened.purse.available());
        match offer.obstacle(now, redeem.quantity, points, has, units, available) {
            None => {}
            Some(Obstacle::NotOffered) => {
                return refuse(UserErrorCode::NotFound, "rewardId", "the reward is not offered now");
            }
            Some(Obstacle::LimitReached) => {
                let message = format!("the customer has {has} of at most {}", offer.max_per_customer.unwrap_or(0));
                return refuse(UserErrorCode::LimitReached, "quantity", &message);
            }
            Some(Obstacle::OutOfStock) => {
                let left = units.left(offer.stock).unwrap_or(0);
                return refuse(UserErrorCode::OutOfStock, "quantity", &format!("{left} are left"));
            }
            Some(Obstacle::InsufficientPoints) => return Err(insufficient("quantity", available)),
        }
        self.opened.last_redemption += 1;
        let number = self.opened.last_redemption;
        let until = redeem.reserve_for.map(|span| now.plus(span));
        let (takings, state) = match until {
            None => (self.opened.purse.spend(points), RedemptionState::Redeemed),
            Some(until) => (self.opened.purse.reserve(number, until, points), RedemptionState::Reserved),
        };
        let (customer_id, version) = (self.customer.row.id, self.customer.next_version());
        let row = redemption::Model {
            customer_id,
            number,
            reward_id: redeem.reward,
            quantity: redeem.quantity,
            points,
            state,
            created_at: now.0,
            created_version: version,
            created_sequence: self.account.entries,
            reserved_until: until.map(|until| until.0),
            redeemed_at: None,
            ended_at: None,
            ended_version: None,
            ended_sequence: None,
            reason: None,
            version,
        };
        self.takings.extend(redemptions::to_rows(customer_id, number, &takings));
        self.opened.takings.insert((customer_id, number), takings);
        *self.opened.units.entry(redeem.reward).or_default() += redeem.quantity;
        self.stocks.count(redeem.reward, 0, redeem.quantity);
        self.opened.redemptions.insert(number, row);
        self.made.insert(number);
        let entry = until.is_none().then(|| self.spend(number)).flatten();
        Ok(Done { entry, ..self.done(number) })
    }

    /// Posts the points of a redemption as spent, and gives its codes.
    fn spend(&mut self, number: i64) -> Option<Arc<ledger_entry::Model>> {
        let (now, version) = (self.customer.now, self.customer.next_version());
        let row = self.opened.redemptions.get_mut(&number)?;
        (row.state, row.redeemed_at, row.version) = (RedemptionState::Redeemed, Some(now.0), version);
        self.stocks.count(row.reward_id, row.quantity, -row.quantity);
        if self.stocks.give_codes(row) {
            self.opened.with_codes.insert(number);
        }
        let points = -row.points;
        let entry = self.entry(LedgerEntryKind::Redemption, points, Dates::default());
        Some(self.post(ledger_entry::Model { redemption_number: Some(number), ..entry }))
    }

    fn step(&mut self, step: &RedemptionStep) -> Result<Done, Refusal> {
        let refuse = |code, message| Err(Refusal::new(code, "id", message));
        let Some(row) = self.opened.redemptions.get(&step.number) else {
            return refuse(UserErrorCode::NotFound, "no redemption has this id");
        };
        let (state, points) = (row.state, row.points);
        let until = Instant(row.reserved_until.unwrap_or_default());
        use RedemptionState::{Cancelled, Lapsed, Redeemed, Reserved};
        let replay = Ok(Done { replayed: true, ..self.done(step.number) });
        match (&step.kind, state) {
            (StepKind::Commit, Reserved) => {
                self.opened.purse.commit_reservation(until, step.number);
                let entry = self.spend(step.number);
                self.changed.insert(step.number);
                Ok(Done { entry, ..self.done(step.number) })
            }
            (StepKind::Commit, Redeemed) | (StepKind::Cancel { .. }, Cancelled) => replay,
            (StepKind::Commit, Cancelled) => refuse(UserErrorCode::IllegalTransition, "the redemption is cancelled"),
            (_, Lapsed) => refuse(UserErrorCode::IllegalTransition, "the reservation is over"),
            (StepKind::Cancel { .. }, Redeemed) if step.by_customer => {
                refuse(UserErrorCode::IllegalTransition, "only the shop can cancel what is redeemed")
            }
            (StepKind::Cancel { reason }, Reserved) => {
                self.opened.purse.cancel_reservation(until, step.number);
                self.end(step.number, reason.clone());
                self.settle();
                Ok(self.done(step.number))
            }
            (StepKind::Cancel { reason }, Redeemed) => {
                let name = (self.customer.row.id, step.number);
                let takings = self.opened.takings.get(&name).cloned().unwrap_or_default();
                self.opened.purse.cancel_redemption(&takings);
                let entry = self.entry(LedgerEntryKind::Cancellation, points, Dates::default());
                let entry =
                    ledger_entry::Model { redemption_number: Some(step.number), reason: reason.clone(), ..entry };
                let entry = self.post(entry);
                self.end(step.number, reason.clone());
                self.settle();
                Ok(Done { entry: Some(entry), ..self.done(step.number) })
            }
        }
    }

    /// Notes that a redemption or a reservation is cancelled, and frees its units. A code that was shown is never given again, so its
    /// unit stays redeemed.
    fn end(&mut self, number: i64, reason: Option<String>) {
        let (now, version, sequence) = (self.customer.now, self.customer.next_version(), self.account.entries);
        let Some(row) = self.opened.redemptions.get_mut(&number) else { return };
        if row.state == RedemptionState::Reserved {
            self.stocks.end(row);
        } else if !self.opened.with_codes.contains(&number) {
            self.stocks.count(row.reward_id, -row.quantity, 0);
        }
        row.state = RedemptionState::Cancelled;
        (row.ended_at, row.ended_version, row.ended_sequence) = (Some(now.0), Some(version), Some(sequence));
        (row.reason, row.version) = (reason, version);
        *self.opened.units.entry(row.reward_id).or_default() -= row.quantity;
        self.changed.insert(number);
    }

    fn done(&self, number: i64) -> Done {
        let redemption = self.opened.redemptions.get(&number).cloned().map(Arc::new);
        Done { entry: None, redemption, replayed: false }
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
            self.post(ledger_entry::Model { reason: self.reason.map(str::to_owned), ..entry });
        }
    }

    fn post_draft(&mut self, kind: LedgerEntryKind, draft: Draft) {
        let entry = self.entry(kind, draft.points, draft.dates);
        self.post(ledger_entry::Model {
            award_number: Some(draft.award_number),
            purchase_external_id: draft.purchase,
            reason: self.reason.map(str::to_owned),
            ..entry
        });
    }

    fn post(&mut self, entry: ledger_entry::Model) -> Arc<ledger_entry::Model> {
        let entry = Arc::new(entry);
        self.posted.push(Arc::clone(&entry));
        entry
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
            redemption_number: None,
            created_at: self.opened.purse.now().0,
            version: self.customer.next_version(),
        }
    }
}

fn insufficient(field: &str, available: i64) -> Refusal {
    let message = format!("only {} points are available", available.max(0));
    Refusal::new(UserErrorCode::InsufficientPoints, field, &message)
}
