//! Limits per caller: points per second, and a fair share of the requests and subscriptions that run at a time.
//!
//! A caller that asks for too much is refused with RATE_LIMITED before it overloads the server, which would refuse other
//! callers with OVERLOADED.

use crate::app::allowance::{Allowance, Allowances};
use crate::app::share::{Share, Shares};
use crate::app::viewer::{Viewer, Who};
use crate::config;

/// The limits and the current use of all callers of a node.
pub struct Limits {
    customers: Allowances,
    shops: Allowances,
    running: Shares,
    streams: Shares,
}

impl Limits {
    pub fn new(config: &config::Limits) -> Self {
        let allowances = |rate: &config::Rate| Allowances::new(rate.points_per_second, rate.burst_points);
        Self {
            customers: allowances(&config.customer),
            shops: allowances(&config.shop),
            running: Shares::new(config.concurrent_requests),
            streams: Shares::new(config.streams),
        }
    }

    /// Returns the allowance of points of a caller.
    pub fn allowance(&self, viewer: &Viewer) -> Allowance {
        let allowances = match viewer {
            Viewer::Anonymous | Viewer::Customer(_) => &self.customers,
            Viewer::Storefront(_) | Viewer::Admin(_) => &self.shops,
        };
        allowances.of(viewer.who())
    }

    /// Takes a permit to run one request. Returns `None` if too many requests run, of all callers or of this one.
    pub fn turn(&self, who: &Who) -> Option<Share> {
        self.running.take(who, 1)
    }

    /// Whether [`Self::turn`] would return a permit now.
    pub fn has_turn(&self, who: &Who) -> bool {
        self.running.has_room(who, 1)
    }

    /// Takes a permit for one subscription. Returns `None` if too many subscriptions run, of all callers or of this one.
    pub fn stream(&self, who: &Who) -> Option<Share> {
        self.streams.take(who, 1)
    }

    /// Drops the records of callers that have all their points, to free memory.
    pub fn forget_idle(&self) {
        self.customers.forget_idle();
        self.shops.forget_idle();
    }
}
