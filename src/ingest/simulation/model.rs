//! Runs one setting: what the partitions, the writers of the nodes and the database do, event by event.
//!
//! The model does what the consumer (`src/ingest/kafka/consumer.rs`), a partition (`src/ingest/partition.rs`) and the recorder do:
//!
//! - A message is fetched as soon as it arrives, unless its partition is paused. A partition is paused when its messages in memory take
//!   more than its share, and goes on when half of the share is free.
//! - A partition takes what waits, up to `MAX_TAKEN` messages, and takes more when all of them are recorded. It stores its position every
//!   `SAVE_PERIOD` at most, and at once with dead letters.
//! - Each node has one writer, which takes what waits of all its partitions, in order, and writes one batch at a time. A writer that has
//!   nothing to do begins with the first message, while those after it are still parsed.
//! - The database works on a limited number of transactions at a time, in the order in which they come. Batches take what [`Costs`](super::costs::Costs) say.
//!   Storing a position takes as long as an empty batch, and each dead letter as long as an item.
//!
//! Left out is what takes milliseconds, or is rare: fetching, parsing, rebalances, what else the database does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::chance;
use super::setting::{Conditions, Setting};
use super::trace::{Arrival, Trace, partition};
use crate::app::message::OVERHEAD_BYTES;
use crate::ingest::partition::{MAX_BATCH as MAX_TAKEN, MAX_IN_MEMORY, SAVE_PERIOD};

const POISON: u64 = 4;

/// How long writing takes.
#[derive(Clone, Copy, Debug)]
pub enum Writing<'a> {
    /// As the costs of the conditions say.
    Fitted,
    /// As it was recorded from a real run: the time of each message, in microseconds. A batch takes the sum.
    Recorded(&'a [u64]),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// When each message was recorded, or kept as a dead letter, in microseconds since the beginning of the trace.
    pub recorded_at: Vec<u64>,
    /// The most memory that messages took on a node.
    pub peak_bytes: u64,
    /// How long the database was busy, in microseconds, added up over the transactions at a time.
    pub busy: u64,
    /// When the last transaction ended.
    pub ended: u64,
}

/// Runs a setting.
pub fn run(trace: &Trace, setting: Setting, conditions: &Conditions, writing: Writing<'_>) -> Run {
    let mut model = Model::new(trace.arrivals(), setting, conditions, writing);
    model.run();
    model.run
}

/// An event that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A batch of this node is committed.
    Written(usize),
    /// The position of this partition is stored.
    Saved(usize),
    /// The position of this partition is due to be stored.
    SaveDue(usize),
    /// The outage is over.
    Over,
}

/// A transaction.
#[derive(Clone, Copy, Debug)]
enum Job {
    Batch { node: usize, micros: u64 },
    Save { partition: usize, micros: u64 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Task {
    #[default]
    Idle,
    /// So many of the messages that it took are not recorded yet.
    Recording {
        left: usize,
    },
    Saving,
}

#[derive(Debug, Default)]
struct Partition {
    node: usize,
    /// Messages that wait in the topic, and those in memory that are not taken.
    in_topic: VecDeque<usize>,
    fetched: VecDeque<usize>,
    /// What is in memory, with what is taken.
    messages: usize,
    bytes: u64,
    is_paused: bool,
    task: Task,
    /// The messages that the task has taken, and those of them that become dead letters.
    taken: Vec<usize>,
    dead: Vec<usize>,
    saved_at: u64,
    is_unsaved: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// What waits to be written, in order.
    queue: VecDeque<usize>,
    batch: Vec<usize>,
    is_writing: bool,
    /// Whether nothing has waited since the last batch.
    is_idle: bool,
    bytes: u64,
    /// The share of each partition in the memory.
    share: u64,
}

struct Model<'a> {
    arrivals: &'a [Arrival],
    setting: Setting,
    conditions: &'a Conditions,
    writing: Writing<'a>,
    now: u64,
    arrived: usize,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    /// Transactions that wait for the database, and how many it works on.
    jobs: VecDeque<Job>,
    open: u32,
    partitions: Vec<Partition>,
    nodes: Vec<Node>,
    run: Run,
}

impl<'a> Model<'a> {
    fn new(arrivals: &'a [Arrival], setting: Setting, conditions: &'a Conditions, writing: Writing<'a>) -> Self {
        let (count, nodes) = (setting.partitions.max(1) as usize, setting.nodes.max(1) as usize);
        let partition = |index: usize| Partition { node: index % nodes, ..Partition::default() };
        let share = |node: usize| {
            let own = (0..count).filter(|index| index % nodes == node).count();
            conditions.buffer_bytes / (own as u64).max(1)
        };
        Self {
            arrivals,
            setting,
            conditions,
            writing,
            now: 0,
            arrived: 0,
            events: BinaryHeap::new(),
            scheduled: 0,
            jobs: VecDeque::new(),
            open: 0,
            partitions: (0..count).map(partition).collect(),
            nodes: (0..nodes).map(|node| Node { share: share(node), is_idle: true, ..Node::default() }).collect(),
            run: Run { recorded_at: vec![0; arrivals.len()], peak_bytes: 0, busy: 0, ended: 0 },
        }
    }

    fn run(&mut self) {
        if let Some(outage) = self.conditions.outage {
            self.schedule(outage.to, Event::Over);
        }
        loop {
            let arrival = self.arrivals.get(self.arrived).map(|arrival| arrival.at);
            let due = self.events.peek().map(|Reverse((at, ..))| *at);
            match (arrival, due) {
                (Some(at), due) if due.is_none_or(|due| at <= due) => {
                    self.now = at;
                    self.arrive();
                }
                (_, Some(_)) => {
                    let Some(Reverse((at, _, event))) = self.events.pop() else { return };
                    self.now = at;
                    self.handle(event);
                }
                _ => return,
            }
            self.work();
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((at, self.scheduled, event)));
    }

    fn is_out(&self) -> bool {
        self.conditions.outage.is_some_and(|outage| (outage.from..outage.to).contains(&self.now))
    }

    /// Takes in the next message, and all others of the same instant.
    fn arrive(&mut self) {
        while let Some(arrival) = self.arrivals.get(self.arrived).filter(|arrival| arrival.at == self.now) {
            let index = partition(arrival.key, self.setting.partitions) as usize;
            self.partitions[index].in_topic.push_back(self.arrived);
            self.arrived += 1;
            self.fetch(index);
            self.take(index);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Written(node) => self.finish_batch(node),
            Event::Saved(index) => self.finish_save(index),
            Event::SaveDue(index) => {
                let partition = &self.partitions[index];
                let is_due = self.now >= partition.saved_at + save_period();
                if partition.task == Task::Idle && partition.is_unsaved && is_due {
                    self.save(index);
                }
            }
            Event::Over => {}
        }
    }

    /// Fetches what waits in the topic, until the partition has used its share.
    fn fetch(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        let node = &mut self.nodes[partition.node];
        let is_low = partition.bytes <= node.share / 2 && partition.messages <= MAX_IN_MEMORY / 2;
        partition.is_paused &= !is_low;
        while !partition.is_paused
            && let Some(message) = partition.in_topic.pop_front()
        {
            let bytes = memory(&self.arrivals[message]);
            partition.fetched.push_back(message);
            partition.messages += 1;
            partition.bytes += bytes;
            node.bytes += bytes;
            partition.is_paused = partition.bytes > node.share || partition.messages > MAX_IN_MEMORY;
        }
        self.run.peak_bytes = self.run.peak_bytes.max(node.bytes);
    }

    /// Lets a partition that has nothing to do take what waits.
    fn take(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        if partition.task != Task::Idle || partition.fetched.is_empty() {
            return;
        }
        let most = partition.fetched.len().min(MAX_TAKEN);
        partition.taken = partition.fetched.drain(..most).collect();
        let is_poison = |message: &usize| chance(POISON, *message as u64) < self.conditions.poison;
        let (dead, good): (Vec<usize>, Vec<usize>) = partition.taken.iter().partition(|message| is_poison(message));
        partition.dead = dead;
        partition.task = Task::Recording { left: good.len() };
        if good.is_empty() {
            self.finish_taken(index);
        } else {
            let node = partition.node;
            self.nodes[node].queue.extend(good);
        }
    }

    /// All messages that the partition took are recorded, or wait to be kept as dead letters.
    fn finish_taken(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        let bytes: u64 = partition.taken.iter().map(|message| memory(&self.arrivals[*message])).sum();
        partition.messages -= partition.taken.len();
        partition.bytes -= bytes;
        self.nodes[partition.node].bytes -= bytes;
        partition.taken.clear();
        partition.is_unsaved = true;
        partition.task = Task::Idle;
        let is_due = !partition.dead.is_empty() || self.now >= partition.saved_at + save_period();
        self.fetch(index);
        if is_due {
            self.save(index);
        } else {
            let at = self.partitions[index].saved_at + save_period();
            self.schedule(at, Event::SaveDue(index));
            self.take(index);
        }
    }

    fn save(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        partition.task = Task::Saving;
        partition.is_unsaved = false;
        let micros = self.conditions.costs.of(partition.dead.len());
        self.jobs.push_back(Job::Save { partition: index, micros });
    }

    fn finish_save(&mut self, index: usize) {
        self.open -= 1;
        let partition = &mut self.partitions[index];
        partition.saved_at = self.now;
        partition.task = Task::Idle;
        for message in partition.dead.drain(..) {
            self.run.recorded_at[message] = self.now;
        }
        self.take(index);
    }

    fn finish_batch(&mut self, node: usize) {
        self.open -= 1;
        let writer = &mut self.nodes[node];
        (writer.is_writing, writer.is_idle) = (false, writer.queue.is_empty());
        for message in std::mem::take(&mut self.nodes[node].batch) {
            self.run.recorded_at[message] = self.now;
            let index = partition(self.arrivals[message].key, self.setting.partitions) as usize;
            if let Task::Recording { left } = &mut self.partitions[index].task {
                *left -= 1;
                if *left == 0 {
                    self.finish_taken(index);
                }
            }
        }
    }

    /// Lets writers that are free take a batch, and the database begin what waits for it.
    fn work(&mut self) {
        if self.is_out() {
            return;
        }
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_writing && !self.nodes[node].queue.is_empty() {
                self.begin_batch(node);
            }
        }
        while self.open < self.setting.pool
            && let Some(job) = self.jobs.pop_front()
        {
            self.open += 1;
            let (micros, event) = match job {
                Job::Batch { node, micros } => (micros, Event::Written(node)),
                Job::Save { partition, micros } => (micros, Event::Saved(partition)),
            };
            self.run.busy += micros;
            self.run.ended = self.run.ended.max(self.now + micros);
            self.schedule(self.now + micros, event);
        }
    }

    fn begin_batch(&mut self, node: usize) {
        let waiting = &mut self.nodes[node];
        let most = if waiting.is_idle { 1 } else { self.setting.batch as usize };
        let items = waiting.queue.len().min(most);
        waiting.batch = waiting.queue.drain(..items).collect();
        waiting.is_writing = true;
        let micros = match self.writing {
            Writing::Fitted => self.conditions.costs.of(items),
            Writing::Recorded(parts) => waiting.batch.iter().filter_map(|message| parts.get(*message)).sum(),
        };
        self.jobs.push_back(Job::Batch { node, micros });
    }
}

/// The memory that a message takes.
fn memory(arrival: &Arrival) -> u64 {
    OVERHEAD_BYTES as u64 + u64::from(arrival.bytes)
}

/// In microseconds.
fn save_period() -> u64 {
    u64::try_from(SAVE_PERIOD.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::time::Instant;
    use crate::ingest::simulation::SECOND;
    use crate::ingest::simulation::costs::Costs;
    use crate::ingest::simulation::pattern::{Pattern, Shape};
    use crate::ingest::simulation::setting::Outage;
    use crate::ingest::simulation::trace::Sent;

    const MILLI: u64 = 1_000;
    const CONDITIONS: Conditions =
        Conditions { costs: Costs { batch: 0.002, item: 0.001 }, buffer_bytes: 16 << 20, poison: 0.0, outage: None };

    fn setting(partitions: u32) -> Setting {
        Setting { partitions, batch: 256, pool: 1, nodes: 1 }
    }

    /// Messages of one key, at equal distances in microseconds.
    fn even(count: i64, gap: i64, bytes: u32) -> Trace {
        Trace::new((0..count).map(|n| Sent { at: Instant(n * gap), bytes, key: Some(7) }).collect()).unwrap()
    }

    fn sale() -> Trace {
        let pattern = Pattern {
            shape: Shape::FlashSale,
            rate: 40.0,
            peak: 50.0,
            length: 60 * SECOND,
            customers: 500,
            skew: 0.7,
            bytes: 900,
        };
        pattern.trace().unwrap()
    }

    #[test]
    fn each_message_is_recorded_once_and_in_the_order_of_its_partition() {
        let trace = sale();
        let outage = Some(Outage { from: 10 * SECOND, to: 25 * SECOND });
        for (partitions, nodes, pool, conditions) in [
            (1, 1, 1, CONDITIONS),
            (12, 3, 2, CONDITIONS),
            (7, 2, 1, Conditions { outage, ..CONDITIONS }),
            (5, 9, 3, Conditions { buffer_bytes: 1 << 20, ..CONDITIONS }),
        ] {
            let setting = Setting { partitions, batch: 100, pool, nodes };
            let ran = run(&trace, setting, &conditions, Writing::Fitted);
            let mut last = vec![0; partitions as usize];
            for (arrival, at) in trace.arrivals().iter().zip(&ran.recorded_at) {
                assert!(*at > arrival.at, "{setting}: recorded after it arrived");
                let last = &mut last[partition(arrival.key, partitions) as usize];
                assert!(at >= last, "{setting}: in order");
                *last = *at;
            }
            let outage = conditions.outage.map_or(0..0, |it| it.from + 300 * MILLI..it.to);
            assert!(ran.recorded_at.iter().all(|at| !outage.contains(at)), "nothing during the outage");
        }
    }

    /// A message that comes alone takes the time of a batch of one. The position is stored after that.
    #[test]
    fn messages_that_come_alone_take_as_long_as_a_batch_of_one() {
        let trace = even(1_000, 10_000, 900);
        let ran = run(&trace, setting(1), &CONDITIONS, Writing::Fitted);
        let mut lags: Vec<u64> = trace.arrivals().iter().zip(&ran.recorded_at).map(|(it, at)| at - it.at).collect();
        lags.sort_unstable();
        // Once in 200 ms, a position may be stored just when a message comes: for 2 ms.
        assert_eq!((lags[0], lags[900]), (3 * MILLI, 3 * MILLI));
        assert!(lags[999] <= 5 * MILLI, "{lags:?}");
        assert_eq!(ran.peak_bytes, 900 + OVERHEAD_BYTES as u64);
    }

    /// A partition takes n messages, of which one is written alone, and the others in another batch. With λ messages a second, that is
    /// n = λ (2 a + b n).
    #[test]
    fn batches_grow_with_the_load_until_they_suffice() {
        let costs = Costs { batch: 0.010, item: 0.0005 };
        let trace = even(20_000, 1_000, 900);
        let ran = run(&trace, setting(1), &Conditions { costs, ..CONDITIONS }, Writing::Fitted);
        let lags: Vec<u64> = trace.arrivals().iter().zip(&ran.recorded_at).map(|(it, at)| at - it.at).collect();
        // n = 40, which takes 40 ms. A message waits for half of that on average, and is recorded 40 ms later. Storing a position makes
        // some wait for 10 ms more.
        let mean = lags.iter().sum::<u64>() / lags.len() as u64;
        assert!((58 * MILLI..70 * MILLI).contains(&mean), "{mean}");
        assert!(lags.iter().all(|lag| *lag < 110 * MILLI), "{:?}", lags.iter().max());
    }

    #[test]
    fn memory_is_bounded_however_much_waits() {
        let outage = Some(Outage { from: SECOND, to: 20 * SECOND });
        let conditions = Conditions { buffer_bytes: 1 << 20, outage, ..CONDITIONS };
        let trace = even(30_000, 1_000, 5_000);
        let ran = run(&trace, setting(1), &conditions, Writing::Fitted);
        let one = 5_000 + OVERHEAD_BYTES as u64;
        assert!((1 << 20..=(1 << 20) + one).contains(&ran.peak_bytes), "{}", ran.peak_bytes);
        // Small messages are bounded by their number.
        let conditions = Conditions { buffer_bytes: 16 << 20, ..conditions };
        let ran = run(&even(30_000, 1_000, 1), setting(1), &conditions, Writing::Fitted);
        assert_eq!(ran.peak_bytes, (MAX_IN_MEMORY as u64 + 1) * (1 + OVERHEAD_BYTES as u64));
    }

    #[test]
    fn more_partitions_and_lower_costs_do_not_make_it_slower() {
        let trace = sale();
        let p99 = |partitions, nodes, scale: f64| {
            let Costs { batch, item } = CONDITIONS.costs;
            let costs = Costs { batch: batch * scale, item: item * scale };
            let setting = Setting { partitions, batch: 256, pool: nodes, nodes };
            let ran = run(&trace, setting, &Conditions { costs, ..CONDITIONS }, Writing::Fitted);
            let mut lags: Vec<u64> = trace.arrivals().iter().zip(&ran.recorded_at).map(|(it, at)| at - it.at).collect();
            lags.sort_unstable();
            lags[lags.len() * 99 / 100]
        };
        let by_cost: Vec<u64> = [1.0, 0.8, 0.6, 0.4, 0.2].map(|scale| p99(4, 1, scale)).to_vec();
        assert!(by_cost.is_sorted_by(|one, other| one > other), "{by_cost:?}");
        // Each partition of its own node.
        let by_partitions: Vec<u64> = [1, 2, 4, 8].map(|count| p99(count, count, 1.0)).to_vec();
        assert!(by_partitions.is_sorted_by(|one, other| one >= other), "{by_partitions:?}");
        assert!(by_partitions[0] > 4 * by_partitions[3], "{by_partitions:?}");
        // On one node, more partitions only store more positions.
        let (few, many) = (p99(2, 1, 1.0), p99(8, 1, 1.0));
        assert!(many < few + few / 10, "{few} {many}");
    }

    #[test]
    fn dead_letters_are_kept_and_cost_time() {
        let trace = even(5_000, 1_000, 900);
        let costs = Costs { batch: 0.002, item: 0.0005 };
        let ran = |poison| run(&trace, setting(1), &Conditions { costs, poison, ..CONDITIONS }, Writing::Fitted);
        let (without, with) = (ran(0.0), ran(0.1));
        assert!(with.recorded_at.iter().zip(trace.arrivals()).all(|(at, arrival)| *at > arrival.at));
        // With a dead letter, the position is stored at once, for which the partition waits.
        let lag = |ran: &Run| ran.recorded_at.iter().zip(trace.arrivals()).map(|(at, it)| at - it.at).sum::<u64>();
        assert!(lag(&with) > lag(&without) + lag(&without) / 10, "{} {}", lag(&with), lag(&without));
    }

    #[test]
    fn recorded_times_are_replayed() {
        let trace = even(4, 1, 900);
        let ran = run(&trace, setting(1), &CONDITIONS, Writing::Recorded(&[10, 20, 30, 40]));
        // The first message came alone. Of those that came in the meantime, the first is written alone, and the others together.
        assert_eq!(ran.recorded_at, [10, 30, 100, 100]);
    }
}
