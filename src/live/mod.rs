//! The subscriptions of this node and the wake-ups of their subscribers. This module knows versions and the news that
//! come with them, but no rules.
//!
//! A topic stores a mark instead of a queue: the latest version that was announced, with its news. So the memory of a
//! topic does not depend on how slow its subscribers are. A repeated or late wake-up changes nothing. A lost or wrong
//! wake-up costs only time: if the news does not continue the state of a subscriber, the subscriber reads the rest from
//! the database. A subscriber registers before its first read, so it misses no commit in between.

pub mod hints;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant as Monotonic;

/// The topics of this process, by name. Clones share them.
pub struct Hub<T> {
    topics: Arc<Mutex<Topics<T>>>,
}

/// The topics that have subscribers. A topic without subscribers stays until the next call of [`Hub::topics`].
type Topics<T> = HashMap<String, Arc<Topic<T>>>;

/// A topic. `tokio::sync::watch` does the same, but takes 392 bytes in place of 112, and most topics have one subscriber.
struct Topic<T> {
    latest: Mutex<Latest<T>>,
    /// Notified after each change of `latest` that wakes the subscribers.
    changed: Notify,
}

struct Latest<T> {
    mark: Mark<T>,
    /// The number of changes that woke the subscribers.
    changes: u64,
}

/// The latest announcement about a topic.
pub struct Mark<T> {
    /// The announced version. It may be wrong, because hints may be wrong.
    pub version: i64,
    /// The stamp of the version, if the version was looked up in the database. `None` if the version is only known from a
    /// wake-up.
    pub stamp: Option<i64>,
    /// What changed with this version, if the wake-up contained it.
    pub news: Option<Arc<T>>,
    /// When the version was announced.
    pub at: Monotonic,
}

impl<T> Mark<T> {
    fn new(version: i64, stamp: Option<i64>, news: Option<T>) -> Self {
        Self { version, stamp, news: news.map(Arc::new), at: Monotonic::now() }
    }
}

/// Receives the marks of one topic until it is dropped.
pub struct Subscription<T> {
    topic: Arc<Topic<T>>,
    /// The value of [`Latest::changes`] when a mark was last returned.
    seen: u64,
}

impl<T> Topic<T> {
    fn new() -> Self {
        let latest = Latest { mark: Mark::new(0, None, None), changes: 0 };
        Self { latest: Mutex::new(latest), changed: Notify::new() }
    }

    /// Returns the number of subscriptions. The hub itself holds the topic once.
    fn subscribers(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }
}

impl<T> Default for Hub<T> {
    fn default() -> Self {
        Self { topics: Arc::default() }
    }
}

impl<T> Clone for Hub<T> {
    fn clone(&self) -> Self {
        Self { topics: Arc::clone(&self.topics) }
    }
}

impl<T> Hub<T> {
    /// Subscribes to a topic. The subscription sees every later wake-up.
    pub fn subscribe(&self, topic: &str) -> Subscription<T> {
        let mut topics = self.topics.lock();
        let topic = Arc::clone(topics.entry(topic.to_owned()).or_insert_with(|| Arc::new(Topic::new())));
        let seen = topic.latest.lock().changes;
        Subscription { topic, seen }
    }

    /// Wakes the subscribers of a topic, unless this version has been announced already. A lower version wakes the
    /// subscribers but does not change the mark: either the lower version is late, or the higher version was wrong.
    /// `news` is called only if the topic exists and the version is higher.
    pub fn wake(&self, topic: &str, version: i64, news: impl FnOnce() -> Option<T>) {
        self.mark(topic, |mark| {
            if version > mark.version {
                *mark = Mark::new(version, None, news());
                return true;
            }
            version < mark.version
        });
    }

    /// Like [`Self::wake`], but the version and its stamp were just looked up in the database. So a lower version
    /// replaces the mark, too.
    pub fn found(&self, topic: &str, version: i64, stamp: i64) {
        self.mark(topic, |mark| {
            match version.cmp(&mark.version) {
                Ordering::Greater => *mark = Mark::new(version, Some(stamp), None),
                // The higher version was committed after the look-up, or is wrong, or was undone by a restore. The stamp
                // cannot tell these cases apart, so it is not stored.
                Ordering::Less => *mark = Mark::new(version, None, None),
                Ordering::Equal if mark.stamp == Some(stamp) => return false,
                Ordering::Equal => {
                    // A stamp that replaces another one is an announcement of its own. A first stamp only confirms the
                    // wake-up.
                    if mark.stamp.replace(stamp).is_some() {
                        mark.at = Monotonic::now();
                    }
                }
            }
            true
        });
    }

    /// Changes the mark of a topic. `change` returns whether subscribers must be woken.
    fn mark(&self, topic: &str, change: impl FnOnce(&mut Mark<T>) -> bool) {
        let topics = self.topics.lock();
        let Some(topic) = topics.get(topic) else { return };
        let mut latest = topic.latest.lock();
        if change(&mut latest.mark) {
            latest.changes += 1;
            topic.changed.notify_waiters();
        }
    }

    /// Returns the number of subscriptions to all topics.
    pub fn subscribers(&self) -> usize {
        self.topics.lock().values().map(Topic::subscribers).sum()
    }

    /// Returns the topics that have subscribers, and removes the others.
    pub fn topics(&self) -> Vec<String> {
        let mut topics = self.topics.lock();
        topics.retain(|_, topic| topic.subscribers() > 0);
        topics.keys().cloned().collect()
    }
}

impl<T> Subscription<T> {
    /// Waits for the next change and returns the latest mark. Marks that were replaced in the meantime are skipped.
    pub async fn next(&mut self) -> Mark<T> {
        loop {
            // Created before the look at the mark, so that no change between the look and the wait is missed.
            let changed = self.topic.changed.notified();
            if let Some(mark) = Self::take(&self.topic, &mut self.seen) {
                return mark;
            }
            changed.await;
        }
    }

    /// Returns the latest mark if it has changed.
    fn take(topic: &Topic<T>, seen: &mut u64) -> Option<Mark<T>> {
        let latest = topic.latest.lock();
        if std::mem::replace(seen, latest.changes) == latest.changes {
            return None;
        }
        let Mark { version, stamp, ref news, at } = latest.mark;
        Some(Mark { version, stamp, news: news.clone(), at })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn seen(subscription: &mut Subscription<&'static str>) -> (i64, Option<&'static str>) {
        let mark = subscription.next().await;
        (mark.version, mark.news.as_deref().copied())
    }

    #[tokio::test]
    async fn only_the_highest_version_is_kept() {
        let hub = Hub::default();
        let (mut one, mut two) = (hub.subscribe("ada"), hub.subscribe("ada"));
        hub.wake("ada", 1, || Some("first"));
        assert_eq!(seen(&mut one).await, (1, Some("first")));
        hub.wake("ada", 3, || Some("third"));
        hub.wake("ada", 2, || panic!("the news of a lower version is not needed"));
        hub.wake("ada", 3, || panic!("this version is known already"));
        hub.wake("bob", 9, || panic!("bob has no subscribers"));
        assert_eq!(seen(&mut one).await, (3, Some("third")));
        assert_eq!(seen(&mut two).await, (3, Some("third")));
    }

    #[tokio::test]
    async fn a_wrong_version_silences_nobody() {
        let hub = Hub::default();
        let mut one = hub.subscribe("ada");
        hub.wake("ada", i64::MAX, || Some("nonsense"));
        assert_eq!(seen(&mut one).await, (i64::MAX, Some("nonsense")));
        hub.wake("ada", 1, || None);
        assert_eq!(seen(&mut one).await, (i64::MAX, Some("nonsense")));
        // A look-up corrects the mark.
        hub.found("ada", 1, 11);
        assert_eq!(seen(&mut one).await, (1, None));
        hub.wake("ada", 2, || Some("second"));
        assert_eq!(seen(&mut one).await, (2, Some("second")));
    }

    #[tokio::test]
    async fn what_was_looked_up_wakes_once() {
        let hub = Hub::default();
        let mut one = hub.subscribe("ada");
        let mut found = async |version, stamp| {
            hub.found("ada", version, stamp);
            let mark = Subscription::take(&one.topic, &mut one.seen)?;
            Some((mark.version, mark.stamp, mark.news.as_deref().copied()))
        };
        assert_eq!(found(5, 55).await, Some((5, Some(55), None)));
        assert_eq!(found(5, 55).await, None);
        hub.wake("ada", 6, || Some("sixth"));
        // The look-up found version 5 before version 6 was committed.
        assert_eq!(found(5, 55).await, Some((5, None, None)));
        assert_eq!(found(6, 66).await, Some((6, Some(66), None)));
        hub.wake("ada", 7, || Some("seventh"));
        assert_eq!(found(7, 77).await, Some((7, Some(77), Some("seventh"))));
        // The database was restored and reached the same version again.
        assert_eq!(found(7, 70).await, Some((7, Some(70), Some("seventh"))));
    }

    /// Each version is announced from another thread, as soon as the subscriber begins to wait for it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_missed_while_a_subscriber_begins_to_wait() {
        const VERSIONS: i64 = 100_000;
        let hub: Hub<()> = Hub::default();
        let mut one = hub.subscribe("ada");
        let seen = Arc::new(AtomicI64::new(0));
        let announcing = std::thread::spawn({
            let (hub, seen) = (hub.clone(), Arc::clone(&seen));
            move || {
                for version in 1..=VERSIONS {
                    while seen.load(SeqCst) < version - 1 {
                        std::hint::spin_loop();
                    }
                    hub.wake("ada", version, || None);
                }
            }
        });
        for version in 1..=VERSIONS {
            let mark = tokio::time::timeout(PATIENCE, one.next()).await.expect("a wake-up was missed");
            assert_eq!(mark.version, version);
            seen.store(version, SeqCst);
        }
        announcing.join().unwrap();
    }

    #[tokio::test]
    async fn a_topic_lasts_as_long_as_its_subscribers() {
        let hub: Hub<()> = Hub::default();
        let (one, two) = (hub.subscribe("ada"), hub.subscribe("ada"));
        drop(one);
        assert_eq!((hub.topics(), hub.subscribers()), (vec!["ada".to_owned()], 1));
        drop(two);
        assert!(hub.topics().is_empty() && hub.topics.lock().is_empty());
    }
}
