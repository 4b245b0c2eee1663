//! The differences that an audit finds, and how it reports them.

use std::fmt;

use entity::AwardStatus;

use crate::app::campaign::set::Campaign;

/// Called with each difference.
pub(super) type Tell<'a> = &'a mut (dyn FnMut(&Difference) + Send);

/// A recorded value that differs from the recomputed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The customer's external id. `None` if the value does not belong to a single customer.
    pub customer: Option<String>,
    /// The campaign's id and name. `None` if the value does not belong to a campaign.
    pub campaign: Option<(i64, String)>,
    /// A description of the value.
    pub what: String,
    pub recorded: String,
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(customer) = &self.customer {
            write!(f, "customer {customer}: ")?;
        }
        if let Some((id, name)) = &self.campaign {
            write!(f, "campaign {id} ({name}): ")?;
        }
        write!(f, "{}: recorded {}, expected {}", self.what, self.recorded, self.expected)
    }
}

/// Reports the differences of one customer as they are found, and counts them.
pub(super) struct Found<'a> {
    pub(super) customer: String,
    pub(super) tell: Tell<'a>,
    pub(super) count: u64,
}

impl Found<'_> {
    pub(super) fn note(&mut self, campaign: Option<&Campaign>, what: String, recorded: String, expected: String) {
        let campaign = campaign.map(|campaign| (campaign.id().0, campaign.row.name.clone()));
        (self.tell)(&Difference { customer: Some(self.customer.clone()), campaign, what, recorded, expected });
        self.count += 1;
    }

    pub(super) fn compare<T: Copy + PartialEq + std::fmt::Display>(
        &mut self,
        campaign: Option<&Campaign>,
        what: &str,
        recorded: T,
        expected: T,
    ) {
        if recorded != expected {
            self.note(campaign, what.to_owned(), recorded.to_string(), expected.to_string());
        }
    }
}

/// Returns the name of a status in the API.
pub(super) fn word(status: AwardStatus) -> String {
    match status {
        AwardStatus::Standing => "STANDING",
        AwardStatus::Declined => "DECLINED",
        AwardStatus::Reversed => "REVERSED",
    }
    .to_owned()
}
