//! The awards that a commit changed, for the payloads of its mutations.

use std::cmp::Reverse;
use std::sync::Arc;

use entity::award;

/// The maximum number of changed awards in a payload.
pub const MAX_CHANGED_AWARDS: usize = 100;

/// Counts the changed awards of a customer and keeps the newest of them. Its memory does not depend on how many awards changed.
#[derive(Debug, Default)]
pub(super) struct ChangedAwards {
    count: i64,
    newest: Vec<Arc<award::Model>>,
}

impl ChangedAwards {
    pub(super) fn push(&mut self, row: Arc<award::Model>) {
        self.count += 1;
        self.newest.push(row);
        if self.newest.len() >= 2 * MAX_CHANGED_AWARDS {
            self.cut();
        }
    }

    /// Adds the newest of further awards that were changed, and their number.
    pub(super) fn add(&mut self, newest: &[Arc<award::Model>], count: i64) {
        self.newest.extend(newest.iter().cloned());
        self.count += count;
    }

    fn cut(&mut self) {
        self.newest.sort_by_key(|row| Reverse((row.earned_at, row.number)));
        self.newest.truncate(MAX_CHANGED_AWARDS);
    }

    pub(super) fn count(&self) -> i64 {
        self.count
    }

    /// Returns the newest [`MAX_CHANGED_AWARDS`] awards, newest first.
    pub(super) fn newest(mut self) -> Vec<Arc<award::Model>> {
        self.cut();
        self.newest
    }
}
