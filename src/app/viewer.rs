//! Callers and their rights. Rights are values: a use case for admins takes an [`Admin`], which only
//! [`Viewer::require_admin`] can create. A use case that changes something for an admin takes an [`Actor`], so that the trail says who
//! it was.

use std::sync::Arc;

use super::error::Error;
use super::origin::Origin;

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// A caller without a token.
    Anonymous,
    /// A customer, who may read its own data. Contains the customer's external id.
    Customer(Arc<str>),
    /// A storefront, which may record facts and read all customers. Contains the subject of the token.
    Storefront(Arc<str>),
    /// An admin, who may do everything. Contains the subject of the token.
    Admin(Arc<str>),
}

/// The right of an admin, to read everything and to repair.
#[derive(Clone, Debug)]
pub struct Admin(());

/// The right to change everything, with what the trail says of its owner: an admin with a request, or a subcommand of this program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    who: Who,
    role: &'static str,
    subject: Arc<str>,
    origin: Origin,
}

/// The right to record facts and to read all customers.
#[derive(Clone, Debug)]
pub struct Shop(Who);

/// The identity of a caller. Limits are counted per identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    role: &'static str,
    subject: Option<Arc<str>>,
}

/// The right to read one customer or all customers.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    only: Option<&'a str>,
    admin: bool,
}

impl Viewer {
    /// Returns the identity that limits are counted for. All tokens with the same role and subject share one identity, and so do
    /// all callers without a token.
    pub fn who(&self) -> Who {
        let (role, subject) = match self {
            Self::Anonymous => ("anonymous", None),
            Self::Customer(external_id) => ("customer", Some(external_id)),
            Self::Storefront(subject) => ("storefront", Some(subject)),
            Self::Admin(subject) => ("admin", Some(subject)),
        };
        Who { role, subject: subject.cloned() }
    }

    /// Returns the right of an admin. Fails for everyone else.
    pub fn require_admin(&self) -> Result<Admin, Error> {
        match self {
            Self::Admin(_) => Ok(Admin(())),
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(_) | Self::Storefront(_) => Err(Error::Forbidden),
        }
    }

    /// Returns the right of an admin to change something with this request. Fails for everyone else.
    pub fn require_actor(&self, origin: &Origin) -> Result<Actor, Error> {
        match self {
            Self::Admin(subject) => {
                Ok(Actor { who: self.who(), role: "admin", subject: Arc::clone(subject), origin: origin.clone() })
            }
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(_) | Self::Storefront(_) => Err(Error::Forbidden),
        }
    }

    /// Returns the right of a storefront, which admins have too. Fails for everyone else.
    pub fn require_shop(&self) -> Result<Shop, Error> {
        match self {
            Self::Storefront(_) | Self::Admin(_) => Ok(Shop(self.who())),
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(_) => Err(Error::Forbidden),
        }
    }

    /// Returns the right to read. Fails for callers without a token.
    pub fn require_reader(&self) -> Result<Reader<'_>, Error> {
        match self {
            Self::Anonymous => Err(Error::Unauthenticated),
            Self::Customer(external_id) => Ok(Reader { only: Some(external_id), admin: false }),
            Self::Storefront(_) => Ok(Reader { only: None, admin: false }),
            Self::Admin(_) => Ok(Reader { only: None, admin: true }),
        }
    }
}

impl Actor {
    /// Returns the right of a subcommand, by its name: anyone who can write to the database may act as an admin.
    pub fn process(name: &str) -> Self {
        let subject: Arc<str> = name.into();
        let who = Who { role: "process", subject: Some(Arc::clone(&subject)) };
        Self { who, role: "process", subject, origin: Origin::process() }
    }

    /// Returns the identity that limits are counted for.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// `admin`, or `process` for a subcommand.
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// The subject of the token, or the name of the subcommand.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl Shop {
    /// The caller that has this right.
    pub fn who(&self) -> &Who {
        &self.0
    }
}

impl Reader<'_> {
    /// Whether the reader may see the data of this customer. To a customer, all other customers appear not to exist.
    pub fn sees(&self, external_id: &str) -> bool {
        self.only.is_none_or(|only| only == external_id)
    }

    /// The external id of the customer that the token was issued to. `None` for storefronts and admins.
    pub fn myself(&self) -> Option<&str> {
        self.only
    }

    /// Whether the reader may see drafts. Customers may not.
    pub fn sees_drafts(&self) -> bool {
        self.only.is_none()
    }

    /// Whether the reader may see budgets and statistics.
    pub fn is_admin(&self) -> bool {
        self.admin
    }
}
