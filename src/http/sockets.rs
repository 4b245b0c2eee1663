//! Bounds the number of WebSockets that one client may have open on this node: per address, and per role and subject of
//! its token.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::app::viewer::Who;

/// Counts the open WebSockets of each holder.
#[derive(Clone, Debug)]
pub struct Sockets {
    per_address: usize,
    per_subject: usize,
    open: Arc<Mutex<HashMap<Holder, usize>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Address(IpAddr),
    Subject(Who),
}

/// The permit for one WebSocket, until it is dropped.
#[derive(Debug)]
pub struct Place {
    holder: Holder,
    open: Arc<Mutex<HashMap<Holder, usize>>>,
}

impl Sockets {
    /// Takes the largest numbers of open WebSockets: per address, and per role and subject.
    pub fn new(per_address: usize, per_subject: usize) -> Self {
        Self { per_address, per_subject, open: Arc::default() }
    }

    /// Takes a permit for this address. Returns `None` if the address already has the largest number of WebSockets open.
    pub fn from_address(&self, address: IpAddr) -> Option<Place> {
        self.take(Holder::Address(address), self.per_address)
    }

    /// Takes a permit for this role and subject. Returns `None` if the largest number of WebSockets is already open for
    /// it.
    pub fn of_subject(&self, who: Who) -> Option<Place> {
        self.take(Holder::Subject(who), self.per_subject)
    }

    fn take(&self, holder: Holder, max: usize) -> Option<Place> {
        let mut open = self.open.lock();
        let count = open.get(&holder).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        open.insert(holder.clone(), count + 1);
        Some(Place { holder, open: Arc::clone(&self.open) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::viewer::Viewer;

    #[test]
    fn each_has_places_of_its_own_and_gives_them_back() {
        let sockets = Sockets::new(2, 1);
        let (here, there): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let ada = || Viewer::Customer("ada".into()).who();
        let held = (sockets.from_address(here), sockets.from_address(here), sockets.of_subject(ada()));
        assert!(held.0.is_some() && held.1.is_some() && held.2.is_some());
        assert!(sockets.from_address(here).is_none() && sockets.of_subject(ada()).is_none());
        assert!(sockets.from_address(there).is_some());
        assert!(sockets.of_subject(Viewer::Storefront("ada".into()).who()).is_some());
        drop(held);
        assert!(sockets.open.lock().is_empty());
    }
}
