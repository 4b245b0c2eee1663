//! A campaign's rule, applied to a customer's purchases one after the other.

use entity::CustomerId;
use sea_orm::DatabaseTransaction;

use super::history::{Fact, History};
use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::stored::{purchase as purchases, refund as refunds};
use crate::engine::award::Reached;
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Eligible;
use crate::engine::state::{State, too_old};
use crate::engine::window::WindowRule;

/// The most purchases of a rolling window in memory. Older ones are read again when the window leaves them behind.
const LOOKBACK_ROWS: usize = 256;

/// Where the fold of one campaign stands.
pub(super) struct Fold<'a> {
    pub(super) campaign: &'a Campaign,
    snapshot: &'a DatabaseTransaction,
    /// Up to where the customer has been evaluated; none: to the end. Later purchases are not folded.
    up_to: Option<Key>,
    pub(super) state: State,
    /// Reached by the purchase that was folded last: what the customer's cap leaves of it.
    pub(super) reached: Vec<Reached>,
    /// Awards that the customer's cap leaves.
    left: usize,
    lookback: Lookback<'a>,
}

/// Rolling: what the window may still take back.
#[derive(Default)]
struct Lookback<'a> {
    /// The oldest that are unused, in order.
    oldest: Vec<Eligible>,
    /// Reads again those between `oldest` and the purchase that is folded next; none: there are none.
    rest: Option<History<'a>>,
}

impl<'a> Fold<'a> {
    /// Before the first purchase. `up_to`: as far as the customer has been evaluated for the campaign; none: to the end.
    pub(super) fn new(snapshot: &'a DatabaseTransaction, campaign: &'a Campaign, up_to: Option<Key>) -> Self {
        let (state, lookback) = (State::default(), Lookback::default());
        let most = campaign.rule.most_awards().and_then(|most| usize::try_from(most).ok());
        Self { campaign, snapshot, up_to, state, reached: Vec::new(), left: most.unwrap_or(usize::MAX), lookback }
    }

    /// Folds in the customer's next purchase.
    pub(super) async fn step(&mut self, fact: &Fact, purchase: &Purchase) -> Result<(), Error> {
        self.reached.clear();
        self.fold(fact, purchase).await?;
        self.reached.truncate(self.left);
        self.left -= self.reached.len();
        Ok(())
    }

    async fn fold(&mut self, fact: &Fact, purchase: &Purchase) -> Result<(), Error> {
        if self.up_to.as_ref().is_some_and(|up_to| purchase.key > *up_to) {
            return Ok(());
        }
        let Some(next) = self.eligible(fact, Some(purchase))? else { return Ok(()) };
        let campaign = self.campaign.engine();
        let WindowRule::Rolling { duration } = &campaign.rule.window else {
            self.state.step(campaign, &[next], 0, &mut self.reached);
            return Ok(());
        };
        self.take_back(fact.row.customer_id, &next.key, &too_old(next.key.at, duration.micros())).await?;
        let Lookback { oldest, rest } = &mut self.lookback;
        let customer = fact.row.customer_id;
        oldest.push(next);
        self.state.step(campaign, oldest, oldest.len() - 1, &mut self.reached);
        if self.state.used_to.as_ref() >= Some(&purchase.key) {
            *rest = None;
        } else if rest.is_some() || oldest.len() > LOOKBACK_ROWS {
            // Not kept: it is read again.
            oldest.pop();
            let snapshot = self.snapshot;
            let after_oldest = || oldest.last().map(|last| History::after(snapshot, customer, &last.key));
            *rest = rest.take().or_else(after_oldest);
        }
        let used = oldest.partition_point(|purchase| Some(&purchase.key) <= self.state.used_to.as_ref());
        oldest.drain(..used);
        Ok(())
    }

    /// What the purchase contributes: to a settled campaign, what was recorded before it settled. `whole`: the purchase
    /// with all its refunds.
    fn eligible(&self, fact: &Fact, whole: Option<&Purchase>) -> Result<Option<Eligible>, Error> {
        let counts =
            |set_revision: i64| self.campaign.row.settled_revision.is_none_or(|settled| set_revision < settled);
        let engine = self.campaign.engine();
        if !counts(fact.row.set_revision) {
            return Ok(None);
        }
        if let Some(whole) = whole.filter(|_| fact.refunds.iter().all(|refund| counts(refund.set_revision))) {
            return Ok(engine.eligible(whole));
        }
        let refunds = fact.refunds.iter().filter(|refund| counts(refund.set_revision)).map(refunds::from_row);
        Ok(engine.eligible(&purchases::from_row(&fact.row, refunds.collect::<Result<_, _>>()?)?))
    }

    /// Rolling: takes back what is too old beside the next purchase, until the rest of that is in memory.
    async fn take_back(&mut self, customer: CustomerId, next: &Key, until: &Key) -> Result<(), Error> {
        while let Some(mut rest) = self.lookback.rest.take() {
            let oldest = &mut self.lookback.oldest;
            if oldest.last().is_some_and(|last| last.key >= *until) {
                self.lookback.rest = Some(rest);
                break;
            }
            if let Some(last) = oldest.last() {
                let after_last = Key { at: last.key.at, external_id: format!("{}\0", last.key.external_id) };
                self.state.expire(&self.campaign.rule.goal, oldest, after_last);
                oldest.clear();
            }
            let mut read = Vec::new();
            while read.len() < LOOKBACK_ROWS
                && let Some(fact) = rest.next(customer, Some(next)).await?
            {
                read.extend(self.eligible(&fact, None)?);
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
