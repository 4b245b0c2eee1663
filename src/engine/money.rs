//! Money: whole minor units of an ISO 4217 currency. Floating-point numbers are never used.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// The greatest amount, in minor units.
pub const MAX_MINOR: i64 = 10_000_000_000_000;

/// In which form a decimal is written, for whoever wrote it in another one.
pub const DECIMAL_FORM: &str = "write a decimal as a string, such as \"19.99\"";

/// In which form a currency is written, for whoever wrote it in another one.
pub const CURRENCY_FORM: &str = "write a currency by its ISO 4217 code in upper case, such as \"EUR\"";

/// Why a decimal or a currency code is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("must be a decimal such as 19.99")]
    Malformed,
    #[error("must be an ISO 4217 currency in upper case, such as EUR")]
    UnknownCurrency,
    /// More than this number of decimals.
    #[error("must have at most {0} decimals")]
    TooManyDecimals(u32),
    /// The value does not fit into 64 bits or exceeds [`MAX_MINOR`].
    #[error("is too large")]
    OutOfRange,
}

/// An ISO 4217 currency: its code and the number of its decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency {
    code: [u8; 3],
    exponent: u8,
}

// The codes of ISO 4217 (list one, 2026-01), by the number of decimals that their amounts have. A code that is withdrawn moves to the
// lists below and never leaves the table, because recorded purchases have it.
const NO_DECIMALS: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const THREE_DECIMALS: &str = "BHD IQD JOD KWD LYD OMR TND";
const FOUR_DECIMALS: &str = "CLF UYW";
const TWO_DECIMALS: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD \
    CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD \
    HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU \
    MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK \
    SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD \
    XCG YER ZAR ZMW ZWG";

// Withdrawn codes (list three). ISO 4217 states no decimals for them. These are the decimals of the table in OpenJDK, and two for
// codes that it does not have.
const WITHDRAWN_NO_DECIMALS: &str = "ADP BEF BYB BYR ESP GRD ITL LUF MGF PTE ROL TPE TRL";
const WITHDRAWN_TWO_DECIMALS: &str = "AFA ALK ANG AOK AON AOR ARA ARP ARY ATS AYM AZM BAD BEC BEL BGJ BGK BGL BGN BOP BRB BRC BRE BRN BRR BUK CHC CSD \
    CSJ CSK CUC CYP DDM DEM ECS ECV EEK ESA ESB FIM FRF GEK GHC GHP GNE GNS GQE GWE GWP HRD HRK IEP ILP ILR ISJ LAJ \
    LSM LTL LTT LUC LUL LVL LVR MLF MRO MTL MTP MVQ MXP MZE MZM NIC NLG PEH PEI PES PLZ RHD ROK RUR SDD SDP SIT SKK \
    SLL SRG STD SUR TJR TMM UAK UGS UGW USS UYN UYP VEB VEF VNC XEU YDD YUD YUM YUN ZAL ZMK ZRN ZRZ ZWC ZWD ZWL ZWN \
    ZWR";

impl Currency {
    /// Looks a code up. Codes must be in upper case.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        let bytes: [u8; 3] = code.as_bytes().try_into().map_err(|_| MoneyError::UnknownCurrency)?;
        let listed = |list: &str| list.split_ascii_whitespace().any(|listed| listed == code);
        let exponent = if listed(TWO_DECIMALS) || listed(WITHDRAWN_TWO_DECIMALS) {
            2
        } else if listed(NO_DECIMALS) || listed(WITHDRAWN_NO_DECIMALS) {
            0
        } else if listed(THREE_DECIMALS) {
            3
        } else if listed(FOUR_DECIMALS) {
            4
        } else {
            return Err(MoneyError::UnknownCurrency);
        };
        Ok(Self { code: bytes, exponent })
    }

    /// Returns the currency of a recorded purchase. A code that the table does not have counts in no campaign, and must not stop
    /// the evaluation of other purchases: its amounts are shown with two decimals.
    pub fn recorded(code: &str) -> Result<Self, MoneyError> {
        const TWO: u8 = 2;
        Self::parse(code).or_else(|error| {
            let code: [u8; 3] = code.as_bytes().try_into().map_err(|_| error)?;
            if code.is_ascii() { Ok(Self { code, exponent: TWO }) } else { Err(error) }
        })
    }

    pub fn as_str(&self) -> &str {
        // The code is ASCII, whether or not it was found in the tables above.
        std::str::from_utf8(&self.code).unwrap_or_default()
    }

    /// Returns the number of decimals that amounts have.
    pub const fn exponent(self) -> u32 {
        self.exponent as u32
    }

    /// Returns the number of minor units in one major unit.
    pub const fn minor_per_major(self) -> i64 {
        10_i64.pow(self.exponent as u32)
    }

    /// Parses a decimal in major units and returns minor units, at most [`MAX_MINOR`] in magnitude. The caller checks the
    /// sign and all other limits.
    pub fn parse_amount(self, text: &str) -> Result<i64, MoneyError> {
        let minor = scaled(text, self.exponent())?;
        if minor.unsigned_abs() > MAX_MINOR.unsigned_abs() { Err(MoneyError::OutOfRange) } else { Ok(minor) }
    }

    /// Formats minor units as major units with all decimals of the currency: 2000 in EUR is "20.00".
    pub fn format(self, minor: i128) -> String {
        decimal_text(minor, self.exponent())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(code: String) -> Result<Self, MoneyError> {
        Self::parse(&code)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().to_owned()
    }
}

/// Returns the whole part and the fraction of a decimal without its sign. A missing fraction is "0".
fn parts(text: &str) -> Result<(&str, &str), MoneyError> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    // rust_decimal accepts more than the API does: underscores, ".5" and "5.".
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if digits(whole) && digits(fraction) { Ok((whole, fraction)) } else { Err(MoneyError::Malformed) }
}

/// Whether the text is written as a decimal, whatever its size and number of decimals.
pub fn is_decimal(text: &str) -> bool {
    parts(text).is_ok()
}

/// Returns exactly `text × 10^decimals`. It is an error if this is not a whole number of 64 bits.
pub fn scaled(text: &str, decimals: u32) -> Result<i64, MoneyError> {
    let (_, fraction) = parts(text)?;
    if text.len() > 40 {
        return Err(MoneyError::OutOfRange);
    }
    // Trailing zeros do not count as decimals: "19.9900" is 19.99.
    if fraction.trim_end_matches('0').len() > decimals as usize {
        return Err(MoneyError::TooManyDecimals(decimals));
    }
    let value = Decimal::from_str_exact(text).map_err(|_| MoneyError::OutOfRange)?.normalize();
    let factor = 10_i128.pow(decimals - value.scale());
    let scaled = value.mantissa().checked_mul(factor).ok_or(MoneyError::OutOfRange)?;
    i64::try_from(scaled).map_err(|_| MoneyError::OutOfRange)
}

/// Formats `scaled / 10^decimals` with exactly that many decimals.
pub fn decimal_text(scaled: i128, decimals: u32) -> String {
    let sign = if scaled < 0 { "-" } else { "" };
    let magnitude = scaled.unsigned_abs();
    if decimals == 0 {
        return format!("{sign}{magnitude}");
    }
    let unit = 10_u128.pow(decimals);
    format!("{sign}{}.{:0width$}", magnitude / unit, magnitude % unit, width = decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        let amount = |code, text| Currency::parse(code).unwrap().parse_amount(text);
        assert_eq!(amount("EUR", "19.99"), Ok(1999));
        assert_eq!(amount("EUR", "19.9900"), Ok(1999));
        assert_eq!(amount("EUR", "-0"), Ok(0));
        assert_eq!(amount("JPY", "19"), Ok(19));
        assert_eq!(amount("KWD", "0.001"), Ok(1));
        assert_eq!(amount("EUR", "100000000000.00"), Ok(MAX_MINOR));
        assert_eq!(amount("EUR", "100000000000.01"), Err(MoneyError::OutOfRange));
        assert_eq!(amount("EUR", "99999999999999999999999999999999"), Err(MoneyError::OutOfRange));
        assert_eq!(amount("EUR", "0.001"), Err(MoneyError::TooManyDecimals(2)));
        assert_eq!(amount("JPY", "0.5"), Err(MoneyError::TooManyDecimals(0)));
        for wrong in ["", ".5", "5.", "1e3", "1_000", "+1", "1,5", " 1", "--1", "NaN"] {
            assert_eq!(amount("EUR", wrong), Err(MoneyError::Malformed), "{wrong}");
        }
    }

    #[test]
    fn currencies_are_exact_codes() {
        assert_eq!(Currency::parse("eur"), Err(MoneyError::UnknownCurrency));
        assert_eq!(Currency::parse("XXX"), Err(MoneyError::UnknownCurrency));
        assert_eq!(Currency::parse("EURO"), Err(MoneyError::UnknownCurrency));
        assert_eq!(Currency::parse("CLF").unwrap().exponent(), 4);
        for (withdrawn, decimals) in [("BGN", 2), ("HRK", 2), ("DEM", 2), ("ITL", 0), ("BYR", 0)] {
            assert_eq!(Currency::parse(withdrawn).unwrap().exponent(), decimals, "{withdrawn}");
        }
    }

    #[test]
    fn no_code_is_listed_twice() {
        let lists =
            [NO_DECIMALS, TWO_DECIMALS, THREE_DECIMALS, FOUR_DECIMALS, WITHDRAWN_NO_DECIMALS, WITHDRAWN_TWO_DECIMALS];
        let mut codes: Vec<&str> = lists.iter().flat_map(|list| list.split_ascii_whitespace()).collect();
        assert!(codes.iter().all(|code| code.len() == 3));
        codes.sort_unstable();
        let listed = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), listed);
    }

    #[test]
    fn a_recorded_code_is_never_refused() {
        let unknown = Currency::recorded("QQQ").unwrap();
        assert_eq!((unknown.as_str(), unknown.format(1999).as_str()), ("QQQ", "19.99"));
        assert_eq!(Currency::recorded("JPY"), Currency::parse("JPY"));
        assert!(Currency::recorded("EURO").is_err() && Currency::recorded("ä1").is_err());
    }

    #[test]
    fn formatting_keeps_the_decimals() {
        assert_eq!(Currency::parse("EUR").unwrap().format(2000), "20.00");
        assert_eq!(Currency::parse("EUR").unwrap().format(-5), "-0.05");
        assert_eq!(Currency::parse("JPY").unwrap().format(7), "7");
    }
}
