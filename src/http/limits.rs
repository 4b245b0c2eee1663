//! What one caller may ask of the server: points a second, and a fair part of what runs and of what is followed at once.
//!
//! A caller that asks too much is told RATE_LIMITED, before others are told OVERLOADED because of it.

use crate::app::allowance::{Allowance, Allowances};
use crate::app::share::{Share, Shares};
use crate::app::viewer::{Viewer, Who};
use crate::config;

/// Of all callers of a node.
pub struct Limits {
    customers: Allowances,
    shops: Allowances,
    running: Shares,
    streams: Shares,
}

impl Limits {
    /// As configured.
    pub fn new(config: &config::Limits) -> Self {
        let allowances = |rate: &config::Rate| Allowances::new(rate.points_per_second, rate.burst_points);
        Self {
            customers: allowances(&config.customer),
            shops: allowances(&config.shop),
            running: Shares::new(config.concurrent_requests),
            streams: Shares::new(config.streams),
        }
    }

    /// The points of a caller.
    pub fn allowance(&self, viewer: &Viewer) -> Allowance {
        let allowances = match viewer {
            Viewer::Anonymous | Viewer::Customer(_) => &self.customers,
            Viewer::Storefront(_) | Viewer::Admin(_) => &self.shops,
        };
        allowances.of(viewer.who())
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
        self.customers.forget_idle();
        self.shops.forget_idle();
    }
}
