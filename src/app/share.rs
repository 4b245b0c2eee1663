//! Shares a limited number of places fairly, also if one caller wants all of them.
//!
//! A caller gets places only if it then holds no more than were free before. A caller that takes places one by one gets about
//! half of them, two such callers get about a third each, and the next caller still finds a free place. A caller that holds
//! none can take all free places in one call. This is the method of dynamic thresholds (Choudhury and Hahne, 1998) with α = 1.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::viewer::Who;

/// A number of places, and how many of them each caller holds.
#[derive(Clone, Debug)]
pub struct Shares<K = Who> {
    state: Arc<Mutex<State<K>>>,
}

#[derive(Debug)]
struct State<K> {
    free: usize,
    /// The number of places of each caller that holds any.
    held: HashMap<K, usize>,
}

/// Some places. They become free when the value is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash = Who> {
    who: K,
    places: usize,
    state: Arc<Mutex<State<K>>>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// Creates this number of free places.
    pub fn new(places: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { free: places, held: HashMap::new() })) }
    }

    /// Whether the caller could take places now.
    pub fn has_room(&self, who: &K, places: usize) -> bool {
        self.state.lock().room(who, places).is_some()
    }

    /// Takes places. Returns `None` if the caller would then hold more places than are free now.
    pub fn take(&self, who: &K, places: usize) -> Option<Share<K>> {
        let mut state = self.state.lock();
        let held = state.room(who, places)?;
        state.free -= places;
        state.held.insert(who.clone(), held + places);
        Some(Share { who: who.clone(), places, state: Arc::clone(&self.state) })
    }
}

impl<K: Eq + Hash> State<K> {
    /// Returns how many places the caller holds, or `None` if there is no room for these.
    fn room(&self, who: &K, places: usize) -> Option<usize> {
        let held = self.held.get(who).copied().unwrap_or(0);
        (held + places <= self.free).then_some(held)
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
        Viewer::Storefront(subject.into()).who()
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
