//! A made-up shop for coffee and books: who buys there, what, and when.
//!
//! The past purchases depend on the opening day alone. The same day always gives the same purchases with the same ids, so
//! recording them again changes nothing.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::app::purchase::{PurchaseLine, RecordPurchase};
use crate::engine::time::Instant;

const MINUTE: i64 = 60 * 1_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// All customers. The first ten buy more often than the others.
pub(super) const CUSTOMERS: [&str; 40] = [
    "ada", "emil", "nina", "leo", "rosa", "elif", "hugo", "mia", "noah", "olga", "amir", "anna", "ben", "carla",
    "clara", "david", "eva", "felix", "finn", "greta", "hana", "ida", "ivan", "jana", "jonas", "julia", "karim",
    "klara", "lena", "lina", "luca", "maja", "marko", "milan", "oskar", "paula", "sara", "theo", "valentin", "zoe",
];

/// The articles that the shop sells: sku, category, price in cents.
const GOODS: [(&str, &str, i64); 13] = [
    ("espresso", "COFFEE", 290),
    ("cappuccino", "COFFEE", 420),
    ("flat-white", "COFFEE", 460),
    ("croissant", "PASTRY", 280),
    ("sacher-cake", "PASTRY", 560),
    ("beans-250g", "BEANS", 990),
    ("beans-1kg", "BEANS", 3_200),
    ("novel", "BOOKS", 1_400),
    ("crime-story", "BOOKS", 1_250),
    ("poems", "BOOKS", 1_100),
    ("cookbook", "BOOKS", 2_990),
    ("city-guide", "BOOKS", 2_200),
    ("mug", "GIFTS", 1_200),
];

/// Returns all purchases from the opening to before `until`, oldest first.
pub(super) fn past(opened: Instant, until: Instant) -> Vec<RecordPurchase> {
    let mut bought = Vec::new();
    for day in 0.. {
        let morning = opened.plus(day * DAY);
        if morning >= until {
            break;
        }
        for (rank, customer) in CUSTOMERS.iter().enumerate() {
            // Each customer's day has a seed of its own, so that its purchases do not depend on `until`.
            let mut chance = StdRng::seed_from_u64(day.unsigned_abs() * 1_000 + rank as u64);
            let most = if rank < 10 { 5 } else { 3 };
            for visit in 0..chance.random_range(0..=most) {
                // The shop is open from 06:00 to 20:00 UTC.
                let at = morning.plus(chance.random_range(6 * 60..20 * 60) * MINUTE);
                let id = format!("day-{day}-{customer}-{visit}");
                let purchase = purchase(&mut chance, id, customer, at);
                if at < until {
                    bought.push((at, purchase));
                }
            }
        }
    }
    bought.sort_by(|(a, one), (b, other)| (a, &one.external_id).cmp(&(b, &other.external_id)));
    bought.into_iter().map(|(_, purchase)| purchase).collect()
}

/// Picks the customer who buys next.
pub(super) fn visitor(chance: &mut StdRng) -> &'static str {
    // The first customer comes often, so that whoever follows her points soon sees an update.
    let rank = if chance.random_bool(0.25) { 0 } else { chance.random_range(0..CUSTOMERS.len()) };
    CUSTOMERS[rank]
}

/// Makes up a purchase of one to four lines.
pub(super) fn purchase(chance: &mut StdRng, id: String, customer: &str, at: Instant) -> RecordPurchase {
    let mut lines = Vec::new();
    let mut total = 0;
    for _ in 0..chance.random_range(1..=4) {
        let (sku, category, price) = GOODS[chance.random_range(0..GOODS.len())];
        let quantity: i32 = if chance.random_bool(0.1) { 2 } else { 1 };
        let amount = price * i64::from(quantity);
        total += amount;
        let (sku, category) = (sku.to_owned(), Some(category.to_owned()));
        lines.push(PurchaseLine { sku, category, quantity, amount: euros(amount) });
    }
    RecordPurchase {
        external_id: id,
        customer_external_id: customer.to_owned(),
        purchased_at: at.to_string(),
        total: euros(total),
        currency: "EUR".to_owned(),
        channel: Some(["store", "web", "app"][chance.random_range(0..3)].to_owned()),
        lines: Some(lines),
        refunded: None,
        refunded_until: None,
        revision: 0,
    }
}

fn euros(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_grows_and_never_changes() {
        let opened = Instant(1_788_739_200_000_000);
        let (early, late) = (past(opened, opened.plus(10 * DAY)), past(opened, opened.plus(42 * DAY)));
        assert!((2_000..6_000).contains(&late.len()), "some thousands: {}", late.len());
        let ids = |purchases: &[RecordPurchase]| purchases.iter().map(|p| p.external_id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&early), ids(&late)[..early.len()]);
        for purchase in late {
            purchase.check(&[], opened.plus(42 * DAY)).expect("a purchase that can be recorded");
        }
    }
}
