//! Life of a campaign: `DRAFT` → `SCHEDULED` → `ACTIVE` ⇄ `PAUSED` → `ENDED` → `SETTLED`.
//!
//! Boundaries that people set take effect after everything that was counted already, so no edit rewrites the past.

use super::rule::{Pause, Period};
use super::time::Instant;

/// Follows from recorded transitions and the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not activated.
    Draft,
    /// Activated, before its start.
    Scheduled,
    /// Counting.
    Active,
    /// Activated, and purchases do not count.
    Paused,
    /// After its end; late purchases and refunds still count.
    Ended,
    /// Nothing counts any more.
    Settled,
}

/// The recorded transitions of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its period and pauses.
    pub period: Period,
    /// No longer a draft.
    pub activated: bool,
    /// Ended by hand.
    pub ended: bool,
    /// No longer counting.
    pub settled: bool,
    /// The latest boundary that was set by hand.
    pub boundary: Option<Instant>,
}

/// Why a transition was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not from this status.
    #[error("the campaign is {0:?}")]
    Illegal(Status),
    /// The end lies before what was counted already, or the lateness after it is over.
    #[error("lies in the past")]
    BoundaryInPast,
}

impl Life {
    /// The status at an instant. A recorded boundary shows at once, even where it lies ahead.
    pub fn status(&self, now: Instant) -> Status {
        let over = self.ended || self.period.ends_at.is_some_and(|end| end <= now);
        match () {
            () if !self.activated => Status::Draft,
            () if self.settled => Status::Settled,
            () if over => Status::Ended,
            () if self.period.pauses.last().is_some_and(|pause| pause.to.is_none()) => Status::Paused,
            () if now < self.period.starts_at => Status::Scheduled,
            () => Status::Active,
        }
    }

    /// Where a transition made now takes effect. `latest`: the latest recorded purchasedAt over all customers.
    pub fn next_boundary(&self, now: Instant, latest: Option<Instant>) -> Instant {
        let after_latest = latest.map_or(now, |latest| latest.plus(1));
        now.max(after_latest).max(self.boundary.unwrap_or(now))
    }

    /// Refused when the end and its lateness (µs) are past: nothing could count any more.
    pub fn activate(&mut self, now: Instant, lateness: i64) -> Result<(), Refusal> {
        if self.activated {
            return Err(Refusal::Illegal(self.status(now)));
        }
        if self.period.ends_at.is_some_and(|end| end.plus(lateness) <= now) {
            return Err(Refusal::BoundaryInPast);
        }
        self.activated = true;
        Ok(())
    }

    /// ACTIVE only.
    pub fn pause(&mut self, now: Instant, latest: Option<Instant>) -> Result<(), Refusal> {
        match self.status(now) {
            Status::Active => {
                let from = self.set_boundary(now, latest);
                self.period.pauses.push(Pause { from, to: None });
                Ok(())
            }
            status => Err(Refusal::Illegal(status)),
        }
    }

    /// PAUSED only.
    pub fn resume(&mut self, now: Instant, latest: Option<Instant>) -> Result<(), Refusal> {
        match (self.status(now), self.period.pauses.last().copied()) {
            (Status::Paused, Some(pause)) => {
                let to = self.set_boundary(now, latest);
                self.period.pauses.pop();
                // A pause without an instant was none.
                if pause.from < to {
                    self.period.pauses.push(Pause { to: Some(to), ..pause });
                }
                Ok(())
            }
            (status, _) => Err(Refusal::Illegal(status)),
        }
    }

    /// SCHEDULED (leaves an empty period), ACTIVE or PAUSED.
    pub fn end(&mut self, now: Instant, latest: Option<Instant>) -> Result<(), Refusal> {
        match self.status(now) {
            Status::Scheduled | Status::Active | Status::Paused => {
                let boundary = self.set_boundary(now, latest);
                self.period.ends_at = Some(self.period.ends_at.map_or(boundary, |end| end.min(boundary)));
                self.ended = true;
                Ok(())
            }
            status => Err(Refusal::Illegal(status)),
        }
    }

    /// After activation: the new end, and the old one, must lie after the boundary that a transition made now has.
    pub fn reschedule(
        &mut self,
        ends_at: Option<Instant>,
        now: Instant,
        latest: Option<Instant>,
    ) -> Result<(), Refusal> {
        let boundary = self.next_boundary(now, latest);
        let ahead = |end: Option<Instant>| end.is_none_or(|end| end > boundary);
        if self.ended || self.settled || !ahead(ends_at) || !ahead(self.period.ends_at) {
            return Err(Refusal::BoundaryInPast);
        }
        self.period.ends_at = ends_at;
        Ok(())
    }

    /// At or after `endsAt + lateness` (µs).
    pub fn may_settle(&self, now: Instant, lateness: i64) -> bool {
        let due = self.period.ends_at.is_some_and(|end| end.plus(lateness) <= now);
        self.activated && !self.settled && due
    }

    fn set_boundary(&mut self, now: Instant, latest: Option<Instant>) -> Instant {
        let boundary = self.next_boundary(now, latest);
        self.boundary = Some(boundary);
        boundary
    }
}
