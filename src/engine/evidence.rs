//! Evidence: the purchases that an award is based on. They are derived from the first and the last of them.

use super::goal::Goal;
use super::purchase::Key;
use super::rule::{Campaign, Eligible};
use super::window::Interval;

/// Returns the evidence of an award, oldest first. `from` is its first purchase and `by` the reaching purchase. `eligible`
/// contains at least the customer's eligible purchases from `from` to `by`, in order.
pub fn evidence<'a>(campaign: Campaign<'_>, from: &Key, by: &Key, eligible: &'a [Eligible]) -> Vec<&'a Eligible> {
    let within = eligible.iter().filter(|purchase| (from..=by).contains(&&purchase.key));
    match &campaign.rule.goal {
        Goal::EveryPurchase => within.filter(|purchase| purchase.key == *by).collect(),
        Goal::Streak { purchases_per_window, .. } => first_of_each_window(campaign, *purchases_per_window, within),
        Goal::Purchases { .. } | Goal::Spend { .. } | Goal::Units { .. } | Goal::Distinct { .. } => within.collect(),
    }
}

/// Returns the first `k` of the purchases in each window of a streak.
fn first_of_each_window<'a>(
    campaign: Campaign<'_>,
    k: i32,
    purchases: impl Iterator<Item = &'a Eligible>,
) -> Vec<&'a Eligible> {
    let mut window: Option<Interval> = None;
    let mut seen = 0;
    let mut first = Vec::new();
    for purchase in purchases {
        let at = purchase.key.at;
        if !window.is_some_and(|window| window.contains(at)) {
            window = campaign.fixed_window(at);
            seen = 0;
        }
        seen += 1;
        if seen <= k {
            first.push(purchase);
        }
    }
    first
}
