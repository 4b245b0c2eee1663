//! Traces that are made up: messages arrive at random, at a rate that changes as the pattern says. The same pattern always gives the same
//! trace.

use super::trace::{MAX_ARRIVALS, NoTrace, Sent, Trace, hash};
use super::{SECOND, chance, micros, seconds};
use crate::engine::time::Instant;

/// The number of parts of a pattern in which its rate is taken to be constant.
const PARTS: u32 = 10_000;
/// The maximum number of customers of a pattern.
pub const MAX_CUSTOMERS: u32 = 10_000_000;
const GAPS: u64 = 2;
const CUSTOMERS: u64 = 3;
const DAY: f64 = 86_400.0;

/// How the rate changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Not at all.
    Steady,
    /// It begins to rise after a fifth of the time, is at its peak within a hundredth, stays there for a tenth, and then falls by half
    /// in each further twentieth.
    FlashSale,
    /// It is at its peak every 24 hours, half a day after the beginning.
    Daily,
}

/// A made-up load.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    pub shape: Shape,
    /// The lowest rate, in messages a second.
    pub rate: f64,
    /// How many times the lowest rate the highest one is.
    pub peak: f64,
    /// In microseconds.
    pub length: u64,
    pub customers: u32,
    /// How unequal the customers are: the exponent of Zipf's law. 0: each sends as much as any other. With 1, the second sends half as
    /// much as the first, the third a third of it, and so on.
    pub skew: f64,
    /// The bytes of a message.
    pub bytes: u32,
}

impl Pattern {
    /// Makes the trace.
    pub fn trace(&self) -> Result<Trace, NoTrace> {
        let customers = Customers::new(self.customers.clamp(1, MAX_CUSTOMERS), self.skew);
        let mut sent = Vec::new();
        // Messages that come at random have gaps of this kind where the rate is 1. A part with a higher rate has as many more of them.
        let gap = |number: usize| -(1.0 - chance(GAPS, number as u64)).ln();
        let part = seconds(self.length) / f64::from(PARTS);
        let (mut due, mut passed) = (gap(0), 0.0);
        for number in 0..PARTS {
            let began = f64::from(number) * part;
            let rate = self.rate_at(began + part / 2.0);
            let expected = rate * part;
            while due < passed + expected {
                if sent.len() >= MAX_ARRIVALS {
                    return Err(NoTrace::TooMany);
                }
                let at = micros(began + (due - passed) / rate);
                let key = Some(customers.key(chance(CUSTOMERS, sent.len() as u64)));
                sent.push(Sent { at: Instant(i64::try_from(at).unwrap_or(i64::MAX)), bytes: self.bytes, key });
                due += gap(sent.len());
            }
            passed += expected;
        }
        Trace::new(sent)
    }

    /// The rate at a time in seconds, in messages a second.
    fn rate_at(&self, at: f64) -> f64 {
        let share = at / seconds(self.length.max(SECOND));
        let height = match self.shape {
            Shape::Steady => 0.0,
            Shape::FlashSale if share < 0.20 => 0.0,
            Shape::FlashSale if share < 0.21 => (share - 0.20) / 0.01,
            Shape::FlashSale if share < 0.31 => 1.0,
            Shape::FlashSale => 0.5_f64.powf((share - 0.31) / 0.05),
            Shape::Daily => (1.0 - (at / DAY * std::f64::consts::TAU).cos()) / 2.0,
        };
        self.rate * (1.0 + (self.peak - 1.0) * height)
    }
}

/// Customers by how much they send.
struct Customers {
    /// How much all customers up to each one send.
    sums: Vec<f64>,
}

impl Customers {
    fn new(count: u32, skew: f64) -> Self {
        let mut sum = 0.0;
        let share = |rank: u32| {
            sum += f64::from(rank).powf(-skew);
            sum
        };
        Self { sums: (1..=count).map(share).collect() }
    }

    /// Returns the hash of the key of a customer, for a number from 0 to almost 1.
    fn key(&self, chance: f64) -> u32 {
        let wanted = chance * self.sums.last().copied().unwrap_or_default();
        let rank = self.sums.partition_point(|sum| *sum <= wanted);
        hash(format!("customer-{rank}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn pattern(shape: Shape) -> Pattern {
        Pattern { shape, rate: 100.0, peak: 10.0, length: 100 * SECOND, customers: 50, skew: 0.0, bytes: 900 }
    }

    /// The number of messages in these seconds.
    fn count(trace: &Trace, from: u64, to: u64) -> usize {
        trace.arrivals().iter().filter(|it| (from * SECOND..to * SECOND).contains(&it.at)).count()
    }

    #[test]
    fn the_rate_follows_the_shape() {
        let steady = pattern(Shape::Steady).trace().unwrap();
        assert!((9_700..10_300).contains(&steady.arrivals().len()), "{}", steady.arrivals().len());
        let sale = pattern(Shape::FlashSale).trace().unwrap();
        assert!((900..1_100).contains(&count(&sale, 5, 15)), "before it: {}", count(&sale, 5, 15));
        assert!((8_700..9_300).contains(&count(&sale, 22, 31)), "its peak: {}", count(&sale, 22, 31));
        assert!((90..130).contains(&count(&sale, 98, 99)), "after it: {}", count(&sale, 98, 99));
        let day = Pattern { rate: 0.5, length: 2 * 86_400 * SECOND, ..pattern(Shape::Daily) }.trace().unwrap();
        let (night, noon) = (count(&day, 86_400 - 1_000, 86_400 + 1_000), count(&day, 42_200, 44_200));
        assert!((800..1_300).contains(&night) && (9_500..10_500).contains(&noon), "{night} {noon}");
    }

    #[test]
    fn the_same_pattern_gives_the_same_trace() {
        assert_eq!(pattern(Shape::FlashSale).trace(), pattern(Shape::FlashSale).trace());
        let too_many = Pattern { rate: 20_000.0, ..pattern(Shape::Steady) };
        assert_eq!(too_many.trace(), Err(NoTrace::TooMany));
    }

    #[test]
    fn customers_send_as_unequally_as_told() {
        let share_of_first = |skew: f64| {
            let trace = Pattern { skew, ..pattern(Shape::Steady) }.trace().unwrap();
            let mut counts: HashMap<u32, usize> = HashMap::new();
            trace.arrivals().iter().for_each(|it| *counts.entry(it.key).or_default() += 1);
            assert_eq!(counts.len(), 50);
            let most = u32::try_from(*counts.values().max().unwrap()).unwrap();
            f64::from(most) / f64::from(u32::try_from(trace.arrivals().len()).unwrap())
        };
        assert!(share_of_first(0.0) < 0.03);
        // The sum of 1/n for 50 customers is 4.5, so the first of them sends 22 %.
        assert!((0.20..0.25).contains(&share_of_first(1.0)), "{}", share_of_first(1.0));
    }
}
