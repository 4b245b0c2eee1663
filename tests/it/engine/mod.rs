//! Compares the engine with the oracle on random campaigns and histories.
//!
//! `WINDFALL_TEST_SIZE=full` runs fifty times as many cases.

pub(crate) mod convert;
mod cost;
mod incremental;
mod legal;
mod progress;
mod purse;
mod store;
mod whole;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use windfall::engine::rule::{Campaign, Period, Rule};

use crate::oracle;

/// Runs the check on `cases` random cases. proptest shrinks a failing case before it reports it.
fn each_case<S: Strategy>(cases: u32, strategy: &S, check: impl Fn(S::Value)) {
    let full = std::env::var("WINDFALL_TEST_SIZE").is_ok_and(|size| size == "full");
    let config = Config {
        cases: if full { cases * 50 } else { cases },
        rng_seed: RngSeed::Fixed(20_240_102),
        failure_persistence: None,
        ..Config::default()
    };
    let checked = TestRunner::new(config).run(strategy, |case| {
        check(case);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}

/// Owns what a [`Campaign`] of the engine borrows.
struct Owned {
    rule: Rule,
    period: Period,
}

impl Owned {
    fn new(c: &oracle::Campaign) -> Self {
        Self { rule: convert::rule(c), period: convert::period(c) }
    }

    fn campaign(&self) -> Campaign<'_> {
        Campaign { rule: &self.rule, period: &self.period, settled_revision: None }
    }
}
