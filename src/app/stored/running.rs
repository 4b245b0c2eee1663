//! Where a customer stands in each campaign: the engine's running state, stored with the customer's row.

use std::collections::BTreeMap;

use entity::CampaignId;
use serde::{Deserialize, Serialize};

use crate::app::campaigns::CampaignSet;
use crate::app::error::Error;
use crate::engine::account::Tally;
use crate::engine::evaluate::Tail;
use crate::engine::purchase::Key;
use crate::engine::state::State;

/// By campaign. One that never counted anything of the customer has no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Running {
    /// Boxed: a map makes room for eleven at once.
    campaigns: BTreeMap<CampaignId, Box<Standing>>,
}

/// One campaign's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// After the last counted purchase.
    #[serde(rename = "s")]
    pub state: State,
    /// Purchases counted since the last checkpoint.
    #[serde(rename = "c")]
    pub since_checkpoint: u32,
    /// Standing awards.
    #[serde(rename = "a")]
    pub standing: i64,
    /// Declined awards.
    #[serde(rename = "d")]
    pub declined: i64,
    /// The version of the commit since which only purchases after the last counted one came in: the latest one that evaluated an
    /// earlier part of the history, or the first of all. None: a program wrote it that does not know this field.
    #[serde(rename = "v", skip_serializing_if = "Option::is_none")]
    pub history_version: Option<i64>,
    /// The history up to here is evaluated, and all of the above is as of here; what lies after it waits for a job. None: all of
    /// the history is evaluated.
    #[serde(rename = "m", skip_serializing_if = "Option::is_none")]
    pub mark: Option<Key>,
}

impl Standing {
    /// The engine's view.
    pub fn tail(&self) -> Tail {
        Tail { state: self.state.clone(), since_checkpoint: self.since_checkpoint }
    }

    /// The customer's awards in the campaign.
    pub fn tally(&self) -> Tally {
        Tally { standing: self.standing, declined: self.declined }
    }

    /// Stores the customer's awards in the campaign.
    pub fn set_tally(&mut self, Tally { standing, declined }: Tally) {
        (self.standing, self.declined) = (standing, declined);
    }

    /// The customer's reached awards: what audit calls STANDING ∪ DECLINED.
    pub fn reached(&self) -> i64 {
        self.standing + self.declined
    }
}

impl Running {
    /// Reads what [`Self::to_text`] wrote.
    pub fn parse(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|error| Error::Internal(format!("customer.running: {error}")))
    }

    /// For the customer's row.
    pub fn to_text(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|error| Error::Internal(format!("customer.running: {error}")))
    }

    /// Where the customer stands, if anything was ever counted.
    pub fn get(&self, campaign: CampaignId) -> Option<&Standing> {
        self.campaigns.get(&campaign).map(Box::as_ref)
    }

    /// Where the customer stands; at the beginning where there is no entry.
    pub fn of(&self, campaign: CampaignId) -> Standing {
        self.get(campaign).cloned().unwrap_or_default()
    }

    /// Changes an entry, if there is one.
    pub fn get_mut(&mut self, campaign: CampaignId) -> Option<&mut Standing> {
        self.campaigns.get_mut(&campaign).map(Box::as_mut)
    }

    /// Changes an entry, and makes it if need be.
    pub fn entry(&mut self, campaign: CampaignId) -> &mut Standing {
        self.campaigns.entry(campaign).or_default()
    }

    /// Whether something of the campaign waits to be evaluated.
    pub fn is_deferred(&self, campaign: CampaignId) -> bool {
        self.get(campaign).is_some_and(|standing| standing.mark.is_some())
    }

    /// Whether something of any campaign waits to be evaluated.
    pub fn has_deferred(&self) -> bool {
        self.campaigns.values().any(|standing| standing.mark.is_some())
    }

    /// Forgets campaigns that can change no more; whether there were such.
    pub fn retain_counting(&mut self, set: &CampaignSet) -> bool {
        let before = self.campaigns.len();
        self.campaigns.retain(|id, _| set.get(*id).is_some_and(|campaign| campaign.counts()));
        self.campaigns.len() < before
    }
}
