//! Random legal campaigns and histories. Their instants crowd around clock changes, bounds of windows and each other.

use jiff::civil::date;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::{Index, select, subsequence};

use super::contents::{Content, Order, purchases_of};
use super::reached::bounded_windows;
use super::{
    AwardRule, Campaign, DAY, Filter, Goal, HOUR, Instant, Line, MINUTE, Purchase, Refund, SECOND, Span, Unit, Window,
    zone,
};

/// A campaign and the complete history of one customer.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) campaign: Campaign,
    /// All that is recorded.
    pub(crate) orders: Vec<Order>,
    /// The purchases of customer 0 that follow from it.
    pub(crate) purchases: Vec<Purchase>,
}

/// A purchase or a refund, as one request records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Purchase {
        external_id: String,
        content: Content,
    },
    Refund {
        /// The `externalId` of the purchase.
        of: String,
        refund: Refund,
    },
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    campaign().prop_flat_map(|(campaign, anchor)| {
        let moments = moments(&campaign, anchor);
        proptest::collection::vec(purchase(&campaign), 0..=32).prop_map(move |seeds| {
            let orders = history(&campaign, anchor, &moments, &seeds);
            Case { purchases: purchases_of(0, &orders), orders, campaign: campaign.clone() }
        })
    })
}

/// A case, and commits in which its history may arrive.
pub(crate) fn case_with_commits() -> impl Strategy<Value = (Case, Vec<Vec<Fact>>)> {
    case().prop_flat_map(|case| {
        let commits = commits(&case.orders);
        (Just(case), commits)
    })
}

/// The facts of the history in a random order of arrival, cut into commits. A refund comes after some content of its purchase.
/// Some facts are repeated later.
pub(crate) fn commits(orders: &[Order]) -> impl Strategy<Value = Vec<Vec<Fact>>> + use<> {
    let facts = facts(orders);
    let places = proptest::collection::vec(
        (any::<u32>(), proptest::option::weighted(0.15, any::<u32>()), proptest::bool::weighted(0.6)),
        facts.len(),
    );
    (places, proptest::bool::weighted(0.3)).prop_map(move |(places, in_order)| {
        let mut arrivals: Vec<(u64, Fact)> = Vec::new();
        for (i, (fact, (place, again, _))) in facts.iter().zip(&places).enumerate() {
            let own = if in_order { i as u64 } else { u64::from(*place) };
            let after = match fact {
                Fact::Purchase { .. } => 0,
                Fact::Refund { of, .. } => {
                    let of_it = |f: &Fact| matches!(f, Fact::Purchase { external_id, .. } if external_id == of);
                    arrivals.iter().filter(|(_, f)| of_it(f)).map(|(at, _)| at + 1).min().unwrap_or(0)
                }
            };
            let at = own.max(after);
            arrivals.push((at, fact.clone()));
            if let Some(again) = again {
                arrivals.push((at + 1 + u64::from(*again), fact.clone()));
            }
        }
        arrivals.sort_by_key(|(at, _)| *at);

        let mut commits: Vec<Vec<Fact>> = Vec::new();
        for (i, (_, fact)) in arrivals.into_iter().enumerate() {
            let cut = places[i % places.len()].2;
            match commits.last_mut() {
                Some(batch) if !cut => batch.push(fact),
                _ => commits.push(vec![fact]),
            }
        }
        commits
    })
}

/// Adds a fact to the known orders. A duplicate changes nothing.
pub(crate) fn record(known: &mut Vec<Order>, fact: &Fact) {
    match fact {
        Fact::Purchase { external_id, content } => {
            let at = known.iter().position(|order| order.external_id == *external_id).unwrap_or_else(|| {
                known.push(Order { external_id: external_id.clone(), contents: Vec::new(), refunds: Vec::new() });
                known.len() - 1
            });
            if known[at].contents.iter().all(|c| c.revision != content.revision) {
                known[at].contents.push(content.clone());
            }
        }
        Fact::Refund { of, refund } => {
            let order = known.iter_mut().find(|o| o.external_id == *of).expect("refunds come after their purchase");
            if order.refunds.iter().all(|r| r.external_id != refund.external_id) {
                order.refunds.push(refund.clone());
            }
        }
    }
}

/// Instants of the period at which the progress may change.
pub(crate) fn instants(case: &Case) -> Vec<Instant> {
    let c = &case.campaign;
    let spans = match c.window {
        Window::Session { gap } => vec![0, gap],
        Window::Timer { duration, .. } | Window::Rolling { duration } => vec![0, duration],
        _ => vec![0],
    };
    let mut instants: Vec<Instant> = vec![c.starts_at];
    instants.extend(c.ends_at.map(|end| end - 1));
    for p in &case.purchases {
        instants.extend(spans.iter().flat_map(|span| [-1, 0, 1].map(|jitter| p.at + span + jitter)));
    }
    let anchor = case.purchases.first().map_or(c.starts_at, |p| p.at);
    instants.extend(moments(c, anchor).into_iter().flat_map(|m| [m - 1, m]));
    instants.retain(|t| c.starts_at <= *t && c.ends_at.is_none_or(|end| *t < end));
    instants.sort_unstable();
    instants.dedup();
    instants
}

// ── Campaigns ──

type Dates = &'static [(i16, i8, i8)];

/// Time zones, each with dates around which its clock is of interest.
pub(crate) const PLACES: [(&str, Dates); 10] = [
    ("UTC", &[(2024, 2, 29), (2023, 12, 31), (2024, 6, 30)]),
    // The clock changes by half an hour.
    ("Australia/Lord_Howe", &[(2024, 4, 7), (2024, 10, 6), (2023, 10, 1)]),
    // Midnight is skipped in spring and repeated in autumn.
    ("Asia/Amman", &[(2021, 3, 26), (2021, 10, 29)]),
    // Midnight is skipped, and local dates run backwards.
    ("America/Santiago", &[(2025, 9, 7), (2025, 4, 6)]),
    // The date 2011-12-30 is skipped.
    ("Pacific/Apia", &[(2011, 12, 30), (2012, 1, 1)]),
    // The clock changes at 00:01, so local dates run backwards. In 1988 it changes by two hours.
    ("America/St_Johns", &[(1988, 4, 3), (1988, 10, 30), (1990, 10, 28), (2006, 10, 29), (2007, 3, 11), (2010, 11, 7)]),
    // At New Year 1986 the clock goes forward by a quarter of an hour at midnight.
    ("Asia/Kathmandu", &[(1986, 1, 1), (2024, 4, 1)]),
    // Midnight is skipped, and local dates run backwards.
    ("Africa/Cairo", &[(2023, 4, 28), (2023, 10, 27), (2014, 9, 26)]),
    ("America/Sao_Paulo", &[(2018, 11, 4), (2018, 2, 18)]),
    ("Europe/Berlin", &[(2024, 3, 31), (2024, 10, 27)]),
];

#[derive(Clone, Copy, Debug)]
enum WindowKind {
    Campaign,
    Calendar,
    Recurring,
    Session,
    Timer,
    Rolling,
}

#[derive(Clone, Copy, Debug)]
enum GoalKind {
    EveryPurchase,
    Purchases,
    Spend,
    Distinct,
    Units,
    Streak,
}

/// Every legal pair of window and goal, with each legal value of `repeat`. Some occur several times, so that cases with
/// them are frequent enough.
fn combinations() -> Vec<(WindowKind, GoalKind, bool)> {
    let mut all = Vec::new();
    for window in [
        WindowKind::Campaign,
        WindowKind::Calendar,
        WindowKind::Calendar,
        WindowKind::Recurring,
        WindowKind::Session,
        WindowKind::Timer,
        WindowKind::Timer,
    ] {
        all.push((window, GoalKind::EveryPurchase, false));
        all.push((window, GoalKind::Purchases, false));
        all.push((window, GoalKind::Purchases, true));
        all.push((window, GoalKind::Spend, false));
        all.push((window, GoalKind::Spend, true));
        all.push((window, GoalKind::Distinct, false));
        all.push((window, GoalKind::Units, false));
        all.push((window, GoalKind::Units, true));
    }
    for goal in [GoalKind::Purchases, GoalKind::Spend, GoalKind::Distinct, GoalKind::Units] {
        all.extend([(WindowKind::Rolling, goal, false); 3]);
    }
    for repeat in [false, true] {
        all.extend([(WindowKind::Calendar, GoalKind::Streak, repeat); 4]);
        all.extend([(WindowKind::Recurring, GoalKind::Streak, repeat); 4]);
    }
    all
}

/// A legal campaign, and the instant around which its history crowds.
pub(crate) fn campaign() -> impl Strategy<Value = (Campaign, Instant)> {
    let currency = select(vec![("USD", 2), ("USD", 2), ("JPY", 0), ("JPY", 0), ("KWD", 3)]);
    (place(), currency, select(combinations())).prop_flat_map(
        |((zone, anchor), (currency, exponent), (window_kind, goal_kind, repeat))| {
            let every_purchase = matches!(goal_kind, GoalKind::EveryPurchase);
            let capped_by_window =
                !matches!(goal_kind, GoalKind::Streak) && !matches!(window_kind, WindowKind::Rolling);
            let max_per_window =
                proptest::option::weighted(0.3, 1..4_i64).prop_map(move |cap| cap.filter(|_| capped_by_window));
            (
                window(window_kind),
                // Few purchases lie in an occurrence, so longer streaks would be rare.
                goal(goal_kind, repeat, exponent, if matches!(window_kind, WindowKind::Recurring) { 2 } else { 4 }),
                award(every_purchase),
                filter(),
                (proptest::option::weighted(0.3, 1..5_i64), max_per_window, points_cap(), points_cap()),
                (proptest::option::weighted(0.3, span()), proptest::option::weighted(0.3, span())),
                period(anchor),
            )
                .prop_map(
                    move |(
                        window,
                        goal,
                        award,
                        filter,
                        (max_per_customer, max_per_window, max_points_per_customer, max_points_per_window),
                        (hold_for, expires_after),
                        (starts_at, ends_at, pauses),
                    )| {
                        let campaign = Campaign {
                            starts_at,
                            ends_at,
                            pauses,
                            zone: zone.to_owned(),
                            currency: currency.to_owned(),
                            currency_exponent: exponent,
                            filter,
                            window,
                            goal,
                            award,
                            max_per_customer,
                            max_per_window,
                            max_points_per_customer,
                            max_points_per_window: max_points_per_window.filter(|_| capped_by_window),
                            hold_for,
                            expires_after,
                        };
                        (campaign, anchor)
                    },
                )
        },
    )
}

/// A cap in points. Some bind after an award or two, and some only awards by amount.
fn points_cap() -> impl Strategy<Value = Option<i64>> {
    proptest::option::weighted(0.25, prop_oneof![3 => 1..12_i64, 1 => 1..3000_i64])
}

fn place() -> impl Strategy<Value = (&'static str, Instant)> {
    select(PLACES.to_vec()).prop_flat_map(|(zone, dates)| {
        select(dates.to_vec()).prop_map(move |(y, m, d)| (zone, zone::midnight(zone, date(y, m, d))))
    })
}

fn window(kind: WindowKind) -> impl Strategy<Value = Window> {
    let unit = select(vec![Unit::Day, Unit::Day, Unit::Week, Unit::Month, Unit::Quarter, Unit::Year]);
    let time =
        || prop_oneof![3 => select(vec![(0, 0), (0, 1), (1, 0), (2, 0), (23, 0), (23, 30)]), 1 => (0..24_u8, 0..60_u8)];
    let day_starts_at = prop_oneof![2 => Just((0, 0)), 1 => time()];
    let calendar = (unit, select(vec![1, 1, 1, 2, 3]), 0..7_u8, day_starts_at);
    let weekdays =
        prop_oneof![1 => Just((0..7).collect::<Vec<u8>>()), 2 => subsequence((0..7).collect::<Vec<u8>>(), 1..=6)];
    (calendar, (weekdays, time(), time()), span(), any::<bool>()).prop_map(
        move |((unit, every, week_starts_on, day_starts_at), (weekdays, from, to), span, reopens)| match kind {
            WindowKind::Campaign => Window::Campaign,
            WindowKind::Calendar => Window::Calendar { unit, every, week_starts_on, day_starts_at },
            WindowKind::Recurring => Window::Recurring { weekdays, from, to },
            WindowKind::Session => Window::Session { gap: span },
            WindowKind::Timer => Window::Timer { duration: span, reopens },
            WindowKind::Rolling => Window::Rolling { duration: span },
        },
    )
}

fn goal(kind: GoalKind, repeat: bool, exponent: u32, longest: u32) -> impl Strategy<Value = Goal> {
    let major = 10_i64.pow(exponent);
    let least = if repeat { major } else { 1 };
    // In currencies with few decimals, one purchase can reach a hundred multiples of such an amount.
    let minor = prop_oneof![1 => least..least + 10, 2 => least..least + 2500];
    (1..=4_u32, prop_oneof![3 => Just(1_u32), 1 => 2..=3_u32], minor, any::<bool>()).prop_map(
        move |(n, per_window, minor, of_category)| match kind {
            GoalKind::EveryPurchase => Goal::EveryPurchase,
            GoalKind::Purchases => Goal::Purchases { n, repeat },
            GoalKind::Spend => Goal::Spend { minor, repeat },
            GoalKind::Distinct => Goal::Distinct { of_category, n: if of_category { n.min(3) } else { n } },
            GoalKind::Units => Goal::Units { n: 2 * n - 1, repeat },
            GoalKind::Streak => Goal::Streak { length: n.min(longest), per_window, repeat },
        },
    )
}

fn award(every_purchase: bool) -> impl Strategy<Value = AwardRule> {
    let rate = select(vec![1, 100_000, 333_333, 1_000_000, 1_500_000, 10_000_000, 10_000_000_000]);
    let category_rate = select(vec![0, 0, 100_000, 1_000_000, 3_333_333, 500_000_000]);
    let rates = (subsequence(strings(&CATEGORIES), 1..CATEGORIES.len()), category_rate);
    let rates = proptest::option::weighted(0.6, proptest::collection::vec(rates, 1..=3));
    ((1..=5_i64), rate, proptest::bool::weighted(0.8), rates).prop_map(move |(points, rate_micro, per_unit, rates)| {
        match rates {
            _ if !(per_unit && every_purchase) => AwardRule::Points(points),
            Some(rates) => AwardRule::PointsByCategory { rate_micro, rates },
            None => AwardRule::PointsPerUnit { rate_micro },
        }
    })
}

const CHANNELS: [&str; 3] = ["web", "app", "shop"];
const CATEGORIES: [&str; 3] = ["toys", "food", "Toys"];
const SKUS: [&str; 4] = ["a", "b", "c", "d"];

fn filter() -> impl Strategy<Value = Filter> {
    let some_of = |all: &[&str]| subsequence(strings(all), 1..all.len());
    (
        proptest::option::weighted(0.15, 1..1000_i64),
        proptest::option::weighted(0.12, some_of(&CHANNELS)),
        proptest::option::weighted(0.15, some_of(&CATEGORIES)),
        proptest::option::weighted(0.15, some_of(&SKUS)),
        proptest::option::weighted(0.12, some_of(&CATEGORIES)),
        proptest::option::weighted(0.12, some_of(&SKUS)),
    )
        .prop_map(|(min_amount, channels, categories, skus, excluded_categories, excluded_skus)| Filter {
            min_amount,
            channels,
            categories,
            skus,
            excluded_categories,
            excluded_skus,
        })
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

type Period = (Instant, Option<Instant>, Vec<(Instant, Option<Instant>)>);

/// The period and its pauses, around the anchor.
fn period(anchor: Instant) -> impl Strategy<Value = Period> {
    let back = select(vec![0, 0, HOUR, DAY, DAY, 2 * DAY, 3 * DAY, 9 * DAY, 9 * DAY, 40 * DAY, 100 * DAY]);
    let ahead =
        prop_oneof![3 => Just(None), 2 => select(vec![0, HOUR, DAY, 3 * DAY, 9 * DAY, 200 * DAY]).prop_map(Some)];
    let pauses = prop_oneof![
        2 => Just(Vec::new()),
        1 => proptest::collection::vec((-4..=6_i64, jitter()), 1..=4),
    ];
    (back, jitter(), ahead, jitter(), pauses).prop_map(move |(back, start_jitter, ahead, end_jitter, pauses)| {
        let starts_at = anchor - back + start_jitter;
        let ends_at = ahead.map(|ahead| (anchor + ahead + end_jitter).max(starts_at + 1));
        let mut changes: Vec<Instant> = pauses
            .into_iter()
            .map(|(days, jitter)| anchor + days * DAY + jitter)
            .filter(|at| starts_at <= *at && ends_at.is_none_or(|end| *at < end))
            .collect();
        changes.sort_unstable();
        changes.dedup();
        (starts_at, ends_at, changes.chunks(2).map(|pair| (pair[0], pair.get(1).copied())).collect())
    })
}

fn span() -> impl Strategy<Value = Span> {
    select(vec![
        30 * MINUTE,
        HOUR,
        90 * MINUTE,
        12 * HOUR,
        23 * HOUR,
        DAY,
        DAY,
        25 * HOUR,
        2 * DAY,
        3 * DAY,
        7 * DAY,
        30 * DAY,
        SECOND + 1,
    ])
}

/// A random offset, mostly zero or one microsecond.
fn jitter() -> impl Strategy<Value = Span> {
    prop_oneof![
        4 => Just(0),
        4 => select(vec![-1, 1]),
        3 => select(vec![-HOUR, -30 * MINUTE, -MINUTE, MINUTE, 30 * MINUTE, HOUR]),
        2 => (-24 * 60..24 * 60_i64).prop_map(|minutes| minutes * MINUTE),
    ]
}

// ── Histories ──

#[derive(Clone, Debug)]
enum When {
    /// A span after a moment of interest. The span may be negative.
    Moment(Index, Span),
    /// A span after the first moment of interest that follows the previous purchase.
    NextMoment(Span),
    /// One gap or duration (a day for other windows) and a span after the previous purchase.
    Later(Span),
    /// The given minutes after the previous purchase.
    Soon(i64),
    /// At the instant of the previous purchase.
    Tie,
    /// The given minutes from the anchor.
    Somewhere(i64),
}

#[derive(Clone, Debug)]
enum RefundSeed {
    Whole,
    /// The given percentage of the total.
    Part(i64),
    /// For each pick: a line, the percentage of the sum of its sku, and whether that is split into two refund lines.
    Lines(Vec<(Index, i64, bool)>),
}

#[derive(Clone, Debug)]
struct PurchaseSeed {
    prefix: &'static str,
    when: When,
    /// `None` stands for the sum of the lines.
    total: Option<i64>,
    foreign: bool,
    channel: Option<String>,
    lines: Vec<Line>,
    refunds: Vec<(RefundSeed, Span)>,
    revisions: Vec<RevisionSeed>,
}

/// What an edit changes.
#[derive(Clone, Debug)]
enum Edit {
    /// The total, in percent of what it was. 0 voids the purchase.
    Total(i64),
    Lines(Vec<Line>),
    When(Index, Span),
    Channel(Option<String>),
    Currency,
    Customer,
    /// Back to what was recorded first, or nothing at all: equal contents under several revisions.
    Nothing,
}

#[derive(Clone, Debug)]
struct RevisionSeed {
    edits: Vec<Edit>,
    /// A running sum in percent of the total, and the instant up to which it was counted, from that of the purchase.
    refunded: Option<(i64, Option<Span>)>,
    /// What the number of the revision is above that of the one before.
    step: i64,
}

fn purchase(c: &Campaign) -> impl Strategy<Value = PurchaseSeed> + use<> {
    let total = prop_oneof![12 => Just(None), 7 => (1..=3000_i64).prop_map(Some), 1 => Just(Some(0))];
    // With such a rule, few purchases without lines would be eligible.
    let wants_lines = c.filter.categories.is_some()
        || c.filter.skus.is_some()
        || matches!(c.goal, Goal::Distinct { .. } | Goal::Units { .. })
        || matches!(c.award, AwardRule::PointsByCategory { .. });
    let lines = proptest::collection::vec(line(), usize::from(wants_lines)..=4);
    let channel = proptest::option::weighted(0.8, select(strings(&CHANNELS)));
    let refund = || (refund(), select(vec![0, HOUR, DAY, 2 * DAY]));
    let refunds = prop_oneof![
        7 => Just(Vec::new()),
        2 => proptest::collection::vec(refund(), 1),
        1 => proptest::collection::vec(refund(), 2..=3),
    ];
    let revisions = prop_oneof![
        7 => Just(Vec::new()),
        2 => proptest::collection::vec(revision(), 1),
        1 => proptest::collection::vec(revision(), 2..=4),
    ];
    let prefix = select(vec!["p", "P", "q", "é", "0"]);
    (prefix, when(), total, proptest::bool::weighted(0.06), channel, lines, refunds, revisions).prop_map(
        |(prefix, when, total, foreign, channel, lines, refunds, revisions)| PurchaseSeed {
            prefix,
            when,
            total,
            foreign,
            channel,
            lines,
            refunds,
            revisions,
        },
    )
}

fn revision() -> impl Strategy<Value = RevisionSeed> {
    let edit = prop_oneof![
        4 => select(vec![0, 30, 90, 110, 150, 400]).prop_map(Edit::Total),
        3 => proptest::collection::vec(line(), 0..=4).prop_map(Edit::Lines),
        3 => (any::<Index>(), jitter()).prop_map(|(moment, jitter)| Edit::When(moment, jitter)),
        1 => proptest::option::weighted(0.8, select(strings(&CHANNELS))).prop_map(Edit::Channel),
        1 => Just(Edit::Currency),
        2 => Just(Edit::Customer),
        1 => Just(Edit::Nothing),
    ];
    let until = proptest::option::weighted(0.7, select(vec![0, HOUR, DAY, 3 * DAY]));
    let refunded = proptest::option::weighted(0.3, (select(vec![0, 0, 20, 50, 100]), until));
    (proptest::collection::vec(edit, 1..=2), refunded, 1..=3_i64).prop_map(|(edits, refunded, step)| RevisionSeed {
        edits,
        refunded,
        step,
    })
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        5 => (any::<Index>(), jitter()).prop_map(|(moment, jitter)| When::Moment(moment, jitter)),
        2 => jitter().prop_map(When::NextMoment),
        4 => jitter().prop_map(|jitter| When::NextMoment(jitter.abs())),
        4 => jitter().prop_map(When::Later),
        6 => prop_oneof![1..=10_i64, 1..=120_i64].prop_map(When::Soon),
        2 => Just(When::Tie),
        2 => (-4 * 24 * 60..8 * 24 * 60_i64).prop_map(When::Somewhere),
    ]
}

fn line() -> impl Strategy<Value = Line> {
    (
        select(strings(&SKUS)),
        proptest::option::weighted(0.8, select(strings(&CATEGORIES))),
        prop_oneof![6 => 1..=3_u32, 1 => 1..=400_u32],
        // Parts of small amounts are rounded so much that a refund can add points by category.
        prop_oneof![6 => 1..=1200_i64, 3 => 1..=9_i64, 1 => Just(0)],
    )
        .prop_map(|(sku, category, quantity, amount)| Line { sku, category, quantity, amount })
}

fn refund() -> impl Strategy<Value = RefundSeed> {
    let percent = || prop_oneof![1 => Just(100_i64), 3 => 1..=100_i64];
    prop_oneof![
        1 => Just(RefundSeed::Whole),
        2 => percent().prop_map(RefundSeed::Part),
        3 => proptest::collection::vec((any::<Index>(), percent(), any::<bool>()), 1..=3).prop_map(RefundSeed::Lines),
    ]
}

/// The bounds of the period, pauses and windows, and the midnights and clock changes around the anchor, in order.
fn moments(c: &Campaign, anchor: Instant) -> Vec<Instant> {
    let mut moments = vec![c.starts_at, anchor];
    moments.extend(c.ends_at);
    moments.extend(c.pauses.iter().flat_map(|(from, to)| [Some(*from), *to]).flatten());
    moments.extend(zone::pieces(&c.zone, anchor - 5 * DAY, anchor + 5 * DAY).iter().skip(1).map(|(since, _)| *since));
    let shown = zone::date_shown(&c.zone, anchor);
    moments.extend((-2..=2).map(|days| zone::midnight(&c.zone, zone::plus_days(shown, days))));
    if matches!(c.window, Window::Calendar { .. } | Window::Recurring { .. }) {
        let mut bounds: Vec<Instant> =
            bounded_windows(c, anchor + 20 * DAY).into_iter().flat_map(|(opens, closes)| [opens, closes]).collect();
        bounds.sort_by_key(|bound| (bound - anchor).abs());
        moments.extend(bounds.into_iter().take(12));
    }
    moments.sort_unstable();
    moments.dedup();
    moments
}

fn history(c: &Campaign, anchor: Instant, moments: &[Instant], seeds: &[PurchaseSeed]) -> Vec<Order> {
    let step = match c.window {
        Window::Session { gap } => gap,
        Window::Timer { duration, .. } | Window::Rolling { duration } => duration,
        _ => DAY,
    };
    let mut orders: Vec<Order> = Vec::new();
    let mut previous = c.starts_at.max(anchor - DAY);
    for (i, seed) in seeds.iter().enumerate() {
        let at = match &seed.when {
            When::Moment(moment, jitter) => moment.get(moments) + jitter,
            When::NextMoment(jitter) => moments.iter().find(|m| **m > previous).unwrap_or(&(previous + DAY)) + jitter,
            When::Later(jitter) => previous + step + jitter,
            When::Soon(minutes) => previous + minutes * MINUTE,
            When::Tie => previous,
            When::Somewhere(minutes) => anchor + minutes * MINUTE,
        };
        previous = at;
        let total = seed.total.unwrap_or_else(|| seed.lines.iter().map(|line| line.amount).sum());
        let id = format!("{}{i}", seed.prefix);
        let first = Content {
            revision: 0,
            customer: 0,
            at,
            total,
            currency: if seed.foreign { "EUR".to_owned() } else { c.currency.clone() },
            channel: seed.channel.clone(),
            lines: seed.lines.clone(),
            refunded: None,
            refunded_until: None,
        };
        orders.push(Order {
            refunds: refunds(&id, &first, &seed.refunds),
            external_id: id,
            contents: revised(first, moments, &seed.revisions),
        });
    }
    orders
}

/// The contents of a purchase, beginning with the first.
fn revised(first: Content, moments: &[Instant], seeds: &[RevisionSeed]) -> Vec<Content> {
    let mut contents = vec![first];
    for seed in seeds {
        let mut next = contents.last().expect("there is the first").clone();
        next.revision += seed.step;
        for edit in &seed.edits {
            match edit {
                Edit::Total(percent) => next.total = contents[0].total * percent / 100,
                Edit::Lines(lines) => next.lines.clone_from(lines),
                Edit::When(moment, jitter) => next.at = moment.get(moments) + jitter,
                Edit::Channel(channel) => next.channel.clone_from(channel),
                Edit::Currency => next.currency = if next.currency == "JPY" { "KWD" } else { "JPY" }.to_owned(),
                Edit::Customer => next.customer = 1 - next.customer,
                Edit::Nothing => next = Content { revision: next.revision, ..contents[0].clone() },
            }
        }
        next.refunded = seed.refunded.map(|(percent, _)| next.total * percent / 100);
        next.refunded_until = seed.refunded.and_then(|(_, until)| until).map(|until| contents[0].at + until);
        contents.push(next);
    }
    contents
}

/// Refunds of a purchase, all of which the server would accept.
fn refunds(purchase: &str, first: &Content, seeds: &[(RefundSeed, Span)]) -> Vec<Refund> {
    let (total, lines) = (first.total, &first.lines);
    let mut refunds = Vec::new();
    for (i, (seed, later)) in seeds.iter().enumerate() {
        let external_id = format!("r{i}-{purchase}");
        let mut push = |amount, lines| {
            let (at, currency) = (first.at + later, first.currency.clone());
            refunds.push(Refund { external_id: external_id.clone(), at, amount, currency, lines });
        };
        match seed {
            // "A refund with `amount: null` and without lines is accepted even if the `total` is 0."
            RefundSeed::Whole => push(None, Vec::new()),
            RefundSeed::Part(_) if total == 0 => (),
            RefundSeed::Part(percent) => {
                push(Some((total * percent / 100).max(1)), Vec::new());
            }
            RefundSeed::Lines(picks) => {
                let mut refunded: Vec<(String, i64)> = Vec::new();
                for (line, percent, twice) in picks.iter().filter(|_| !lines.is_empty()) {
                    let sku = &line.get(lines).sku;
                    let sum: i64 = lines.iter().filter(|l| l.sku == *sku).map(|l| l.amount).sum();
                    let amount = (sum * percent / 100).max(1).min(sum);
                    let so_far: i64 = refunded.iter().map(|(_, amount)| amount).sum();
                    if amount == 0 || so_far + amount > total || refunded.iter().any(|(named, _)| named == sku) {
                        continue;
                    }
                    if *twice && amount >= 2 {
                        refunded.push((sku.clone(), 1));
                        refunded.push((sku.clone(), amount - 1));
                    } else {
                        refunded.push((sku.clone(), amount));
                    }
                }
                if !refunded.is_empty() {
                    push(Some(refunded.iter().map(|(_, amount)| amount).sum()), refunded);
                }
            }
        }
    }
    refunds
}

fn facts(orders: &[Order]) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    for order in orders {
        let of_it =
            |content: &Content| Fact::Purchase { external_id: order.external_id.clone(), content: content.clone() };
        facts.extend(order.contents.iter().map(of_it));
    }
    for order in orders {
        let of_it = |refund: &Refund| Fact::Refund { of: order.external_id.clone(), refund: refund.clone() };
        facts.extend(order.refunds.iter().map(of_it));
    }
    facts
}
