//! Requests made to hurt, against a real server: each is refused with a code, at a price that the server can afford, and
//! who asks honestly meanwhile is served.

mod attack;
mod corpus;
mod points;
mod price;
mod slow;
mod tokens;
