//! Converts rewards and their stock between the engine and their tables.

use entity::{reward, stock};

use crate::engine::reward::{Offer, Units};
use crate::engine::time::Instant;

/// The parts of a reward that decide whether it can be redeemed.
pub fn offer(row: &reward::Model) -> Offer {
    Offer {
        cost: row.cost,
        active: row.active,
        starts_at: row.starts_at.map(Instant),
        ends_at: row.ends_at.map(Instant),
        stock: row.stock,
        max_per_customer: row.max_per_customer,
    }
}

/// The counted units of a reward, including those of reservations that are over and that no write has ended.
pub fn units(row: &stock::Model) -> Units {
    let stock::Model { redeemed, reserved, codes_unused, codes_given, .. } = *row;
    Units { redeemed, reserved, codes_unused, codes_given }
}
