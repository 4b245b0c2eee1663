//! Spans of time on the command line, such as `90s` and `10m`.

use std::time::Duration;

pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    const ALLOWED: &str = "a span is a number above 0 followed by s, m, h, d or w, such as 30d";
    let (number, seconds) = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .ok_or(ALLOWED)?;
    let number: u64 = number.parse().map_err(|_| ALLOWED)?;
    let seconds = number.checked_mul(seconds).filter(|&seconds| seconds > 0).ok_or(ALLOWED)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)] {
            assert_eq!(parse_span(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "d", "30", "0d", "-1d", "1.5h", "30 d", "30D", "99999999999999999999s", "9999999999999999999w"]
        {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }
}
