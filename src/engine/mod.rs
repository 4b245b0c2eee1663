//! The pure core: it computes awards from purchases and the rule of a campaign.
//!
//! Invariants of this module and of all modules below it: no `async`, no clock, no SQL, no I/O, no global state. Time is an
//! argument. The rules are those of `docs/semantics.md`; if the code and that page disagree, one of them has a bug.
//!
//! Reading order:
//! - [`time`], [`zone`] and [`money`]: instants, spans, local bounds and amounts.
//! - [`external_id`], [`purchase`] and [`stretch`]: purchases, their nets, and ranges of a customer's purchases.
//! - [`window`], [`goal`], [`award`] and [`dates`]: the parts of a rule.
//! - [`rule`]: the rule of a campaign, which rules are legal, and which purchases are eligible.
//! - [`state`], `fold` and [`evaluate`]: the fold over a customer's eligible purchases, and what a change can affect.
//! - [`cap`]: which awards the cap on a customer's awards keeps.
//! - [`diff`] and [`evidence`]: how recorded and reached awards differ, and which purchases an award is based on.
//! - [`budget`] and [`account`]: what a budget decides, and what a difference posts.
//! - [`reward`]: whether a customer may redeem a reward.
//! - [`lot`], [`purse`] and [`replay`]: where a customer's points lie, how commits and the clock change that, and what a ledger says
//!   about it.
//! - [`lookback`] and [`progress`]: where a customer stands at an instant.
//! - [`lifecycle`]: the transitions of a campaign.

pub mod account;
pub mod award;
pub mod budget;
pub mod cap;
pub mod dates;
pub mod diff;
pub mod evaluate;
pub mod evidence;
pub mod external_id;
mod fold;
pub mod goal;
pub mod lifecycle;
pub mod lookback;
pub mod lot;
pub mod money;
pub mod progress;
pub mod purchase;
pub mod purse;
pub mod replay;
pub mod reward;
pub mod rule;
pub mod state;
pub mod stretch;
pub mod time;
pub mod window;
pub mod zone;
