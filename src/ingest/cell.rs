//! Reads the cells of spreadsheets: amounts of money, instants, quantities and ids, in the forms in which shops write them.
//!
//! Nothing is guessed. A cell that can be read in two ways is refused, with what to do about it.

use jiff::civil::{Date, DateTime};
use jiff::fmt::strtime;
use rust_decimal::Decimal;

use crate::engine::money::Currency;
use crate::engine::time::{Instant, parse_instant};
use crate::engine::zone::Zone;

/// How the cells of a file are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells {
    /// Decimals are written with a comma.
    pub decimal_comma: bool,
    /// The time zone of instants without an offset.
    pub zone: Option<Zone>,
    /// The form of instants, in the letters of strptime. `None`: ISO 8601, or RFC 3339.
    pub instant_format: Option<String>,
}

/// Signs of money, each with the currencies for which it stands. A longer sign comes before the signs that it ends with.
const SIGNS: [(&str, &str); 23] = [
    ("US$", "USD"),
    ("CA$", "CAD"),
    ("C$", "CAD"),
    ("AU$", "AUD"),
    ("A$", "AUD"),
    ("NZ$", "NZD"),
    ("HK$", "HKD"),
    ("S$", "SGD"),
    ("R$", "BRL"),
    ("$", "USD CAD AUD NZD HKD SGD MXN ARS CLP COP UYU DOP TWD"),
    ("€", "EUR"),
    ("£", "GBP EGP LBP"),
    ("¥", "JPY CNY"),
    ("₹", "INR"),
    ("₩", "KRW"),
    ("₺", "TRY"),
    ("₴", "UAH"),
    ("₪", "ILS"),
    ("₫", "VND"),
    ("zł", "PLN"),
    ("Kč", "CZK"),
    ("Ft", "HUF"),
    ("kr", "SEK NOK DKK ISK"),
];

/// Why an instant without an offset cannot be read.
pub(super) const NO_ZONE: &str = "has no offset from UTC: give the shop's time zone, such as --time-zone Europe/Vienna";

impl Cells {
    /// Returns an amount of money as a decimal such as `-1234.50`. A sign of the currency and marks between thousands are removed
    /// if they agree with the currency and the decimal mark.
    pub(super) fn amount(&self, text: &str, currency: &str) -> Result<String, String> {
        let text = text.trim();
        let (sign, text) = match text.strip_prefix(['-', '−']) {
            Some(rest) => ("-", rest.trim_start()),
            None => ("", text),
        };
        let (sign, number) = match (without_sign(text, currency), sign) {
            // `$-5.00` is as usual as `-$5.00`.
            (number, "") if number.starts_with('-') => ("-", number.trim_start_matches('-').trim_start()),
            (number, sign) => (sign, number),
        };
        Ok(format!("{sign}{}", self.number(number, currency)?))
    }

    /// Returns an unsigned number with a decimal point and without marks between thousands.
    fn number(&self, text: &str, currency: &str) -> Result<String, String> {
        let (point, mark) = if self.decimal_comma { (',', '.') } else { ('.', ',') };
        let (whole, fraction) =
            text.split_once(point).map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if fraction.is_some_and(|fraction| !digits(fraction)) {
            return Err(self.not_an_amount(text));
        }
        let is_mark =
            |character: char| character == mark || matches!(character, ' ' | '\u{a0}' | '\u{202f}' | '\'' | '’');
        let groups: Vec<&str> = whole.split(is_mark).collect();
        if !groups.iter().all(|group| digits(group)) {
            return Err(self.not_an_amount(text));
        }
        if groups.len() > 1 {
            let whole_groups = groups[0].len() <= 3 && groups[1..].iter().all(|group| group.len() == 3);
            let marks: Vec<char> = whole.chars().filter(|character| is_mark(*character)).collect();
            let one_mark = marks.windows(2).all(|pair| pair[0] == pair[1]);
            // `1,234` of a currency with three decimals can be read in two ways.
            let three_decimals = Currency::parse(currency).is_ok_and(|currency| currency.exponent() == 3);
            let is_ambiguous = three_decimals && fraction.is_none() && marks == [mark];
            if !whole_groups || !one_mark || is_ambiguous {
                return Err(self.not_an_amount(text));
            }
        }
        let whole = groups.concat();
        Ok(fraction.map_or_else(|| whole.clone(), |fraction| format!("{whole}.{fraction}")))
    }

    fn not_an_amount(&self, text: &str) -> String {
        let other_mark = if self.decimal_comma { '.' } else { ',' };
        if !text.contains(other_mark) {
            return "must be a decimal such as 19.99, in the currency of the order".to_owned();
        }
        if self.decimal_comma {
            "must be written with a decimal comma, such as 19,99: the import was told so".to_owned()
        } else {
            "must be written with a decimal point, such as 19.99; if the file has decimal commas, give --decimal-comma"
                .to_owned()
        }
    }

    /// Reads an instant. Without an offset, it is local time in the zone; a date alone is local midnight.
    pub(super) fn instant(&self, text: &str) -> Result<Instant, String> {
        let text = text.trim();
        if let Some(format) = &self.instant_format {
            return self.formatted(text, format);
        }
        if let Ok(at) = parse_instant(text) {
            return Ok(at);
        }
        // `2026-11-02 18:00:00 +0100`, or `… UTC`.
        if let Some((local, offset)) = text.rsplit_once(' ').filter(|(local, _)| local.len() >= 16) {
            let offset = if offset == "UTC" { "+00:00".to_owned() } else { with_colon(offset) };
            if let Ok(at) = parse_instant(&format!("{local}{offset}")) {
                return Ok(at);
            }
        }
        match local(text) {
            Some(local) => self.zone.as_ref().map(|zone| zone.bound(local)).ok_or_else(|| NO_ZONE.to_owned()),
            None => {
                Err("must be a date and time that can be read in only one way, such as 2026-11-02 18:00:00 +0100; for \
                         another form, give --map with `instant_format`"
                    .to_owned())
            }
        }
    }

    fn formatted(&self, text: &str, format: &str) -> Result<Instant, String> {
        let parsed = strtime::parse(format, text)
            .map_err(|_| format!("must have the form `{format}`, which is the map's `instant_format`"))?;
        if let Ok(at) = parsed.to_timestamp() {
            return Ok(at.into());
        }
        let local = parsed.to_datetime().or_else(|_| parsed.to_date().map(Date::into));
        let local: DateTime =
            local.map_err(|_| format!("`{format}` has no whole date: mend the map's `instant_format`"))?;
        self.zone.as_ref().map(|zone| zone.bound(local)).ok_or_else(|| NO_ZONE.to_owned())
    }
}

/// Removes the sign or the code of the currency, before or behind the number.
fn without_sign<'a>(text: &'a str, currency: &str) -> &'a str {
    let signs = SIGNS.iter().filter(|(_, codes)| codes.split(' ').any(|code| code == currency)).map(|(sign, _)| *sign);
    for sign in signs.chain([currency]).filter(|sign| !sign.is_empty()) {
        if let Some(rest) = text.strip_prefix(sign).or_else(|| text.strip_suffix(sign)) {
            return rest.trim();
        }
    }
    text
}

/// Writes `+0100` as `+01:00`.
fn with_colon(offset: &str) -> String {
    match offset.split_at_checked(3) {
        Some((hours, minutes)) if offset.len() == 5 => format!("{hours}:{minutes}"),
        _ => offset.to_owned(),
    }
}

/// Reads a date, or a date and a time without an offset.
fn local(text: &str) -> Option<DateTime> {
    let is_date = |text: &str| {
        text.len() == 10
            && text
                .bytes()
                .enumerate()
                .all(|(at, byte)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() })
    };
    let date = text.get(..10).filter(|date| is_date(date))?;
    let rest = &text[10..];
    if rest.is_empty() {
        return date.parse::<Date>().ok().map(Date::into);
    }
    let time = rest.strip_prefix([' ', 'T'])?;
    let is_time = time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.')) && time.len() >= 5;
    is_time.then(|| format!("{date}T{time}").parse::<DateTime>().ok())?
}

/// Checks an id. A spreadsheet turns a long number into one such as `5.51E+12`, so that many orders get one id.
pub(super) fn id(text: &str) -> Result<&str, String> {
    let text = text.trim();
    let is_rounded = text.split_once(['e', 'E']).is_some_and(|(mantissa, exponent)| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        mantissa.contains(['.', ','])
            && exponent.strip_prefix('+').is_some_and(digits)
            && digits(&mantissa.replace(['.', ','], ""))
    });
    if is_rounded {
        return Err("is a number that a spreadsheet has rounded: export the file again, and do not save it from the spreadsheet"
            .to_owned());
    }
    Ok(text)
}

/// Reads a quantity. `1.0` is 1.
pub(super) fn quantity(text: &str) -> Result<i32, String> {
    let wrong = || "must be a whole number from 0 to 2147483647".to_owned();
    let value = Decimal::from_str_exact(text.trim()).map_err(|_| wrong())?.normalize();
    let is_whole = value.scale() == 0 && !value.is_sign_negative();
    i32::try_from(value.mantissa()).ok().filter(|_| is_whole).ok_or_else(wrong)
}

/// Reads a decimal that [`Cells::amount`] returned.
pub(super) fn exact(amount: &str) -> Result<Decimal, String> {
    Decimal::from_str_exact(amount).map_err(|_| "is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_marks_are_removed_where_they_agree() {
        let point = Cells::default();
        let comma = Cells { decimal_comma: true, ..Cells::default() };
        for (cells, text, currency, expected) in [
            (&point, "19.99", "EUR", Some("19.99")),
            (&point, " 19.9900 ", "EUR", Some("19.9900")),
            (&point, "$1,234.50", "USD", Some("1234.50")),
            (&point, "US$ 1,234", "USD", Some("1234")),
            (&point, "-€5", "EUR", Some("-5")),
            (&point, "€-5", "EUR", Some("-5")),
            (&point, "12 345,678.00", "EUR", None),
            (&point, "1’234.50 CHF", "CHF", Some("1234.50")),
            (&point, "1,234", "JPY", Some("1234")),
            (&point, "1,234", "KWD", None),
            (&point, "1,234.567", "KWD", Some("1234.567")),
            (&point, "1,50", "EUR", None),
            (&point, "1,2345", "EUR", None),
            (&point, "$5", "EUR", None),
            (&point, "5 €", "USD", None),
            (&point, "5.", "EUR", None),
            (&point, "(5.00)", "EUR", None),
            (&point, "1e3", "EUR", None),
            (&point, "", "EUR", None),
            (&comma, "1.234,50 €", "EUR", Some("1234.50")),
            (&comma, "19,99", "EUR", Some("19.99")),
            (&comma, "1 234 567,5", "EUR", Some("1234567.5")),
            (&comma, "19.99", "EUR", None),
            (&comma, "1.234", "EUR", Some("1234")),
            (&comma, "59,00 zł", "PLN", Some("59.00")),
        ] {
            let read = cells.amount(text, currency);
            assert_eq!(read.as_deref().ok(), expected, "{text} {currency}: {read:?}");
        }
        assert!(point.amount("1,50", "EUR").unwrap_err().contains("--decimal-comma"));
    }

    #[test]
    fn instants_are_never_guessed() {
        let at = |cells: &Cells, text: &str| cells.instant(text).map(|at| at.to_string());
        let none = Cells::default();
        let vienna = Cells { zone: Some(Zone::parse("Europe/Vienna").unwrap()), ..Cells::default() };
        for text in [
            "2026-11-02T18:00:00+01:00",
            "2026-11-02 18:00:00 +0100",
            "2026-11-02 17:00:00 UTC",
            "2026-11-02 17:00:00 +00:00",
            "2026-11-02T17:00:00Z",
        ] {
            assert_eq!(at(&none, text).unwrap(), "2026-11-02T17:00:00Z", "{text}");
        }
        for (text, expected) in [
            ("2026-11-02 18:00:00", "2026-11-02T17:00:00Z"),
            ("2026-11-02T18:00", "2026-11-02T17:00:00Z"),
            ("2026-11-02", "2026-11-01T23:00:00Z"),
            // The clock skips 02:30, and has another 02:30 twice.
            ("2026-03-29 02:30:00", "2026-03-29T01:00:00Z"),
            ("2026-10-25 02:30:00", "2026-10-25T00:30:00Z"),
        ] {
            assert_eq!(at(&none, text).unwrap_err(), NO_ZONE, "{text}");
            assert_eq!(at(&vienna, text).unwrap(), expected, "{text}");
        }
        for text in ["05/01/2026", "01/05/2026 10:00", "5.1.2026", "2026-13-01", "2026-1-5", "yesterday", ""] {
            assert!(at(&vienna, text).unwrap_err().contains("only one way"), "{text}");
        }
        let german = Cells { instant_format: Some("%d.%m.%Y %H:%M".to_owned()), ..vienna.clone() };
        assert_eq!(at(&german, "02.11.2026 18:00").unwrap(), "2026-11-02T17:00:00Z");
        assert!(at(&german, "2026-11-02 18:00").unwrap_err().contains("instant_format"));
        let date = Cells { instant_format: Some("%d/%m/%Y".to_owned()), ..vienna };
        assert_eq!(at(&date, "02/11/2026").unwrap(), "2026-11-01T23:00:00Z");
        let offset = Cells { instant_format: Some("%m/%d/%Y %H:%M:%S %z".to_owned()), ..none };
        assert_eq!(at(&offset, "11/02/2026 18:00:00 +0100").unwrap(), "2026-11-02T17:00:00Z");
    }

    #[test]
    fn rounded_ids_are_refused() {
        for text in ["5.51E+12", "5,51E+12", "5.51e+12"] {
            assert!(id(text).unwrap_err().contains("spreadsheet"), "{text}");
        }
        for text in ["#1001", "5512345678901", "E+12", "1E5", "A.E+1", "0042"] {
            assert_eq!(id(&format!(" {text} ")), Ok(text));
        }
    }

    #[test]
    fn quantities_are_whole() {
        assert_eq!((quantity("1.0"), quantity(" 3 "), quantity("0")), (Ok(1), Ok(3), Ok(0)));
        for text in ["1.5", "-1", "", "x", "99999999999"] {
            assert!(quantity(text).is_err(), "{text}");
        }
    }
}
