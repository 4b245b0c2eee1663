//! The pure core: purchases and a campaign's rule in, awards out.
//!
//! Invariants of this module and all below it: no `async`, no clock, no SQL, no I/O, no global state. Time comes in
//! as an argument. The rules are those of `docs/semantics.md`; where code and that page disagree, one of them has a bug.
//!
//! Reading order: [`time`] and [`zone`] (instants, spans, local bounds) → [`money`] → [`purchase`] (net amounts), [`stretch`] →
//! [`window`], [`goal`], [`award`] (the vocabulary of a rule) → [`rule`] (a campaign's rule; what is legal and what
//! is eligible) → [`state`] (the fold over a customer's eligible purchases) → [`evaluate`] (what a change can affect,
//! and the `fold` from there) → [`cap`] (which awards the customer's cap leaves) → [`diff`] (recorded against reached) →
//! [`evidence`] (the purchases an award rests on) → [`budget`] (decisions) → [`account`] (what a difference posts) → [`lookback`] → [`progress`] → [`lifecycle`] (transitions of
//! a campaign).

pub mod account;
pub mod award;
pub mod budget;
pub mod cap;
pub mod diff;
pub mod evaluate;
pub mod evidence;
mod fold;
pub mod goal;
pub mod lifecycle;
pub mod lookback;
pub mod money;
pub mod progress;
pub mod purchase;
pub mod rule;
pub mod state;
pub mod stretch;
pub mod time;
pub mod window;
pub mod zone;
