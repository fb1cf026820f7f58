//! Random values for tests, the same in each run.

use ciborium::Value;

/// A source of values (Knuth's MMIX constants).
pub(super) struct Random(u64);

/// Texts that are hard to write: quotes, escapes, control characters, and what looks like a form of an item.
const TEXTS: [&str; 12] = [
    "",
    "a",
    "json",
    "cbor",
    "it's",
    "\"",
    "'''",
    "\"\"\"",
    "\\ \n\t\r",
    "\u{0}\u{1b}\u{7f}\u{85}",
    "é 🦀",
    "key with = [dots].x",
];

impl Random {
    /// Creates a source.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number below another.
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    /// Returns a text.
    pub(super) fn text(&mut self) -> String {
        let parts = self.below(3);
        (0..=parts).map(|_| TEXTS[usize::try_from(self.below(12)).expect("small")]).collect()
    }

    fn number(&mut self) -> Value {
        let wide = i128::from(self.below(1 << 31)) * i128::from(self.below(1 << 31)) * 5;
        let numbers = [
            Value::from(self.below(9)),
            Value::Integer((wide.min(i128::from(u64::MAX))).try_into().expect("64 bits")),
            Value::Integer((-wide).max(-i128::from(u64::MAX) - 1).try_into().expect("64 bits")),
            Value::from(f64::from(u32::try_from(self.below(1 << 30)).expect("small")) / 64.0),
            Value::from([f64::NAN, f64::INFINITY, -0.0, 1e300, 5e-324][usize::try_from(self.below(5)).expect("small")]),
            Value::Tag(
                2 + self.below(2),
                Box::new(Value::Bytes(vec![1 + u8::try_from(self.below(9)).expect("small"); 20])),
            ),
        ];
        numbers[usize::try_from(self.below(6)).expect("small")].clone()
    }

    /// Returns a value of at most this many levels below it.
    pub(super) fn value(&mut self, depth: u32) -> Value {
        let kinds = if depth == 0 { 8 } else { 13 };
        match self.below(kinds) {
            0 | 1 => self.number(),
            2 | 3 => Value::from(self.text()),
            4 => Value::from(self.below(2) == 0),
            5 if self.below(3) == 0 => Value::Null,
            6 if self.below(3) == 0 => Value::Bytes(self.text().into_bytes()),
            7 if self.below(3) == 0 => Value::Tag(0, Box::new(Value::from(self.text()))),
            5..=7 => Value::from(self.below(100)),
            8 | 9 => {
                let length = self.below(4);
                Value::Array((0..length).map(|_| self.value(depth - 1)).collect())
            }
            _ => {
                let length = self.below(4);
                Value::Map((0..length).map(|_| (self.key(), self.value(depth - 1))).collect())
            }
        }
    }

    fn key(&mut self) -> Value {
        if self.below(12) == 0 { Value::from(self.below(3)) } else { Value::from(self.text()) }
    }
}
