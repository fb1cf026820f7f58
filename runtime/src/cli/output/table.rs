//! Rows in aligned columns, no wider than the terminal.

use crate::text::{columns, cut, visible_line};

/// The space between two columns.
const GAP: &str = "  ";
/// The narrowest that the last column of text may become.
const LAST_MIN: usize = 20;
/// The narrowest that another column of text may become.
const MIN: usize = 8;
/// The first character of the heading of a column of numbers. Such a column is aligned to the right and never cut.
const RIGHT: char = '>';

/// Returns the lines of a table. If a line is wider than `max`, columns of text are cut: first the last column, then
/// the widest.
pub fn lines(headings: &[&str], rows: &[Vec<String>], max: Option<usize>) -> Vec<String> {
    let heading = headings.iter().map(|heading| heading.trim_start_matches(RIGHT).to_owned()).collect();
    let cells = |row: &Vec<String>| row.iter().map(|cell| visible_line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| columns(cell)).max();
    let mut widths: Vec<usize> = (0..headings.len()).map(|column| width(column).unwrap_or(0)).collect();
    if let Some(max) = max {
        fit(&mut widths, headings, max);
    }
    rows.iter().map(|row| line(row, &widths, headings)).collect()
}

fn line(row: &[String], widths: &[usize], headings: &[&str]) -> String {
    let cells = row.iter().zip(widths).zip(headings).map(|((cell, &width), heading)| {
        let cell = cut(cell, width);
        let fill = " ".repeat(width.saturating_sub(columns(&cell)));
        if heading.starts_with(RIGHT) { format!("{fill}{cell}") } else { format!("{cell}{fill}") }
    });
    cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
}

/// Narrows columns until a line is at most `max` wide, or nothing more can be cut.
fn fit(widths: &mut [usize], headings: &[&str], max: usize) {
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    let excess = |widths: &[usize]| (widths.iter().sum::<usize>() + gaps).saturating_sub(max);
    let is_text = |column: usize| !headings[column].starts_with(RIGHT);
    if let Some(last) = widths.len().checked_sub(1).filter(|last| is_text(*last)) {
        widths[last] -= excess(widths).min(widths[last].saturating_sub(LAST_MIN));
    }
    while excess(widths) > 0 {
        let widest = (0..widths.len()).filter(|column| is_text(*column)).max_by_key(|column| widths[*column]);
        match widest {
            Some(column) if widths[column] > MIN => widths[column] -= 1,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(rows: &[&[&str]], max: Option<usize>) -> Vec<String> {
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect();
        lines(&["ID", ">N", "REASON"], &rows, max)
    }

    #[test]
    fn columns_are_aligned_by_the_room_that_characters_take() {
        let lines = shown(&[&["日本", "1", "x"], &["a", "200", "y"]], None);
        assert_eq!(lines, ["ID      N  REASON", "日本    1  x", "a     200  y"]);
    }

    #[test]
    fn a_table_is_as_wide_as_the_terminal_and_no_wider() {
        let (id, reason) = ("i".repeat(30), "r".repeat(200));
        for (max, id_width, reason_width) in [
            (Some(100), 30, 100 - 30 - 3 - 4),
            (Some(57), 30, 20),
            // The widest first, down to eight columns each.
            (Some(45), 19, 19),
            (Some(10), MIN, MIN),
            (None, 30, 200),
        ] {
            let lines = shown(&[&[&id, "123", &reason]], max);
            let cells: Vec<&str> = lines[1].split(GAP).collect();
            assert_eq!((columns(cells[0]), cells[1], columns(cells[2])), (id_width, "123", reason_width), "{max:?}");
        }
        assert_eq!(shown(&[&["a", "1", "short"]], Some(30)).last().map(String::as_str), Some("a   1  short"));
    }

    #[test]
    fn a_cell_cannot_break_its_line() {
        assert_eq!(shown(&[&["a\nb", "1", "c\u{202e}d"]], None)[1], "a\\nb  1  c\\u202ed");
    }
}
