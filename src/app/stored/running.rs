//! The running states of a customer in the campaigns. They are stored in the row of the customer.

use std::collections::BTreeMap;

use entity::CampaignId;
use serde::{Deserialize, Serialize};

use crate::app::campaign::set::CampaignSet;
use crate::app::error::Error;
use crate::engine::account::Tally;
use crate::engine::cap::Sum;
use crate::engine::evaluate::Tail;
use crate::engine::purchase::Key;
use crate::engine::purse::Sums;
use crate::engine::state::State;
use crate::engine::time::Instant;

/// The first byte of a head that consists of running states only. MessagePack with the names of fields follows, so that a later
/// release can add fields.
const STATES: u8 = 1;
/// The first byte of a head that also contains [`Held`].
const STATES_AND_HELD: u8 = 2;

/// The running states of a customer, by campaign, and its points that are not in the pool. A campaign that has neither counted nor
/// deferred anything of the customer has no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Boxed, because each node of the map reserves memory for eleven values.
    #[serde(rename = "c")]
    campaigns: BTreeMap<CampaignId, Box<CampaignState>>,
    /// `None` if the customer never had points outside the pool.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// The sums over the points of a customer that are not in the pool, as of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    #[serde(rename = "p")]
    pub pending: i64,
    #[serde(rename = "r")]
    pub reserved: i64,
    /// What is left of available lots.
    #[serde(rename = "l")]
    pub in_lots: i64,
    /// What is reserved of the pool.
    #[serde(rename = "pr")]
    pub pool_reserved: i64,
    /// What is spent of the pool.
    #[serde(rename = "ps")]
    pub pool_spent: i64,
    /// The instant of the last commit. The lots are as they were then.
    #[serde(rename = "t")]
    pub at: Instant,
}

/// The running state of a customer in one campaign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CampaignState {
    /// The state after the last counted purchase.
    #[serde(rename = "s")]
    pub state: State,
    /// The number of purchases counted since the last checkpoint.
    #[serde(rename = "c")]
    pub since_checkpoint: u32,
    /// Whether a checkpoint was ever stored. Most customers buy too little for one, so nobody has to look for it. Releases that
    /// did not have this field wrote no value, which means that there may be checkpoints.
    #[serde(rename = "p", default = "may_be", skip_serializing_if = "Clone::clone")]
    pub has_checkpoints: bool,
    #[serde(rename = "a")]
    pub standing_awards: i64,
    #[serde(rename = "d")]
    pub declined_awards: i64,
    /// The points of the reached awards. Counted only if the rule of the campaign caps points.
    #[serde(rename = "q", skip_serializing_if = "is_zero")]
    pub points: i64,
    /// The version of the latest commit that evaluated an earlier part of the history again, or of the first commit that
    /// evaluated any of it. Since then, only purchases after the last counted one were added. `None` if the state was written by
    /// a release that did not have this field.
    #[serde(rename = "v", skip_serializing_if = "Option::is_none")]
    pub history_version: Option<i64>,
    /// The key up to which the history is evaluated. The other fields describe the history up to this key, and a job evaluates
    /// the rest. `None` if the whole history is evaluated.
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    pub mark: Option<Key>,
}

impl Held {
    /// The sums of a purse at an instant.
    pub const fn of(sums: Sums, at: Instant) -> Self {
        let Sums { pending, reserved, in_lots, pool_reserved, pool_spent } = sums;
        Self { pending, reserved, in_lots, pool_reserved, pool_spent, at }
    }

    pub const fn sums(self) -> Sums {
        let Self { pending, reserved, in_lots, pool_reserved, pool_spent, .. } = self;
        Sums { pending, reserved, in_lots, pool_reserved, pool_spent }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the form that serde calls")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn may_be() -> bool {
    true
}

impl CampaignState {
    /// The part of the state that the engine continues from.
    pub fn tail(&self) -> Tail {
        Tail { state: self.state.clone(), since_checkpoint: self.since_checkpoint }
    }

    pub fn tally(&self) -> Tally {
        Tally { standing: self.standing_awards, declined: self.declined_awards }
    }

    pub fn set_tally(&mut self, Tally { standing, declined }: Tally) {
        (self.standing_awards, self.declined_awards) = (standing, declined);
    }

    /// The sum over the reached awards: those that are `STANDING` or `DECLINED`. The points are 0 unless the rule caps points.
    pub fn reached(&self) -> Sum {
        Sum { awards: self.standing_awards + self.declined_awards, points: self.points }
    }
}

impl Running {
    /// Parses bytes that [`Self::to_head`] returned, or the JSON of earlier releases. A new customer has no bytes.
    pub fn parse(head: &[u8]) -> Result<Self, Error> {
        let failed = |error: &dyn std::fmt::Display| Error::Internal(format!("customer.head: {error}"));
        match head.split_first() {
            Some((&STATES, states)) => {
                rmp_serde::from_slice(states).map(Self::of_states).map_err(|error| failed(&error))
            }
            Some((&STATES_AND_HELD, all)) => rmp_serde::from_slice(all).map_err(|error| failed(&error)),
            Some((b'{', _)) => serde_json::from_slice(head).map(Self::of_states).map_err(|error| failed(&error)),
            None => Ok(Self::default()),
            Some(_) => Err(failed(&"an unknown format")),
        }
    }

    fn of_states(campaigns: BTreeMap<CampaignId, Box<CampaignState>>) -> Self {
        Self { campaigns, held: None }
    }

    /// Serialises the states for the row of the customer.
    pub fn to_head(&self) -> Result<Vec<u8>, Error> {
        let mut head = vec![if self.held.is_none() { STATES } else { STATES_AND_HELD }];
        let written = match self.held {
            None => rmp_serde::encode::write_named(&mut head, &self.campaigns),
            Some(_) => rmp_serde::encode::write_named(&mut head, self),
        };
        written.map_err(|error| Error::Internal(format!("customer.head: {error}")))?;
        Ok(head)
    }

    pub fn get(&self, campaign: CampaignId) -> Option<&CampaignState> {
        self.campaigns.get(&campaign).map(Box::as_ref)
    }

    /// Returns the state in a campaign, or the initial state if there is no entry.
    pub fn of(&self, campaign: CampaignId) -> CampaignState {
        self.get(campaign).cloned().unwrap_or_default()
    }

    pub fn get_mut(&mut self, campaign: CampaignId) -> Option<&mut CampaignState> {
        self.campaigns.get_mut(&campaign).map(Box::as_mut)
    }

    /// Returns the entry of a campaign. Creates the entry if it does not exist.
    pub fn entry(&mut self, campaign: CampaignId) -> &mut CampaignState {
        self.campaigns.entry(campaign).or_default()
    }

    /// Whether a part of the history still has to be evaluated in the campaign.
    pub fn is_deferred(&self, campaign: CampaignId) -> bool {
        self.get(campaign).is_some_and(|standing| standing.mark.is_some())
    }

    /// Whether checkpoints of the customer in the campaign may be stored.
    pub fn has_checkpoints(&self, campaign: CampaignId) -> bool {
        self.get(campaign).is_some_and(|standing| standing.has_checkpoints)
    }

    /// Whether a part of the history still has to be evaluated in any campaign.
    pub fn has_deferred(&self) -> bool {
        self.campaigns.values().any(|standing| standing.mark.is_some())
    }

    /// Removes all campaigns: no new fact of the customer counts in any.
    pub fn settle_all(&mut self) {
        self.campaigns.clear();
    }

    /// Removes the campaigns for which new facts no longer count. Returns whether there were any.
    pub fn retain_counting(&mut self, set: &CampaignSet) -> bool {
        let before = self.campaigns.len();
        self.campaigns.retain(|id, _| set.get(*id).is_some_and(|campaign| campaign.counts()));
        self.campaigns.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> Running {
        let last = Key { at: Instant(1_764_417_600_000_000), external_id: "order-10017".to_owned() };
        let mut running = Running::default();
        for campaign in 1..=4 {
            let standing = running.entry(CampaignId(campaign));
            standing.state =
                State { last: Some(last.clone()), evidence_from: Some(last.clone()), count: 2, ..State::default() };
            (standing.since_checkpoint, standing.standing_awards, standing.has_checkpoints) = (17, 3, campaign == 1);
        }
        running
    }

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = running().to_head().unwrap();
        assert_eq!(Running::parse(&head).unwrap(), running());
        let held = Held { pending: 1, reserved: 2, in_lots: 3, pool_reserved: 4, pool_spent: 5, at: Instant(6) };
        let running_and_held = Running { held: Some(held), ..running() };
        assert_eq!(Running::parse(&running_and_held.to_head().unwrap()).unwrap(), running_and_held);
        let json = serde_json::to_vec(&running().campaigns).unwrap();
        assert_eq!(Running::parse(&json).unwrap(), running());
        assert!(4 * head.len() < 3 * json.len(), "{} of {} bytes", head.len(), json.len());
        assert_eq!(Running::parse(b"").unwrap(), Running::default());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let head = running().to_head().unwrap();
        let newer = [&[STATES_AND_HELD + 1], &head[1..]].concat();
        for wrong in [&newer, &head[..head.len() - 1], b"torn", b"{\"1\":"] {
            assert!(Running::parse(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }
}
