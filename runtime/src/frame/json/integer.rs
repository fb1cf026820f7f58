//! Integers of any size: from decimal digits to CBOR, and from big numbers of CBOR to decimal digits.

use crate::frame::cbor::write_head;

/// The most digits of an integer. The time to convert grows with the square of the digits. This many take a few milliseconds.
pub const MAX_DIGITS: usize = 10_000;
/// The most bytes of an integer with this many digits.
const MAX_BYTES: usize = 4_153;
/// The CBOR tag of a big number that is not negative.
const POSITIVE: u64 = 2;
/// The CBOR tag of a big number -1 - n.
const NEGATIVE: u64 = 3;
/// The number of decimal digits converted at once: as many as fit 32 bits.
const AT_ONCE: usize = 9;
const BASE: u64 = 1_000_000_000;

/// Writes an integer in the shortest form of CBOR. There must be at most [`MAX_DIGITS`] decimal digits.
pub fn write(is_negative: bool, digits: &[u8], out: &mut Vec<u8>) {
    let small = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u128>().ok());
    let major = u8::from(is_negative);
    if let Some(argument) = small.and_then(|small| small.checked_sub(u128::from(is_negative))) {
        if let Ok(argument) = u64::try_from(argument) {
            return write_head(major, argument, out);
        }
        return write_big(is_negative, &argument.to_be_bytes(), out);
    }
    let mut limbs = limbs(digits);
    if is_negative {
        // CBOR stores -1 - n. The number has more than 128 bits, so subtracting one does not underflow.
        for limb in &mut limbs {
            let (lower, is_borrowed) = limb.overflowing_sub(1);
            *limb = lower;
            if !is_borrowed {
                break;
            }
        }
    }
    let bytes: Vec<u8> = limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).collect();
    write_big(is_negative, &bytes, out);
}

fn write_big(is_negative: bool, bytes: &[u8], out: &mut Vec<u8>) {
    /// From this length on, ciborium does not convert to an `i128`.
    const WIDE: usize = 17;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    // Most tasks read items with ciborium, which fails on a negative number that needs all of 128 bits. With a leading zero it
    // does not, and every decoder must accept one (RFC 8949, section 3.4.3).
    let is_padded = is_negative && bytes.len() == WIDE - 1 && bytes[0] >= 0x80;
    write_head(6, if is_negative { NEGATIVE } else { POSITIVE }, out);
    write_head(2, (bytes.len() + usize::from(is_padded)) as u64, out);
    if is_padded {
        out.push(0);
    }
    out.extend_from_slice(bytes);
}

/// Returns a number in base 2^32, lowest part first.
fn limbs(digits: &[u8]) -> Vec<u32> {
    let mut limbs: Vec<u32> = Vec::with_capacity(digits.len() / AT_ONCE + 1);
    let (first, rest) = digits.split_at(digits.len() % AT_ONCE);
    for part in std::iter::once(first).chain(rest.chunks(AT_ONCE)) {
        let mut carry = part.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        for limb in &mut limbs {
            carry += u64::from(*limb) * BASE;
            *limb = low(carry);
            carry >>= 32;
        }
        if carry > 0 {
            limbs.push(low(carry));
        }
    }
    limbs
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is meant")]
fn low(wide: u64) -> u32 {
    wide as u32
}

/// Returns the decimal digits of a big number. `None` if the tag is another, or if there are more than [`MAX_DIGITS`] digits.
pub fn big_digits(tag: u64, bytes: &[u8]) -> Option<String> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = &bytes[zeros..];
    if !matches!(tag, POSITIVE | NEGATIVE) || bytes.len() > MAX_BYTES {
        return None;
    }
    // The highest part comes first.
    let whole = bytes.len() % 4;
    let part = |part: &[u8]| part.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
    let mut limbs: Vec<u32> = std::iter::once(&bytes[..whole]).chain(bytes[whole..].chunks(4)).map(part).collect();
    if tag == NEGATIVE {
        // The number is -1 - n, so its digits are those of n + 1.
        let mut is_carried = true;
        for limb in limbs.iter_mut().rev() {
            (*limb, is_carried) = limb.overflowing_add(u32::from(is_carried));
        }
        if is_carried {
            limbs.insert(0, 1);
        }
    }
    let mut parts = Vec::new();
    let mut begins = 0;
    while begins < limbs.len() {
        let mut rest = 0_u64;
        for limb in &mut limbs[begins..] {
            rest = rest << 32 | u64::from(*limb);
            *limb = low(rest / BASE);
            rest %= BASE;
        }
        parts.push(rest);
        begins += limbs[begins..].iter().take_while(|limb| **limb == 0).count();
    }
    let mut text = parts.iter().rev().fold(String::new(), |text, part| format!("{text}{part:0AT_ONCE$}"));
    text.drain(..text.len() - text.trim_start_matches('0').len());
    if text.is_empty() {
        text.push('0');
    } else if tag == NEGATIVE {
        text.insert(0, '-');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(number: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let digits = number.trim_start_matches('-');
        write(digits.len() < number.len(), digits.as_bytes(), &mut out);
        out
    }

    #[test]
    fn an_integer_has_the_shortest_form() {
        // Examples of RFC 8949, appendix A, and numbers at limits.
        let cases: [(&str, &[u8]); 10] = [
            ("0", b"\x00"),
            ("23", b"\x17"),
            ("1000000", b"\x1a\x00\x0f\x42\x40"),
            ("18446744073709551615", b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff"),
            ("18446744073709551616", b"\xc2\x49\x01\0\0\0\0\0\0\0\0"),
            ("-1", b"\x20"),
            ("-1000", b"\x39\x03\xe7"),
            ("-18446744073709551616", b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff"),
            ("-18446744073709551617", b"\xc3\x49\x01\0\0\0\0\0\0\0\0"),
            (
                "-340282366920938463463374607431768211456",
                b"\xc3\x51\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            ),
        ];
        for (number, cbor) in cases {
            assert_eq!(written(number), cbor, "{number}");
        }
    }

    #[test]
    fn a_big_number_comes_back_digit_for_digit() {
        let powers = [64, 65, 96, 127, 128, 129, 160, 1_000].map(power_of_two);
        let near = powers.iter().flat_map(|power| [power.clone(), format!("{power}7"), format!("9{power}")]);
        let long = ["9".repeat(MAX_DIGITS), format!("1{}", "0".repeat(MAX_DIGITS - 1)), "1234567890".repeat(50)];
        for digits in near.chain(long) {
            for number in [digits.clone(), format!("-{digits}")] {
                let bytes = written(&number);
                // -2^64 is not a big number.
                let Some(tag) = bytes[0].checked_sub(0xc0) else { continue };
                let start = match bytes[1] {
                    0x58 => 3,
                    0x59 => 4,
                    _ => 2,
                };
                assert_eq!(big_digits(u64::from(tag), &bytes[start..]).as_ref(), Some(&number));
            }
        }
    }

    /// Returns 2 to this power, by doubling digits.
    fn power_of_two(power: usize) -> String {
        let mut digits = vec![1_u8];
        for _ in 0..power {
            let mut carry = 0;
            for digit in &mut digits {
                let doubled = *digit * 2 + carry;
                (*digit, carry) = (doubled % 10, doubled / 10);
            }
            digits.extend((carry > 0).then_some(carry));
        }
        digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
    }

    #[test]
    fn a_big_number_may_be_small_and_other_tags_are_none() {
        assert_eq!(big_digits(POSITIVE, b"").as_deref(), Some("0"));
        assert_eq!(big_digits(POSITIVE, b"\0\0\x07").as_deref(), Some("7"));
        assert_eq!(big_digits(NEGATIVE, b"").as_deref(), Some("-1"));
        assert_eq!(big_digits(NEGATIVE, b"\xff\xff\xff\xff").as_deref(), Some("-4294967296"));
        assert_eq!(big_digits(4, b"\x07"), None);
        assert_eq!(big_digits(POSITIVE, &[1; MAX_BYTES + 1]), None);
    }
}
