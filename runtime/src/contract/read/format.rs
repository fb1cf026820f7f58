//! Formats that are not about how a text is written.

use crate::contract::decimal::Decimal;

/// Returns `true` if texts of this format may be bytes.
pub(super) fn is_bytes(format: &str) -> bool {
    matches!(format, "binary" | "byte")
}

/// Returns `true` if the format is about numbers, and bounds them nowhere.
pub(super) fn is_number(format: &str) -> bool {
    matches!(format, "float" | "double" | "int" | "uint" | "int128" | "uint128" | "decimal")
}

/// Returns the least and the most number that the type of a format holds.
pub(super) fn hinted(format: &str) -> Option<(Decimal, Decimal)> {
    let (is_signed, bits) = match format.strip_prefix("uint") {
        Some(bits) => (false, bits),
        None => (true, format.strip_prefix("int")?),
    };
    let bits: u32 = bits.parse().ok().filter(|bits| matches!(bits, 8 | 16 | 32 | 64))?;
    let (least, most) = if is_signed { (-(1_i128 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    Some((Decimal::of_units(least, 0)?, Decimal::of_units(most, 0)?))
}
