//! What came out of a run: lag, the time to catch up, memory, how busy the database was, and what limits the setting.

use std::fmt;

use super::model::{Run, Writing, run};
use super::setting::{Conditions, Outage, Setting};
use super::trace::{Trace, partition};
use super::{SECOND, seconds};
use crate::app::message::OVERHEAD_BYTES;
use crate::ingest::partition::{MAX_BATCH as MAX_TAKEN, SAVE_PERIOD};

/// A message is delayed by the outage if it is recorded later than without one by more than this, in microseconds.
const DELAYED: u64 = SECOND / 10;
/// The number of points of the lag over time.
const POINTS: usize = 200;
/// From which part of its capacity a setting is unstable.
const FULL: f64 = 1.0;

/// What came out of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    pub setting: Setting,
    /// From the arrival of a message until it is recorded, in microseconds: of half of the messages, of 99 %, and of all.
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
    /// From the end of the outage until the last message is recorded that the outage delays, in microseconds. `None`: there is no outage.
    pub catch_up: Option<u64>,
    /// On one node.
    pub peak_bytes: u64,
    /// The part of the time in which the database was busy, from 0 to 1.
    pub utilisation: f64,
    /// The part of the capacity that the average rate needs. At 1 or more, the lag grows for as long as messages arrive.
    pub load: f64,
    /// What limits the capacity first.
    pub bottleneck: Bottleneck,
    /// The largest lag over time: when messages arrived and how late they were recorded, in microseconds.
    pub lags: Vec<(u64, u64)>,
}

/// What limits a setting first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bottleneck {
    Database,
    /// The writer of one node, while the database could do more.
    Node,
    /// One partition has most of what its node must write.
    HotPartition {
        partition: u32,
        /// Its part of all messages.
        share: f64,
    },
    /// The memory for messages is so small that batches are.
    Memory,
}

impl Figures {
    /// Runs a setting, and measures it.
    pub fn measure(trace: &Trace, setting: Setting, conditions: &Conditions) -> Self {
        let run_with = |conditions: &Conditions| run(trace, setting, conditions, Writing::Fitted);
        let ran = run_with(conditions);
        let catch_up = conditions.outage.map(|outage| {
            let without = run_with(&Conditions { outage: None, ..*conditions });
            catch_up(outage, &ran, &without)
        });
        let mut lags: Vec<u64> = lags(trace, &ran).map(|(_, lag)| lag).collect();
        lags.sort_unstable();
        let (load, bottleneck) = limits(trace, setting, conditions);
        let span = seconds(ran.ended.max(trace.end()).max(1));
        Self {
            setting,
            p50: percentile(&lags, 50),
            p99: percentile(&lags, 99),
            max: percentile(&lags, 100),
            catch_up,
            peak_bytes: ran.peak_bytes,
            utilisation: seconds(ran.busy) / (span * f64::from(setting.pool)),
            load,
            bottleneck,
            lags: over_time(trace, &ran),
        }
    }

    /// Whether messages arrive faster than they can be recorded, on average.
    pub fn is_unstable(&self) -> bool {
        self.load >= FULL
    }
}

/// Returns the arrival and the lag of each message, in microseconds.
fn lags<'a>(trace: &'a Trace, run: &'a Run) -> impl Iterator<Item = (u64, u64)> {
    trace.arrivals().iter().zip(&run.recorded_at).map(|(arrival, at)| (arrival.at, at.saturating_sub(arrival.at)))
}

/// Returns the value that this part of the values is not above, in percent.
pub fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// From the end of the outage until the last message that it delays is recorded.
fn catch_up(outage: Outage, ran: &Run, without: &Run) -> u64 {
    let delayed = ran.recorded_at.iter().zip(&without.recorded_at).filter(|(at, before)| **at > **before + DELAYED);
    delayed.map(|(at, _)| at.saturating_sub(outage.to)).max().unwrap_or_default()
}

/// Returns the largest lag of the messages of each part of the time.
fn over_time(trace: &Trace, run: &Run) -> Vec<(u64, u64)> {
    let width = trace.end() / POINTS as u64 + 1;
    let mut points: Vec<(u64, u64)> = Vec::with_capacity(POINTS);
    for (at, lag) in lags(trace, run) {
        match points.last_mut() {
            Some((last, largest)) if at / width == *last / width => {
                if lag > *largest {
                    (*last, *largest) = (at, lag);
                }
            }
            _ => points.push((at, lag)),
        }
    }
    points
}

/// Returns the part of the capacity that the average rate needs, and what limits the capacity.
fn limits(trace: &Trace, setting: Setting, conditions: &Conditions) -> (f64, Bottleneck) {
    let shares = Shares::of(trace, setting);
    let rate = trace.rate();
    let batch = Batch::of(trace, setting, conditions);
    let seconds_per_item = |items: usize| 1.0 / conditions.costs.capacity(items.max(1));
    // Each partition stores its position at most every so often, and not more often than messages come.
    let saves: f64 = shares.partitions.iter().map(|share| (share * rate).min(1.0 / SAVE_PERIOD.as_secs_f64())).sum();
    let saving = saves * conditions.costs.batch;
    let database = (rate * seconds_per_item(batch.items) + saving) / f64::from(setting.pool);
    let node = shares.busiest * rate * seconds_per_item(batch.items);
    let of_full_batches = rate * seconds_per_item(setting.batch as usize);
    let load = database.max(node);
    let bottleneck = if batch.is_limited && rate * seconds_per_item(batch.items) > 1.1 * of_full_batches {
        Bottleneck::Memory
    } else if database >= 0.95 * node {
        Bottleneck::Database
    } else if shares.hottest > 0.5 * shares.busiest {
        Bottleneck::HotPartition { partition: shares.hottest_partition, share: shares.hottest }
    } else {
        Bottleneck::Node
    };
    (load, bottleneck)
}

/// How the messages are spread.
struct Shares {
    /// The part of each partition.
    partitions: Vec<f64>,
    hottest: f64,
    hottest_partition: u32,
    /// The part of the busiest node.
    busiest: f64,
}

impl Shares {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn of(trace: &Trace, setting: Setting) -> Self {
        let mut counts = vec![0_u64; setting.partitions as usize];
        for arrival in trace.arrivals() {
            counts[partition(arrival.key, setting.partitions) as usize] += 1;
        }
        let all = trace.arrivals().len() as f64;
        let partitions: Vec<f64> = counts.iter().map(|count| *count as f64 / all).collect();
        let nodes = setting.nodes as usize;
        let of_node = |node| partitions.iter().skip(node).step_by(nodes).sum::<f64>();
        let busiest = (0..nodes).map(of_node).fold(0.0, f64::max);
        let (mut hottest, mut hottest_partition) = (0.0, 0);
        for (share, number) in partitions.iter().zip(0..) {
            if *share > hottest {
                (hottest, hottest_partition) = (*share, number);
            }
        }
        Self { partitions, hottest, hottest_partition, busiest }
    }
}

/// The largest batch that the memory allows.
struct Batch {
    items: usize,
    is_limited: bool,
}

impl Batch {
    fn of(trace: &Trace, setting: Setting, conditions: &Conditions) -> Self {
        let of_node = u64::from(setting.partitions.div_ceil(setting.nodes)).max(1);
        let bytes = OVERHEAD_BYTES as u64 + trace.mean_bytes();
        // One message more than fits is fetched before a partition is paused.
        let in_memory = conditions.buffer_bytes / of_node / bytes + 1;
        let together = in_memory.min(MAX_TAKEN as u64) * of_node;
        let (items, most) = (usize::try_from(together).unwrap_or(usize::MAX), setting.batch as usize);
        Self { items: items.min(most), is_limited: items < most }
    }
}

impl fmt::Display for Bottleneck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database => f.write_str("database"),
            Self::Node => f.write_str("the writer of a node"),
            Self::HotPartition { partition, share } => {
                write!(f, "partition {partition} ({:.0} % of the messages)", share * 100.0)
            }
            Self::Memory => f.write_str("memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Instant;
    use crate::ingest::simulation::costs::Costs;
    use crate::ingest::simulation::trace::Sent;

    const COSTS: Costs = Costs { batch: 0.001, item: 0.0005 };
    const CONDITIONS: Conditions = Conditions { costs: COSTS, buffer_bytes: 16 << 20, poison: 0.0, outage: None };
    const SETTING: Setting = Setting { partitions: 1, batch: 1_000, pool: 1, nodes: 1 };

    /// Messages at equal distances in microseconds, with these keys in turn.
    fn even(count: i64, gap: i64, bytes: u32, keys: &[u32]) -> Trace {
        let keys = keys.iter().copied().cycle();
        Trace::new((0..count).zip(keys).map(|(n, key)| Sent { at: Instant(n * gap), bytes, key: Some(key) }).collect())
            .unwrap()
    }

    /// After X seconds, λ X messages wait, and μ - λ of them are made up for in each second.
    #[test]
    fn catching_up_takes_as_long_as_the_rates_say() {
        let outage = Some(Outage { from: 5 * SECOND, to: 25 * SECOND });
        let trace = even(80_000, 1_000, 900, &[0]);
        let figures = Figures::measure(&trace, SETTING, &Conditions { outage, ..CONDITIONS });
        // A partition takes 1 024 messages: batches of 1, 1 000 and 23, and then its position.
        let rate = 1_024.0 / (0.5 * 1.024 + 4.0 * 0.001);
        let expected = 20.0 * 1_000.0 / (rate - 1_000.0);
        let told = seconds(figures.catch_up.unwrap());
        assert!((told / expected - 1.0).abs() < 0.02, "{told} {expected}");
        assert!(figures.max >= 20 * SECOND && figures.max < 21 * SECOND, "{}", figures.max);
        assert!(!figures.is_unstable());
        let without = Figures::measure(&trace, SETTING, &CONDITIONS);
        assert_eq!(without.catch_up, None);
        assert!(without.max < SECOND, "{}", without.max);
    }

    #[test]
    fn more_than_can_be_recorded_is_unstable() {
        let at_rate = |gap| Figures::measure(&even(20_000, gap, 900, &[0]), SETTING, &CONDITIONS);
        // The capacity is about 1 990 messages a second.
        let (stable, unstable) = (at_rate(600), at_rate(400));
        assert!(!stable.is_unstable() && unstable.is_unstable(), "{} {}", stable.load, unstable.load);
        assert!(unstable.load > 1.2 && unstable.load < 1.3, "{}", unstable.load);
        assert!(unstable.max > 10 * stable.max);
        assert!(unstable.utilisation > 0.98, "{}", unstable.utilisation);
        assert_eq!(unstable.bottleneck, Bottleneck::Database);
    }

    #[test]
    fn the_bottleneck_is_named() {
        let of = |setting, conditions, trace: &Trace| Figures::measure(trace, setting, &conditions).bottleneck;
        let wide = Setting { partitions: 4, batch: 256, pool: 4, nodes: 4 };
        let spread: Vec<u32> = (0..4).collect();
        let trace = even(4_000, 600, 900, &spread);
        assert_eq!(of(Setting { nodes: 1, ..wide }, CONDITIONS, &trace), Bottleneck::Node);
        assert_eq!(of(Setting { pool: 1, ..wide }, CONDITIONS, &trace), Bottleneck::Database);
        let skewed = even(4_000, 600, 900, &[2, 2, 2, 2, 2, 2, 0, 1, 3, 2]);
        let hot = of(wide, CONDITIONS, &skewed);
        assert!(matches!(hot, Bottleneck::HotPartition { partition: 2, share } if share > 0.69), "{hot:?}");
        let large = even(400, 6_000, 200_000, &spread);
        let small = Conditions { buffer_bytes: 1 << 20, costs: Costs { batch: 0.01, item: 0.0001 }, ..CONDITIONS };
        assert_eq!(of(Setting { nodes: 1, ..wide }, small, &large), Bottleneck::Memory);
    }

    #[test]
    fn the_lag_over_time_keeps_its_peaks() {
        let trace = even(20_000, 1_000, 900, &[0]);
        let figures = Figures::measure(&trace, SETTING, &CONDITIONS);
        assert!((190..=200).contains(&figures.lags.len()), "{}", figures.lags.len());
        assert_eq!(figures.lags.iter().map(|(_, lag)| *lag).max(), Some(figures.max));
        assert!(figures.lags.is_sorted_by_key(|(at, _)| *at));
        assert_eq!([1, 50, 99, 100].map(|percent| percentile(&[1, 2, 3, 4], percent)), [1, 2, 4, 4]);
        assert_eq!(percentile(&[], 50), 0);
    }
}
