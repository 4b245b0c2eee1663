//! Global ids: what an `id` stands for, whatever type it is of.

use async_graphql::ID;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::app::model::{CampaignId, CustomerId};

/// What an id stands for. Opaque to clients. A customer's is made of its external id, so that one that was never heard
/// of has an id too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GlobalId {
    /// By external id.
    Customer(String),
    /// By external id.
    Purchase(String),
    /// By key.
    Campaign(CampaignId),
    /// By customer and number.
    Award(CustomerId, i64),
    /// By customer and sequence.
    LedgerEntry(CustomerId, i64),
}

impl GlobalId {
    /// Reads what [`ID::from`] wrote.
    pub(super) fn parse(id: &ID) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(id.as_str()).ok()?).ok()?;
        let (kind, rest) = text.split_once(':')?;
        let pair = || {
            let (customer, number) = rest.split_once(':')?;
            Some((CustomerId(customer.parse().ok()?), number.parse().ok()?))
        };
        let name = (!rest.is_empty() && !rest.contains('\0')).then(|| rest.to_owned());
        match kind {
            "Customer" => name.map(Self::Customer),
            "Purchase" => name.map(Self::Purchase),
            "Campaign" => rest.parse().ok().map(|id| Self::Campaign(CampaignId(id))),
            "Award" => pair().map(|(customer, number)| Self::Award(customer, number)),
            "LedgerEntry" => pair().map(|(customer, sequence)| Self::LedgerEntry(customer, sequence)),
            _ => None,
        }
    }

    /// The campaign that the id stands for.
    pub(in crate::graphql) fn campaign(id: &ID) -> Option<CampaignId> {
        match Self::parse(id) {
            Some(Self::Campaign(id)) => Some(id),
            _ => None,
        }
    }
}

impl From<GlobalId> for ID {
    fn from(id: GlobalId) -> Self {
        let text = match id {
            GlobalId::Customer(external_id) => format!("Customer:{external_id}"),
            GlobalId::Purchase(external_id) => format!("Purchase:{external_id}"),
            GlobalId::Campaign(CampaignId(id)) => format!("Campaign:{id}"),
            GlobalId::Award(CustomerId(customer), number) => format!("Award:{customer}:{number}"),
            GlobalId::LedgerEntry(CustomerId(customer), sequence) => format!("LedgerEntry:{customer}:{sequence}"),
        };
        Self(URL_SAFE_NO_PAD.encode(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back() {
        for id in [
            GlobalId::Customer("a:b".to_owned()),
            GlobalId::Purchase("ü".to_owned()),
            GlobalId::Campaign(CampaignId(7)),
            GlobalId::Award(CustomerId(1), 2),
            GlobalId::LedgerEntry(CustomerId(3), 4),
        ] {
            assert_eq!(GlobalId::parse(&ID::from(id.clone())), Some(id));
        }
        for text in ["", "Customer", "Customer:", "Nothing:1", "Campaign:x", "Award:1", "Customer:a\0"] {
            assert_eq!(GlobalId::parse(&ID(URL_SAFE_NO_PAD.encode(text))), None, "{text}");
        }
        assert_eq!(GlobalId::parse(&ID("not base64!".to_owned())), None);
    }
}
