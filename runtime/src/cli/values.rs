//! Readers of the values of flags. Their errors say what to write.

use std::str::FromStr;
use std::time::Duration;

/// Reads a duration such as `30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a duration; write one like 500ms, 30s or 5m".to_owned())
}

/// Reads a number of seconds, or a duration such as `500ms`.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse().map(Duration::try_from_secs_f64) {
        Ok(Ok(seconds)) => Ok(seconds),
        Ok(Err(_)) => Err("must be zero or more seconds".to_owned()),
        Err(_) => duration(text),
    }
}

/// Reads a whole number.
pub(super) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "not a whole number; write one like 10".to_owned())
}

/// Reads a whole number from 1 on.
pub(super) fn positive<T: FromStr + From<u8> + PartialOrd>(text: &str) -> Result<T, String> {
    whole(text).ok().filter(|number| *number >= T::from(1)).ok_or_else(|| "must be a whole number from 1 on".to_owned())
}

/// Reads a number of bytes such as `64KiB`.
pub(super) fn size(text: &str) -> Result<bytesize::ByteSize, String> {
    text.parse().map_err(|_| "not a size; write one like 64KiB".to_owned())
}
