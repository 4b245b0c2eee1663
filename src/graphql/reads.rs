//! What a request reads. It decides whether the response follows from the snapshot of one customer and the clock alone, so that
//! the same bytes can serve later requests (`http::graphql::answers`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_graphql::{Value, value};
use parking_lot::Mutex;

use crate::app::clock::Clock;
use crate::app::reading::snapshot::View;
use crate::engine::time::Instant;

/// The reads of one request. All clones share them.
#[derive(Clone, Default)]
pub struct Reads(Arc<State>);

#[derive(Default)]
struct State {
    /// The customers that were found in the cache or loaded into it.
    customers: Mutex<Vec<(String, View)>>,
    /// Something else was read, or may have been.
    others: AtomicBool,
    /// The current time of a query, once it was asked for.
    now: Mutex<Option<Instant>>,
    /// The current time is asked for again each time, as in a subscription.
    goes_on: bool,
    /// How many fields of the response are the current time.
    as_of: AtomicUsize,
}

/// The only source of a response, besides the clock.
pub struct Source {
    /// The external id of the customer.
    pub customer: String,
    pub view: View,
    /// The current time in the response.
    pub now: Instant,
    /// How many fields of the response are this time.
    pub as_of: usize,
}

impl Reads {
    /// The reads of a mutation or a subscription, during which time passes.
    pub(super) fn going_on() -> Self {
        Self(Arc::new(State { goes_on: true, ..State::default() }))
    }

    /// Notes that a customer was read.
    pub(super) fn note(&self, customer: &str, view: &View) {
        // What is shown of a customer holds after it was read.
        if self.0.now.lock().take().is_some() {
            self.note_other();
        }
        self.0.customers.lock().push((customer.to_owned(), view.clone()));
    }

    /// Notes a read of anything else.
    pub(super) fn note_other(&self) {
        self.0.others.store(true, Ordering::Relaxed);
    }

    /// Returns the current time. In a query, it is the same for everything that is shown of a customer.
    pub(super) fn now(&self, clock: &Clock) -> Instant {
        if self.0.goes_on {
            return clock.now();
        }
        *self.0.now.lock().get_or_insert_with(|| clock.now())
    }

    /// Notes that a field of the response is the current time.
    pub(super) fn note_as_of(&self) {
        self.0.as_of.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the only source of the response, or `None` if it has several or another one.
    pub fn source(&self, clock: &Clock) -> Option<Source> {
        let customers = self.0.customers.lock();
        let [(customer, view)] = customers.as_slice() else { return None };
        if self.0.goes_on || self.0.others.load(Ordering::Relaxed) {
            return None;
        }
        let as_of = self.0.as_of.load(Ordering::Relaxed);
        Some(Source { customer: customer.clone(), view: view.clone(), now: self.now(clock), as_of })
    }

    /// Returns where the customers were read, for the extensions of the response. `source` is `l1`, `l2` or `sql`. `ageMs` is the
    /// time since the version was looked up, in milliseconds.
    pub(super) fn tell(&self) -> Value {
        let read = |(customer, view): &(String, View)| {
            let age_ms = u64::try_from(view.at.elapsed().as_millis()).unwrap_or(u64::MAX);
            value!({
                "customer": customer.clone(),
                "version": view.snapshot.customer.version,
                "source": view.tier.as_str().to_owned(),
                "ageMs": age_ms,
            })
        };
        Value::List(self.0.customers.lock().iter().map(read).collect())
    }
}
