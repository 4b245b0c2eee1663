//! The section "Holding, expiry, spending" of `docs/semantics.md`: what one customer holds, point by point.
//!
//! Each point is a value of its own, which knows its dates and what became of it. So there are neither sums nor lots: a lot is all points
//! whose dates are the same at the instant at which somebody looks. Entries that are due are not known either: whatever expired is gone
//! from that instant on.

use super::Instant;

/// When points become available, and when they expire.
pub(crate) type Dates = (Option<Instant>, Option<Instant>);

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Left,
    Reserved,
    Spent,
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    dates: Dates,
    state: State,
}

/// "All others of one customer with equal dates are one lot; one that matures joins the lot of its `expiresAt`, or the pool where it never
/// expires." The pool is `(None, None)`.
pub(crate) type Lot = (Option<Instant>, Option<Instant>);

fn lot(dates: Dates, now: Instant) -> Lot {
    (dates.0.filter(|at| *at > now), dates.1)
}

/// How many points of a lot a redemption or a reservation took.
pub(crate) type Taken = Vec<(Lot, i64)>;

/// What a customer holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holder {
    now: Instant,
    points: Vec<Point>,
    /// Points that were taken although there were none.
    deficit: i64,
    /// The standing reservations: when they end, their number, and what they took.
    reservations: Vec<(Instant, i64, Taken)>,
    /// The sum of all entries that should be posted by now.
    pub(crate) entries: i64,
}

/// What is on show of a lot: points that are left, reserved, spent and expired.
pub(crate) type Parts = (i64, i64, i64, i64);

impl Holder {
    /// "Points are *pending* before `availableAt`, *gone* from `expiresAt` on."
    pub(crate) fn pending(&self) -> i64 {
        self.count(|point| point.state == State::Left && lot(point.dates, self.now).0.is_some())
    }

    pub(crate) fn available(&self) -> i64 {
        self.count(|point| point.state == State::Left && lot(point.dates, self.now).0.is_none()) - self.deficit
    }

    pub(crate) fn reserved(&self) -> i64 {
        self.reservations.iter().flat_map(|(_, _, taken)| taken).map(|(_, points)| points).sum()
    }

    fn count(&self, which: impl Fn(&Point) -> bool) -> i64 {
        i64::try_from(self.points.iter().filter(|point| which(point)).count()).expect("a small number")
    }

    /// The lots in which there is something, without the pool.
    pub(crate) fn lots(&self) -> Vec<(Lot, Parts)> {
        let mut keys: Vec<Lot> = self.points.iter().map(|point| lot(point.dates, self.now)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| *key != (None, None));
        let count = |key: Lot, state| self.count(|point| lot(point.dates, self.now) == key && point.state == state);
        let parts = |key| {
            (count(key, State::Left), count(key, State::Reserved), count(key, State::Spent), count(key, State::Expired))
        };
        keys.into_iter().map(|key| (key, parts(key))).collect()
    }

    /// "Points left in available lots that expire by then."
    pub(crate) fn expiring(&self, by: Instant) -> i64 {
        let expires = |point: &Point| point.dates.1.is_some_and(|at| at <= by);
        self.count(|point| point.state == State::Left && lot(point.dates, self.now).0.is_none() && expires(point))
    }

    /// "At one instant, whether or not a job has run: lots mature, reservations end, the deficit is covered, lots expire".
    pub(crate) fn pass(&mut self, to: Instant) {
        let of_points =
            |points: &[Point]| points.iter().flat_map(|point| [point.dates.0, point.dates.1]).collect::<Vec<_>>();
        let mut instants: Vec<Instant> = of_points(&self.points).into_iter().flatten().collect();
        instants.extend(self.reservations.iter().map(|(until, ..)| *until));
        instants.sort_unstable();
        instants.dedup();
        for at in instants.into_iter().filter(|at| *at > self.now && *at <= to).collect::<Vec<_>>() {
            self.now = at;
            let mut ended: Vec<(Instant, i64, Taken)> =
                self.reservations.extract_if(.., |(until, ..)| *until <= at).collect();
            ended.sort_unstable_by_key(|(until, number, _)| (*until, *number));
            for (_, _, taken) in ended {
                self.give_back(&taken, State::Reserved);
            }
            self.settle();
        }
        self.now = self.now.max(to);
    }

    /// "Points that come in later pay it off first, at that instant, and count as spent." "Points that come in past their expiry cover it
    /// first; the rest gets its EXPIRY".
    fn settle(&mut self) {
        let owed = self.deficit;
        let covered = self.take_in_order(owed, State::Spent).iter().map(|(_, points)| points).sum::<i64>();
        self.deficit -= covered;
        let now = self.now;
        for point in &mut self.points {
            let is_over = point.dates.1.is_some_and(|at| at <= now);
            if point.state == State::Left && lot(point.dates, now).0.is_none() && is_over {
                point.state = State::Expired;
                self.entries -= 1;
            }
        }
    }

    /// "Spending takes available points: lots by `expiresAt`, the pool last."
    fn take_in_order(&mut self, points: i64, to: State) -> Taken {
        let mut taken: Taken = Vec::new();
        for _ in 0..points {
            let now = self.now;
            let next = self
                .points
                .iter_mut()
                .filter(|point| point.state == State::Left && lot(point.dates, now).0.is_none())
                .min_by_key(|point| point.dates.1.unwrap_or(Instant::MAX));
            let Some(next) = next else { break };
            next.state = to;
            let of = lot(next.dates, now);
            match taken.last_mut() {
                Some((last, count)) if *last == of => *count += 1,
                _ => taken.push((of, 1)),
            }
        }
        taken
    }

    /// What a commit does: reversals, then awards, then the deficit is covered. Each reversal and each award has points and dates, and each
    /// change of dates has both.
    pub(crate) fn commit(
        &mut self,
        reversals: &[(i64, Dates)],
        redated: &[(i64, Dates, Dates)],
        awards: &[(i64, Dates)],
    ) {
        for (points, dates) in reversals {
            self.reverse(*points, *dates);
        }
        let moving: Vec<(Dates, Vec<State>)> =
            redated.iter().map(|(points, from, to)| (*to, self.take_along(*points, *from, *to))).collect();
        for (to, states) in moving {
            self.points.extend(states.into_iter().map(|state| Point { dates: to, state }));
        }
        for (points, dates) in awards {
            self.entries += points;
            self.points.extend((0..*points).map(|_| Point { dates: *dates, state: State::Left }));
        }
        self.settle();
    }

    /// Removes a point of a lot in the first of these states of which there is one.
    fn remove(&mut self, of: Lot, states: &[State]) -> Option<State> {
        let now = self.now;
        states.iter().find_map(|state| {
            let at = self.points.iter().position(|point| point.state == *state && lot(point.dates, now) == of)?;
            Some(self.points.swap_remove(at).state)
        })
    }

    /// "REVERSAL of d points takes of their lot (or the pool): what had expired (a positive EXPIRY of min(d, expired) right before it), then
    /// what is left, then what is spent, then what is reserved (the reservation stands): these last parts are a deficit."
    fn reverse(&mut self, points: i64, dates: Dates) {
        let of = lot(dates, self.now);
        for _ in 0..points {
            let state = self.remove(of, &[State::Expired, State::Left, State::Spent, State::Reserved]);
            self.entries += i64::from(state == Some(State::Expired)) - 1;
            self.deficit += i64::from(!matches!(state, Some(State::Expired | State::Left)));
        }
    }

    /// "what is spent or reserved goes along as spent, to a later expiry after what had expired and what is left, to an earlier one before
    /// them; what had expired and has expired by the new date too goes along as expired, without an entry."
    fn take_along(&mut self, points: i64, from: Dates, to: Dates) -> Vec<State> {
        let of = lot(from, self.now);
        let is_earlier = to.1.unwrap_or(Instant::MAX) < from.1.unwrap_or(Instant::MAX);
        let order = if is_earlier {
            [State::Spent, State::Reserved, State::Expired, State::Left]
        } else {
            [State::Expired, State::Left, State::Spent, State::Reserved]
        };
        let is_over = to.1.is_some_and(|at| at <= self.now);
        let mut states = Vec::new();
        for _ in 0..points {
            states.push(match self.remove(of, &order).unwrap_or(State::Spent) {
                State::Expired if is_over => State::Expired,
                State::Expired => {
                    self.entries += 1;
                    State::Left
                }
                State::Left => State::Left,
                State::Reserved | State::Spent => State::Spent,
            });
        }
        states
    }

    /// "positive ADJUSTMENTs", which may carry an expiry, and negative ones: "a negative ADJUSTMENT likewise in its turn".
    pub(crate) fn adjust(&mut self, points: i64, expires_at: Option<Instant>) {
        self.entries += points;
        if points > 0 {
            let dates = (None, expires_at);
            self.points.extend((0..points).map(|_| Point { dates, state: State::Left }));
        } else {
            self.deficit -= points;
        }
        self.settle();
    }

    /// "Redemption of a reward takes at most `available`."
    pub(crate) fn redeem(&mut self, points: i64) -> Option<Taken> {
        (points <= self.available()).then(|| {
            self.entries -= points;
            self.take_in_order(points, State::Spent)
        })
    }

    /// "A reservation moves points from `available` to `reserved`: no entry, no expiry".
    pub(crate) fn reserve(&mut self, number: i64, until: Instant, points: i64) -> bool {
        let fits = points <= self.available();
        if fits {
            let taken = self.take_in_order(points, State::Reserved);
            self.reservations.push((until, number, taken));
        }
        fits
    }

    fn end(&mut self, number: i64) -> Option<Taken> {
        let at = self.reservations.iter().position(|(_, other, _)| *other == number)?;
        Some(self.reservations.remove(at).2)
    }

    /// "Committed before its end: REDEMPTION of the reserved points, never refused for points."
    pub(crate) fn commit_reservation(&mut self, number: i64) -> Option<Taken> {
        let taken = self.end(number)?;
        for (of, points) in &taken {
            self.turn(*of, State::Reserved, State::Spent, *points);
            self.entries -= points;
        }
        Some(taken)
    }

    pub(crate) fn cancel_reservation(&mut self, number: i64) -> bool {
        let Some(taken) = self.end(number) else { return false };
        self.give_back(&taken, State::Reserved);
        self.settle();
        true
    }

    pub(crate) fn cancel_redemption(&mut self, taken: &Taken) {
        self.entries += taken.iter().map(|(_, points)| points).sum::<i64>();
        self.give_back(taken, State::Spent);
        self.settle();
    }

    /// Turns points of a lot from one state into another, as many as there are. Returns how many there were.
    fn turn(&mut self, of: Lot, from: State, to: State, points: i64) -> i64 {
        let now = self.now;
        let mut turned = 0;
        for point in self.points.iter_mut().filter(|point| point.state == from && lot(point.dates, now) == of) {
            if turned < points {
                point.state = to;
                turned += 1;
            }
        }
        turned
    }

    /// "each lot gets back at most what is still reserved (spent) of it; the rest covers the deficit, then goes to the pool."
    fn give_back(&mut self, taken: &Taken, from: State) {
        let mut rest = 0;
        for (of, points) in taken {
            rest += points - self.turn(*of, from, State::Left, *points);
        }
        for _ in 0..rest {
            if self.deficit > 0 {
                self.deficit -= 1;
            } else {
                self.points.push(Point { dates: (None, None), state: State::Left });
            }
        }
    }
}
