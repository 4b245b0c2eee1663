//! Who asks, and what that allows. Rights are values: a use case that needs an admin takes an [`Admin`], and nobody
//! can make one but [`Viewer::require_admin`].

use std::sync::Arc;

use super::error::Error;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// No token.
    Anonymous,
    /// Sees itself: the customer's external id.
    Customer(String),
    /// Records, and reads any customer: the token's subject.
    Storefront(String),
    /// Everything: the token's subject.
    Admin(String),
}

/// The right to everything.
#[derive(Clone, Debug)]
pub struct Admin(Who);

/// The right to record, and to read any customer.
#[derive(Clone, Debug)]
pub struct Shop(Who);

/// One asker among others: limits are counted for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Who(Arc<str>);

/// The right to read: one customer, or all.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    only: Option<&'a str>,
    admin: bool,
}

impl Viewer {
    /// Whose limits a request is counted against: all tokens of one role and subject are one, all without a token too.
    pub fn who(&self) -> Who {
        Who(match self {
            Self::Anonymous => "anonymous".into(),
            Self::Customer(external_id) => format!("customer {external_id}").into(),
            Self::Storefront(subject) => format!("storefront {subject}").into(),
            Self::Admin(subject) => format!("admin {subject}").into(),
        })
    }

    /// Admins.
    pub fn require_admin(&self) -> Result<Admin, Error> {
        match self {
            Self::Admin(_) => Ok(Admin(self.who())),
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(_) | Self::Storefront(_) => Err(Error::Forbidden),
        }
    }

    /// Storefronts and admins.
    pub fn require_shop(&self) -> Result<Shop, Error> {
        match self {
            Self::Storefront(_) | Self::Admin(_) => Ok(Shop(self.who())),
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(_) => Err(Error::Forbidden),
        }
    }

    /// Anyone with a token.
    pub fn require_reader(&self) -> Result<Reader<'_>, Error> {
        match self {
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(external_id) => Ok(Reader { only: Some(external_id), admin: false }),
            Self::Storefront(_) => Ok(Reader { only: None, admin: false }),
            Self::Admin(_) => Ok(Reader { only: None, admin: true }),
        }
    }
}

impl Admin {
    /// Who has it.
    pub fn who(&self) -> &Who {
        &self.0
    }
}

impl Shop {
    /// Who has it.
    pub fn who(&self) -> &Who {
        &self.0
    }
}

impl Reader<'_> {
    /// Whether this customer's data may be seen. A foreign customer's does not exist.
    pub fn sees(&self, external_id: &str) -> bool {
        self.only.is_none_or(|only| only == external_id)
    }

    /// The customer that the token speaks for.
    pub fn myself(&self) -> Option<&str> {
        self.only
    }

    /// Customers see no drafts.
    pub fn sees_drafts(&self) -> bool {
        self.only.is_none()
    }

    /// Whether budgets and statistics may be seen.
    pub fn is_admin(&self) -> bool {
        self.admin
    }
}
