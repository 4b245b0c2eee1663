//! The HTTP edge: who is calling, what is asked, how it is answered.

pub mod auth;
pub mod graphql;
pub mod router;
