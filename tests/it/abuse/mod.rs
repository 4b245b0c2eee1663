//! Abusive requests against a real server. Each is refused with a code, at a cost that the server can afford, while
//! honest clients are served.

mod attack;
mod corpus;
mod points;
mod price;
mod slow;
mod tokens;
