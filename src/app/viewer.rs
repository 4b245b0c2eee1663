//! Who asks, and what that allows. Rights are values: a use case that needs an admin takes an [`Admin`], and nobody
//! can make one but [`Viewer::require_admin`].

use super::error::Error;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// No token.
    Anonymous,
    /// Sees itself: the customer's external id.
    Customer(String),
    /// Records, and reads any customer.
    Storefront,
    /// Everything.
    Admin,
}

/// The right to everything.
#[derive(Clone, Copy, Debug)]
pub struct Admin(());

/// The right to record, and to read any customer.
#[derive(Clone, Copy, Debug)]
pub struct Shop(());

/// The right to read: one customer, or all.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    only: Option<&'a str>,
    admin: bool,
}

impl Viewer {
    /// Admins.
    pub fn require_admin(&self) -> Result<Admin, Error> {
        match self {
            Self::Admin => Ok(Admin(())),
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(_) | Self::Storefront => Err(Error::Forbidden),
        }
    }

    /// Storefronts and admins.
    pub fn require_shop(&self) -> Result<Shop, Error> {
        match self {
            Self::Storefront | Self::Admin => Ok(Shop(())),
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(_) => Err(Error::Forbidden),
        }
    }

    /// Anyone with a token.
    pub fn require_reader(&self) -> Result<Reader<'_>, Error> {
        match self {
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(external_id) => Ok(Reader { only: Some(external_id), admin: false }),
            Self::Storefront => Ok(Reader { only: None, admin: false }),
            Self::Admin => Ok(Reader { only: None, admin: true }),
        }
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
