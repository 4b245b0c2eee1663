//! Whether a customer may redeem a reward.

use super::time::Instant;

/// The most points of one redemption: the cost times the quantity.
pub const MAX_COST: i64 = 1_000_000_000_000;
/// The longest time for which points can be reserved, in µs: `P7D`.
pub const MAX_RESERVATION: i64 = 7 * 24 * 3_600 * 1_000_000;

/// The parts of a reward that decide whether it can be redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The points of one unit, at least 1.
    pub cost: i64,
    pub active: bool,
    pub starts_at: Option<Instant>,
    pub ends_at: Option<Instant>,
    /// How many units there are in all. `None`: unlimited.
    pub stock: Option<i64>,
    /// How many units a customer may have redeemed or reserved at a time.
    pub max_per_customer: Option<i64>,
}

/// The units of a reward at an instant. Reservations that are over do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Units that are redeemed, and cancelled ones whose codes were shown.
    pub redeemed: i64,
    pub reserved: i64,
    /// Codes that were not given yet.
    pub codes_unused: i64,
    pub codes_given: i64,
}

/// Why a reward cannot be redeemed. The first reason that holds is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The reward is not active, or the instant is outside its period.
    NotOffered,
    /// The customer would have more units than it may.
    LimitReached,
    /// There are not so many units left.
    OutOfStock,
    /// The customer has fewer points available.
    InsufficientPoints,
}

impl Units {
    /// Returns how many units are left. `None`: the number is unlimited. A reward with codes has at most as many as it has unused codes.
    pub fn left(self, stock: Option<i64>) -> Option<i64> {
        let of_stock = stock.map(|stock| stock - self.redeemed - self.reserved);
        let has_codes = self.codes_unused + self.codes_given > 0;
        let of_codes = has_codes.then_some(self.codes_unused - self.reserved);
        [of_stock, of_codes].into_iter().flatten().min().map(|left| left.max(0))
    }
}

impl Offer {
    /// Whether the reward can be redeemed at an instant.
    pub fn is_open(&self, now: Instant) -> bool {
        self.active
            && self.starts_at.is_none_or(|starts_at| starts_at <= now)
            && self.ends_at.is_none_or(|ends_at| now < ends_at)
    }

    /// Returns the points for this many units. `None`: they are above [`MAX_COST`].
    pub fn points(&self, quantity: i64) -> Option<i64> {
        self.cost.checked_mul(quantity).filter(|points| *points <= MAX_COST)
    }

    /// Returns why a customer who has `has` units and `available` points cannot redeem `quantity` more units for `points`.
    pub fn obstacle(
        &self,
        now: Instant,
        quantity: i64,
        points: i64,
        has: i64,
        units: Units,
        available: i64,
    ) -> Option<Obstacle> {
        let obstacles = [
            (!self.is_open(now), Obstacle::NotOffered),
            (self.max_per_customer.is_some_and(|most| has + quantity > most), Obstacle::LimitReached),
            (units.left(self.stock).is_some_and(|left| left < quantity), Obstacle::OutOfStock),
            (available < points, Obstacle::InsufficientPoints),
        ];
        obstacles.into_iter().find(|(holds, _)| *holds).map(|(_, obstacle)| obstacle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_bound_the_stock_and_reservations_hold_codes() {
        let units = Units { redeemed: 3, reserved: 2, codes_unused: 4, codes_given: 3 };
        assert_eq!(units.left(None), Some(2));
        assert_eq!(units.left(Some(6)), Some(1));
        assert_eq!(units.left(Some(4)), Some(0));
        let without_codes = Units { codes_unused: 0, codes_given: 0, ..units };
        assert_eq!((without_codes.left(None), without_codes.left(Some(6))), (None, Some(1)));
    }

    #[test]
    fn the_first_obstacle_is_told() {
        let offer = Offer {
            cost: 10,
            active: true,
            starts_at: Some(Instant(5)),
            ends_at: Some(Instant(9)),
            stock: Some(2),
            max_per_customer: Some(1),
        };
        let at = |now, quantity, has, available| {
            offer.obstacle(Instant(now), quantity, 10 * quantity, has, Units::default(), available)
        };
        assert_eq!(at(4, 9, 9, 0), Some(Obstacle::NotOffered));
        assert_eq!(at(9, 9, 9, 0), Some(Obstacle::NotOffered));
        assert_eq!(at(5, 3, 0, 0), Some(Obstacle::LimitReached));
        let unlimited = Offer { max_per_customer: None, ..offer };
        let stock = unlimited.obstacle(Instant(5), 3, 30, 0, Units::default(), 0);
        assert_eq!(stock, Some(Obstacle::OutOfStock));
        assert_eq!(at(5, 1, 0, 9), Some(Obstacle::InsufficientPoints));
        assert_eq!(at(8, 1, 0, 10), None);
        assert_eq!((offer.points(3), offer.points(MAX_COST)), (Some(30), None));
    }
}
