//! Bounds the memory for unfinished input: requests and WebSocket messages that have not arrived completely.
//!
//! Each connection counts the bytes that it has read since its last complete request or message. The first 8 KiB are
//! free, because most requests need no more. All further bytes are taken from one budget of the node. The connections
//! from one address get at most half of the budget.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant as Monotonic;

use crate::app::share::{Share, Shares};

/// The unfinished bytes of a connection that do not count towards the budget.
const FREE_BYTES: usize = 8 * 1024;
/// The size of the parts in which connections take from the budget.
const PART_BYTES: usize = 16 * 1024;

/// The unfinished bytes that all connections of a node may hold together.
#[derive(Clone, Debug)]
pub struct Budget {
    parts: Shares<IpAddr>,
}

/// Counts the unfinished bytes of one connection and holds its parts of the budget.
#[derive(Clone, Debug)]
pub struct Input(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    budget: Budget,
    address: IpAddr,
    limit_bytes: usize,
    unfinished_bytes: usize,
    /// When the first unfinished byte arrived.
    since: Option<Monotonic>,
    held: Vec<Share<IpAddr>>,
}

/// Why the server stops reading from a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The message exceeds the limit of this connection.
    #[error("too many bytes before the message ends")]
    TooLarge,
    /// The budget, or the share of this address, is used up.
    #[error("too many unfinished messages")]
    NoRoom,
}

impl Budget {
    /// Creates a budget of `bytes`, rounded down to whole parts.
    pub fn new(bytes: usize) -> Self {
        Self { parts: Shares::new(bytes / PART_BYTES) }
    }

    /// Starts counting for a new connection from this address.
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

/// The default has no bound. It is for requests that do not come through [`super::serve`].
impl Default for Input {
    fn default() -> Self {
        Budget::new(usize::MAX).open(Ipv4Addr::UNSPECIFIED.into())
    }
}

impl Input {
    /// Counts bytes that were read. Fails with [`Refused`] if the connection may hold no more.
    pub(super) fn read(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.state();
        if bytes == 0 {
            return Ok(());
        }
        state.since.get_or_insert_with(Monotonic::now);
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

    /// Releases bytes of a message that is still unfinished.
    pub(super) fn let_go(&self, bytes: usize) {
        let mut state = self.state();
        state.unfinished_bytes = state.unfinished_bytes.saturating_sub(bytes);
        let parts = state.unfinished_bytes.saturating_sub(FREE_BYTES).div_ceil(PART_BYTES);
        state.held.truncate(parts);
        if state.unfinished_bytes == 0 {
            state.since = None;
        }
    }

    /// Releases all bytes, because the request or message is complete. Bytes that are read later belong to the next one.
    pub(super) fn finished(&self) {
        self.let_go(usize::MAX);
    }

    /// Sets the largest number of unfinished bytes from now on.
    pub(super) fn limit(&self, bytes: usize) {
        self.state().limit_bytes = bytes;
    }

    /// Whether a request or message began at least this long ago and is still unfinished.
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
        assert_eq!(refused(greedy[4].read(FREE_BYTES)), None, "the first 8 KiB are free");
        assert_eq!(refused(greedy[4].read(1)), Some(Refused::NoRoom));
        let modest = budget.open(address(2));
        assert_eq!(refused(modest.read(FREE_BYTES + 2 * PART_BYTES)), None);
        drop(modest);
        greedy[0].finished();
        assert_eq!(refused(greedy[4].read(1)), None);
        drop(greedy);
        assert_eq!(refused(budget.open(address(3)).read(FREE_BYTES + 4 * PART_BYTES)), None, "all parts are returned");
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
