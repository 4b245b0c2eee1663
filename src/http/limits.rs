//! What one caller may ask of the server: points a second, and a fair part of what runs and of what is followed at once.
//!
//! A caller that asks too much is told RATE_LIMITED, before others are told OVERLOADED because of it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::app::share::{Share, Shares};
use crate::app::viewer::{Viewer, Who};
use crate::config;

/// Of all callers of a node.
pub struct Limits {
    customers: DefaultKeyedRateLimiter<Who>,
    shops: DefaultKeyedRateLimiter<Who>,
    running: Shares,
    streams: Shares,
    clock: DefaultClock,
}

/// Too much was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// After which the same can be asked again.
    pub retry_after_seconds: u64,
}

impl Limits {
    /// As configured.
    pub fn new(config: &config::Limits) -> Self {
        let limiter = |rate: &config::Rate| {
            RateLimiter::keyed(Quota::per_second(rate.points_per_second).allow_burst(rate.burst_points))
        };
        Self {
            customers: limiter(&config.customer),
            shops: limiter(&config.shop),
            running: Shares::new(config.concurrent_requests),
            streams: Shares::new(config.streams),
            clock: DefaultClock::default(),
        }
    }

    /// Takes points from what the caller has left.
    pub fn charge(&self, viewer: &Viewer, who: &Who, points: u32) -> Result<(), Limited> {
        let limiter = match viewer {
            Viewer::Anonymous | Viewer::Customer(_) => &self.customers,
            Viewer::Storefront(_) | Viewer::Admin(_) => &self.shops,
        };
        let Some(points) = NonZeroU32::new(points) else { return Ok(()) };
        match limiter.check_key_n(who, points) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.clock.now());
                Err(Limited { retry_after_seconds: (wait + Duration::from_millis(999)).as_secs().max(1) })
            }
            // The configuration sees to it that every operation that the gate admits fits.
            Err(_) => Err(Limited { retry_after_seconds: 1 }),
        }
    }

    /// The right to run one request; none: too many run, or too many of this caller's.
    pub fn turn(&self, who: &Who) -> Option<Share> {
        self.running.take(who, 1)
    }

    /// The right to follow one thing; none: too many are followed, or too many by this caller.
    pub fn stream(&self, who: &Who) -> Option<Share> {
        self.streams.take(who, 1)
    }

    /// Forgets callers that have all their points again.
    pub fn forget_idle(&self) {
        for limiter in [&self.customers, &self.shops] {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}
