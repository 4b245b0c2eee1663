//! Behaviour through GraphQL, on both databases.

mod adjustment;
mod campaign;
mod customer;
mod erasure;
mod errors;
mod export;
mod hostile;
mod http;
mod job;
mod node;
mod page;
mod points;
mod purchase;
mod refund;
mod revisions;
mod rewards;
mod rights;
mod rules;
mod statements;
mod trail;
