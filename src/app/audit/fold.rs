//! Applies the rule of a campaign to the purchases of a customer, one after the other.

use entity::CustomerId;
use sea_orm::DatabaseTransaction;

use super::history::History;
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::engine::award::Reached;
use crate::engine::cap::Caps;
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Eligible;
use crate::engine::state::{State, too_old};
use crate::engine::window::WindowRule;

/// The maximum number of purchases of a rolling window in memory. If the window has more, only the oldest are kept. The others
/// are read again when the window has moved past those.
const LOOKBACK_ROWS: usize = 256;

/// The fold of one campaign over the purchases of a customer.
pub(super) struct Fold<'a> {
    pub(super) campaign: &'a Campaign,
    snapshot: &'a DatabaseTransaction,
    /// Purchases after this key are not folded, because the customer has not been evaluated for them yet. `None`: all are folded.
    up_to: Option<Key>,
    pub(super) state: State,
    /// The awards that were reached since the caller took them last, and that the caps of the customer leave.
    pub(super) reached: Vec<Reached>,
    /// What is left of the caps of the customer.
    left: Caps,
    lookback: Lookback<'a>,
}

/// The unused purchases of a rolling window. The window removes them from the state when they become too old.
#[derive(Default)]
struct Lookback<'a> {
    /// The oldest unused purchases, in order.
    oldest: Vec<Eligible>,
    /// Reads the purchases between `oldest` and the next one again. `None` if there are none.
    rest: Option<History<'a>>,
}

impl<'a> Fold<'a> {
    /// Begins before the first purchase. `up_to` is the key up to which the customer has been evaluated for the campaign, or
    /// `None` if the evaluation is complete.
    pub(super) fn new(snapshot: &'a DatabaseTransaction, campaign: &'a Campaign, up_to: Option<Key>) -> Self {
        let (state, lookback) = (State::default(), Lookback::default());
        Self { campaign, snapshot, up_to, state, reached: Vec::new(), left: Caps::of(&campaign.rule), lookback }
    }

    /// Folds the next purchase of the customer, and adds the awards that it reached to `reached`.
    pub(super) async fn step(&mut self, customer: CustomerId, purchase: &Purchase) -> Result<(), Error> {
        let before = self.reached.len();
        self.fold(customer, purchase).await?;
        self.left.keep(&mut self.reached, before);
        Ok(())
    }

    async fn fold(&mut self, customer: CustomerId, purchase: &Purchase) -> Result<(), Error> {
        if self.up_to.as_ref().is_some_and(|up_to| purchase.key > *up_to) {
            return Ok(());
        }
        let campaign = self.campaign.engine();
        let Some(next) = campaign.eligible(purchase) else { return Ok(()) };
        let WindowRule::Rolling { duration } = &campaign.rule.window else {
            self.state.step(campaign, &[next], 0, &mut self.reached);
            return Ok(());
        };
        self.take_back(customer, &next.key, &too_old(next.key.at, duration.micros())).await?;
        let Lookback { oldest, rest } = &mut self.lookback;
        oldest.push(next);
        self.state.step(campaign, oldest, oldest.len() - 1, &mut self.reached);
        if self.state.used_to.as_ref() >= Some(&purchase.key) {
            *rest = None;
        } else if rest.is_some() || oldest.len() > LOOKBACK_ROWS {
            // The purchase is not kept in memory; `rest` reads it again.
            oldest.pop();
            let snapshot = self.snapshot;
            let after_oldest = || oldest.last().map(|last| History::after(snapshot, customer, &last.key));
            *rest = rest.take().or_else(after_oldest);
        }
        let used = oldest.partition_point(|purchase| Some(&purchase.key) <= self.state.used_to.as_ref());
        oldest.drain(..used);
        Ok(())
    }

    /// Rolling windows: while all purchases in memory are before `until`, and so too old, removes them from the state and reads
    /// the following ones, up to `next`.
    async fn take_back(&mut self, customer: CustomerId, next: &Key, until: &Key) -> Result<(), Error> {
        while let Some(mut rest) = self.lookback.rest.take() {
            let oldest = &mut self.lookback.oldest;
            if oldest.last().is_some_and(|last| last.key >= *until) {
                self.lookback.rest = Some(rest);
                break;
            }
            if let Some(last) = oldest.last() {
                let after_last = Key { at: last.key.at, external_id: format!("{}\0", last.key.external_id) };
                self.state.expire(oldest, after_last);
                oldest.clear();
            }
            let mut read = Vec::new();
            while read.len() < LOOKBACK_ROWS
                && let Some(fact) = rest.next(customer, Some(next)).await?
            {
                read.extend(self.campaign.engine().eligible(&fact.purchase));
            }
            let caught_up = read.is_empty();
            self.lookback = Lookback { oldest: read, rest: Some(rest) };
            if caught_up {
                break;
            }
        }
        Ok(())
    }
}
