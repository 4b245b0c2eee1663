//! Who is subscribed to whom on this node, and what wakes them. It knows versions and what came with them, no rules.
//!
//! A topic keeps a high-water mark, not a queue: the highest version heard of, with the news that came with it. So it
//! takes the same memory however slow its subscribers are, a wake-up that comes twice or late changes nothing, and one
//! that is lost costs only time: whoever finds that the news do not continue what it has reads the rest where it is
//! stored. A subscriber registers before its first read, so nothing falls between the two.

pub mod hints;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

/// Topics by name; one a process.
pub struct Hub<T> {
    topics: Arc<Mutex<Topics<T>>>,
}

/// Only those that have subscribers.
type Topics<T> = HashMap<String, watch::Sender<Mark<T>>>;

/// The highest version heard of.
pub struct Mark<T> {
    /// 0: none yet.
    pub version: i64,
    /// What came with that version, if the wake-up brought it.
    pub news: Option<Arc<T>>,
    /// When it was heard of.
    pub at: Instant,
    /// A higher version that somebody hinted at, who may be wrong; 0: nobody did.
    hinted: i64,
}

impl<T> Mark<T> {
    fn none() -> Self {
        Self { version: 0, news: None, at: Instant::now(), hinted: 0 }
    }
}

/// Ends when it is dropped.
pub struct Subscription<T> {
    topic: String,
    marks: watch::Receiver<Mark<T>>,
    topics: Arc<Mutex<Topics<T>>>,
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
        let mut topics = lock(&self.topics);
        let marks = match topics.get(topic) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, marks) = watch::channel(Mark::none());
                topics.insert(topic.to_owned(), sender);
                marks
            }
        };
        Subscription { topic: topic.to_owned(), marks, topics: Arc::clone(&self.topics) }
    }

    /// Wakes the subscribers of a topic, unless they know of this version. `news` is called only if they do not.
    pub fn wake(&self, topic: &str, version: i64, news: impl FnOnce() -> Option<T>) {
        let topics = lock(&self.topics);
        let Some(marks) = topics.get(topic) else { return };
        marks.send_if_modified(|mark| {
            let is_new = version > mark.version;
            if is_new {
                *mark = Mark { version, news: news().map(Arc::new), at: Instant::now(), hinted: 0 };
            }
            is_new
        });
    }

    /// [`Self::wake`] by somebody who may be wrong: subscribers are woken, but what they are woken for later does not depend on
    /// it. So a hint of a version that will never be silences nobody.
    pub fn hint(&self, topic: &str, version: i64, news: impl FnOnce() -> Option<T>) {
        let topics = lock(&self.topics);
        let Some(marks) = topics.get(topic) else { return };
        marks.send_if_modified(|mark| {
            let is_new = version > mark.version;
            if is_new {
                mark.hinted = version;
                mark.news = news().map(Arc::new);
                mark.at = Instant::now();
            }
            is_new
        });
    }

    /// How many subscriptions there are.
    pub fn subscribers(&self) -> usize {
        lock(&self.topics).values().map(watch::Sender::receiver_count).sum()
    }

    /// The topics that have subscribers.
    pub fn topics(&self) -> Vec<String> {
        lock(&self.topics).keys().cloned().collect()
    }
}

impl<T> Subscription<T> {
    /// The next mark; those that were passed over meanwhile are not seen.
    pub async fn next(&mut self) -> Mark<T> {
        if self.marks.changed().await.is_err() {
            // Its sender stays as long as there is a subscription to it.
            std::future::pending::<()>().await;
        }
        let mark = self.marks.borrow_and_update();
        let version = mark.version.max(mark.hinted);
        Mark { version, news: mark.news.clone(), at: mark.at, hinted: mark.hinted }
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut topics = lock(&self.topics);
        if topics.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 1) {
            topics.remove(&self.topic);
        }
    }
}

fn lock<T>(topics: &Mutex<Topics<T>>) -> MutexGuard<'_, Topics<T>> {
    topics.lock().unwrap_or_else(PoisonError::into_inner)
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
        hub.wake("ada", 3, || None);
        hub.wake("ada", 2, || panic!("nobody needs them"));
        hub.wake("bob", 9, || panic!("nobody asks"));
        assert_eq!(seen(&mut one).await, (3, None));
        assert_eq!(seen(&mut two).await, (3, None));
    }

    #[tokio::test]
    async fn a_wrong_hint_silences_nobody() {
        let hub = Hub::default();
        let mut one = hub.subscribe("ada");
        hub.hint("ada", i64::MAX, || Some("nonsense"));
        assert_eq!(seen(&mut one).await, (i64::MAX, Some("nonsense")));
        hub.hint("ada", 2, || Some("second"));
        assert_eq!(seen(&mut one).await, (2, Some("second")));
        hub.wake("ada", 1, || Some("first"));
        assert_eq!(seen(&mut one).await, (1, Some("first")));
        hub.hint("ada", 1, || panic!("it is known"));
        hub.hint("bob", 1, || panic!("nobody asks"));
        hub.wake("ada", 2, || None);
        assert_eq!(seen(&mut one).await, (2, None));
    }

    #[tokio::test]
    async fn a_topic_lasts_as_long_as_its_subscribers() {
        let hub: Hub<()> = Hub::default();
        let (one, two) = (hub.subscribe("ada"), hub.subscribe("ada"));
        drop(one);
        assert_eq!(hub.topics(), ["ada"]);
        drop(two);
        assert!(hub.topics().is_empty());
    }
}
