//! Global ids. An `id` encodes the type and the key of an object, so that it is unique across all types.

use entity::{CampaignId, CustomerId, RewardId};

use super::opaque;
use crate::engine::external_id::ExternalId;

/// The object that an id identifies. Ids are opaque to clients. The id of a customer is made from its external id, so a
/// customer of whom nothing is recorded has an id too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GlobalId {
    /// The external id of the customer.
    Customer(ExternalId),
    /// The external id of the purchase.
    Purchase(ExternalId),
    Campaign(CampaignId),
    /// The customer, and the number of the award among all awards of that customer.
    Award(CustomerId, i64),
    /// The customer, and the sequence of the entry in the ledger of that customer.
    LedgerEntry(CustomerId, i64),
    /// The key of the entry of the trail.
    TrailEntry(i64),
    Reward(RewardId),
    /// The customer, and the number of the redemption among those of that customer.
    Redemption(CustomerId, i64),
    Job(i64),
    DeadLetter(i64),
}

impl GlobalId {
    /// Decodes an id that [`Self::to_text`] returned. Returns `None` for any other text.
    pub fn parse(id: &str) -> Option<Self> {
        let text = opaque::decode(id)?;
        let (kind, rest) = text.split_once(':')?;
        let pair = || {
            let (customer, number) = rest.split_once(':')?;
            Some((CustomerId(customer.parse().ok()?), number.parse().ok()?))
        };
        let name = ExternalId::parse(rest).ok();
        match kind {
            "Customer" => name.map(Self::Customer),
            "Purchase" => name.map(Self::Purchase),
            "Campaign" => rest.parse().ok().map(|id| Self::Campaign(CampaignId(id))),
            "Job" => rest.parse().ok().map(Self::Job),
            "DeadLetter" => rest.parse().ok().map(Self::DeadLetter),
            "Award" => pair().map(|(customer, number)| Self::Award(customer, number)),
            "LedgerEntry" => pair().map(|(customer, sequence)| Self::LedgerEntry(customer, sequence)),
            "Reward" => rest.parse().ok().map(|id| Self::Reward(RewardId(id))),
            "Redemption" => pair().map(|(customer, number)| Self::Redemption(customer, number)),
            "TrailEntry" => rest.parse().ok().map(Self::TrailEntry),
            _ => None,
        }
    }

    /// Decodes the id of a campaign. Returns `None` for any other id.
    pub fn campaign(id: &str) -> Option<CampaignId> {
        match Self::parse(id) {
            Some(Self::Campaign(id)) => Some(id),
            _ => None,
        }
    }

    /// Encodes the id, which is opaque to clients.
    pub fn to_text(&self) -> String {
        opaque::encode(&match self {
            Self::Customer(external_id) => format!("Customer:{external_id}"),
            Self::Purchase(external_id) => format!("Purchase:{external_id}"),
            Self::Campaign(CampaignId(id)) => format!("Campaign:{id}"),
            Self::Award(CustomerId(customer), number) => format!("Award:{customer}:{number}"),
            Self::LedgerEntry(CustomerId(customer), sequence) => format!("LedgerEntry:{customer}:{sequence}"),
            Self::Reward(RewardId(id)) => format!("Reward:{id}"),
            Self::Redemption(CustomerId(customer), number) => format!("Redemption:{customer}:{number}"),
            Self::TrailEntry(id) => format!("TrailEntry:{id}"),
            Self::Job(id) => format!("Job:{id}"),
            Self::DeadLetter(id) => format!("DeadLetter:{id}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        for id in [
            GlobalId::Customer(ExternalId::stored("a:b")),
            GlobalId::Purchase(ExternalId::stored("ü")),
            GlobalId::Campaign(CampaignId(7)),
            GlobalId::Award(CustomerId(1), 2),
            GlobalId::LedgerEntry(CustomerId(3), 4),
            GlobalId::TrailEntry(5),
            GlobalId::Reward(RewardId(6)),
            GlobalId::Redemption(CustomerId(7), 8),
            GlobalId::Job(5),
            GlobalId::DeadLetter(6),
        ] {
            assert_eq!(GlobalId::parse(&id.to_text()), Some(id));
        }
        for text in ["", "Customer", "Customer:", "Nothing:1", "Campaign:x", "Job:x", "Award:1", "Customer:a\0"] {
            assert_eq!(GlobalId::parse(&opaque::encode(text)), None, "{text}");
        }
        assert_eq!(GlobalId::parse("not base64!"), None);
    }
}
