//! The engine alone: purchases in the order of time, folded into four campaigns, without any input or output. It prints
//! the rate as one line of JSON.

use std::io::{Write as _, stdout};

use anyhow::{Context as _, bail};
use benches::clock;
use benches::purchase::{Purchase as Bought, When};
use clap::Parser;
use serde_json::json;
use windfall::engine::award::{AwardRule, Rate};
use windfall::engine::evaluate::{Change, Plan, Tail, plan};
use windfall::engine::goal::Goal;
use windfall::engine::money::Currency;
use windfall::engine::purchase::{Key, Line, Purchase};
use windfall::engine::rule::{Campaign, Filter, Period, Rule};
use windfall::engine::time::{Instant, IsoDuration, LocalTime};
use windfall::engine::window::{Calendar, CalendarUnit, Weekday, WindowRule};
use windfall::engine::zone::Zone;

/// The time between two purchases, in microseconds.
const SPACING_MICROS: i64 = 1_000_000;
/// The instant of the first purchase: 2026-01-01.
const BEGINNING: Instant = Instant(1_767_225_600_000_000);

#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    purchases: u64,
    #[arg(long, default_value_t = 20_000)]
    customers: u64,
}

fn main() -> anyhow::Result<()> {
    let Arguments { purchases, customers } = Arguments::parse();
    let rules = rules()?;
    let period = Period { starts_at: BEGINNING, ends_at: None, pauses: Vec::new() };
    let facts = (0..purchases).map(|number| fact(number, customers)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut tails: Vec<[Tail; 4]> = Vec::new();
    tails.resize_with(usize::try_from(customers)?, Default::default);
    let (mut awards, mut points) = (0_u64, 0_i64);
    let began = clock::now();
    for (customer, purchase) in &facts {
        for (rule, tail) in rules.iter().zip(&mut tails[*customer]) {
            let campaign = Campaign { rule, period: &period, settled_revision: None };
            let Some(eligible) = campaign.eligible(purchase) else { continue };
            let Plan::Append(mut append) =
                plan(campaign, std::mem::take(tail), vec![Change { before: None, after: Some(eligible) }])
            else {
                bail!("a purchase in the order of time is appended");
            };
            if append.load().is_some() {
                bail!("an append in these campaigns loads nothing");
            }
            let outcome = append.finish();
            awards += outcome.awards.len() as u64;
            points += outcome.awards.iter().map(|award| award.points).sum::<i64>();
            if let Some(new) = outcome.tail {
                *tail = new;
            }
        }
    }
    let seconds = clock::now().duration_since(began).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 purchases")]
    let rate = purchases as f64 / seconds;
    writeln!(stdout(), "{}", json!({ "rate": rate, "awards": awards, "points": points }))?;
    Ok(())
}

/// Returns the four campaigns of `peers/pg/peer.sql`.
fn rules() -> anyhow::Result<[Rule; 4]> {
    let rule = |window, goal, award| -> anyhow::Result<Rule> {
        Ok(Rule {
            time_zone: Zone::parse("Europe/Berlin")?,
            currency: Currency::parse("EUR")?,
            filter: Filter::default(),
            window,
            goal,
            award,
            max_per_customer: None,
            max_per_window: None,
            max_points_per_customer: None,
            max_points_per_window: None,
            lateness: IsoDuration::parse("P30D")?,
            hold_for: None,
            expires_after: None,
        })
    };
    let counted = |unit, at_least, points| {
        let window = WindowRule::Calendar(Calendar {
            unit,
            every: 1,
            week_starts_on: Weekday::Monday,
            day_starts_at: LocalTime::default(),
        });
        rule(window, Goal::Purchases { at_least, repeat: false }, AwardRule::Points(points))
    };
    Ok([
        rule(WindowRule::Campaign, Goal::EveryPurchase, AwardRule::PointsPerUnit(Rate(1_000_000)))?,
        counted(CalendarUnit::Week, 3, 100)?,
        counted(CalendarUnit::Day, 2, 50)?,
        counted(CalendarUnit::Month, 10, 500)?,
    ])
}

/// Returns a purchase and the position of its customer.
fn fact(number: u64, customers: u64) -> anyhow::Result<(usize, Purchase)> {
    let bought = Bought::nth(number, 1, customers, When::Now);
    let total = i64::try_from(bought.total_cents)?;
    let category = bought.category.to_owned();
    let purchase = Purchase {
        key: Key {
            at: Instant(BEGINNING.0 + i64::try_from(number)? * SPACING_MICROS),
            external_id: format!("p{number}"),
        },
        total,
        currency: Currency::parse("EUR")?,
        channel: None,
        lines: vec![Line { sku: format!("{category}-1"), category: Some(category), quantity: 1, amount: total }],
        refunds: Vec::new(),
        sums: Vec::new(),
        set_revision: 0,
        replaced_at: None,
    };
    let customer = usize::try_from(bought.customer).ok().and_then(|customer| customer.checked_sub(1));
    Ok((customer.context("customers are numbered from 1")?, purchase))
}
