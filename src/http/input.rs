//! What clients have begun to send and have not finished: requests, and messages of WebSockets.
//!
//! Each connection counts the bytes that it has read since its last whole request or message. A few KiB are free: honest
//! clients rarely need more. The rest is taken from one budget of the node, of which one address gets at most half.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::app::share::{Share, Shares};

/// Unfinished bytes of a connection that are not taken from the budget.
const FREE_BYTES: usize = 8 * 1024;
/// The budget is given out in parts of this size.
const PART_BYTES: usize = 16 * 1024;

/// What all connections of a node may hold together.
#[derive(Clone, Debug)]
pub struct Budget {
    parts: Shares<IpAddr>,
}

/// What one connection holds.
#[derive(Clone, Debug)]
pub struct Input(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    budget: Budget,
    address: IpAddr,
    limit_bytes: usize,
    unfinished_bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    held: Vec<Share<IpAddr>>,
}

/// Why no more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The message is larger than this connection's may be.
    #[error("too many bytes before the message ends")]
    TooLarge,
    /// The budget is used up, or this address's part of it.
    #[error("too many unfinished messages")]
    NoRoom,
}

impl Budget {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self { parts: Shares::new(bytes / PART_BYTES) }
    }

    /// For a new connection from this address.
    pub fn open(&self, address: IpAddr) -> Input {
        Input(Arc::new(Mutex::new(State {
            budget: self.clone(),
            address,
            limit_bytes: usize::MAX,
            unfinished_bytes: 0,
            since: None,
            held: Vec::new(),
        })))
    }
}

/// Without a bound.
impl Default for Input {
    fn default() -> Self {
        Budget::new(usize::MAX).open(Ipv4Addr::UNSPECIFIED.into())
    }
}

impl Input {
    /// Bytes were read.
    pub(super) fn read(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.state();
        if bytes == 0 {
            return Ok(());
        }
        state.since.get_or_insert_with(Instant::now);
        state.unfinished_bytes = state.unfinished_bytes.saturating_add(bytes);
        if state.unfinished_bytes > state.limit_bytes {
            return Err(io::Error::other(Refused::TooLarge));
        }
        while state.unfinished_bytes > FREE_BYTES + PART_BYTES * state.held.len() {
            let part = state.budget.parts.take(&state.address, 1);
            state.held.push(part.ok_or_else(|| io::Error::other(Refused::NoRoom))?);
        }
        Ok(())
    }

    /// So many of the bytes are not held any more.
    pub(super) fn let_go(&self, bytes: usize) {
        let mut state = self.state();
        state.unfinished_bytes = state.unfinished_bytes.saturating_sub(bytes);
        let parts = state.unfinished_bytes.saturating_sub(FREE_BYTES).div_ceil(PART_BYTES);
        state.held.truncate(parts);
        if state.unfinished_bytes == 0 {
            state.since = None;
        }
    }

    /// A request or a message is complete: what comes from now on belongs to the next.
    pub(super) fn finished(&self) {
        self.let_go(usize::MAX);
    }

    /// The most that may be unfinished from now on.
    pub(super) fn limit(&self, bytes: usize) {
        self.state().limit_bytes = bytes;
    }

    /// Whether something was begun so long ago and is not finished.
    pub(super) fn is_overdue(&self, time: Duration) -> bool {
        self.state().since.is_some_and(|since| since.elapsed() >= time)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(read: io::Result<()>) -> Option<Refused> {
        read.err()?.into_inner()?.downcast().ok().map(|refused| *refused)
    }

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn one_address_gets_half_of_the_budget() {
        let budget = Budget::new(8 * PART_BYTES);
        let greedy: Vec<Input> = (0..5).map(|_| budget.open(address(1))).collect();
        for input in &greedy[..4] {
            assert_eq!(refused(input.read(FREE_BYTES + PART_BYTES)), None);
        }
        assert_eq!(refused(greedy[4].read(FREE_BYTES)), None, "a few are free");
        assert_eq!(refused(greedy[4].read(1)), Some(Refused::NoRoom));
        let modest = budget.open(address(2));
        assert_eq!(refused(modest.read(FREE_BYTES + 2 * PART_BYTES)), None);
        drop(modest);
        greedy[0].finished();
        assert_eq!(refused(greedy[4].read(1)), None);
        drop(greedy);
        assert_eq!(refused(budget.open(address(3)).read(FREE_BYTES + 4 * PART_BYTES)), None, "all are given back");
    }

    #[test]
    fn a_part_that_is_let_go_finishes_nothing() {
        let input = Budget::new(8 * PART_BYTES).open(address(1));
        input.read(FREE_BYTES + 2 * PART_BYTES).unwrap();
        input.let_go(PART_BYTES);
        assert!(input.is_overdue(Duration::ZERO));
        assert_eq!(input.state().held.len(), 1);
        input.finished();
        assert!(!input.is_overdue(Duration::ZERO));
        assert!(input.state().held.is_empty());
    }

    #[test]
    fn a_connection_has_a_limit_of_its_own() {
        let input = Input::default();
        input.limit(1_000);
        assert_eq!(refused(input.read(1_000)), None);
        input.finished();
        assert_eq!(refused(input.read(1_001)), Some(Refused::TooLarge));
    }
}
