//! Failure reasons that fit in a header.

use crate::frame::to_header_line;

/// The most bytes of the reason in a dead letter. With the other headers, it takes less room than an item leaves.
const REASON_MAX: usize = 4 << 10;

/// Returns a reason as one short line.
pub(crate) fn reason_line(reason: &str) -> String {
    cut(&to_header_line(reason), REASON_MAX)
}

/// Returns a reason as it is, cut to the same length.
pub(crate) fn short(reason: &str) -> String {
    cut(reason, REASON_MAX)
}

pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}
