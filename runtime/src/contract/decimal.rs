//! Numbers as decimals of any size: 1 and 1.0 are equal, and 0.1 is a tenth.
//!
//! A float stands for the shortest decimal that is read as it, as it would be written in JSON.

use std::cmp::Ordering;
use std::fmt;

/// The most that an exponent may be. The time to write a number out grows with it.
const MAX_EXPONENT: i64 = 100_000;

/// A finite number: its digits times ten to the power of its exponent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Decimal {
    is_negative: bool,
    /// From 0 to 9 each. Neither the first nor the last is 0, so that a number has one form. Zero has none.
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Returns the number with these decimal digits, in ASCII. `None` if the exponent is too large.
    fn new(is_negative: bool, digits: &str, exponent: i64) -> Option<Self> {
        let whole = digits.trim_start_matches('0');
        let digits = whole.trim_end_matches('0');
        if digits.is_empty() {
            return Some(Self::default());
        }
        let exponent = exponent.checked_add(i64::try_from(whole.len() - digits.len()).ok()?)?;
        let is_held = exponent.abs() <= MAX_EXPONENT;
        is_held.then(|| Self { is_negative, digits: digits.bytes().map(|digit| digit - b'0').collect(), exponent })
    }

    /// Returns the number with these digits, which may begin with a minus sign, times ten to this power.
    pub(super) fn from_digits(digits: &str, exponent: i64) -> Option<Self> {
        match digits.strip_prefix('-') {
            Some(digits) => Self::new(true, digits, exponent),
            None => Self::new(false, digits, exponent),
        }
    }

    /// Returns the number that a float stands for. `None` if it is not finite.
    pub(super) fn from_float(float: f64) -> Option<Self> {
        if !float.is_finite() {
            return None;
        }
        let text = format!("{float:e}");
        let (digits, exponent) = text.split_once('e')?;
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let exponent: i64 = exponent.parse().ok()?;
        Self::from_digits(&format!("{whole}{part}"), exponent - i64::try_from(part.len()).ok()?)
    }

    /// Returns `true` if the number is whole.
    pub(super) fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    /// Returns the exponent.
    pub(super) fn exponent(&self) -> i64 {
        self.exponent
    }

    /// Returns `true` if the number is a multiple of this one. `None` if this one has too many digits.
    pub(super) fn is_multiple_of(&self, step: &Self) -> Option<bool> {
        let modulus = step.digits.iter().try_fold(0_u64, |value, digit| {
            value.checked_mul(10).and_then(|value| value.checked_add(u64::from(*digit)))
        })?;
        if self.digits.is_empty() || modulus == 0 {
            return Some(self.digits.is_empty());
        }
        // The last digit is not 0, so the number is no multiple of ten times its unit.
        let Ok(places) = u64::try_from(self.exponent - step.exponent) else { return Some(false) };
        let modulus = u128::from(modulus);
        let digits = self.digits.iter().fold(0, |rest, digit| (rest * 10 + u128::from(*digit)) % modulus);
        let power = (0..places).fold(1, |power, _| power * 10 % modulus);
        Some(digits * power % modulus == 0)
    }

    /// Returns the number in units of ten to this power. `None` if it is no multiple of the unit, or too large.
    pub(super) fn in_units(&self, exponent: i64) -> Option<i128> {
        let places = u32::try_from(self.exponent - exponent).ok();
        if self.digits.is_empty() {
            return Some(0);
        }
        let digits = self.digits.iter().try_fold(0_i128, |value, digit| {
            value.checked_mul(10).and_then(|value| value.checked_add(i128::from(*digit)))
        })?;
        let units = digits.checked_mul(10_i128.checked_pow(places?)?)?;
        Some(if self.is_negative { -units } else { units })
    }

    /// Returns the number of so many units of ten to this power.
    pub(super) fn of_units(units: i128, exponent: i64) -> Option<Self> {
        Self::from_digits(&units.to_string(), exponent)
    }

    /// Returns the digits of a whole number, with its sign. `None` if it is not whole.
    pub(super) fn integer_digits(&self) -> Option<(bool, String)> {
        let zeros = usize::try_from(self.exponent).ok()?;
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let digits = if digits.is_empty() { "0".to_owned() } else { digits + &"0".repeat(zeros) };
        Some((self.is_negative, digits))
    }

    /// Returns the float that stands for this number. `None` if none does.
    pub(super) fn to_float(&self) -> Option<f64> {
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let sign = if self.is_negative { "-" } else { "" };
        let float = format!("{sign}{digits}e{}", self.exponent).parse().ok()?;
        (Self::from_float(float).as_ref() == Some(self)).then_some(float)
    }

    /// Returns the place of the first digit, as a power of ten.
    fn magnitude(&self) -> i64 {
        i64::try_from(self.digits.len()).unwrap_or(i64::MAX).saturating_add(self.exponent)
    }

    fn compare_sizes(&self, other: &Self) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            // Digits compare like words, since none ends in 0.
            _ => self.magnitude().cmp(&other.magnitude()).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.compare_sizes(other),
            (true, true) => other.compare_sizes(self),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WRITTEN_OUT: i64 = 21;
        let digits: String = self.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        if self.is_negative {
            formatter.write_str("-")?;
        }
        let point = usize::try_from(self.magnitude()).unwrap_or(0);
        match self.exponent {
            _ if digits.is_empty() => formatter.write_str("0"),
            0.. if self.magnitude() <= WRITTEN_OUT => write!(formatter, "{digits}{}", "0".repeat(point - digits.len())),
            _ if self.exponent < 0 && (1..=WRITTEN_OUT).contains(&self.magnitude()) => {
                write!(formatter, "{}.{}", &digits[..point], &digits[point..])
            }
            -9..0 if self.magnitude() <= 0 => {
                write!(formatter, "0.{}{digits}", "0".repeat(usize::try_from(-self.magnitude()).unwrap_or(0)))
            }
            exponent => write!(formatter, "{digits}e{exponent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Decimal {
        let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
        Decimal::from_digits(digits, exponent.parse().expect("an exponent")).expect("a number")
    }

    #[test]
    fn equal_numbers_have_one_form() {
        for (float, text) in
            [(1.0, "1"), (-0.0, "0"), (0.1, "1e-1"), (-2.5e3, "-2500"), (1e23, "1e23"), (5e-324, "5e-324")]
        {
            assert_eq!(Decimal::from_float(float), Some(number(text)), "{float}");
        }
        assert_eq!(number("00120e2"), number("12000"));
        assert_eq!(Decimal::from_float(f64::NAN), None);
        assert_eq!(Decimal::from_digits("1", MAX_EXPONENT + 1), None);
    }

    #[test]
    fn numbers_are_in_order() {
        let texts =
            ["-1e30", "-12", "-11e-1", "-1", "-1e-9", "0", "1e-9", "9e-1", "1", "11e-1", "2", "9", "10", "1e30"];
        let numbers: Vec<Decimal> = texts.iter().map(|text| number(text)).collect();
        assert!(numbers.is_sorted());
        assert!(number("18446744073709551617") > number("18446744073709551616"));
    }

    #[test]
    fn multiples_are_those_of_decimals() {
        for (value, step, expected) in [
            ("3e-1", "1e-1", true),
            ("1999e-2", "1e-2", true),
            ("1", "3", false),
            ("9e30", "3", true),
            ("0", "7", true),
            ("25e-1", "1", false),
            ("-75e-1", "25e-1", true),
            ("100", "3e1", false),
        ] {
            assert_eq!(number(value).is_multiple_of(&number(step)), Some(expected), "{value} of {step}");
        }
        assert_eq!(number("1").is_multiple_of(&number("123456789012345678901")), None);
    }

    #[test]
    fn a_number_is_written_as_people_do() {
        for (text, written) in [
            ("12e2", "1200"),
            ("-125e-2", "-1.25"),
            ("5e-3", "0.005"),
            ("1e30", "1e30"),
            ("1e-20", "1e-20"),
            ("0", "0"),
        ] {
            assert_eq!(number(text).to_string(), written);
        }
        assert_eq!(number("125e-2").to_float(), Some(1.25));
        assert_eq!(number("12e2").integer_digits(), Some((false, "1200".to_owned())));
    }
}
