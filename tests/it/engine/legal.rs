//! The engine and the oracle agree on which rules are legal.

use std::cell::Cell;

use proptest::prelude::{Strategy, any};
use proptest::sample::select;

use windfall::engine::rule::faults;

use super::{convert, each_case};
use crate::oracle::generate::campaign;
use crate::oracle::{AwardRule, Campaign, DAY, Goal, Window, legal};

/// Changes that make some campaigns illegal. Values that the types of the engine cannot hold are not among them.
#[derive(Clone, Copy, Debug)]
enum Mutation {
    None,
    EmptyPeriod,
    ReversedPeriod,
    Zero,
    One,
    Number(u32),
    Most,
    AboveMost,
    Spans(i64),
    Caps(i64),
    Points(i64),
    Rate(i64),
    EmptyList(u8),
    MinAmount,
    SmallRepeat(i64),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation::{
        AboveMost, Caps, EmptyList, EmptyPeriod, MinAmount, Most, None, Number, One, Points, Rate, ReversedPeriod,
        SmallRepeat, Spans, Zero,
    };
    select(vec![
        None,
        None,
        None,
        None,
        EmptyPeriod,
        ReversedPeriod,
        Zero,
        One,
        Number(1_000),
        Number(1_001),
        Most,
        AboveMost,
        Spans(0),
        Spans(1),
        Spans(3660 * DAY),
        Spans(3660 * DAY + 1),
        Caps(0),
        Caps(1),
        Points(0),
        Points(1),
        Points(1_000_000_000),
        Points(1_000_000_001),
        Rate(0),
        Rate(1),
        Rate(10_000_000_000),
        Rate(10_000_000_001),
        EmptyList(0),
        EmptyList(1),
        EmptyList(2),
        EmptyList(3),
        EmptyList(4),
        EmptyList(5),
        MinAmount,
        SmallRepeat(99),
        SmallRepeat(100),
    ])
}

fn mutate(c: &mut Campaign, mutation: Mutation) {
    match mutation {
        Mutation::None => (),
        Mutation::EmptyPeriod => c.ends_at = Some(c.starts_at),
        Mutation::ReversedPeriod => c.ends_at = Some(c.starts_at - 1),
        Mutation::Zero => numbers(c, 0),
        Mutation::One => numbers(c, 1),
        Mutation::Number(number) => goal_number(c, number),
        Mutation::Most => spans(c, 3660 * DAY),
        Mutation::AboveMost => spans(c, 3660 * DAY + 1),
        Mutation::Spans(span) => (c.hold_for, c.expires_after) = (Some(span), Some(span)),
        Mutation::Caps(cap) => (c.max_per_customer, c.max_per_window) = (Some(cap), Some(cap)),
        Mutation::Points(points) => c.award = AwardRule::Points(points),
        Mutation::Rate(rate_micro) => c.award = AwardRule::PointsPerUnit { rate_micro },
        Mutation::EmptyList(0) => c.filter.channels = Some(Vec::new()),
        Mutation::EmptyList(1) => c.filter.categories = Some(Vec::new()),
        Mutation::EmptyList(2) => c.filter.skus = Some(Vec::new()),
        Mutation::EmptyList(3) => c.filter.excluded_categories = Some(Vec::new()),
        Mutation::EmptyList(4) => c.filter.excluded_skus = Some(Vec::new()),
        Mutation::EmptyList(_) => {
            if let Window::Recurring { weekdays, .. } = &mut c.window {
                weekdays.clear();
            }
        }
        Mutation::MinAmount => c.filter.min_amount = Some(0),
        Mutation::SmallRepeat(minor) => c.goal = Goal::Spend { minor, repeat: true },
    }
}

fn numbers(c: &mut Campaign, number: u32) {
    if let Window::Calendar { every, .. } = &mut c.window {
        *every = number;
    }
    match &mut c.goal {
        Goal::EveryPurchase => (),
        Goal::Purchases { n, .. } | Goal::Distinct { n, .. } | Goal::Units { n, .. } => *n = number,
        Goal::Spend { minor, .. } => *minor = i64::from(number),
        Goal::Streak { length, per_window, .. } => {
            let (first, second) = (number, 2 - number);
            (*length, *per_window) = if *length == 1 { (second, first) } else { (first, second) };
        }
    }
    spans(c, i64::from(number));
}

fn goal_number(c: &mut Campaign, number: u32) {
    if let Goal::Purchases { n, .. } | Goal::Distinct { n, .. } | Goal::Units { n, .. } = &mut c.goal {
        *n = number;
    }
}

fn spans(c: &mut Campaign, span: i64) {
    match &mut c.window {
        Window::Session { gap } => *gap = span,
        Window::Timer { duration, .. } | Window::Rolling { duration } => *duration = span,
        _ => (),
    }
}

#[test]
fn a_rule_is_without_fault_exactly_if_it_is_legal() {
    let seen = [Cell::new(0), Cell::new(0)];
    let mixed = (campaign(), campaign(), any::<[bool; 5]>(), mutation());
    each_case(4000, &mixed, |((mut c, _), (other, _), take, mutation)| {
        if take[0] {
            c.window = other.window;
        }
        if take[1] {
            c.goal = other.goal;
        }
        if take[2] {
            c.award = other.award;
        }
        if take[3] {
            c.max_per_window = other.max_per_window;
        }
        if take[4] {
            (c.currency, c.currency_exponent) = (other.currency, other.currency_exponent);
        }
        mutate(&mut c, mutation);
        let found = faults(&convert::rule(&c), &convert::period(&c));
        assert_eq!(found.is_empty(), legal(&c), "{found:#?} {mutation:?}");
        let seen = &seen[usize::from(found.is_empty())];
        seen.set(seen.get() + 1);
    });
    assert!(seen.iter().all(|n| n.get() >= 1000), "{seen:?}");
}
