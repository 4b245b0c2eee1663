//! Replays the ledger of a customer: computes from its entries what the customer holds, and which `EXPIRY` entries there should be.
//!
//! The entries of a commit are applied together, because an award whose dates changed has two of them. The replay relies on what is
//! recorded as it happens: the instant of each entry, the dates of the points that it adds, and the reservations and redemptions with what
//! they took.

use std::collections::{HashMap, VecDeque};

use super::dates::Dates;
use super::purse::{Expiry, Moving, Purse, Reservation, Sums, Taking};
use super::time::Instant;

/// Why an entry moves points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Award,
    Reversal,
    Adjustment,
    Expiry,
    Redemption,
    Cancellation,
}

/// The beginning or the end of a reservation, for which no entry is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The version of the customer after the commit.
    pub version: i64,
    /// The sequence of the last entry before the event.
    pub sequence: i64,
    pub at: Instant,
    /// The number of the redemption.
    pub number: i64,
    /// When the reservation ends by itself.
    pub until: Instant,
    /// Somebody ended the reservation. Otherwise it was made.
    pub ends: bool,
}

/// An entry of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sequence: i64,
    pub kind: Kind,
    pub points: i64,
    /// The number of the award.
    pub award: Option<i64>,
    /// The number of the redemption.
    pub redemption: Option<i64>,
    /// The dates that are stored with the entry.
    pub dates: Dates,
    /// When the entry was posted.
    pub at: Instant,
    /// The version of the customer after the commit.
    pub version: i64,
    /// A repair posted the entry. Its `EXPIRY` entries correct the sum of the ledger, and move no points.
    pub repairs: bool,
}

/// A commit whose `EXPIRY` entries are not those that follow from what the customer held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The sequence of the last entry of the commit.
    pub sequence: i64,
    /// The sum of the points of the recorded entries.
    pub recorded: i64,
    /// What the sum should be.
    pub expected: i64,
}

/// A replay up to some entry.
#[derive(Clone, Debug)]
pub struct Replay {
    purse: Purse,
    /// The version of the last commit that was applied.
    version: i64,
    /// Those that are not applied yet, in order.
    events: VecDeque<Event>,
    /// What each redemption took.
    takings: HashMap<i64, Vec<Taking>>,
    /// When each redemption ends that is a reservation.
    until: HashMap<i64, Instant>,
    /// The dates of each award whose points wait or expire.
    dates: HashMap<i64, Dates>,
    commit: Vec<Entry>,
    wrong: Vec<Wrong>,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            purse: Purse::new(0, Sums::default(), Instant::EPOCH),
            version: 0,
            events: VecDeque::new(),
            takings: HashMap::new(),
            until: HashMap::new(),
            dates: HashMap::new(),
            commit: Vec::new(),
            wrong: Vec::new(),
        }
    }
}

impl Replay {
    /// Sets all events that are recorded, and what each redemption took, before the entries that follow are added. Events of commits
    /// that were applied already are not applied again.
    pub fn set_redemptions(&mut self, mut events: Vec<Event>, takings: HashMap<i64, Vec<Taking>>) {
        self.until = events.iter().map(|event| (event.number, event.until)).collect();
        events.retain(|event| event.version > self.version);
        events.sort_by_key(|event| (event.version, event.sequence));
        (self.takings, self.events) = (takings, events.into());
    }

    /// Adds the next entry.
    pub fn push(&mut self, entry: Entry) {
        if self.commit.last().is_some_and(|last| last.version != entry.version) {
            self.apply();
        }
        self.commit.push(entry);
    }

    /// Applies the last commit. No further entry of it may follow.
    pub fn end_commit(&mut self) {
        self.apply();
    }

    /// Returns the dates of the points that an award has according to the ledger, as of the last commit that ended.
    pub fn dates(&self, award: i64) -> Dates {
        self.dates.get(&award).copied().unwrap_or_default()
    }

    /// Returns what the customer holds after the last entry, and the commits that are wrong.
    pub fn finish(mut self) -> (Purse, Vec<Wrong>) {
        self.apply();
        self.pass_events(i64::MAX);
        (self.purse, self.wrong)
    }

    /// Applies the events of commits that posted nothing, before the commit with this version.
    fn pass_events(&mut self, version: i64) {
        while let Some(event) = self.events.pop_front_if(|event| event.version < version) {
            self.version = event.version;
            let mut expected = self.purse.advance(event.at).expiries;
            expected.extend(self.apply_event(event));
            self.compare(std::iter::empty(), expected, event.sequence);
        }
    }

    /// Returns the `EXPIRY` entries that the event leads to.
    fn apply_event(&mut self, event: Event) -> Vec<Expiry> {
        if event.ends {
            self.purse.cancel_reservation(event.until, event.number);
            return self.purse.settle();
        }
        let takings = self.takings.get(&event.number).cloned().unwrap_or_default();
        self.purse.reserve_again(Reservation { number: event.number, until: event.until, takings });
        Vec::new()
    }

    /// Applies the entry of an adjustment, a redemption or a cancellation.
    fn apply_act(&mut self, entry: &Entry) -> Vec<Expiry> {
        let number = entry.redemption.unwrap_or_default();
        match entry.kind {
            Kind::Adjustment if entry.points > 0 => self.purse.put(entry.dates, entry.points),
            Kind::Adjustment => self.purse.owe(-entry.points),
            Kind::Redemption => {
                let until = self.until.get(&number).copied();
                if until.and_then(|until| self.purse.commit_reservation(until, number)).is_none() {
                    self.purse.spend_again(self.takings.get(&number).map(Vec::as_slice).unwrap_or_default());
                }
            }
            Kind::Cancellation => {
                self.purse.cancel_redemption(self.takings.get(&number).map(Vec::as_slice).unwrap_or_default());
            }
            Kind::Award | Kind::Reversal | Kind::Expiry => {}
        }
        self.purse.settle()
    }

    fn apply(&mut self) {
        let commit = std::mem::take(&mut self.commit);
        let (Some(first), Some(last)) = (commit.first(), commit.last()) else { return };
        self.pass_events(first.version);
        self.version = first.version;
        let mut expected = self.purse.advance(first.at).expiries;
        let redated = redated(&commit);
        let mut moving: HashMap<i64, Moving> = HashMap::new();
        let of_kind = |kind| commit.iter().filter(move |entry| entry.kind == kind);
        let mut revive = |dates: Dates, points: i64| {
            let expires_at = dates.expires_at.filter(|_| points > 0);
            expected.extend(expires_at.map(|expires_at| Expiry { expires_at, points }));
        };
        for entry in of_kind(Kind::Reversal).filter(|entry| !redated.contains_key(&entry.sequence)) {
            let dates = self.dates_of(entry);
            revive(dates, self.purse.reverse(dates, -entry.points));
        }
        for entry in of_kind(Kind::Reversal) {
            let (Some(to), Some(number)) = (redated.get(&entry.sequence), entry.award) else { continue };
            let dates = self.dates_of(entry);
            let taken = self.purse.take_along(dates, *to, -entry.points);
            revive(dates, taken.revived);
            moving.insert(number, taken);
        }
        for entry in of_kind(Kind::Award) {
            match entry.award.and_then(|number| moving.remove(&number)) {
                Some(moving) => self.purse.put_along(entry.dates, moving),
                None => self.purse.put(entry.dates, entry.points),
            }
            if let Some(number) = entry.award
                && entry.dates != Dates::default()
            {
                self.dates.insert(number, entry.dates);
            }
        }
        expected.extend(self.purse.settle());
        let is_act = |entry: &&Entry| matches!(entry.kind, Kind::Adjustment | Kind::Redemption | Kind::Cancellation);
        for entry in commit.iter().filter(is_act) {
            self.apply_events_before(first.version, entry.sequence, &mut expected);
            expected.extend(self.apply_act(entry));
        }
        self.apply_events_before(first.version, i64::MAX, &mut expected);
        self.compare(of_kind(Kind::Expiry).filter(|entry| !entry.repairs), expected, last.sequence);
    }

    /// Applies the events of the commit that happened before the entry with this sequence. Adds the `EXPIRY` entries that they lead to.
    fn apply_events_before(&mut self, version: i64, sequence: i64, expected: &mut Vec<Expiry>) {
        while let Some(event) = self.events.pop_front_if(|event| event.version == version && event.sequence < sequence)
        {
            expected.extend(self.apply_event(event));
        }
    }

    fn compare<'a>(&mut self, recorded: impl Iterator<Item = &'a Entry>, expected: Vec<Expiry>, sequence: i64) {
        // A reversal that is posted in award order may get points back after one that takes them later. So the order is not compared.
        let sorted = |mut all: Vec<Expiry>| {
            all.sort_unstable_by_key(|one| (one.expires_at, one.points));
            all
        };
        let expiry = |entry: &Entry| Expiry {
            expires_at: entry.dates.expires_at.unwrap_or(Instant::FOREVER),
            points: entry.points,
        };
        let (recorded, expected) = (sorted(recorded.map(expiry).collect()), sorted(expected));
        if recorded != expected {
            let sum = |all: &[Expiry]| all.iter().map(|one| one.points).sum();
            self.wrong.push(Wrong { sequence, recorded: sum(&recorded), expected: sum(&expected) });
        }
    }

    fn dates_of(&self, entry: &Entry) -> Dates {
        entry.award.and_then(|number| self.dates.get(&number)).copied().unwrap_or_default()
    }
}

/// Returns the dates that points get whose reversal only changes their dates, by the sequence of the reversal. In no other case does a
/// commit take points of an award back and post points for it. An award shrinks before its dates change and grows after.
fn redated(commit: &[Entry]) -> HashMap<i64, Dates> {
    let mut posted: HashMap<i64, Dates> = HashMap::new();
    for entry in commit.iter().filter(|entry| entry.kind == Kind::Award) {
        posted.extend(entry.award.map(|number| (number, entry.dates)));
    }
    let mut redated = HashMap::new();
    for entry in commit.iter().rev().filter(|entry| entry.kind == Kind::Reversal) {
        let to = entry.award.and_then(|number| posted.remove(&number));
        redated.extend(to.map(|to| (entry.sequence, to)));
    }
    redated
}
