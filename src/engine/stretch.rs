//! A stretch: the purchases of one customer between two keys of the customer's order.

use super::purchase::Key;
use super::time::Instant;

/// The purchases with `after < key <= to`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Exclusive. `None` means that the stretch has no lower bound.
    pub after: Option<Key>,
    /// Inclusive. `None` means that the stretch has no upper bound.
    pub to: Option<Key>,
}

impl Stretch {
    /// Whether the purchase with this key is in the stretch.
    pub fn contains(&self, key: &Key) -> bool {
        self.after.as_ref().is_none_or(|after| key > after) && self.to.as_ref().is_none_or(|to| key <= to)
    }

    /// Gives the stretch a lower bound if it has none: it then begins at the first purchase that is not before `start`.
    pub fn from_start(self, start: Instant) -> Self {
        Self { after: self.after.or_else(|| Some(Key::before(start))), ..self }
    }

    /// Returns the part of the stretch up to and including `until`. `None` means all of it.
    pub fn clipped(self, until: Option<&Key>) -> Self {
        let to = match (self.to, until) {
            (Some(to), Some(until)) => Some(to.min(until.clone())),
            (to, until) => to.or_else(|| until.cloned()),
        };
        Self { to, ..self }
    }

    /// Sorts the stretches and merges those that overlap or touch. The result contains nothing that lies between stretches.
    pub fn disjoint(mut stretches: Vec<Self>) -> Vec<Self> {
        stretches.sort_by(|one, other| one.after.cmp(&other.after));
        let mut disjoint: Vec<Self> = Vec::new();
        for next in stretches {
            match disjoint.last_mut() {
                Some(last) if last.to.is_none() || next.after <= last.to => {
                    last.to = last.to.take().zip(next.to).map(|(a, b)| a.max(b));
                }
                _ => disjoint.push(next),
            }
        }
        disjoint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(at: i64) -> Key {
        Key::before(Instant(at))
    }

    fn stretch(after: i64, to: Option<i64>) -> Stretch {
        Stretch { after: Some(key(after)), to: to.map(key) }
    }

    #[test]
    fn only_stretches_that_overlap_or_touch_become_one() {
        let all = vec![
            stretch(50, Some(60)),
            stretch(0, Some(10)),
            stretch(10, Some(20)),
            stretch(52, Some(55)),
            stretch(70, None),
        ];
        assert_eq!(Stretch::disjoint(all), [stretch(0, Some(20)), stretch(50, Some(60)), stretch(70, None)]);
        let endless = vec![stretch(0, None), stretch(5, Some(9)), stretch(20, None)];
        assert_eq!(Stretch::disjoint(endless), [stretch(0, None)]);
        let whole = Stretch { after: None, to: Some(key(5)) };
        assert_eq!(Stretch::disjoint(vec![stretch(3, Some(9)), whole]), [Stretch { after: None, to: Some(key(9)) }]);
    }

    #[test]
    fn a_stretch_ends_where_it_is_clipped() {
        assert_eq!(stretch(0, None).clipped(Some(&key(5))), stretch(0, Some(5)));
        assert_eq!(stretch(0, Some(9)).clipped(Some(&key(5))), stretch(0, Some(5)));
        assert_eq!(stretch(0, Some(4)).clipped(Some(&key(5))), stretch(0, Some(4)));
        assert_eq!(stretch(0, Some(4)).clipped(None), stretch(0, Some(4)));
        assert!(stretch(0, Some(4)).contains(&key(4)) && !stretch(0, Some(4)).contains(&key(0)));
    }
}
