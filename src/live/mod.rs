//! Who is subscribed to whom on this node, and what wakes them. It knows versions and what came with them, no rules.
//!
//! A topic keeps a mark, not a queue: the last version heard of, with the news that came with it. So it takes the same
//! memory however slow its subscribers are, a wake-up that comes twice or late changes nothing, and one that is lost or
//! wrong costs only time: whoever finds that the news do not continue what it has reads the rest where it is stored. A
//! subscriber registers before its first read, so nothing falls between the two.

pub mod hints;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// Topics by name; one a process.
pub struct Hub<T> {
    topics: Arc<Mutex<Topics<T>>>,
}

/// Those that have subscribers, and for a while those that had some ([`Hub::topics`]).
type Topics<T> = HashMap<String, watch::Sender<Mark<T>>>;

/// The last that was heard of a topic.
pub struct Mark<T> {
    /// The version. What it says may be wrong: a hint did.
    pub version: i64,
    /// Of that version, if it was looked up; none: it was told of.
    pub stamp: Option<i64>,
    /// What came with that version, if the wake-up brought it.
    pub news: Option<Arc<T>>,
    /// When it was heard of.
    pub at: Instant,
}

impl<T> Mark<T> {
    fn new(version: i64, stamp: Option<i64>, news: Option<T>) -> Self {
        Self { version, stamp, news: news.map(Arc::new), at: Instant::now() }
    }
}

/// Ends when it is dropped.
pub struct Subscription<T> {
    marks: watch::Receiver<Mark<T>>,
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
    /// From now on every wake-up of this topic is seen.
    pub fn subscribe(&self, topic: &str) -> Subscription<T> {
        let mut topics = self.topics.lock();
        let marks = match topics.get(topic) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, marks) = watch::channel(Mark::new(0, None, None));
                topics.insert(topic.to_owned(), sender);
                marks
            }
        };
        Subscription { marks }
    }

    /// Wakes the subscribers of a topic, unless this version is the last that was told. A lower one wakes them too, and moves
    /// nothing: it is late, or the higher one was wrong. `news` is called only if there may be somebody to hear them.
    pub fn wake(&self, topic: &str, version: i64, news: impl FnOnce() -> Option<T>) {
        self.mark(topic, |mark| {
            if version > mark.version {
                *mark = Mark::new(version, None, news());
                return true;
            }
            version < mark.version
        });
    }

    /// [`Self::wake`] by somebody who looked up which version is stored, and its stamp, a moment ago.
    pub fn found(&self, topic: &str, version: i64, stamp: i64) {
        self.mark(topic, |mark| {
            match version.cmp(&mark.version) {
                Ordering::Greater => *mark = Mark::new(version, Some(stamp), None),
                // What was told came after the look-up, or is wrong, or was undone: the stamp decides nothing yet.
                Ordering::Less => *mark = Mark::new(version, None, None),
                Ordering::Equal if mark.stamp == Some(stamp) => return false,
                Ordering::Equal => {
                    // One that replaces another is news; else the wake-up was first.
                    if mark.stamp.replace(stamp).is_some() {
                        mark.at = Instant::now();
                    }
                }
            }
            true
        });
    }

    /// `change`: whether there is something to see.
    fn mark(&self, topic: &str, change: impl FnOnce(&mut Mark<T>) -> bool) {
        if let Some(marks) = self.topics.lock().get(topic) {
            marks.send_if_modified(change);
        }
    }

    /// How many subscriptions there are.
    pub fn subscribers(&self) -> usize {
        self.topics.lock().values().map(watch::Sender::receiver_count).sum()
    }

    /// The topics that have subscribers. The others are forgotten.
    pub fn topics(&self) -> Vec<String> {
        let mut topics = self.topics.lock();
        topics.retain(|_, marks| marks.receiver_count() > 0);
        topics.keys().cloned().collect()
    }
}

impl<T> Subscription<T> {
    /// The next mark; those that were passed over meanwhile are not seen.
    pub async fn next(&mut self) -> Mark<T> {
        if self.marks.changed().await.is_err() {
            // Its sender stays as long as there is a subscription to it.
            std::future::pending::<()>().await;
        }
        let Mark { version, stamp, ref news, at } = *self.marks.borrow_and_update();
        Mark { version, stamp, news: news.clone(), at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        hub.wake("ada", 2, || panic!("nobody needs them"));
        hub.wake("ada", 3, || panic!("they are known"));
        hub.wake("bob", 9, || panic!("nobody asks"));
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
        // Until somebody looks.
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
            let woken = one.marks.has_changed().unwrap();
            one.marks.mark_unchanged();
            let mark = one.marks.borrow();
            woken.then_some((mark.version, mark.stamp, mark.news.as_deref().copied()))
        };
        assert_eq!(found(5, 55).await, Some((5, Some(55), None)));
        assert_eq!(found(5, 55).await, None);
        hub.wake("ada", 6, || Some("sixth"));
        // It was looked up before that was committed.
        assert_eq!(found(5, 55).await, Some((5, None, None)));
        assert_eq!(found(6, 66).await, Some((6, Some(66), None)));
        hub.wake("ada", 7, || Some("seventh"));
        assert_eq!(found(7, 77).await, Some((7, Some(77), Some("seventh"))));
        // The database went back, and came to the same version.
        assert_eq!(found(7, 70).await, Some((7, Some(70), Some("seventh"))));
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
