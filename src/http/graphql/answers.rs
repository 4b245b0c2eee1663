//! Whole answers: the bytes of responses that follow from the snapshot of one customer and the clock alone.
//!
//! An answer never changes. It is kept by everything that it depends on except for the state of the customer: by the caller and
//! by the bytes of the request. It serves a request only after a look-up has found the customer at the version of the answer, so a
//! response from here is as current as any other, and only until the instant at which the clock changes it. The current time
//! (`asOf`) is written into the bytes.
//!
//! Each time a response is computed that is kept already, the two are compared. A share of the requests is computed for that
//! purpose ([`HITS_PER_CHECK`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::executor::Prepared;
use crate::app::App;
use crate::app::reading::progress::holds_until;
use crate::app::reading::snapshot::Current;
use crate::app::viewer::Viewer;
use crate::engine::time::Instant;
use crate::gate::Plan;
use crate::graphql::reads::Source;
use crate::metrics;

/// The largest answer that is kept, in bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The memory of an answer in addition to its bytes and to the name of its customer: its fields, its slot, and what the allocator
/// rounds up.
const ANSWER_BYTES: usize = 400;
/// The estimated size of an answer.
const MEAN_BYTES: u64 = 1024;
/// One out of this many requests that an answer could serve is computed nevertheless, to compare the two.
const HITS_PER_CHECK: u64 = 1_000;

/// Identifies the caller and the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question([u8; 32]);

impl Question {
    /// The question of a POST with this body. The caller decides what it may see, so it is a part of the question.
    pub(super) fn new(viewer: &Viewer, body: &[u8]) -> Option<Self> {
        let (role, subject) = match viewer {
            Viewer::Anonymous => return None,
            Viewer::Customer(subject) => (0, subject),
            Viewer::Storefront(subject) => (1, subject),
            Viewer::Admin(subject) => (2, subject),
        };
        let mut hash = Sha256::new();
        hash.update([role]);
        hash.update(subject.len().to_be_bytes());
        hash.update(subject.as_bytes());
        hash.update(body);
        Some(Self(hash.finalize().into()))
    }
}

/// The body of a response that can be sent again.
pub(super) struct Answer {
    /// The external id of the customer.
    customer: String,
    /// The state of the customer and of the campaigns that the answer follows from.
    state: Current,
    /// The answer holds from this instant on.
    from: Instant,
    /// The answer does not hold from this instant on.
    until: Instant,
    bytes: Bytes,
    /// Where the current time is in `bytes`, and how long it is there.
    as_of: Vec<usize>,
    as_of_bytes: usize,
    pub(super) plan: Arc<Plan<Prepared>>,
    /// The points of the response.
    pub(super) points: u32,
}

/// The answers that are kept, in bounded memory.
pub(super) struct Answers {
    kept: Cache<Question, Arc<Answer>, Weight>,
    hits: AtomicU64,
}

impl Answers {
    /// Creates a store that takes at most `bytes` of memory.
    pub(super) fn new(bytes: u64) -> Self {
        let estimated = usize::try_from(bytes / MEAN_BYTES).unwrap_or(usize::MAX);
        Self { kept: Cache::with_weighter(estimated, bytes, Weight), hits: AtomicU64::new(0) }
    }

    /// Returns the answer to the question, which need not hold any more.
    pub(super) fn find(&self, question: &Question) -> Option<Arc<Answer>> {
        self.kept.get(question)
    }

    /// Keeps the body of a response if it can be sent again.
    pub(super) fn keep(
        &self,
        question: Question,
        plan: &Arc<Plan<Prepared>>,
        points: u32,
        source: Source,
        body: &Bytes,
    ) {
        let Some(answer) = Answer::new(plan, points, source, body) else { return };
        if let Some(kept) = self.kept.get(&question) {
            kept.compare(&answer);
        }
        self.kept.insert(question, Arc::new(answer));
    }

    /// Returns the body that the answer gives now. Returns `None` if it does not hold now, or if the response is to be computed
    /// for a comparison. Looks the customer up.
    pub(super) async fn serve(&self, app: &App, answer: &Answer) -> Option<Bytes> {
        // If the look-up fails, the computation of the response fails too, and reports the error.
        let current = app.snapshots().current(&answer.customer).await.ok()??;
        let now = app.clock.now();
        if current != answer.state || !(answer.from..answer.until).contains(&now) {
            return None;
        }
        if (self.hits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(HITS_PER_CHECK) {
            return None;
        }
        ::metrics::counter!(metrics::CACHE_READS, "tier" => "l1").increment(1);
        Some(answer.at(now))
    }
}

/// Weighs an answer.
#[derive(Clone)]
struct Weight;

impl Weighter<Question, Arc<Answer>> for Weight {
    fn weight(&self, _: &Question, answer: &Arc<Answer>) -> u64 {
        answer.weight() as u64
    }
}

impl Answer {
    /// Returns `None` if the response cannot be sent again.
    fn new(plan: &Arc<Plan<Prepared>>, points: u32, source: Source, body: &Bytes) -> Option<Self> {
        let Source { customer, view, now, as_of } = source;
        let until = holds_until(&view, now)?;
        let written = now.to_string();
        let text = std::str::from_utf8(body).ok().filter(|text| text.len() <= MAX_ANSWER_BYTES)?;
        let found: Vec<usize> = text.match_indices(&written).map(|(at, _)| at).collect();
        // Another field may happen to be the same instant.
        (found.len() == as_of).then(|| Self {
            customer,
            state: view.state(),
            from: now,
            until,
            bytes: body.clone(),
            as_of: found,
            as_of_bytes: written.len(),
            plan: Arc::clone(plan),
            points,
        })
    }

    /// Returns the body with another current time.
    fn at(&self, now: Instant) -> Bytes {
        if self.as_of.is_empty() {
            return self.bytes.clone();
        }
        let written = now.to_string();
        let mut bytes = Vec::with_capacity(self.bytes.len() + self.as_of.len() * written.len());
        let mut copied = 0;
        for at in &self.as_of {
            bytes.extend_from_slice(&self.bytes[copied..*at]);
            bytes.extend_from_slice(written.as_bytes());
            copied = at + self.as_of_bytes;
        }
        bytes.extend_from_slice(&self.bytes[copied..]);
        bytes.into()
    }

    /// Compares this answer with a later computation.
    fn compare(&self, computed: &Self) {
        if self.state != computed.state || !(self.from..self.until).contains(&computed.from) {
            return;
        }
        ::metrics::counter!(metrics::CACHE_DRIFT_CHECKS).increment(1);
        if self.at(computed.from) != computed.bytes {
            ::metrics::counter!(metrics::CACHE_DRIFT).increment(1);
            tracing::error!(customer = self.customer, "a kept response differs from the computed one");
        }
    }

    fn weight(&self) -> usize {
        ANSWER_BYTES + self.bytes.len() + self.customer.len() + self.as_of.len() * size_of::<usize>()
    }
}
