//! Sharing places that are few among askers of whom one may want all.
//!
//! Nobody gets more than is left free after that: a single asker holds at most half, two of them a third each, and
//! whoever comes next finds room. (Dynamic thresholds: Choudhury and Hahne, 1998, with α = 1.)

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::viewer::Who;

/// Places, and who holds how many.
#[derive(Clone, Debug)]
pub struct Shares<K = Who> {
    state: Arc<Mutex<State<K>>>,
}

#[derive(Debug)]
struct State<K> {
    free: usize,
    /// Only those who hold any.
    held: HashMap<K, usize>,
}

/// Places that are given back when it is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash = Who> {
    who: K,
    places: usize,
    state: Arc<Mutex<State<K>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// So many places.
    pub fn new(places: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { free: places, held: HashMap::new() })) }
    }

    /// Takes places; none: this asker would hold more than what is free.
    pub fn take(&self, who: &K, places: usize) -> Option<Share<K>> {
        let mut state = self.state.lock();
        let held = state.held.get(who).copied().unwrap_or(0);
        if held + places > state.free {
            return None;
        }
        state.free -= places;
        state.held.insert(who.clone(), held + places);
        Some(Share { who: who.clone(), places, state: Arc::clone(&self.state) })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.free += self.places;
        if let Some(held) = state.held.get_mut(&self.who) {
            *held -= self.places;
            if *held == 0 {
                state.held.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::viewer::Viewer;

    fn who(subject: &str) -> Who {
        Viewer::Storefront(subject.to_owned()).who()
    }

    #[test]
    fn one_alone_gets_half_and_leaves_room_for_others() {
        let shares = Shares::new(12);
        let mut greedy: Vec<Share> = std::iter::from_fn(|| shares.take(&who("greedy"), 1)).collect();
        assert_eq!(greedy.len(), 6);
        let modest: Vec<Share> = std::iter::from_fn(|| shares.take(&who("modest"), 1)).collect();
        assert_eq!(modest.len(), 3);
        greedy.truncate(2);
        assert!(shares.take(&who("greedy"), 3).is_some());
    }

    #[test]
    fn all_at_once_fit_where_nothing_is_held() {
        let shares = Shares::new(500);
        let all = shares.take(&who("shop"), 500);
        assert!(all.is_some() && shares.take(&who("other"), 1).is_none());
        drop(all);
        assert!(shares.take(&who("shop"), 500).is_some());
        assert!(shares.take(&who("shop"), 501).is_none());
        assert!(shares.state.lock().held.is_empty());
    }
}
