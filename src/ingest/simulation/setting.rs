//! What an operator can choose, and what the load is.

use std::fmt;

use super::costs::Costs;

/// The maximum number of settings that are compared.
pub const MAX_SETTINGS: usize = 32;
/// The bounds of what can be chosen.
pub const MAX_PARTITIONS: u32 = 1_000;
pub const MAX_BATCH: u32 = 1_000;
pub const MAX_POOL: u32 = 64;
pub const MAX_NODES: u32 = 64;

/// One choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    /// Partitions of the topic.
    pub partitions: u32,
    /// The largest batch of a node's writer: `writer.batch_items`.
    pub batch: u32,
    /// How many transactions the database works on at a time without becoming slower, those of all nodes together.
    pub pool: u32,
    pub nodes: u32,
}

/// What is the same for all settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    pub costs: Costs,
    /// The memory of a node for messages: `kafka.buffer_bytes`.
    pub buffer_bytes: u64,
    /// Which part of the messages become dead letters, from 0 to 1.
    pub poison: f64,
    pub outage: Option<Outage>,
}

/// A time in which nothing is recorded, in microseconds since the beginning of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    pub from: u64,
    pub to: u64,
}

/// Why a grid is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the grid has {count} settings: at most {MAX_SETTINGS} are compared")]
pub struct TooMany {
    count: usize,
}

/// Returns all combinations, in order. A value that is given twice counts once.
pub fn grid(partitions: &[u32], batch: &[u32], pool: &[u32], nodes: &[u32]) -> Result<Vec<Setting>, TooMany> {
    let count = [partitions, batch, pool, nodes].iter().map(|values| values.len()).fold(1, usize::saturating_mul);
    if count > MAX_SETTINGS {
        return Err(TooMany { count });
    }
    let mut settings = Vec::with_capacity(count);
    for &nodes in nodes {
        for &pool in pool {
            for &batch in batch {
                settings.extend(partitions.iter().map(|&partitions| Setting { partitions, batch, pool, nodes }));
            }
        }
    }
    settings.sort_unstable_by_key(|setting| (setting.nodes, setting.pool, setting.batch, setting.partitions));
    settings.dedup();
    Ok(settings)
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, batch, pool, nodes } = self;
        write!(f, "partitions {partitions}, batch {batch}, pool {pool}, nodes {nodes}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_each_combination_once() {
        let settings = grid(&[4, 1, 4], &[256], &[1], &[1, 2]).unwrap();
        let told: Vec<(u32, u32)> = settings.iter().map(|setting| (setting.nodes, setting.partitions)).collect();
        assert_eq!(told, [(1, 1), (1, 4), (2, 1), (2, 4)]);
        let many: Vec<u32> = (1..=11).collect();
        assert_eq!(
            grid(&many, &[1, 2, 3], &[1], &[1]).unwrap_err().to_string(),
            "the grid has 33 settings: at most 32 are compared"
        );
    }
}
