//! The step of a fold: it counts the next eligible purchase of a customer in one campaign.
//!
//! A [`State`] contains everything about the past of a customer that decides which awards later purchases reach. It depends
//! only on the eligible purchases up to its `last`, so two folds that arrive at equal states reach equal awards from there
//! on. Two things rely on this: the O(1) append (one more purchase is folded into the stored state), and the late purchase
//! (the fold starts again at a stored checkpoint and stops as soon as it arrives at a later checkpoint with the same state;
//! see [`super::evaluate`]).
//!
//! The number of the customer's awards is not part of the state: one more early award would keep two folds from ever
//! meeting again. So the state applies the caps of a window only if a customer can have several windows. [`super::cap`] applies
//! the caps of a customer, and those of a window for all other campaigns, to what the fold reached.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::award::Reached;
use super::goal::Goal;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::time::Instant;
use super::window::{Interval, WindowRule};

/// The most awards that one purchase gives for a `spend` or `units` goal with `repeat`. Further multiples count as reached and give no
/// award.
pub const MAX_MULTIPLES: i64 = 100;

/// Where a customer stands in a campaign after its eligible purchase `last`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The last counted purchase, if there is one. Purchases after the close of a timer that does not reopen are not counted.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    pub last: Option<Key>,
    /// The window in which `last` was counted. `None` for rolling windows.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    pub window: Option<Interval>,
    /// The purchases counted towards the next award of a `purchases` goal, or for a streak those of this window. In rolling
    /// windows, the unused purchases, whatever the goal.
    #[serde(rename = "n", skip_serializing_if = "is_zero")]
    pub count: i64,
    /// The minor units counted towards the next award of a `spend` goal, or the units of a `units` goal.
    #[serde(rename = "m", skip_serializing_if = "is_zero")]
    pub sum: i64,
    /// The different items counted so far. The value is 0, except in rolling windows, which take purchases back: there it is
    /// the number of counted purchases that contain the item.
    #[serde(rename = "d", skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, u32>,
    /// Streaks only: the complete windows of the run, including this window as soon as it is complete.
    #[serde(rename = "r", skip_serializing_if = "is_zero")]
    pub run: i64,
    /// The first purchase of the next award's evidence. Always `None` for rolling windows, which look it up when needed.
    #[serde(rename = "e", skip_serializing_if = "Option::is_none")]
    pub evidence_from: Option<Key>,
    /// The ordinal of the last award of this window. Not counted where the ordinal is always 1.
    #[serde(rename = "o", skip_serializing_if = "is_zero")]
    pub ordinal: i64,
    /// The awards of this window that `maxPerWindow` kept. Counted only if the rule has this cap and a customer can have
    /// several windows.
    #[serde(rename = "k", skip_serializing_if = "is_zero")]
    pub kept: i64,
    /// The points of the awards of this window that its caps kept. Counted only if the rule has `maxPointsPerWindow` and a customer
    /// can have several windows.
    #[serde(rename = "g", skip_serializing_if = "is_zero")]
    pub kept_points: i64,
    /// Whether a goal without `repeat` was reached in this window; for a streak, in the campaign. False for rolling windows.
    #[serde(rename = "x", skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
    /// Rolling windows only: purchases up to this key are used up or too old.
    #[serde(rename = "u", skip_serializing_if = "Option::is_none")]
    pub used_to: Option<Key>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

impl State {
    /// Folds in `purchases[next]`, the first purchase after `last`, and adds the awards that it reaches to `awards`. For a
    /// rolling window, `purchases` must also contain those that become too old, and the first one that an award uses up.
    pub fn step(&mut self, campaign: Campaign<'_>, purchases: &[Eligible], next: usize, awards: &mut Vec<Reached>) {
        let purchase = &purchases[next];
        let opened = match &campaign.rule.window {
            WindowRule::Rolling { duration } => {
                self.expire(&purchases[..next], too_old(purchase.key.at, duration.micros()));
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

    /// Moves to the window that contains the instant. Returns false if there is no such window.
    fn enter_window(&mut self, campaign: Campaign<'_>, at: Instant) -> bool {
        let Campaign { rule, period, .. } = campaign;
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

    /// Resets what was counted in the window before `next`. The run of a streak continues only if that window was complete
    /// and `next` follows it. (A skipped day does not break a run: such windows do not exist.)
    fn leave_window(&mut self, campaign: Campaign<'_>, next: Interval) {
        if let Goal::Streak { purchases_per_window, .. } = campaign.rule.goal {
            let complete = self.count >= i64::from(purchases_per_window);
            if !(complete && self.window.is_some_and(|before| campaign.follows(before, next))) {
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

    /// Returns the stored bytes of the items. Nothing else in a state can be large.
    pub(super) fn item_bytes(&self) -> usize {
        // What a stored entry takes in addition to the name of its item.
        const ENTRY_BYTES: usize = 6;
        self.items.keys().map(|item| item.len() + ENTRY_BYTES).sum()
    }

    /// Rolling windows only: whether the goal is reached at this purchase. Purchases that are too old by then must be expired.
    pub(super) fn reaches(&self, goal: &Goal, purchase: &Eligible) -> bool {
        match goal {
            Goal::Purchases { at_least, .. } => self.count + 1 >= i64::from(*at_least),
            Goal::Spend { at_least, .. } => self.sum + purchase.adds >= *at_least,
            Goal::Units { at_least, .. } => self.sum + purchase.adds >= i64::from(*at_least),
            Goal::Distinct { at_least, .. } => {
                let new = purchase.items.iter().filter(|item| !self.items.contains_key(*item)).count();
                (self.items.len() + new) as i64 >= i64::from(*at_least)
            }
            Goal::EveryPurchase | Goal::Streak { .. } => false,
        }
    }

    /// Rolling windows only: takes back the counted purchases up to `used_to`, because they are too old from now on. They must
    /// be in `earlier`. A caller that holds only the oldest ones calls this several times, each time with a later `used_to`.
    pub fn expire(&mut self, earlier: &[Eligible], used_to: Key) {
        if self.used_to.as_ref().is_some_and(|before| *before >= used_to) {
            return;
        }
        for old in between(earlier, self.used_to.as_ref(), &used_to) {
            self.count -= 1;
            self.sum -= old.adds;
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
            // If a purchase reaches several multiples, all but the first are based on this purchase alone.
            let evidence_from = evidence_from.take().unwrap_or_else(|| purchase.key.clone());
            self.award(campaign, purchase, nth, evidence_from, awards);
        }
        self.after_reaching(&campaign.rule.goal, rolling, &purchase.key);
    }

    /// Counts the purchase and returns how many awards it reaches. Some counters are kept for rolling windows only, because no
    /// other window takes purchases back.
    fn count_towards(&mut self, goal: &Goal, rolling: bool, purchase: &Eligible) -> i64 {
        match goal {
            Goal::EveryPurchase => 1,
            Goal::Purchases { at_least, .. } => {
                self.count += 1;
                i64::from(self.count >= i64::from(*at_least))
            }
            Goal::Spend { at_least, repeat } => self.add_up(*at_least, *repeat, rolling, purchase),
            Goal::Units { at_least, repeat } => self.add_up(i64::from(*at_least), *repeat, rolling, purchase),
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

    /// Adds the purchase to the sum, and returns how many awards it reaches.
    fn add_up(&mut self, at_least: i64, repeat: bool, rolling: bool, purchase: &Eligible) -> i64 {
        self.count += i64::from(rolling);
        self.sum += purchase.adds;
        let multiples = self.sum / at_least;
        if repeat {
            self.sum %= at_least;
            multiples.min(MAX_MULTIPLES)
        } else {
            multiples.min(1)
        }
    }

    /// Resets the counters after an award.
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
            // The excess of the reaching purchase carries over, so this purchase is evidence of the next award too.
            Goal::Spend { repeat: true, .. } | Goal::Units { repeat: true, .. } => {
                self.evidence_from = Some(by.clone());
            }
            // Counting starts again at the next window. `count` stays, so that this window is not completed again.
            Goal::Streak { repeat: true, .. } => self.run = 0,
            // `run` stays as long as it would without the award.
            Goal::Streak { .. } => self.done = true,
            Goal::Purchases { .. } | Goal::Spend { .. } | Goal::Units { .. } | Goal::Distinct { .. } => {
                self.done = true;
                self.items.clear();
                self.sum = 0;
                self.count = 0;
            }
        }
    }

    /// Adds one award, if it has points and the caps on its window keep it.
    fn award(
        &mut self,
        campaign: Campaign<'_>,
        purchase: &Eligible,
        nth: i64,
        evidence_from: Key,
        awards: &mut Vec<Reached>,
    ) {
        let rule = campaign.rule;
        let points_before_cap = purchase.points;
        if points_before_cap == 0 {
            return;
        }
        // A number on which no award or cap depends is not counted: it would keep two folds from meeting again.
        let ordinal = match (&rule.goal, &rule.window) {
            (Goal::EveryPurchase | Goal::Streak { .. }, _) | (_, WindowRule::Rolling { .. }) => 1,
            _ => {
                self.ordinal += 1;
                self.ordinal
            }
        };
        let mut points = points_before_cap;
        if !rule.window.is_only_one() {
            let left = rule.max_points_per_window.map_or(points, |most| most - self.kept_points);
            if left <= 0 || rule.max_per_window.is_some_and(|most| self.kept >= i64::from(most)) {
                return;
            }
            points = points.min(left);
            self.kept += i64::from(rule.max_per_window.is_some());
            self.kept_points += if rule.max_points_per_window.is_some() { points } else { 0 };
        }
        let at = purchase.key.at;
        let window = self.window.unwrap_or(Interval { opens: evidence_from.at, closes: at });
        let nth = i32::try_from(nth).unwrap_or(i32::MAX);
        let by = purchase.key.clone();
        let dates = rule.dates(at);
        awards.push(Reached { by, nth, ordinal, points, points_before_cap, window, dates, evidence_from });
    }
}

/// Returns a key that lies after all purchases that are too old for a rolling window at `at`, and before all others. A
/// purchase at exactly `at − duration` is too old.
pub fn too_old(at: Instant, duration: i64) -> Key {
    Key::before(at.minus(duration).plus(1))
}

/// Returns those of the sorted purchases with `after < key <= to`.
fn between<'a>(purchases: &'a [Eligible], after: Option<&Key>, to: &Key) -> &'a [Eligible] {
    let start = after.map_or(0, |after| purchases.partition_point(|purchase| purchase.key <= *after));
    let end = purchases.partition_point(|purchase| purchase.key <= *to);
    &purchases[start.min(end)..end]
}

pub(super) fn first_after<'a>(purchases: &'a [Eligible], after: Option<&Key>) -> Option<&'a Eligible> {
    let start = after.map_or(0, |after| purchases.partition_point(|purchase| purchase.key <= *after));
    purchases.get(start)
}
