//! Behaviour through GraphQL, on both databases.

mod purchase;
