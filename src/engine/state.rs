//! The fold: a customer's eligible purchases, in order, through one campaign.
//!
//! [`State`] is all that the past of a customer means to the future of a campaign. It is a function of the eligible
//! purchases up to its `last` and of nothing else, so two folds that arrive at equal states give equal awards from
//! there on. On that rest both the O(1) append (fold one more purchase into the stored state) and the late purchase
//! (fold again from a stored checkpoint until a later checkpoint is met unchanged; see [`super::evaluate`]).
//!
//! How many awards the customer has is not part of it: one early award more would keep two folds from ever meeting
//! again. `maxPerCustomer` is applied to what the fold reached; see [`super::cap`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::award::Reached;
use super::goal::Goal;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::time::Instant;
use super::window::{Interval, WindowRule};

/// The most awards one purchase can reach at once in a repeated spend goal; further multiples count as reached.
pub const MAX_MULTIPLES: i64 = 100;

/// Where a customer stands in a campaign after its eligible purchase `last`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The last purchase that was counted; none: none yet. A purchase that the window ignores does not move it.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    pub last: Option<Key>,
    /// The window that `last` was counted in. Rolling windows have none.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    pub window: Option<Interval>,
    /// Purchases counted towards the next award (streak: in this window).
    #[serde(rename = "n", skip_serializing_if = "is_zero")]
    pub count: i64,
    /// Minor units counted towards the next award.
    #[serde(rename = "m", skip_serializing_if = "is_zero")]
    pub sum: i64,
    /// Different items counted so far; rolling, which takes purchases back: with the number of those that had them.
    #[serde(rename = "d", skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, u32>,
    /// Streak: completed windows of the run, this one included once it is complete.
    #[serde(rename = "r", skip_serializing_if = "is_zero")]
    pub run: i64,
    /// The first purchase of the next award's evidence. Rolling: not kept, found when it is needed.
    #[serde(rename = "e", skip_serializing_if = "Option::is_none")]
    pub evidence_from: Option<Key>,
    /// Awards of this window before caps.
    #[serde(rename = "o", skip_serializing_if = "is_zero")]
    pub ordinal: i64,
    /// Awards of this window that `maxPerWindow` left; counted only where there is such a cap and more than one window.
    #[serde(rename = "k", skip_serializing_if = "is_zero")]
    pub kept: i64,
    /// A goal without `repeat` was reached in this window (streak: in this campaign).
    #[serde(rename = "x", skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
    /// Rolling: purchases up to this key are used up or too old.
    #[serde(rename = "u", skip_serializing_if = "Option::is_none")]
    pub used_to: Option<Key>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl State {
    /// Folds in `purchases[next]`, the first one after `last`. Rolling looks back at those before it, down to
    /// `used_to`; others look at nothing else.
    pub fn step(&mut self, campaign: Campaign<'_>, purchases: &[Eligible], next: usize, awards: &mut Vec<Reached>) {
        let purchase = &purchases[next];
        let opened = match &campaign.rule.window {
            WindowRule::Rolling { duration } => {
                self.expire(&campaign.rule.goal, &purchases[..next], too_old(purchase.key.at, duration.micros()));
                true
            }
            _ => self.enter_window(campaign, purchase.key.at),
        };
        if !opened {
            return;
        }
        self.last = Some(purchase.key.clone());
        self.count_purchase(campaign, purchases, next, awards);
    }

    /// Moves to the window that the purchase belongs to; false where there is none.
    fn enter_window(&mut self, campaign: Campaign<'_>, at: Instant) -> bool {
        let Campaign { rule, period } = campaign;
        let current = self.window.filter(|window| window.contains(at));
        let window = match &rule.window {
            WindowRule::Campaign => Interval { opens: period.starts_at, closes: Instant::FOREVER },
            WindowRule::Calendar(calendar) => {
                current.unwrap_or_else(|| calendar.window_at(&rule.time_zone, period.starts_at, at))
            }
            WindowRule::Recurring(recurring) => match current.or_else(|| recurring.window_at(&rule.time_zone, at)) {
                Some(window) => window,
                None => return false,
            },
            WindowRule::Session { gap } => {
                Interval { opens: current.map_or(at, |window| window.opens), closes: at.plus(gap.micros()) }
            }
            WindowRule::Timer { duration, reopens } => match (current, self.window) {
                (Some(window), _) => window,
                (None, Some(_)) if !reopens => return false,
                (None, _) => Interval { opens: at, closes: at.plus(duration.micros()) },
            },
            // Rolling windows have no bounds.
            WindowRule::Rolling { .. } => return true,
        };
        if self.window.is_none_or(|before| before.opens != window.opens) {
            self.leave_window(campaign, window);
        }
        self.window = Some(window);
        true
    }

    /// Forgets what was counted in the window before `next`. A streak's run goes on only if that window was complete
    /// and `next` opens where it closed: windows that contain no instant lie between none.
    fn leave_window(&mut self, campaign: Campaign<'_>, next: Interval) {
        if let Goal::Streak { purchases_per_window, .. } = campaign.rule.goal {
            let complete = self.count >= i64::from(purchases_per_window);
            if !(complete && self.window.is_some_and(|before| before.closes == next.opens)) {
                self.run = 0;
            }
            if self.run == 0 {
                self.evidence_from = None;
            }
            self.count = 0;
            return;
        }
        *self = Self { last: self.last.take(), ..Self::default() };
    }

    /// Bytes of the items, which are all of a state that can be large.
    pub(super) fn item_bytes(&self) -> usize {
        /// Of an entry as it is stored, beside its name.
        const ENTRY_BYTES: usize = 6;
        self.items.keys().map(|item| item.len() + ENTRY_BYTES).sum()
    }

    /// Rolling: whether the purchase completes the goal, beside what has not expired.
    pub(super) fn reaches(&self, goal: &Goal, purchase: &Eligible) -> bool {
        match goal {
            Goal::Purchases { at_least, .. } => self.count + 1 >= i64::from(*at_least),
            Goal::Spend { at_least, .. } => self.sum + purchase.amount >= *at_least,
            Goal::Distinct { at_least, .. } => {
                let new = purchase.items.iter().filter(|item| !self.items.contains_key(*item)).count();
                (self.items.len() + new) as i64 >= i64::from(*at_least)
            }
            Goal::EveryPurchase | Goal::Streak { .. } => false,
        }
    }

    /// Rolling: takes back what is too old to count from now on: all up to `used_to`. `earlier`: the unused ones, or the oldest of
    /// them, where it is called for one part after the other.
    pub fn expire(&mut self, goal: &Goal, earlier: &[Eligible], used_to: Key) {
        if self.used_to.as_ref().is_some_and(|before| *before >= used_to) {
            return;
        }
        for old in between(earlier, self.used_to.as_ref(), &used_to) {
            self.count -= 1;
            if matches!(goal, Goal::Spend { .. }) {
                self.sum -= old.amount;
            }
            for item in &old.items {
                if let Some(purchases) = self.items.get_mut(item) {
                    *purchases -= 1;
                    if *purchases == 0 {
                        self.items.remove(item);
                    }
                }
            }
        }
        self.used_to = Some(used_to);
    }

    fn count_purchase(
        &mut self,
        campaign: Campaign<'_>,
        purchases: &[Eligible],
        next: usize,
        awards: &mut Vec<Reached>,
    ) {
        let rolling = matches!(campaign.rule.window, WindowRule::Rolling { .. });
        let purchase = &purchases[next];
        if self.done {
            return;
        }
        if !rolling && self.evidence_from.is_none() {
            self.evidence_from = Some(purchase.key.clone());
        }
        let reached = self.count_towards(&campaign.rule.goal, rolling, purchase);
        if reached == 0 {
            return;
        }
        let first = match &campaign.rule.goal {
            Goal::EveryPurchase => purchase.key.clone(),
            _ if rolling => first_after(purchases, self.used_to.as_ref()).unwrap_or(purchase).key.clone(),
            _ => self.evidence_from.take().unwrap_or_else(|| purchase.key.clone()),
        };
        let mut evidence_from = Some(first);
        for nth in 1..=reached {
            // The excess of a purchase that reached several multiples is all that the later ones of them rest on.
            let evidence_from = evidence_from.take().unwrap_or_else(|| purchase.key.clone());
            self.award(campaign, purchase, nth, evidence_from, awards);
        }
        self.after_reaching(&campaign.rule.goal, rolling, &purchase.key);
    }

    /// Counts the purchase; how many awards it reaches. What only rolling takes back is counted there alone.
    fn count_towards(&mut self, goal: &Goal, rolling: bool, purchase: &Eligible) -> i64 {
        match goal {
            Goal::EveryPurchase => 1,
            Goal::Purchases { at_least, .. } => {
                self.count += 1;
                i64::from(self.count >= i64::from(*at_least))
            }
            Goal::Spend { at_least, repeat } => {
                self.count += i64::from(rolling);
                self.sum += purchase.amount;
                let multiples = self.sum / at_least;
                if *repeat {
                    self.sum %= at_least;
                    multiples.min(MAX_MULTIPLES)
                } else {
                    multiples.min(1)
                }
            }
            Goal::Distinct { at_least, .. } => {
                self.count += i64::from(rolling);
                for item in &purchase.items {
                    *self.items.entry(item.clone()).or_default() += u32::from(rolling);
                }
                i64::from(self.items.len() as i64 >= i64::from(*at_least))
            }
            Goal::Streak { length, purchases_per_window, .. } => {
                self.count += 1;
                if self.count != i64::from(*purchases_per_window) {
                    return 0;
                }
                self.run += 1;
                i64::from(self.run >= i64::from(*length))
            }
        }
    }

    /// What counting starts from after an award.
    fn after_reaching(&mut self, goal: &Goal, rolling: bool, by: &Key) {
        if rolling {
            self.count = 0;
            self.sum = 0;
            self.items.clear();
            self.used_to = Some(by.clone());
            return;
        }
        match goal {
            Goal::EveryPurchase => self.evidence_from = None,
            Goal::Purchases { repeat: true, .. } => self.count = 0,
            // The reaching purchase's excess carries over, so it is evidence of the next award too.
            Goal::Spend { repeat: true, .. } => self.evidence_from = Some(by.clone()),
            // Counting starts again at the next window; this one stays complete.
            Goal::Streak { repeat: true, .. } => self.run = 0,
            // The run shows for as long as it would have lived.
            Goal::Streak { .. } => self.done = true,
            Goal::Purchases { .. } | Goal::Spend { .. } | Goal::Distinct { .. } => {
                self.done = true;
                self.items.clear();
                self.sum = 0;
                self.count = 0;
            }
        }
    }

    /// Hands out one award, if it has points and its window's cap leaves it.
    fn award(
        &mut self,
        campaign: Campaign<'_>,
        purchase: &Eligible,
        nth: i64,
        evidence_from: Key,
        awards: &mut Vec<Reached>,
    ) {
        let rule = campaign.rule;
        let points = rule.award.points(purchase.amount, rule.currency);
        if points == 0 {
            return;
        }
        // What no award or cap depends on stays uncounted: it would keep folds from meeting again.
        let ordinal = match (&rule.goal, &rule.window) {
            (Goal::EveryPurchase | Goal::Streak { .. }, _) | (_, WindowRule::Rolling { .. }) => 1,
            _ => {
                self.ordinal += 1;
                self.ordinal
            }
        };
        if let Some(cap) = rule.max_per_window.filter(|_| !rule.window.is_only_one()) {
            if self.kept >= i64::from(cap) {
                return;
            }
            self.kept += 1;
        }
        let at = purchase.key.at;
        let window = self.window.unwrap_or(Interval { opens: evidence_from.at, closes: at });
        let nth = i32::try_from(nth).unwrap_or(i32::MAX);
        awards.push(Reached { by: purchase.key.clone(), nth, ordinal, points, window, evidence_from });
    }
}

/// Rolling: between what is too old beside a purchase at `at` and what is not: `at − duration` itself is.
pub fn too_old(at: Instant, duration: i64) -> Key {
    Key::before(at.minus(duration).plus(1))
}

/// Those of the sorted purchases with `after < key <= to`.
fn between<'a>(purchases: &'a [Eligible], after: Option<&Key>, to: &Key) -> &'a [Eligible] {
    let start = after.map_or(0, |after| purchases.partition_point(|purchase| purchase.key <= *after));
    let end = purchases.partition_point(|purchase| purchase.key <= *to);
    &purchases[start.min(end)..end]
}

pub(super) fn first_after<'a>(purchases: &'a [Eligible], after: Option<&Key>) -> Option<&'a Eligible> {
    let start = after.map_or(0, |after| purchases.partition_point(|purchase| purchase.key <= *after));
    purchases.get(start)
}
