//! Scans the text once before any parser reads it.
//!
//! Parsers recurse, so a few kilobytes of brackets are enough to overflow a thread's stack. The scan does not recurse, takes
//! linear time and refuses texts that no honest client sends. The scan ends each string where the parser behind it does, and
//! refuses a string if the two could differ. No bracket can therefore hide from the scan.

use std::borrow::Cow;
use std::ops::Range;

use super::limits::Limits;
use super::refusal::{Code, Refusal};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The keywords that may follow a description, since the September 2025 edition of the specification. The parser behind the scan
/// does not support such descriptions.
const DESCRIBED: [&[u8]; 4] = [b"query", b"mutation", b"subscription", b"fragment"];

/// The result of scanning a text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    pub(super) tokens: u32,
    /// The byte ranges of the descriptions of definitions and variables.
    pub(super) descriptions: Vec<Range<usize>>,
}

/// Scans a text, and refuses one that exceeds the limits or has a malformed string.
pub(super) fn scan(text: &str, limits: &Limits) -> Result<Scanned, Refusal> {
    if text.len() > limits.text_bytes {
        let (sent, limit) = (text.len(), limits.text_bytes);
        let message =
            format!("the document has {sent} bytes, and at most {limit} are allowed: send long values as variables");
        return Err(Refusal::new(Code::TooExpensive, message));
    }
    let mut descriptions = Descriptions::default();
    let bytes = text.as_bytes();
    let refuse = |at, code, message: String| Err(Refusal::new(code, message).at(line_and_column(bytes, at)));
    let (mut at, mut tokens, mut levels) = (0, 0, 0);
    let mut too_many_at = None;
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let length = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' => {
                at += 1;
                continue;
            }
            b'#' => {
                at += length_while(rest, |byte| byte != b'\n' && byte != b'\r');
                continue;
            }
            _ if rest.starts_with(BYTE_ORDER_MARK) => {
                at += BYTE_ORDER_MARK.len();
                continue;
            }
            b'"' => match string_length(rest) {
                Some(length) => length,
                None => return refuse(at, Code::GraphqlParseFailed, "syntax error: malformed string".into()),
            },
            b'_' | b'a'..=b'z' | b'A'..=b'Z' => length_while(rest, |byte| byte == b'_' || byte.is_ascii_alphanumeric()),
            // A sign in the exponent ends the token early, so such a number counts as two or three tokens.
            b'-' | b'0'..=b'9' => 1 + length_while(&rest[1..], |byte| byte == b'.' || byte.is_ascii_alphanumeric()),
            b'.' if rest.starts_with(b"...") => 3,
            _ => 1,
        };
        descriptions.meet(at, rest.get(..length).unwrap_or_default(), levels);
        match byte {
            b'(' | b'[' | b'{' => levels += 1,
            b')' | b']' | b'}' => levels = u32::saturating_sub(levels, 1),
            _ => {}
        }
        tokens += 1;
        if levels > limits.levels {
            let message =
                format!("brackets are nested more than {} levels deep: send nested values as variables", limits.levels);
            return refuse(at, Code::TooExpensive, message);
        }
        if tokens > limits.tokens && too_many_at.is_none() {
            too_many_at = Some(at);
        }
        at += length;
    }
    match too_many_at {
        Some(at) => {
            let limit = limits.tokens;
            let message = format!(
                "the document has {tokens} tokens (names, values, brackets and signs), and at most {limit} are allowed: split \
                 it into several requests"
            );
            refuse(at, Code::TooExpensive, message)
        }
        None => Ok(Scanned { tokens, descriptions: descriptions.found }),
    }
}

/// Replaces the descriptions in the text with spaces, so that everything else keeps its line and column.
pub(super) fn without<'a>(text: &'a str, descriptions: &[Range<usize>]) -> Cow<'a, str> {
    if descriptions.is_empty() {
        return text.into();
    }
    let mut blanked = String::with_capacity(text.len());
    let mut at = 0;
    for description in descriptions {
        blanked += text.get(at..description.start).unwrap_or_default();
        let described = text.get(description.clone()).unwrap_or_default().chars();
        blanked.extend(described.map(|character| if matches!(character, '\n' | '\r') { character } else { ' ' }));
        at = description.end;
    }
    blanked += text.get(at..).unwrap_or_default();
    blanked.into()
}

/// Finds descriptions, which are strings before an operation, a fragment or a variable definition.
#[derive(Default)]
struct Descriptions {
    found: Vec<Range<usize>>,
    /// A string that is a description if the next token can be described, and the number of brackets around the string.
    pending: Option<(Range<usize>, u32)>,
    /// The first byte of the previous token.
    previous: Option<u8>,
    /// The first byte of the last token that is outside all brackets. Inside brackets, that token is the outermost open bracket.
    outermost: Option<u8>,
}

impl Descriptions {
    fn meet(&mut self, at: usize, token: &[u8], levels: u32) {
        if let Some((string, around)) = self.pending.take()
            && (around == 0 && DESCRIBED.contains(&token) || around == 1 && token == b"$")
        {
            self.found.push(string);
        }
        let first = token.first().copied();
        let is_placed = match levels {
            0 => matches!(self.previous, None | Some(b'}')),
            // A string after `:` or `=` is a value.
            1 => self.outermost == Some(b'(') && !matches!(self.previous, Some(b':' | b'=')),
            _ => false,
        };
        if first == Some(b'"') && is_placed {
            self.pending = Some((at..at + token.len(), levels));
        }
        if levels == 0 {
            self.outermost = first;
        }
        self.previous = first;
    }
}

fn length_while(bytes: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&byte| !accept(byte)).unwrap_or(bytes.len())
}

/// Returns the length of the string that `bytes` starts with, including its quotes. Returns `None` if the string does not end or
/// has a malformed escape.
fn string_length(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\"\"\"") {
        return block_string_length(bytes);
    }
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\n' | b'\r' => return None,
            b'\\' => at += escape_length(&bytes[at..])?,
            _ => at += 1,
        }
    }
}

fn block_string_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 3;
    loop {
        let rest = bytes.get(at..)?;
        if rest.starts_with(b"\"\"\"") {
            return Some(at + 3);
        }
        at += if rest.starts_with(b"\\\"\"\"") { 4 } else { 1 };
    }
}

fn escape_length(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(2),
        b'u' if bytes.get(2) == Some(&b'{') => {
            let digits = length_while(&bytes[3..], |byte| byte.is_ascii_hexdigit());
            (digits > 0 && bytes.get(3 + digits) == Some(&b'}')).then_some(digits + 4)
        }
        b'u' => bytes.get(2..6)?.iter().all(u8::is_ascii_hexdigit).then_some(6),
        _ => None,
    }
}

fn line_and_column(bytes: &[u8], at: usize) -> (usize, usize) {
    let before = &bytes[..at];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let is_char_start = |byte: &&u8| !matches!(byte, 0x80..=0xbf);
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    (line, 1 + before[line_start..].iter().filter(is_char_start).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Limits {
        Limits { text_bytes: 200, tokens: 10, levels: 3, ..Limits::default() }
    }

    fn code(text: &str) -> Option<Code> {
        scan(text, &small()).err().map(|refusal| refusal.code)
    }

    #[test]
    fn tokens_are_counted_as_the_grammar_does() {
        for text in
            ["a b c d e f g h i j", "{ ...F @d(a: 1)", "\u{feff}{a,,,,b,c,d,e,f,g,h,i", "-1.5 0.25 1 2 3 4 5 6 7 8"]
        {
            assert!(scan(text, &small()).is_ok(), "{text}");
            assert_eq!(code(&format!("{text} extra more")), Some(Code::TooExpensive), "{text}");
        }
        assert_eq!(code("a b c d e f g h i j k"), Some(Code::TooExpensive));
        assert_eq!(code("# comments { ( [ count for nothing\n { a } # nor here"), None);
    }

    #[test]
    fn brackets_are_bounded_and_those_in_strings_are_not_brackets() {
        assert_eq!(code("{([])}"), None);
        assert_eq!(code("{([{"), Some(Code::TooExpensive));
        assert_eq!(code("}}}}{([]"), None, "closing brackets buy no depth");
        assert_eq!(code("}}}}{([["), Some(Code::TooExpensive));
        assert_eq!(code(r#""{{{{{{" """[[[["[[\"""[[[[""" "\"{{{{{{" # {{{{{{"#), None);
        assert_eq!(code("#{{{{\r{{{{"), Some(Code::TooExpensive), "a carriage return ends a comment");
    }

    #[test]
    fn a_string_that_parsers_could_end_elsewhere_is_refused() {
        for text in
            ["\"", "\"abc", "\"\n\"", "\"a\rb\"", "\"\\", "\"\\\"", r#""\x""#, r#""\u""#, r#""\u12""#, r#""\u{}""#]
        {
            assert_eq!(code(text), Some(Code::GraphqlParseFailed), "{text}");
        }
        for text in [r#""\u\"[[[["#, r#"""""#, r#"""""""#, r#""\u{1"#, r#""\u{g}""#, "\"\"\" \\\"\"\""] {
            assert_eq!(code(text), Some(Code::GraphqlParseFailed), "{text}");
        }
        for text in
            [r#""""#, r#""""""""#, r#""\u00e9\u{1F600}\n\/""#, "\"\"\"a\n\"b\"\"\"", "\"\u{0}\"", r#""""\"""""""#]
        {
            assert_eq!(code(text), None, "{text}");
        }
    }

    #[test]
    fn a_refusal_says_where() {
        let refusal = scan("{ a\n  é ß \"x", &small()).unwrap_err();
        assert_eq!(refusal.locations, [(2, 7)]);
    }

    #[test]
    fn the_text_is_bounded_in_bytes() {
        assert_eq!(code(&" ".repeat(200)), None);
        assert_eq!(code(&" ".repeat(201)), Some(Code::TooExpensive));
    }

    #[test]
    fn descriptions_make_room_for_spaces() {
        let limits = Limits::default();
        for (text, blanked) in [
            ("\"Ü\" query Q { a }", "    query Q { a }"),
            ("\"\"\"a\n b\"\"\"\nfragment F on Q { a }", "    \n     \nfragment F on Q { a }"),
            ("{ a } # b\n\"c\" mutation { a }", "{ a } # b\n    mutation { a }"),
            (
                "query Q(\"a\" $a: Int, \"b\" $b: T = \"c\" \"d\" $d: T) { a }",
                "query Q(    $a: Int,     $b: T = \"c\"     $d: T) { a }",
            ),
        ] {
            assert_eq!(without(text, &scan(text, &limits).unwrap().descriptions), blanked);
        }
        // These strings are values, or do not precede anything that can be described.
        for text in [
            "{ a(b: \"c\") @d(e: \"f\") }",
            "query @d(e: \"f\" $g: 1) { a }",
            "query Q($a: T = \"b\" $c: T) { a }",
            "query Q($a: T = [\"b\" $c]) { a }",
            "{ a(b: \"c\" $d) }",
            "query \"a\" Q { a }",
            "query Q \"a\" { a }",
            "\"a\" { a }",
            "\"a\" \"b\" { a }",
            "\"a\" type T { a: Int }",
            "\"a\"",
        ] {
            assert!(scan(text, &limits).unwrap().descriptions.is_empty(), "{text}");
        }
        let two = "\"a\" \"b\" query { a }";
        assert!(scan(two, &limits).unwrap().descriptions.is_empty(), "{two}");
    }

    #[test]
    fn a_refusal_says_what_was_sent_and_what_is_allowed() {
        let refusal = scan("a b c d e f g h i j k l", &small()).unwrap_err();
        assert!(
            refusal.message.contains("12 tokens") && refusal.message.contains("at most 10 are allowed"),
            "{refusal:?}"
        );
        assert_eq!(refusal.locations, [(1, 21)]);
        assert!(scan(&" ".repeat(201), &small()).unwrap_err().message.contains("201 bytes, and at most 200"));
    }
}
