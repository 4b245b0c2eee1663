//! The awards that a commit changed, as its answers tell them.

use std::cmp::Reverse;

use entity::award;

/// The most awards that an answer tells.
pub const MAX_CHANGED_AWARDS: usize = 100;

/// How many awards of a customer changed, and the newest of them. It holds no more than that, however many they are.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangedAwards {
    count: i64,
    newest: Vec<award::Model>,
}

impl ChangedAwards {
    pub(super) fn push(&mut self, row: award::Model) {
        self.count += 1;
        self.newest.push(row);
        if self.newest.len() >= 2 * MAX_CHANGED_AWARDS {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.newest.sort_by_key(|row| Reverse((row.earned_at, row.number)));
        self.newest.truncate(MAX_CHANGED_AWARDS);
    }

    /// How many.
    pub(super) fn count(&self) -> i64 {
        self.count
    }

    /// The newest, newest first.
    pub(super) fn newest(&self) -> Vec<award::Model> {
        let mut changed = self.clone();
        changed.cut();
        changed.newest
    }
}
