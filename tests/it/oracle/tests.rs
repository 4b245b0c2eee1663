//! Examples worked out by hand from `docs/semantics.md`, and a few properties. They verify the oracle itself.

use std::collections::BTreeMap;

use proptest::prelude::ProptestConfig;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{RngSeed, TestRunner};

use super::book::{Book, Budget, EntryKind, Recorded, Status};
use super::contents::purchases_of;
use super::progress::{CountedUnit, Progress, State, clip, progress};
use super::reached::{eligible, eligible_amount, line_nets, net, reached, uncapped};
use super::{
    Award, AwardRule, Campaign, DAY, Filter, Goal, HOUR, Instant, Line, MINUTE, Purchase, Refund, Span, Unit, Window,
    generate, legal, zone,
};

// ── Shorthand ──

fn at(text: &str) -> Instant {
    let full = if text.ends_with('Z') { text.to_owned() } else { format!("{text}T00:00Z") };
    full.parse::<jiff::Timestamp>().expect("an instant").as_microsecond()
}

/// A campaign in UTC and dollars, without an end, that starts on 2024-01-01 (a Monday) and awards 10 points.
fn campaign(window: Window, goal: Goal) -> Campaign {
    Campaign {
        starts_at: at("2024-01-01"),
        ends_at: None,
        pauses: Vec::new(),
        zone: "UTC".to_owned(),
        currency: "USD".to_owned(),
        currency_exponent: 2,
        filter: Filter::default(),
        window,
        goal,
        award: AwardRule::Points(10),
        max_per_customer: None,
        max_per_window: None,
        max_points_per_customer: None,
        max_points_per_window: None,
        hold_for: None,
        expires_after: None,
    }
}

fn purchases(n: u32) -> Goal {
    Goal::Purchases { n, repeat: false }
}

fn days() -> Window {
    calendar(Unit::Day, 1)
}

fn calendar(unit: Unit, every: u32) -> Window {
    Window::Calendar { unit, every, week_starts_on: 0, day_starts_at: (0, 0) }
}

fn in_zone(zone: &str, starts_at: &str, c: Campaign) -> Campaign {
    Campaign { zone: zone.to_owned(), starts_at: at(starts_at), ..c }
}

fn buy(id: &str, when: Instant, total: i64) -> Purchase {
    Purchase {
        external_id: id.to_owned(),
        at: when,
        total,
        currency: "USD".to_owned(),
        channel: None,
        lines: Vec::new(),
        refunds: Vec::new(),
        sum: None,
    }
}

/// Each line is `(sku, category, amount)`. An empty category stands for none.
fn with_lines(mut p: Purchase, lines: &[(&str, &str, i64)]) -> Purchase {
    p.lines = lines
        .iter()
        .map(|(sku, category, amount)| Line {
            sku: (*sku).to_owned(),
            category: (!category.is_empty()).then(|| (*category).to_owned()),
            quantity: 1,
            amount: *amount,
        })
        .collect();
    p
}

fn refunded(mut p: Purchase, amount: i64, lines: &[(&str, i64)]) -> Purchase {
    p.refunds.push(Refund {
        external_id: format!("r{}", p.refunds.len()),
        at: p.at,
        amount: Some(amount),
        currency: p.currency.clone(),
        lines: lines.iter().map(|(sku, amount)| ((*sku).to_owned(), *amount)).collect(),
    });
    p
}

/// Each award as `(reaching purchase, nth, ordinal, evidence)`.
fn told(awards: &[Award]) -> Vec<(String, u32, i64, String)> {
    awards.iter().map(|a| (a.purchase.clone(), a.nth, a.ordinal, a.evidence.join(" "))).collect()
}

fn expected(awards: &[(&str, u32, i64, &str)]) -> Vec<(String, u32, i64, String)> {
    awards.iter().map(|(p, nth, ordinal, e)| ((*p).to_owned(), *nth, *ordinal, (*e).to_owned())).collect()
}

fn reaching(c: &Campaign, purchases: &[Purchase]) -> Vec<String> {
    reached(c, purchases).into_iter().map(|a| a.purchase).collect()
}

fn bounds(c: &Campaign, purchases: &[Purchase]) -> Vec<(Option<Instant>, Option<Instant>)> {
    reached(c, purchases).into_iter().map(|a| (a.opens_at, a.closes_at)).collect()
}

const NONE: [&str; 0] = [];

// ── Zones ──

#[test]
fn a_skipped_bound_is_the_instant_of_the_change() {
    // Amman, 2021-03-26: the clock goes from 00:00 (+2) to 01:00 (+3) at 22:00Z of the day before.
    let change = at("2021-03-25T22:00Z");
    let day = jiff::civil::date(2021, 3, 26);
    assert_eq!(zone::midnight("Asia/Amman", day), change);
    assert_eq!(zone::bound("Asia/Amman", zone::clock(day, (0, 30))), change);
    assert_eq!(zone::bound("Asia/Amman", zone::clock(day, (1, 0))), change);
    assert_eq!(zone::bound("Asia/Amman", zone::clock(day, (1, 1))), change + MINUTE);
    // Santiago, 2025-09-07: the clock goes from 00:00 (−4) to 01:00 (−3).
    assert_eq!(zone::midnight("America/Santiago", jiff::civil::date(2025, 9, 7)), at("2025-09-07T04:00Z"));
}

#[test]
fn of_two_bounds_the_earlier_is_meant() {
    // Amman, 2021-10-29: the clock goes from 01:00 (+3) back to 00:00 (+2) at 22:00Z of the day before.
    assert_eq!(zone::midnight("Asia/Amman", jiff::civil::date(2021, 10, 29)), at("2021-10-28T21:00Z"));
    // Lord Howe, 2024-04-07: the clock goes from 02:00 (+11) back to 01:30 (+10:30) at 15:00Z of the day before.
    let day = jiff::civil::date(2024, 4, 7);
    assert_eq!(zone::bound("Australia/Lord_Howe", zone::clock(day, (1, 45))), at("2024-04-06T14:45Z"));
    assert_eq!(zone::bound("Australia/Lord_Howe", zone::clock(day, (2, 0))), at("2024-04-06T15:30Z"));
    // St John's, 2006-10-29: the clock goes from 00:01 (−2:30) back to 23:01 (−3:30) at 02:31Z.
    assert_eq!(zone::midnight("America/St_Johns", jiff::civil::date(2006, 10, 29)), at("2006-10-29T02:30Z"));
}

/// Compares `bound` with its definition, minute by minute.
#[test]
fn a_bound_is_the_first_instant_that_shows_it_or_more() {
    for (place, dates) in generate::PLACES {
        for (y, m, d) in dates {
            let midnight = zone::clock(jiff::civil::date(*y, *m, *d), (0, 0));
            for half_hour in -6..=6 {
                let wanted = midnight + half_hour * 30 * MINUTE;
                let first = (-16 * 60..16 * 60)
                    .map(|minutes| wanted + minutes * MINUTE)
                    .find(|at| zone::reading(place, *at) >= wanted);
                assert_eq!(Some(zone::bound(place, wanted)), first, "{place} {y}-{m}-{d} {half_hour}");
            }
        }
    }
}

/// Each place except UTC has at least one clock change within a day of its dates.
#[test]
fn the_places_have_clock_changes() {
    for (place, dates) in generate::PLACES.iter().skip(1) {
        let changes = |(y, m, d): &(i16, i8, i8)| {
            let midnight = zone::midnight(place, jiff::civil::date(*y, *m, *d));
            zone::pieces(place, midnight - DAY, midnight + DAY).len() - 1
        };
        assert!(dates.iter().map(changes).sum::<usize>() >= 1, "{place}");
    }
}

// ── Eligible purchases ──

#[test]
fn the_period_is_half_open_and_pauses_exclude() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.ends_at = Some(at("2024-01-10"));
    c.pauses = vec![(at("2024-01-03"), Some(at("2024-01-04"))), (at("2024-01-08"), None)];
    let history = [
        buy("before", at("2024-01-01") - 1, 1),
        buy("first", at("2024-01-01"), 1),
        buy("pause-1", at("2024-01-03") - 1, 1),
        buy("pause", at("2024-01-03"), 1),
        buy("paused", at("2024-01-04") - 1, 1),
        buy("resumed", at("2024-01-04"), 1),
        buy("open pause", at("2024-01-09"), 1),
    ];
    assert_eq!(reaching(&c, &history), ["first", "pause-1", "resumed"]);
    c.pauses.clear();
    let late = [buy("last", at("2024-01-10") - 1, 1), buy("ended", at("2024-01-10"), 1)];
    assert_eq!(reaching(&c, &late), ["last"]);
}

#[test]
fn currency_channel_and_lines_are_asked_for() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    let mut euros = buy("euros", at("2024-01-02"), 100);
    euros.currency = "EUR".to_owned();
    let mut web = with_lines(buy("web", at("2024-01-02"), 100), &[("a", "toys", 60), ("b", "", 40)]);
    web.channel = Some("web".to_owned());
    let plain = buy("plain", at("2024-01-02"), 100);
    let history = [euros, web, plain];
    assert_eq!(reaching(&c, &history), ["plain", "web"]);
    c.filter.channels = Some(vec!["web".to_owned()]);
    assert_eq!(reaching(&c, &history), ["web"]);
    c.filter.channels = None;
    c.filter.categories = Some(vec!["toys".to_owned()]);
    assert_eq!(reaching(&c, &history), ["web"]);
    // One line must match both lists: `b` has no category, and `a` is another sku.
    c.filter.skus = Some(vec!["b".to_owned()]);
    assert_eq!(reaching(&c, &history), NONE);
}

#[test]
fn the_eligible_amount_is_floored_line_by_line() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.filter.categories = Some(vec!["toys".to_owned()]);
    // The total is 1000. One refund takes back 100 without lines, the other 200 of sku `a`.
    let p = with_lines(
        buy("p", at("2024-01-02"), 1000),
        &[("a", "toys", 150), ("b", "food", 400), ("a", "toys", 450), ("c", "toys", 7)],
    );
    let p = refunded(refunded(p, 100, &[]), 200, &[("a", 200)]);
    // net = 1000 − 300 = 700; rest = 1000 − 200 = 800; left = 0, 400, 400, 7; × 700 / 800 = 0, 350, 350, 6.125.
    assert_eq!(net(&p), 700);
    assert_eq!(line_nets(&p), [0, 350, 350, 6]);
    assert_eq!(eligible_amount(&c, &p), 356);
    c.filter.categories = None;
    assert_eq!(eligible_amount(&c, &p), 700);
}

#[test]
fn a_refund_takes_from_the_same_lines_whatever_order_they_came_in() {
    let lines = [("a", "toys", 30), ("b", "toys", 40), ("a", "food", 20), ("a", "toys", 10)];
    let refunded_lines = |lines: &[(&str, &str, i64)]| {
        let p = refunded(with_lines(buy("p", at("2024-01-02"), 100), lines), 25, &[("a", 25)]);
        p.lines
            .iter()
            .zip(line_nets(&p))
            .map(|(line, net)| (line.category.clone(), line.amount, net))
            .collect::<Vec<_>>()
    };
    // The refund is taken from food before toys, and from 10 before 30.
    assert_eq!(refunded_lines(&lines).iter().map(|(.., net)| *net).collect::<Vec<_>>(), [30, 40, 0, 5]);
    let mut others = lines;
    others.reverse();
    let mut reversed = refunded_lines(&others);
    reversed.reverse();
    assert_eq!(refunded_lines(&lines), reversed);
}

#[test]
fn the_eligible_amount_is_at_most_the_net() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.filter.skus = Some(vec!["a".to_owned()]);
    // With a voucher, the lines sum to more than the total.
    let p = with_lines(buy("p", at("2024-01-02"), 500), &[("a", "", 900)]);
    assert_eq!(eligible_amount(&c, &p), 500);
    // A refund with lines takes back the whole total, so rest = 0.
    let p = refunded(p, 500, &[("a", 500)]);
    assert_eq!(line_nets(&p), [0]);
    assert_eq!(eligible_amount(&c, &p), 0);
}

#[test]
fn refunds_beyond_the_total_stop_at_zero() {
    let c = campaign(Window::Campaign, Goal::EveryPurchase);
    let p = refunded(refunded(buy("p", at("2024-01-02"), 500), 400, &[]), 500, &[]);
    assert_eq!(net(&p), 0);
    assert_eq!(reaching(&c, &[p, buy("zero", at("2024-01-02"), 0)]), NONE);
}

#[test]
fn min_amount_is_inclusive_and_measured_after_refunds() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.filter.min_amount = Some(500);
    let history = [
        buy("enough", at("2024-01-02"), 500),
        buy("short", at("2024-01-02"), 499),
        refunded(buy("shrunk", at("2024-01-02"), 600), 101, &[]),
    ];
    assert_eq!(reaching(&c, &history), ["enough"]);
}

// ── Goals ──

#[test]
fn ties_are_ordered_by_the_bytes_of_external_ids() {
    let c = campaign(Window::Campaign, purchases(2));
    let noon = at("2024-01-02T12:00Z");
    let history = [buy("é", noon, 1), buy("p", noon, 1), buy("P", noon, 1)];
    assert_eq!(told(&reached(&c, &history)), expected(&[("p", 1, 1, "P p")]));
}

#[test]
fn purchases_with_repeat_count_from_the_previous_award() {
    let c = campaign(Window::Campaign, Goal::Purchases { n: 2, repeat: true });
    let history: Vec<Purchase> =
        ["a", "b", "c", "d", "e"].iter().zip(0..).map(|(id, day)| buy(id, at("2024-01-02") + day * DAY, 1)).collect();
    assert_eq!(told(&reached(&c, &history)), expected(&[("b", 1, 1, "a b"), ("d", 1, 2, "c d")]));
    assert_eq!(bounds(&c, &history)[0], (Some(c.starts_at), None));
    let once = Campaign { goal: purchases(2), ..c };
    assert_eq!(told(&reached(&once, &history)), expected(&[("b", 1, 1, "a b")]));
}

#[test]
fn spend_carries_its_excess_over() {
    let c = campaign(Window::Campaign, Goal::Spend { minor: 100, repeat: true });
    let day = at("2024-01-02");
    // The sums are 60, 130, 190 and 410.
    let history = [buy("a", day, 60), buy("b", day + 1, 70), buy("c", day + 2, 60), buy("d", day + 3, 220)];
    let awards = [("b", 1, 1, "a b"), ("d", 1, 2, "b c d"), ("d", 2, 3, "d"), ("d", 3, 4, "d")];
    assert_eq!(told(&reached(&c, &history)), expected(&awards));
    let once = Campaign { goal: Goal::Spend { minor: 100, repeat: false }, ..c };
    assert_eq!(told(&reached(&once, &history)), expected(&awards[..1]));
}

#[test]
fn one_purchase_is_awarded_at_most_a_hundred_multiples() {
    let c = campaign(Window::Campaign, Goal::Spend { minor: 100, repeat: true });
    let day = at("2024-01-02");
    // The first purchase reaches 150 multiples at once. Only the last one reaches the 151st.
    let history = [buy("a", day, 15_050), buy("b", day + 1, 49), buy("c", day + 2, 1)];
    let awards = reached(&c, &history);
    assert_eq!(awards.len(), 101);
    assert_eq!(told(&awards)[99..], expected(&[("a", 100, 100, "a"), ("c", 1, 101, "a b c")]));
}

#[test]
fn distinct_counts_matching_lines_with_net() {
    let mut c = campaign(Window::Campaign, Goal::Distinct { of_category: false, n: 3 });
    let day = at("2024-01-02");
    let history = [
        with_lines(buy("a", day, 100), &[("x", "toys", 50), ("x", "food", 50)]),
        refunded(with_lines(buy("b", day + 1, 100), &[("y", "toys", 60), ("z", "toys", 40)]), 40, &[("z", 40)]),
        with_lines(buy("c", day + 2, 100), &[("z", "", 100)]),
    ];
    assert_eq!(told(&reached(&c, &history)), expected(&[("c", 1, 1, "a b c")]));
    // The categories are toys and food. The line without a category does not count.
    c.goal = Goal::Distinct { of_category: true, n: 3 };
    assert_eq!(reaching(&c, &history), NONE);
    c.goal = Goal::Distinct { of_category: true, n: 2 };
    assert_eq!(reaching(&c, &history), ["a"]);
    c.filter.categories = Some(vec!["toys".to_owned()]);
    assert_eq!(reaching(&c, &history), NONE);
}

#[test]
fn points_per_unit_are_floored_and_zero_does_not_exist() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.award = AwardRule::PointsPerUnit { rate_micro: 1_500_000 };
    c.max_per_customer = Some(2);
    let day = at("2024-01-02");
    // 0.66 × 1.5 = 0.99; 0.67 × 1.5 = 1.005; 9.99 × 1.5 = 14.985.
    let history =
        [buy("none", day, 66), buy("one", day + 1, 67), buy("fourteen", day + 2, 999), buy("cut", day + 3, 99)];
    let awards = reached(&c, &history);
    assert_eq!(told(&awards), expected(&[("one", 1, 1, "one"), ("fourteen", 1, 1, "fourteen")]));
    assert_eq!([awards[0].points, awards[1].points], [1, 14]);
    c.award = AwardRule::PointsPerUnit { rate_micro: 10_000_000_000 };
    assert_eq!(reached(&c, &[buy("most", day, 10_000_000_000_000)])[0].points, 1_000_000_000);
}

// ── Windows ──

#[test]
fn calendar_blocks_count_from_the_unit_of_the_start() {
    // Weeks start on Sunday. 2024-01-03 is a Wednesday; its week began on 2023-12-31.
    let mut c = campaign(
        Window::Calendar { unit: Unit::Week, every: 2, week_starts_on: 6, day_starts_at: (0, 0) },
        purchases(2),
    );
    c.starts_at = at("2024-01-03");
    let history = [
        buy("a", at("2024-01-13"), 1),
        buy("b", at("2024-01-14"), 1),
        buy("c", at("2024-01-27"), 1),
        buy("d", at("2024-01-28"), 1),
    ];
    assert_eq!(told(&reached(&c, &history)), expected(&[("c", 1, 1, "b c")]));
    assert_eq!(bounds(&c, &history), [(Some(at("2024-01-14")), Some(at("2024-01-28")))]);
    // The bounds of the first block are stored unclipped.
    let first = [buy("x", at("2024-01-03"), 1), buy("y", at("2024-01-03"), 1)];
    assert_eq!(bounds(&c, &first), [(Some(at("2023-12-31")), Some(at("2024-01-14")))]);
    assert_eq!(clip(&c, (at("2023-12-31"), Some(at("2024-01-14")))), (at("2024-01-03"), Some(at("2024-01-14"))));
}

#[test]
fn quarters_and_years_begin_with_the_calendar() {
    let mut c = campaign(calendar(Unit::Quarter, 1), Goal::EveryPurchase);
    c.starts_at = at("2024-02-29");
    let p = [buy("p", at("2024-06-30"), 1)];
    assert_eq!(bounds(&c, &p), [(Some(at("2024-04-01")), Some(at("2024-07-01")))]);
    c.window = calendar(Unit::Year, 2);
    assert_eq!(bounds(&c, &p), [(Some(at("2024-01-01")), Some(at("2026-01-01")))]);
    c.window = calendar(Unit::Month, 3);
    assert_eq!(bounds(&c, &p), [(Some(at("2024-05-01")), Some(at("2024-08-01")))]);
}

#[test]
fn a_purchase_belongs_to_the_window_of_its_instant() {
    // St John's, 2006-10-29: midnight is at 02:30Z. At 02:31Z the clock goes back to 23:01 of the 28th.
    let c = in_zone("America/St_Johns", "2006-10-27T12:00Z", campaign(days(), Goal::EveryPurchase));
    let p = [buy("p", at("2006-10-29T02:45Z"), 1)];
    assert_eq!(zone::date_shown(&c.zone, p[0].at), jiff::civil::date(2006, 10, 28));
    assert_eq!(bounds(&c, &p), [(Some(at("2006-10-29T02:30Z")), Some(at("2006-10-30T03:30Z")))]);
    // The start belongs to the window of its instant too: blocks of two days count from the 29th.
    let c = in_zone("America/St_Johns", "2006-10-29T02:45Z", campaign(calendar(Unit::Day, 2), Goal::EveryPurchase));
    assert_eq!(bounds(&c, &p), [(Some(at("2006-10-29T02:30Z")), Some(at("2006-10-31T03:30Z")))]);
}

#[test]
fn recurring_windows_run_past_midnight_on_the_day_they_start() {
    let friday = Window::Recurring { weekdays: vec![4], from: (22, 0), to: (2, 0) };
    let c = campaign(friday, purchases(2));
    // 2024-01-05 is a Friday.
    let history = [
        buy("early", at("2024-01-05T21:59:59.999999Z"), 1),
        buy("a", at("2024-01-05T22:00Z"), 1),
        buy("b", at("2024-01-06T01:59:59.999999Z"), 1),
        buy("late", at("2024-01-06T02:00Z"), 1),
    ];
    assert_eq!(told(&reached(&c, &history)), expected(&[("b", 1, 1, "a b")]));
    assert_eq!(bounds(&c, &history), [(Some(at("2024-01-05T22:00Z")), Some(at("2024-01-06T02:00Z")))]);
    // With `from = to` the window lasts one local day. The day 2024-04-07 of Lord Howe lasts 24.5 hours.
    let whole = Window::Recurring { weekdays: vec![6], from: (0, 0), to: (0, 0) };
    let c = in_zone("Australia/Lord_Howe", "2024-04-01T00:00Z", campaign(whole, Goal::EveryPurchase));
    let p = [buy("p", at("2024-04-07T00:00Z"), 1)];
    assert_eq!(bounds(&c, &p), [(Some(at("2024-04-06T13:00Z")), Some(at("2024-04-07T13:30Z")))]);
}

#[test]
fn a_recurring_window_that_the_clock_skips_does_not_exist() {
    let night = Window::Recurring { weekdays: vec![4], from: (0, 0), to: (0, 30) };
    // Amman, Friday 2021-03-26: the clock skips the time from 00:00 to 01:00.
    let c = in_zone("Asia/Amman", "2021-03-20T00:00Z", campaign(night, Goal::EveryPurchase));
    assert_eq!(reaching(&c, &[buy("p", at("2021-03-25T22:00Z"), 1)]), NONE);
    let next = progress(&c, &[], at("2021-03-25T22:00Z")).next_window;
    assert_eq!(next, Some((at("2021-04-01T21:00Z"), Some(at("2021-04-01T21:30Z")))));
}

#[test]
fn sessions_exactly_one_gap_apart_are_two() {
    let c = campaign(Window::Session { gap: HOUR }, purchases(2));
    let noon = at("2024-01-02T12:00Z");
    let split = [buy("a", noon, 1), buy("b", noon + HOUR, 1)];
    assert_eq!(reaching(&c, &split), NONE);
    let joined = [buy("a", noon, 1), buy("b", noon + HOUR - 1, 1), buy("c", noon + 2 * HOUR - 2, 1)];
    assert_eq!(told(&reached(&c, &joined)), expected(&[("b", 1, 1, "a b")]));
    // "`[first purchase, reaching purchase + gap)`", whatever follows.
    assert_eq!(bounds(&c, &joined), [(Some(noon), Some(noon + 2 * HOUR - 1))]);
}

#[test]
fn a_late_purchase_regroups_timers() {
    let c = campaign(Window::Timer { duration: DAY, reopens: true }, purchases(2));
    let noon = at("2024-01-02T12:00Z");
    let mut history = vec![buy("b", noon + 18 * HOUR, 1), buy("c", noon + 30 * HOUR, 1)];
    assert_eq!(told(&reached(&c, &history)), expected(&[("c", 1, 1, "b c")]));
    assert_eq!(bounds(&c, &history), [(Some(noon + 18 * HOUR), Some(noon + 42 * HOUR))]);
    // The late purchase opens [noon, noon + 24 h), so `c` opens the next window.
    history.push(buy("a", noon, 1));
    assert_eq!(told(&reached(&c, &history)), expected(&[("b", 1, 1, "a b")]));
    history.push(buy("d", noon + 54 * HOUR - 1, 1));
    assert_eq!(told(&reached(&c, &history)), expected(&[("b", 1, 1, "a b"), ("d", 1, 1, "c d")]));
}

#[test]
fn a_timer_that_does_not_reopen_has_one_window() {
    let noon = at("2024-01-02T12:00Z");
    let history = [buy("a", noon, 1), buy("b", noon + DAY, 1), buy("c", noon + DAY + 1, 1)];
    let once = campaign(Window::Timer { duration: DAY, reopens: false }, Goal::EveryPurchase);
    assert_eq!(reaching(&once, &history), ["a"]);
    let again = campaign(Window::Timer { duration: DAY, reopens: true }, purchases(2));
    assert_eq!(told(&reached(&again, &history)), expected(&[("c", 1, 1, "b c")]));
}

#[test]
fn rolling_uses_up_all_that_it_counted() {
    let c = campaign(Window::Rolling { duration: DAY }, Goal::Spend { minor: 100, repeat: false });
    let noon = at("2024-01-02T12:00Z");
    let history = [
        // This is exactly a day before `b`, so it is not counted at `b`.
        buy("a", noon, 90),
        buy("b", noon + DAY, 10),
        buy("c", noon + DAY + HOUR, 200),
        // The excess of 110 was used up too.
        buy("d", noon + DAY + 2 * HOUR, 99),
        buy("e", noon + 2 * DAY + 2 * HOUR - 1, 1),
    ];
    assert_eq!(told(&reached(&c, &history)), expected(&[("c", 1, 1, "b c"), ("e", 1, 1, "d e")]));
    assert_eq!(bounds(&c, &history)[0], (Some(noon + DAY), Some(noon + DAY + HOUR)));
}

#[test]
fn rolling_counts_ties_in_order() {
    let c = campaign(Window::Rolling { duration: HOUR }, Goal::Distinct { of_category: false, n: 2 });
    let noon = at("2024-01-02T12:00Z");
    let history = [
        with_lines(buy("1", noon, 5), &[("x", "", 5)]),
        with_lines(buy("2", noon, 5), &[("x", "", 5)]),
        with_lines(buy("3", noon, 5), &[("y", "", 5)]),
        with_lines(buy("4", noon, 5), &[("x", "", 5)]),
    ];
    assert_eq!(told(&reached(&c, &history)), expected(&[("3", 1, 1, "1 2 3")]));
}

#[test]
fn a_streak_takes_the_first_k_of_n_consecutive_windows() {
    let mut c = campaign(days(), Goal::Streak { length: 2, per_window: 2, repeat: true });
    let day = |n: i64| at("2024-01-02") + n * DAY;
    let history = [
        buy("a1", day(0), 1),
        buy("a2", day(0) + 1, 1),
        buy("a3", day(0) + 2, 1),
        buy("b1", day(1), 1),
        buy("b2", day(1) + 1, 1),
        // Counting starts again here. The fourth day has only one purchase and breaks the run.
        buy("c1", day(2), 1),
        buy("c2", day(2) + 1, 1),
        buy("d1", day(3), 1),
        buy("e1", day(4), 1),
        buy("e2", day(4) + 1, 1),
        buy("f1", day(5), 1),
        buy("f2", day(5) + 1, 1),
    ];
    assert_eq!(told(&reached(&c, &history)), expected(&[("b2", 1, 1, "a1 a2 b1 b2"), ("f2", 1, 1, "e1 e2 f1 f2")]));
    assert_eq!(bounds(&c, &history)[0], (Some(day(1)), Some(day(2))));
    c.goal = Goal::Streak { length: 2, per_window: 2, repeat: false };
    assert_eq!(reaching(&c, &history), ["b2"]);
}

#[test]
fn a_skipped_day_neither_counts_in_nor_breaks_a_streak() {
    // Apia: 2011-12-29 ends at 10:00Z of the 30th, when the 31st begins.
    let change = at("2011-12-30T10:00Z");
    let mut c = in_zone("Pacific/Apia", "2011-12-20T12:00Z", campaign(days(), Goal::EveryPurchase));
    let history = [buy("29", change - 1, 1), buy("31", change, 1)];
    assert_eq!(bounds(&c, &history), [(Some(change - DAY), Some(change)), (Some(change), Some(change + DAY))]);
    c.goal = Goal::Streak { length: 2, per_window: 1, repeat: false };
    assert_eq!(told(&reached(&c, &history)), expected(&[("31", 1, 1, "29 31")]));
}

#[test]
fn pauses_do_not_stop_gaps_timers_and_streaks() {
    let noon = at("2024-01-02T12:00Z");
    let history = [
        buy("a", noon, 1),
        buy("paused", noon + 50 * MINUTE, 1),
        buy("b", noon + 100 * MINUTE, 1),
        buy("c", noon + 2 * DAY, 1),
    ];
    let paused = |window, goal| {
        let mut c = campaign(window, goal);
        c.pauses = vec![(noon + 10 * MINUTE, Some(noon + 90 * MINUTE)), (noon + DAY, Some(noon + DAY + HOUR))];
        c
    };
    // If it counted, `paused` would join `a` and `b` to one session.
    assert_eq!(reaching(&paused(Window::Session { gap: HOUR }, purchases(2)), &history), NONE);
    assert_eq!(reaching(&paused(Window::Timer { duration: HOUR, reopens: false }, purchases(2)), &history), NONE);
    assert_eq!(reaching(&paused(Window::Timer { duration: 2 * HOUR, reopens: false }, purchases(2)), &history), ["b"]);
    let streak = Goal::Streak { length: 2, per_window: 1, repeat: false };
    assert_eq!(reaching(&paused(days(), streak), &history), NONE);
}

// ── Caps ──

#[test]
fn max_per_window_goes_before_max_per_customer() {
    let mut c = campaign(days(), Goal::EveryPurchase);
    c.max_per_window = Some(1);
    c.max_per_customer = Some(2);
    let day = |n: i64| at("2024-01-02") + n * DAY;
    let history = [buy("a", day(0), 1), buy("b", day(0) + 1, 1), buy("c", day(1), 1), buy("d", day(2), 1)];
    assert_eq!(reaching(&c, &history), ["a", "c"]);
    c.max_per_customer = None;
    assert_eq!(reaching(&c, &history), ["a", "c", "d"]);
}

#[test]
fn max_per_window_counts_a_growing_session_as_one() {
    let mut c = campaign(Window::Session { gap: HOUR }, Goal::Spend { minor: 100, repeat: true });
    c.max_per_window = Some(3);
    let noon = at("2024-01-02T12:00Z");
    let history = [buy("a", noon, 200), buy("b", noon + MINUTE, 200), buy("c", noon + 3 * HOUR, 100)];
    let awards = [("a", 1, 1, "a"), ("a", 2, 2, "a"), ("b", 1, 3, "a b"), ("c", 1, 1, "c")];
    assert_eq!(told(&reached(&c, &history)), expected(&awards));
}

// ── Refused rules ──

#[test]
fn unsupported_combinations_are_refused() {
    let rolling = || Window::Rolling { duration: DAY };
    let streak = || Goal::Streak { length: 2, per_window: 1, repeat: false };
    assert!(legal(&campaign(rolling(), purchases(2))));
    assert!(legal(&campaign(days(), streak())));
    assert!(!legal(&campaign(rolling(), Goal::EveryPurchase)));
    assert!(!legal(&campaign(rolling(), Goal::Purchases { n: 2, repeat: true })));
    assert!(!legal(&Campaign { max_per_window: Some(1), ..campaign(rolling(), purchases(2)) }));
    assert!(!legal(&campaign(Window::Campaign, streak())));
    assert!(!legal(&Campaign { max_per_window: Some(1), ..campaign(days(), streak()) }));
    let per_unit = AwardRule::PointsPerUnit { rate_micro: 1 };
    assert!(legal(&Campaign { award: per_unit.clone(), ..campaign(days(), Goal::EveryPurchase) }));
    assert!(!legal(&Campaign { award: per_unit, ..campaign(days(), purchases(2)) }));
    assert!(legal(&campaign(days(), Goal::Spend { minor: 100, repeat: true })));
    assert!(!legal(&campaign(days(), Goal::Spend { minor: 99, repeat: true })));
    assert!(legal(&campaign(days(), Goal::Spend { minor: 99, repeat: false })));
    assert!(!legal(&campaign(Window::Session { gap: 3660 * DAY + 1 }, purchases(1))));
}

// ── Progress ──

type Told = (State, i128, i128, Option<(Instant, Option<Instant>)>, i64, Option<i64>);

fn standing(c: &Campaign, history: &[Purchase], t: Instant) -> Told {
    let Progress { state, current, target, window, awards_earned, awards_left, .. } = progress(c, history, t);
    (state, current, target, window, awards_earned, awards_left)
}

#[test]
fn progress_in_the_window_campaign() {
    let mut c = campaign(Window::Campaign, purchases(2));
    c.ends_at = Some(at("2024-02-01"));
    let whole = Some((at("2024-01-01"), Some(at("2024-02-01"))));
    let t = at("2024-01-03");
    let (a, b) = (buy("a", at("2024-01-02"), 1), buy("b", at("2024-01-04"), 1));
    assert_eq!(standing(&c, &[], t), (State::InProgress, 0, 2, whole, 0, Some(1)));
    assert_eq!(standing(&c, std::slice::from_ref(&a), t), (State::InProgress, 1, 2, whole, 0, Some(1)));
    // A purchase after t counts, because its window is the current one.
    assert_eq!(standing(&c, &[a.clone(), b.clone()], t), (State::Exhausted, 2, 2, whole, 1, Some(0)));
    c.goal = Goal::Purchases { n: 2, repeat: true };
    assert_eq!(standing(&c, &[a.clone(), b.clone()], t), (State::InProgress, 0, 2, whole, 1, None));
    c.max_per_window = Some(1);
    assert_eq!(standing(&c, &[a, b], t), (State::Exhausted, 0, 2, whole, 1, Some(0)));
}

#[test]
fn progress_in_a_calendar_day() {
    let mut c = campaign(days(), Goal::Spend { minor: 100, repeat: false });
    let (t, today) = (at("2024-01-03T12:00Z"), Some((at("2024-01-03"), Some(at("2024-01-04")))));
    let history = [buy("a", at("2024-01-02"), 70), buy("b", at("2024-01-03"), 250)];
    assert_eq!(standing(&c, &history, t), (State::Reached, 100, 100, today, 1, None));
    assert_eq!(progress(&c, &history, t).unit, CountedUnit::Money);
    c.goal = Goal::Spend { minor: 100, repeat: true };
    assert_eq!(standing(&c, &history, t), (State::InProgress, 50, 100, today, 2, None));
    c.max_per_window = Some(2);
    assert_eq!(standing(&c, &history, t), (State::Reached, 50, 100, today, 2, None));
    c.max_per_customer = Some(2);
    assert_eq!(standing(&c, &history, t), (State::Exhausted, 50, 100, today, 2, Some(0)));
    c.ends_at = Some(at("2024-01-03T18:00Z"));
    assert_eq!(progress(&c, &history, t).window, Some((at("2024-01-03"), c.ends_at)));
}

#[test]
fn every_purchase_is_reached_by_a_cap_alone() {
    let mut c = campaign(days(), Goal::EveryPurchase);
    c.max_per_window = Some(1);
    let (t, today) = (at("2024-01-03T12:00Z"), Some((at("2024-01-03"), Some(at("2024-01-04")))));
    let history = [buy("a", at("2024-01-03"), 70)];
    assert_eq!(standing(&c, &history, t), (State::Reached, 0, 1, today, 1, None));
    c.max_per_window = Some(2);
    assert_eq!(standing(&c, &history, t), (State::InProgress, 0, 1, today, 1, None));
    c.max_per_customer = Some(1);
    assert_eq!(standing(&c, &history, t), (State::Exhausted, 0, 1, today, 1, Some(0)));
}

#[test]
fn progress_between_recurring_windows() {
    let mut c = campaign(Window::Recurring { weekdays: vec![4], from: (18, 0), to: (20, 0) }, purchases(2));
    c.ends_at = Some(at("2024-01-12T19:00Z"));
    let friday = (at("2024-01-05T18:00Z"), Some(at("2024-01-05T20:00Z")));
    let t = at("2024-01-05T18:00Z") - 1;
    let p = progress(&c, &[], t);
    assert_eq!((p.state, p.window, p.next_window), (State::NotStarted, None, Some(friday)));
    let p = progress(&c, &[], t + 1);
    assert_eq!((p.state, p.window, p.next_window), (State::InProgress, Some(friday), None));
    let p = progress(&c, &[], at("2024-01-05T20:00Z"));
    assert_eq!(p.next_window, Some((at("2024-01-12T18:00Z"), Some(at("2024-01-12T19:00Z")))));
    c.ends_at = Some(at("2024-01-12T18:00Z"));
    assert_eq!(progress(&c, &[], at("2024-01-05T20:00Z")).next_window, None);
}

#[test]
fn progress_in_sessions_and_timers() {
    let noon = at("2024-01-02T12:00Z");
    let history = [buy("a", noon, 1), buy("b", noon + MINUTE, 1)];
    let window = |span: Span| Some((noon, Some(noon + span)));
    let c = campaign(Window::Session { gap: HOUR }, purchases(3));
    assert_eq!(standing(&c, &[], noon), (State::NotStarted, 0, 3, None, 0, None));
    let closes = HOUR + MINUTE;
    assert_eq!(standing(&c, &history, noon + closes - 1), (State::InProgress, 2, 3, window(closes), 0, None));
    assert_eq!(standing(&c, &history, noon + closes), (State::NotStarted, 0, 3, None, 0, None));

    let c = campaign(Window::Timer { duration: HOUR, reopens: true }, purchases(2));
    assert_eq!(standing(&c, &history, noon + HOUR - 1), (State::Reached, 2, 2, window(HOUR), 1, None));
    assert_eq!(standing(&c, &history, noon + HOUR), (State::NotStarted, 0, 2, None, 1, None));
    let c = campaign(Window::Timer { duration: HOUR, reopens: false }, purchases(3));
    assert_eq!(standing(&c, &[], noon), (State::NotStarted, 0, 3, None, 0, Some(1)));
    assert_eq!(standing(&c, &history, noon + HOUR - 1), (State::InProgress, 2, 3, window(HOUR), 0, Some(1)));
    assert_eq!(standing(&c, &history, noon + HOUR), (State::Exhausted, 0, 3, None, 0, Some(0)));
}

#[test]
fn progress_of_rolling_counts_what_is_unused() {
    let c = campaign(Window::Rolling { duration: DAY }, purchases(3));
    let noon = at("2024-01-02T12:00Z");
    let history: Vec<Purchase> =
        ["a", "b", "c", "d", "e"].iter().zip(0..).map(|(id, hour)| buy(id, noon + hour * HOUR, 1)).collect();
    // `a`, `b` and `c` are used up. `d` and `e` are made at 15:00 and 16:00.
    let window = |hour: i64| Some((noon + hour * HOUR, Some(noon + hour * HOUR + DAY)));
    let at = |hour: i64| noon + hour * HOUR;
    assert_eq!(standing(&c, &history, at(4)), (State::InProgress, 2, 3, window(3), 1, None));
    assert_eq!(standing(&c, &history, at(27) - 1), (State::InProgress, 2, 3, window(3), 1, None));
    assert_eq!(standing(&c, &history, at(27)), (State::InProgress, 1, 3, window(4), 1, None));
    assert_eq!(standing(&c, &history, at(28)), (State::NotStarted, 0, 3, None, 1, None));
}

#[test]
fn progress_of_a_streak_lives_until_its_next_window_closes() {
    let mut c = campaign(days(), Goal::Streak { length: 3, per_window: 1, repeat: true });
    let day = |n: i64| at("2024-01-01") + n * DAY;
    let window = |n: i64| Some((day(n), Some(day(n + 1))));
    let mut history = vec![buy("a", day(1), 1), buy("b", day(2), 1)];
    assert_eq!(standing(&c, &history, day(2)), (State::InProgress, 2, 3, window(2), 0, None));
    assert_eq!(standing(&c, &history, day(4) - 1), (State::InProgress, 2, 3, window(3), 0, None));
    assert_eq!(standing(&c, &history, day(4)), (State::InProgress, 0, 3, window(4), 0, None));
    assert_eq!(progress(&c, &history, day(4)).unit, CountedUnit::Windows);
    history.push(buy("c", day(3), 1));
    assert_eq!(standing(&c, &history, day(3)), (State::InProgress, 0, 3, window(3), 1, None));
    c.goal = Goal::Streak { length: 3, per_window: 1, repeat: false };
    assert_eq!(standing(&c, &history, day(3)), (State::Exhausted, 3, 3, window(3), 1, Some(0)));
    // The state stays EXHAUSTED however long ago that was, although no run is alive.
    assert_eq!(standing(&c, &history, day(40)), (State::Exhausted, 3, 3, window(40), 1, Some(0)));
    history.truncate(2);
    assert_eq!(standing(&c, &history, day(40)), (State::InProgress, 0, 3, window(40), 0, Some(1)));
}

// ── When history changes ──

fn unlimited() -> Budget {
    Budget::default()
}

/// The entries of a commit as `(kind, points, award, purchase)`.
fn posted(book: &mut Book, c: &Campaign, history: &[Purchase], b: &mut Budget) -> Vec<(EntryKind, i64, usize, String)> {
    book.commit(c, history, b).into_iter().map(|e| (e.kind, e.points, e.award, e.purchase)).collect()
}

#[test]
fn a_move_keeps_the_award_and_posts_nothing() {
    let c = campaign(Window::Campaign, purchases(2));
    let day = at("2024-01-02");
    let (mut book, mut budget) = (Book::default(), unlimited());
    let mut history = vec![buy("b", day + 2, 1), buy("c", day + 3, 1)];
    assert_eq!(posted(&mut book, &c, &history, &mut budget), [(EntryKind::Award, 10, 0, "c".to_owned())]);
    history.push(buy("a", day + 1, 1));
    assert_eq!(posted(&mut book, &c, &history, &mut budget), []);
    assert_eq!(book.awards.len(), 1);
    assert_eq!(book.awards[0].award, reached(&c, &history)[0]);
    assert_eq!(book.awards[0].award.purchase, "b");
}

#[test]
fn a_move_in_time_posts_anew_where_points_are_held_or_expire() {
    let mut c = campaign(Window::Campaign, purchases(2));
    c.hold_for = Some(HOUR);
    let day = at("2024-01-02");
    let (mut book, mut budget) = (Book::default(), unlimited());
    let mut history = vec![buy("b", day + 2, 1), buy("d", day + 4, 1)];
    posted(&mut book, &c, &history, &mut budget);
    history.push(buy("c", day + 3, 1));
    let entries = [(EntryKind::Reversal, -10, 0, "d".to_owned()), (EntryKind::Award, 10, 0, "c".to_owned())];
    assert_eq!(posted(&mut book, &c, &history, &mut budget), entries);
    assert_eq!(book.awards[0].award.available_at(&c), Some(day + 3 + HOUR));
    let expiring = Campaign { expires_after: Some(DAY), ..c.clone() };
    assert_eq!(book.awards[0].award.expires_at(&expiring), Some(at("2024-01-04")));
    // Spans of days end with the local day, so the award stays in its lot.
    let by_day = Campaign { hold_for: Some(DAY), ..c.clone() };
    let mut other = Book::default();
    posted(&mut other, &by_day, &history[..2], &mut unlimited());
    assert_eq!(posted(&mut other, &by_day, &history, &mut unlimited()), []);
    assert_eq!(other.awards[0].award.available_at(&by_day), Some(at("2024-01-04")));
    // At the same instant, the reaching purchase changes and `earnedAt` does not.
    history.push(buy("bb", day + 3, 1));
    assert_eq!(posted(&mut book, &c, &history, &mut budget), []);
    assert_eq!(book.awards[0].award.purchase, "bb");
    assert_eq!(budget.used, 10);
}

#[test]
fn moves_pair_equal_points_in_award_order() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.award = AwardRule::PointsPerUnit { rate_micro: 1_000_000 };
    c.max_per_customer = Some(3);
    let day = at("2024-01-02");
    let (mut book, mut budget) = (Book::default(), unlimited());
    let mut history = vec![buy("p", day + 10, 500), buy("q", day + 11, 700), buy("r", day + 12, 500)];
    posted(&mut book, &c, &history, &mut budget);
    // The cap leaves the first three. So G is p (5), q (7), r (5), and N is x (9), y (5), z (5).
    history.extend([buy("x", day, 900), buy("y", day + 1, 500), buy("z", day + 2, 500)]);
    let entries = [(EntryKind::Reversal, -7, 1, "q".to_owned()), (EntryKind::Award, 9, 3, "x".to_owned())];
    assert_eq!(posted(&mut book, &c, &history, &mut budget), entries);
    let names: Vec<&str> = book.awards.iter().map(|r| r.award.purchase.as_str()).collect();
    assert_eq!(names, ["y", "q", "z", "x"]);
    assert_eq!(book.awards[1].status, Status::Reversed);
}

#[test]
fn fewer_points_under_the_same_name_post_the_difference() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.award = AwardRule::PointsPerUnit { rate_micro: 1_000_000 };
    let (mut book, mut budget) = (Book::default(), unlimited());
    let p = buy("p", at("2024-01-02"), 1000);
    posted(&mut book, &c, std::slice::from_ref(&p), &mut budget);
    let p = refunded(p, 250, &[]);
    let shrunk = [(EntryKind::Reversal, -3, 0, "p".to_owned())];
    assert_eq!(posted(&mut book, &c, std::slice::from_ref(&p), &mut budget), shrunk);
    assert_eq!((book.awards[0].award.points, book.awards[0].status), (7, Status::Standing));
    let p = refunded(p, 700, &[]);
    assert_eq!(posted(&mut book, &c, &[p], &mut budget), [(EntryKind::Reversal, -7, 0, "p".to_owned())]);
    assert_eq!(book.awards[0].status, Status::Reversed);
    assert_eq!((book.lifetime(), budget.used), (0, 0));
}

#[test]
fn a_budget_decides_once_and_anew_when_reached_again() {
    let c = campaign(Window::Campaign, Goal::EveryPurchase);
    let day = at("2024-01-02");
    let (mut book, mut budget) = (Book::default(), Budget { limit: Some(25), ..Budget::default() });
    let mut history = vec![buy("a", day, 1), buy("b", day + 1, 1), buy("c", day + 2, 1)];
    posted(&mut book, &c, &history, &mut budget);
    let statuses = |book: &Book| book.awards.iter().map(|r| r.status).collect::<Vec<_>>();
    assert_eq!(statuses(&book), [Status::Standing, Status::Standing, Status::Declined]);
    // Points become free, but the decision stays.
    history[0] = refunded(history[0].clone(), 1, &[]);
    posted(&mut book, &c, &history, &mut budget);
    assert_eq!(statuses(&book), [Status::Reversed, Status::Standing, Status::Declined]);
    assert_eq!((budget.used, budget.decisions), (10, 3));
    // The next award uses the free points.
    history.push(buy("d", day + 3, 1));
    assert_eq!(posted(&mut book, &c, &history, &mut budget), [(EntryKind::Award, 10, 3, "d".to_owned())]);
    assert_eq!(book.awards[3].decision, Some(4));
}

#[test]
fn a_declined_award_moves_without_a_decision() {
    let mut c = campaign(Window::Campaign, purchases(2));
    c.expires_after = Some(DAY);
    let day = at("2024-01-02");
    let (mut book, mut budget) = (Book::default(), Budget { limit: Some(0), ..Budget::default() });
    let mut history = vec![buy("b", day + 2, 1), buy("c", day + 3, 1)];
    posted(&mut book, &c, &history, &mut budget);
    budget.limit = Some(100);
    history.push(buy("a", day + 1, 1));
    assert_eq!(posted(&mut book, &c, &history, &mut budget), []);
    assert_eq!((book.awards[0].status, book.awards[0].decision), (Status::Declined, Some(1)));
    // If the goal is lost and reached again, the new award gets a new decision.
    let lost = [history[0].clone()];
    posted(&mut book, &c, &lost, &mut budget);
    assert_eq!(book.awards[0].status, Status::Reversed);
    posted(&mut book, &c, &history, &mut budget);
    assert_eq!((book.awards[1].status, book.awards[1].decision), (Status::Standing, Some(2)));
}

#[test]
fn exclusions_reduce_the_eligible_amount() {
    let mut c = campaign(Window::Campaign, Goal::EveryPurchase);
    c.filter.excluded_categories = Some(vec!["cards".to_owned()]);
    let both = [("shoe", "shoes", 70), ("card", "cards", 30)];
    let p = |refund: i64, lines: &[(&str, &str, i64)]| {
        let p = with_lines(buy("p", c.starts_at, 100), lines);
        if refund == 0 { p } else { refunded(p, refund, &[]) }
    };
    assert_eq!(eligible_amount(&c, &p(0, &both)), 70);
    // The net is 50, and 15 of the card are left.
    assert_eq!(eligible_amount(&c, &p(50, &both)), 35);
    // The net is 49, and 30 × 49 ÷ 100 = 14.7 is rounded up.
    assert_eq!(eligible_amount(&c, &p(51, &both)), 34);
    assert!(eligible(&c, &[p(0, &both[1..])]).is_empty(), "no line is left");
    assert_eq!(eligible(&c, &[p(0, &[])]).len(), 1, "without lines it is taken whole");
}

/// "Under one name … more an AWARD of the difference." "growth may pass a budget"
#[test]
fn a_refund_can_add_points_by_category() {
    let rates = vec![(vec!["sale".to_owned()], 0)];
    let c = Campaign {
        award: AwardRule::PointsByCategory { rate_micro: 100_000_000, rates },
        ..campaign(Window::Campaign, Goal::EveryPurchase)
    };
    let p = with_lines(
        buy("p", c.starts_at, 13),
        &[("a", "sale", 3), ("b", "sale", 3), ("c", "sale", 3), ("d", "sale", 3)],
    );
    let (mut book, mut budget) = (Book::default(), Budget { limit: Some(2), ..Budget::default() });
    let points = |entries: Vec<super::book::Entry>| entries.into_iter().map(|entry| entry.points).collect::<Vec<_>>();
    // 0.01 is without a line.
    assert_eq!(points(book.commit(&c, std::slice::from_ref(&p), &mut budget)), [1]);
    // The net is 12. Each line has floor(3 × 12 ÷ 13) = 2 left, so 4 are without a line.
    assert_eq!(points(book.commit(&c, &[refunded(p, 1, &[])], &mut budget)), [3]);
    assert_eq!((book.lifetime(), budget.used), (4, 4));
}

// ── Properties ──

fn each_case<S: Strategy>(cases: u32, strategy: &S, mut check: impl FnMut(S::Value)) {
    let config = ProptestConfig { rng_seed: RngSeed::Fixed(20_240_101), ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    for _ in 0..cases {
        check(strategy.new_tree(&mut runner).expect("a case").current());
    }
}

#[test]
fn any_order_of_arrival_leads_to_the_reached_awards() {
    let (mut moved, mut reposted, mut shrunk, mut reversed, mut declined, mut grown) = (0, 0, 0, 0, 0, 0);
    each_case(1000, &generate::case_with_commits(), |(case, commits)| {
        let c = &case.campaign;
        let (mut book, mut budget) = (Book::default(), Budget { limit: Some(30), ..Budget::default() });
        let mut orders = Vec::new();
        for facts in &commits {
            facts.iter().for_each(|fact| generate::record(&mut orders, fact));
            let known = purchases_of(0, &orders);
            let (before, used_before) = (book.clone(), budget.used);
            let entries = book.commit(c, &known, &mut budget);
            for (old, new) in before.awards.iter().zip(&book.awards) {
                moved += u32::from(old.award.name() != new.award.name());
                shrunk += u32::from(old.award.points > new.award.points);
                reversed += u32::from(old.status != new.status);
                let both = entries.iter().filter(|e| e.award == new.id).count() == 2;
                reposted += u32::from(both);
            }
            declined += u32::from(book.awards.iter().any(|r| r.status == Status::Declined));
            let current: Vec<Award> = book.current().into_iter().map(|r| r.award).collect();
            assert_eq!(current, reached(c, &known), "{case:#?}");
            assert_eq!(book.lifetime(), book.standing(), "{case:#?}");
            assert_eq!(book.standing(), budget.used, "{case:#?}");
            // "growth may pass a budget", nothing else does.
            let more = |(old, new): (&Recorded, &Recorded)| (new.award.points - old.award.points).max(0);
            let more: i64 = before.awards.iter().zip(&book.awards).map(more).sum();
            assert!(budget.used <= used_before.max(30) + more, "{case:#?}");
            grown += u32::from(more > 0);
        }
        assert_eq!(reached(c, &purchases_of(0, &orders)), reached(c, &case.purchases), "{case:#?} {commits:#?}");
    });
    let all = [moved, reposted, shrunk, reversed, declined, grown];
    assert!(all.iter().all(|n| *n >= 8), "{all:?}");
}

#[test]
fn progress_agrees_with_the_awards() {
    each_case(200, &generate::case(), |case| {
        let c = &case.campaign;
        assert!(legal(c), "{c:#?}");
        for t in generate::instants(&case) {
            let p = progress(c, &case.purchases, t);
            assert!((0..=p.target).contains(&p.current), "{t} {p:?} {case:#?}");
            assert_eq!(p.awards_left == Some(0), p.state == State::Exhausted);
            assert!(p.state != State::Reached || !matches!(c.goal, Goal::Streak { .. }));
            assert!(p.awards_left.is_none_or(|left| left >= 0));
            assert!(p.window.is_none() || p.next_window.is_none());
            let between_occurrences = matches!((&c.window, &c.goal), (Window::Recurring { .. }, Goal::Streak { .. }));
            assert!(p.state != State::InProgress || p.window.is_some() || between_occurrences);
            for (opens, closes) in p.window.into_iter().chain(p.next_window) {
                assert!(c.starts_at <= opens && closes.is_none_or(|closes| opens < closes), "{t} {p:?} {case:#?}");
            }
        }
    });
}

/// Every legal combination is generated, and enough of the histories earn an award.
#[test]
fn generated_histories_reach_their_goals() {
    let mut seen: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let (mut cases, mut hundreds, mut capped, mut ineligible) = (0, 0, 0, 0);
    each_case(3000, &generate::case(), |case| {
        let c = &case.campaign;
        let window = format!("{:?}", c.window);
        let window = window.split([' ', '{']).next().unwrap_or_default().to_owned();
        let goal = format!("{:?}", c.goal);
        let goal = goal.split([' ', '{']).next().unwrap_or_default().to_owned();
        let awards = reached(c, &case.purchases);
        let entry = seen.entry(format!("{window} {goal} {}", c.goal.repeats())).or_default();
        entry.0 += 1;
        entry.1 += u32::from(!awards.is_empty());
        cases += 1;
        hundreds += u32::from(awards.iter().any(|a| a.nth == 100));
        capped += u32::from(awards.len() < uncapped(c, &case.purchases).len());
        ineligible += u32::from(eligible(c, &case.purchases).len() < case.purchases.len());
    });
    // 6 windows × 8 goals, less four of `rolling` (everyPurchase and three with repeat), plus four streaks.
    assert_eq!(seen.len(), 48, "{seen:#?}");
    for (combination, (cases, awarded)) in &seen {
        assert!(*awarded * 5 >= *cases && *awarded >= 3, "{combination}: {awarded} of {cases}");
    }
    assert!(hundreds >= 3 && capped >= 100 && ineligible >= 100, "{hundreds} {capped} {ineligible} of {cases}");
}
