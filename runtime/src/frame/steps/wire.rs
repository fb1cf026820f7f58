//! The form of a record in its header: Base64 of a CBOR map with short keys.
//!
//! Times are relative to the first one that is known. Of steps in a row on one node and one version, the first names these.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD as BASE64;
use ciborium::Value;

use super::{Column, Row, STEPS_MAX, Steps};
use crate::frame::cbor::{self, insert_head, write_head};

/// The most bytes of a name, a failure or a line that is read.
const TEXT_MAX: usize = 1 << 10;
/// The most numbers of a record that is read. Runs are short in the header and long in memory.
const NUMBERS_MAX: usize = 1 << 20;

/// A CBOR map while it is written.
struct Map<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    entries: u64,
}

impl<'a> Map<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(0);
        Self { out, start, entries: 0 }
    }

    fn end(self) {
        insert_head(5, self.entries, self.start, self.out);
    }

    /// Writes a key. Its value must follow.
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.entries += 1;
        text(key, self.out);
        self.out
    }

    fn text(&mut self, key: &str, value: &str) {
        text(value, self.key(key));
    }

    fn number(&mut self, key: &str, value: i64) {
        number(value, self.key(key));
    }

    fn column(&mut self, key: &str, column: &Column, base: i64) {
        let out = self.key(key);
        match column {
            Column::Same(value) => number(value.saturating_sub(base), out),
            Column::Each(values) => {
                let runs: Vec<&[i64]> = values.chunk_by(|one, next| one == next).collect();
                write_head(4, runs.len() as u64, out);
                for run in runs {
                    let value = run[0].saturating_sub(base);
                    if run.len() > 1 {
                        write_head(4, 2, out);
                        number(value, out);
                        write_head(0, run.len() as u64, out);
                    } else {
                        number(value, out);
                    }
                }
            }
        }
    }
}

fn text(value: &str, out: &mut Vec<u8>) {
    write_head(3, value.len() as u64, out);
    out.extend_from_slice(value.as_bytes());
}

fn number(value: i64, out: &mut Vec<u8>) {
    match u64::try_from(value) {
        Ok(value) => write_head(0, value, out),
        Err(_) => write_head(1, value.unsigned_abs() - 1, out),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Writes the value of the header.
pub(super) fn write(steps: &Steps) -> String {
    let first = steps.rows.first().and_then(|row| row.started.get(0));
    let base = steps.fed.or(steps.queued).map(signed).or(first).unwrap_or(0);
    let mut out = Vec::with_capacity(32 + 64 * steps.rows.len());
    let mut map = Map::begin(&mut out);
    map.number("b", base);
    if let Some(fed) = steps.fed {
        map.number("f", signed(fed).saturating_sub(base));
    }
    if let Some(queued) = steps.queued {
        map.number("q", signed(queued).saturating_sub(base));
    }
    if steps.dropped > 0 {
        map.number("d", signed(steps.dropped));
    }
    let rows = map.key("s");
    write_head(4, steps.rows.len() as u64, rows);
    let mut before = None;
    for row in &steps.rows {
        write_row(row, before, base, rows);
        before = Some(row);
    }
    map.end();
    BASE64.encode(out)
}

fn write_row(row: &Row, before: Option<&Row>, base: i64, out: &mut Vec<u8>) {
    let mut map = Map::begin(out);
    map.text("s", &row.stage);
    if before.is_none_or(|before| before.node != row.node) {
        map.text("n", &row.node);
    }
    if before.is_none_or(|before| (&before.version, before.revision) != (&row.version, row.revision)) {
        map.text("v", &row.version);
        map.number("r", signed(row.revision));
    }
    if row.attempt != 1 {
        map.number("a", signed(row.attempt));
    }
    if let Some(queued) = row.queued {
        map.number("q", signed(queued).saturating_sub(base));
    }
    if let Some((skew, error)) = row.skew {
        let out = map.key("k");
        write_head(4, 2, out);
        number(skew, out);
        write_head(0, error, out);
    }
    if let Some(failure) = &row.failure {
        map.text("x", failure);
    }
    if !row.lines.is_empty() {
        let out = map.key("l");
        write_head(4, row.lines.len() as u64, out);
        row.lines.iter().for_each(|line| text(line, out));
    }
    if row.is_coarse {
        map.key("c").push(0xf5);
    }
    map.column("t", &row.started, base);
    map.column("u", &row.ran, 0);
    for (key, column) in [("i", &row.received), ("o", &row.sent), ("w", &row.calls), ("e", &row.exit)] {
        if let Some(column) = column {
            map.column(key, column, 0);
        }
    }
    map.end();
}

/// Reads the value of the header of a message with this many items. `None` if it is none.
pub(super) fn read(header: &str, items: usize) -> Option<Steps> {
    if header.len() > STEPS_MAX {
        return None;
    }
    let map = cbor::value(&BASE64.decode(header).ok()?)?;
    let base = integer(field(&map, "b")?)?;
    let time = |key: &str| u64::try_from(integer(field(&map, key)?)?.checked_add(base)?).ok();
    let mut rows: Vec<Row> = Vec::new();
    let mut numbers = 0;
    for row in field(&map, "s")?.as_array()? {
        let row = read_row(row, rows.last(), base, items)?;
        numbers += row.columns().filter(|column| column.is_each()).count() * items;
        if numbers > NUMBERS_MAX {
            return None;
        }
        rows.push(row);
    }
    let dropped = field(&map, "d").and_then(whole).unwrap_or(0);
    Some(Steps { fed: time("f"), queued: time("q"), dropped, rows })
}

fn read_row(map: &Value, before: Option<&Row>, base: i64, items: usize) -> Option<Row> {
    let text = |key: &str| short(field(map, key)?);
    let inherited = |key: &str, of: fn(&Row) -> &String| text(key).or_else(|| Some(of(before?).clone()));
    let skew = field(map, "k").and_then(Value::as_array).and_then(|pair| match pair.as_slice() {
        [skew, error] => Some((integer(skew)?, whole(error)?)),
        _ => None,
    });
    let lines = field(map, "l").and_then(Value::as_array).map(|lines| lines.iter().filter_map(short).collect());
    let column = |key: &str| read_column(field(map, key)?, 0, items);
    Some(Row {
        stage: text("s")?,
        node: inherited("n", |row| &row.node)?,
        version: inherited("v", |row| &row.version)?,
        revision: field(map, "r").and_then(whole).or_else(|| Some(before?.revision))?,
        attempt: field(map, "a").and_then(whole).unwrap_or(1),
        queued: field(map, "q").and_then(integer).and_then(|queued| u64::try_from(queued.checked_add(base)?).ok()),
        skew,
        failure: text("x"),
        lines: lines.unwrap_or_default(),
        is_coarse: field(map, "c").is_some(),
        started: read_column(field(map, "t")?, base, items)?,
        ran: column("u")?,
        received: column("i"),
        sent: column("o"),
        calls: column("w"),
        exit: column("e"),
    })
}

/// Reads one number for each item. `None` if there are more or fewer.
fn read_column(value: &Value, base: i64, items: usize) -> Option<Column> {
    let based = |value: &Value| integer(value)?.checked_add(base);
    let Value::Array(runs) = value else { return Some(Column::Same(based(value)?)) };
    let mut numbers = Vec::new();
    for run in runs {
        let (number, count) = match run.as_array().map(Vec::as_slice) {
            None => (based(run)?, 1),
            Some([number, count]) => (based(number)?, usize::try_from(whole(count)?).ok()?),
            Some(_) => return None,
        };
        if count > items.saturating_sub(numbers.len()) {
            return None;
        }
        numbers.extend(std::iter::repeat_n(number, count));
    }
    (numbers.len() == items).then_some(Column::Each(numbers))
}

fn field<'a>(map: &'a Value, key: &str) -> Option<&'a Value> {
    map.as_map()?.iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, value)| value)
}

fn integer(value: &Value) -> Option<i64> {
    value.as_integer()?.try_into().ok()
}

fn whole(value: &Value) -> Option<u64> {
    value.as_integer()?.try_into().ok()
}

fn short(value: &Value) -> Option<String> {
    value.as_text().filter(|text| text.len() <= TEXT_MAX).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    #[test]
    fn a_record_survives_its_header() {
        let started = Column::Each(vec![1_005, 1_005, 1_006, 999]);
        let failed = Row {
            node: "b".to_owned(),
            attempt: 2,
            queued: None,
            skew: None,
            failure: Some("error".to_owned()),
            lines: vec!["one\ntwo".to_owned()],
            is_coarse: true,
            ..row("second", Column::Same(1_010))
        };
        let rows = vec![row("first", started), Row { node: "b".to_owned(), ..row("mid", Column::Same(1_008)) }, failed];
        for (fed, queued) in [(Some(990), None), (None, Some(1_000)), (None, None)] {
            let steps = Steps { fed, queued, dropped: 2, rows: rows.clone() };
            let header = steps.to_header();
            assert_eq!(Steps::from_header(&header, 4), Some(steps), "{header}");
        }
        assert_eq!(Steps::from_header(&Steps::default().to_header(), 1), Some(Steps::default()));
    }

    #[test]
    fn what_is_no_record_of_so_many_items_is_none() {
        let steps = Steps { rows: vec![row("s", Column::Each(vec![1, 2, 2, 2]))], ..Steps::default() };
        let header = steps.to_header();
        assert!(Steps::from_header(&header, 4).is_some());
        for items in [0, 1, 3, 5] {
            assert_eq!(Steps::from_header(&header, items), None, "{items}");
        }
        for wrong in ["", "x", "AA", "oA", &"A".repeat(STEPS_MAX + 1), &header[..header.len() / 2]] {
            assert_eq!(Steps::from_header(wrong, 4), None, "{wrong}");
        }
        // A run of more items than any message has.
        let many = [
            &b"\xa2\x61b\x00\x61s\x81\xa6\x61s\x61s\x61n\x61n\x61v\x61v\x61r\x01\x61t\x81\x82\x00\x1b"[..],
            &[0xff; 8],
            b"\x61u\x00",
        ];
        assert_eq!(Steps::from_header(&BASE64.encode(many.concat()), 4), None);
    }
}
