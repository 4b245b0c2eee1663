//! The life of a campaign: `DRAFT` → `SCHEDULED` → `ACTIVE` ⇄ `PAUSED` → `ENDED` → `SETTLED`.
//!
//! A boundary that people set takes effect after everything that was already counted, so no transition changes the past.

use super::rule::{Pause, Period};
use super::time::Instant;

/// The status of a campaign. It follows from the recorded transitions and the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Draft,
    /// The campaign is activated, and its start is in the future.
    Scheduled,
    Active,
    /// The campaign is paused and not resumed.
    Paused,
    /// The end has passed, or the campaign was ended by hand. Late purchases and refunds still count.
    Ended,
    /// New purchases and refunds no longer count.
    Settled,
}

/// The recorded transitions of a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub period: Period,
    pub activated: bool,
    /// Whether the campaign was ended by hand.
    pub ended: bool,
    pub settled: bool,
    /// The latest boundary that a pause, a resume or an end by hand set.
    pub boundary: Option<Instant>,
}

/// Why a transition was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The transition is not allowed in this status.
    #[error("the campaign is {0:?}")]
    Illegal(Status),
    /// The end is not after everything that was already counted, or `endsAt + lateness` has passed.
    #[error("the end is in the past")]
    BoundaryInPast,
}

impl Life {
    /// Returns the status at an instant. A recorded boundary shows immediately, even if it is in the future.
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

    /// Returns the boundary at which a transition made now takes effect. `latest` is the latest recorded `purchasedAt` over
    /// all customers.
    pub fn next_boundary(&self, now: Instant, latest: Option<Instant>) -> Instant {
        let after_latest = latest.map_or(now, |latest| latest.plus(1));
        now.max(after_latest).max(self.boundary.unwrap_or(now))
    }

    /// Activates a draft. Refused if `endsAt + lateness` (µs) has passed, because nothing could count any more.
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

    /// Pauses the campaign from the next boundary on. Allowed in `ACTIVE` only.
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

    /// Resumes the campaign from the next boundary on. Allowed in `PAUSED` only.
    pub fn resume(&mut self, now: Instant, latest: Option<Instant>) -> Result<(), Refusal> {
        match (self.status(now), self.period.pauses.last().copied()) {
            (Status::Paused, Some(pause)) => {
                let to = self.set_boundary(now, latest);
                self.period.pauses.pop();
                // A pause that contains no instant is not recorded.
                if pause.from < to {
                    self.period.pauses.push(Pause { to: Some(to), ..pause });
                }
                Ok(())
            }
            (status, _) => Err(Refusal::Illegal(status)),
        }
    }

    /// Ends the campaign at the next boundary, if that is earlier than `endsAt`. Allowed in `SCHEDULED`, `ACTIVE` and
    /// `PAUSED`. In `SCHEDULED`, this leaves an empty period, unless a purchase after the start is already recorded.
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

    /// Changes the end after activation. Both the new and the old end must be later than the boundary that a transition made
    /// now would have.
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

    /// Whether the campaign may be settled: at or after `endsAt + lateness` (µs), and only once.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn life(starts_at: i64, ends_at: Option<i64>) -> Life {
        let period = Period { starts_at: Instant(starts_at), ends_at: ends_at.map(Instant), pauses: Vec::new() };
        Life { period, activated: true, ended: false, settled: false, boundary: None }
    }

    #[test]
    fn a_boundary_lies_after_everything_that_was_counted() {
        let mut life = life(0, None);
        assert_eq!(life.next_boundary(Instant(10), None), Instant(10));
        assert_eq!(life.next_boundary(Instant(10), Some(Instant(9))), Instant(10));
        assert_eq!(life.next_boundary(Instant(10), Some(Instant(10))), Instant(11));
        life.boundary = Some(Instant(20));
        assert_eq!(life.next_boundary(Instant(10), Some(Instant(15))), Instant(20));
    }

    #[test]
    fn a_recorded_boundary_shows_at_once_but_purchases_go_by_it() {
        let mut life = life(0, None);
        life.pause(Instant(10), Some(Instant(14))).expect("it is active");
        assert_eq!(life.status(Instant(10)), Status::Paused);
        assert_eq!([14, 15].map(|at| life.period.contains(Instant(at))), [true, false]);
        life.resume(Instant(12), Some(Instant(20))).expect("it is paused");
        assert_eq!(life.status(Instant(12)), Status::Active);
        assert_eq!([20, 21].map(|at| life.period.contains(Instant(at))), [false, true]);
        life.end(Instant(12), Some(Instant(30))).expect("it is active");
        assert_eq!(life.status(Instant(12)), Status::Ended);
        assert_eq!([30, 31].map(|at| life.period.contains(Instant(at))), [true, false]);
    }

    #[test]
    fn resumed_at_its_own_boundary_a_pause_was_none() {
        let mut life = life(0, None);
        life.pause(Instant(10), None).expect("it is active");
        life.resume(Instant(10), None).expect("it is paused");
        assert!(life.period.pauses.is_empty());
        assert!(life.period.contains(Instant(10)));
    }

    #[test]
    fn transitions_from_the_wrong_status_are_refused() {
        let at = Instant(10);
        let mut scheduled = life(100, None);
        assert_eq!(scheduled.pause(at, None), Err(Refusal::Illegal(Status::Scheduled)));
        assert_eq!(scheduled.resume(at, None), Err(Refusal::Illegal(Status::Scheduled)));
        assert_eq!(scheduled.activate(at, 0), Err(Refusal::Illegal(Status::Scheduled)));
        let mut draft = Life { activated: false, ..life(0, None) };
        assert_eq!(draft.end(at, None), Err(Refusal::Illegal(Status::Draft)));
        let mut over = life(0, Some(10));
        assert_eq!(over.pause(at, None), Err(Refusal::Illegal(Status::Ended)));
        assert_eq!(over.end(at, None), Err(Refusal::Illegal(Status::Ended)));
    }

    #[test]
    fn still_paused_at_its_end_it_is_ended() {
        let mut life = life(0, Some(20));
        life.pause(Instant(10), None).expect("it is active");
        assert_eq!(life.status(Instant(19)), Status::Paused);
        assert_eq!(life.status(Instant(20)), Status::Ended);
        assert_eq!(life.resume(Instant(20), None), Err(Refusal::Illegal(Status::Ended)));
    }

    #[test]
    fn ending_a_scheduled_campaign_leaves_an_empty_period() {
        let mut life = life(100, Some(200));
        life.end(Instant(10), None).expect("it is scheduled");
        assert_eq!(life.status(Instant(150)), Status::Ended);
        assert!(![10, 100, 150].iter().any(|at| life.period.contains(Instant(*at))));
    }

    #[test]
    fn the_end_moves_only_ahead_of_what_was_counted() {
        let reschedule = |old, new, now, latest: Option<i64>| {
            let mut life = life(0, old);
            life.reschedule(new, Instant(now), latest.map(Instant)).map(|()| life.period.ends_at)
        };
        let end = |at| Some(Instant(at));
        assert_eq!(reschedule(Some(20), end(30), 10, None), Ok(end(30)));
        assert_eq!(reschedule(Some(20), end(15), 10, None), Ok(end(15)));
        assert_eq!(reschedule(Some(20), None, 10, None), Ok(None));
        assert_eq!(reschedule(None, end(11), 10, None), Ok(end(11)));
        assert_eq!(reschedule(Some(20), end(10), 10, None), Err(Refusal::BoundaryInPast));
        assert_eq!(reschedule(Some(20), end(15), 10, Some(15)), Err(Refusal::BoundaryInPast));
        assert_eq!(reschedule(Some(20), end(30), 20, None), Err(Refusal::BoundaryInPast), "the old end is past");
        assert_eq!(reschedule(Some(20), end(30), 10, Some(19)), Err(Refusal::BoundaryInPast), "counted up to the end");
    }

    #[test]
    fn activation_and_settlement_go_by_the_lateness() {
        let mut draft = Life { activated: false, ..life(0, Some(20)) };
        assert_eq!(draft.activate(Instant(25), 5), Err(Refusal::BoundaryInPast));
        assert_eq!(draft.activate(Instant(24), 5), Ok(()));
        assert!(!draft.may_settle(Instant(24), 5));
        assert!(draft.may_settle(Instant(25), 5));
        assert!(!life(0, None).may_settle(Instant(i64::MAX), 5));
        assert!(!Life { settled: true, ..draft }.may_settle(Instant(25), 5));
    }
}
