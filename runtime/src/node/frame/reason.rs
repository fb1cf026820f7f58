//! Reasons as headers can have them.

use crate::frame::to_header_line;

/// The most bytes of a dead letter's reason: with the other headers, less than the room that an item leaves.
const REASON_MAX: usize = 4 << 10;

/// A reason as a header can have it.
pub(crate) fn reason_line(reason: &str) -> String {
    cut(&to_header_line(reason), REASON_MAX)
}

pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}
