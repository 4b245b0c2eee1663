//! Typed keys: a customer's id cannot be taken for a campaign's.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// Key of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType)]
#[serde(transparent)]
pub struct CustomerId(pub i64);

/// Key of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType)]
#[serde(transparent)]
pub struct CampaignId(pub i64);
