//! Makes texts that others chose, such as the ids of customers, safe to print. A terminal executes the control characters in a
//! text.

use std::fmt::{self, Write as _};

/// Characters that make a text look different from what it is: they change the writing direction or are invisible.
const INVISIBLE: [std::ops::RangeInclusive<char>; 6] = [
    '\u{061c}'..='\u{061c}',
    '\u{200b}'..='\u{200f}',
    '\u{2028}'..='\u{202e}',
    '\u{2060}'..='\u{206f}',
    '\u{feff}'..='\u{feff}',
    '\u{fff9}'..='\u{fffb}',
];

/// Displays a text on one line. Characters that would move the cursor or hide something become escapes, such as `\u{1b}`.
pub(super) struct Printable<T>(pub(super) T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaped(f), "{}", self.0)
    }
}

struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match character {
            '\n' | '\r' | '\t' => write!(self.0, "{}", character.escape_default()),
            _ if character.is_control() || INVISIBLE.iter().any(|range| range.contains(&character)) => {
                write!(self.0, "{}", character.escape_unicode())
            }
            _ => self.0.write_char(character),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_seen_as_it_is_stays() {
        for (text, shown) in [
            ("Ada Übel \"1\" \\ 本", "Ada Übel \"1\" \\ 本"),
            ("\u{1b}[2J\u{9b}31m\u{7}\u{7f}", "\\u{1b}[2J\\u{9b}31m\\u{7}\\u{7f}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("\u{202e}a\u{2066}\u{200b}\u{feff}", "\\u{202e}a\\u{2066}\\u{200b}\\u{feff}"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }
}
