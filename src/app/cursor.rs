//! Cursors of the ledger of a customer: what a subscriber, or a consumer of events, has.

use entity::{customer, ledger_entry};

use super::error::Error;
use super::opaque;

/// The position of a subscriber. The sequence alone does not identify the ledger: after a restore, the database reaches the
/// same sequences and versions again, with other content. The other fields detect this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The subscriber has all ledger entries up to this sequence.
    pub sequence: i64,
    /// The subscriber has all changes, including progress, up to this version of the customer. If `stamp` is `None`, some
    /// changes of this version itself may be missing.
    pub version: i64,
    /// When the entry with this sequence was posted, in µs. 0 if `sequence` is 0.
    pub posted_at: i64,
    /// The stamp of the version. `None` if the stamp is unknown or the version may have further entries. A commit that changed
    /// the version with this stamp continues the cursor, even if the database was restored in the meantime.
    pub stamp: Option<i64>,
}

impl Cursor {
    /// Returns the cursor of a subscriber that knows everything up to the version of this row.
    pub fn of(customer: &customer::Model) -> Self {
        let customer::Model { ledger_sequence, version, posted_at, stamp, .. } = *customer;
        Self { sequence: ledger_sequence, version, posted_at, stamp: Some(stamp) }
    }

    /// Returns the cursor at this entry, which need not be the last one of its commit.
    pub fn of_entry(entry: &ledger_entry::Model) -> Self {
        let ledger_entry::Model { sequence, version, created_at, .. } = *entry;
        Self { sequence, version, posted_at: created_at, stamp: None }
    }

    /// Encodes the cursor as a text, which is opaque to clients.
    pub fn to_text(self) -> String {
        let Self { sequence, version, posted_at, stamp } = self;
        opaque::encode(&match stamp {
            Some(stamp) => format!("points:{sequence}:{version}:{posted_at}:{stamp}"),
            None => format!("points:{sequence}:{version}:{posted_at}"),
        })
    }

    /// Decodes a text that [`Self::to_text`] returned. A text of an earlier release may result in [`Error::CursorUnknown`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = || Error::BadUserInput("after: must be a cursor of a ledger or of pointsUpdated".to_owned());
        match *numbers(text).ok_or_else(wrong)? {
            [sequence, version, posted_at] => Ok(Self { sequence, version, posted_at, stamp: None }),
            [sequence, version, posted_at, stamp] => Ok(Self { sequence, version, posted_at, stamp: Some(stamp) }),
            // A cursor of an earlier release, which does not identify the ledger.
            _ => Err(Error::CursorUnknown),
        }
    }

    /// Returns the sequence of a text that [`Self::to_text`] returned in this release or in an earlier one.
    pub fn sequence_of(text: &str) -> Option<i64> {
        numbers(text)?.first().copied()
    }
}

/// Decodes the numbers of a cursor, the first of which is the sequence. In earlier releases, the cursors of the edges of a ledger
/// began with `ledger:` and contained only the sequence.
fn numbers(cursor: &str) -> Option<Vec<i64>> {
    let text = opaque::decode(cursor)?;
    let numbers = text.strip_prefix("points:").or_else(|| text.strip_prefix("ledger:"))?;
    let numbers: Vec<i64> = numbers.splitn(4, ':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let is_count = |number: &i64| (0..=i64::from(u32::MAX)).contains(number);
    numbers.iter().take(2).all(is_count).then_some(numbers)
}
