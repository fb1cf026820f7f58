//! Sets of kinds of values.

use std::ops::{BitAnd, BitOr};

/// A set of kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Kinds(u16);

impl Kinds {
    /// No kind.
    pub(super) const NONE: Self = Self(0);
    /// `null`.
    pub(super) const NULL: Self = Self(1);
    /// `false` and `true`.
    pub(super) const BOOL: Self = Self(1 << 1);
    /// Whole numbers.
    pub(super) const INTEGER: Self = Self(1 << 2);
    /// Numbers that are not whole.
    pub(super) const FRACTION: Self = Self(1 << 3);
    /// Texts.
    pub(super) const TEXT: Self = Self(1 << 4);
    /// Arrays.
    pub(super) const LIST: Self = Self(1 << 5);
    /// Objects.
    pub(super) const OBJECT: Self = Self(1 << 6);
    /// Byte strings.
    pub(super) const BYTES: Self = Self(1 << 7);
    /// Points in time, as tags 0 and 1 of CBOR.
    pub(super) const TIME: Self = Self(1 << 8);
    /// Dates, as tags 100 and 1004 of CBOR.
    pub(super) const DATE: Self = Self(1 << 9);
    /// UUIDs, as tag 37 of CBOR.
    pub(super) const UUID: Self = Self(1 << 10);
    /// All else: other tags, NaN and infinities, maps that are no objects.
    pub(super) const OTHER: Self = Self(1 << 11);
    /// Numbers.
    pub(super) const NUMBER: Self = Self(Self::INTEGER.0 | Self::FRACTION.0);
    /// All kinds.
    pub(super) const ALL: Self = Self((1 << 12) - 1);
    /// The kinds that JSON does not have, each with what people call it.
    pub(super) const FOREIGN: [(Self, &'static str); 5] = [
        (Self::BYTES, "bytes"),
        (Self::TIME, "a tagged time"),
        (Self::DATE, "a tagged date"),
        (Self::UUID, "a tagged UUID"),
        (Self::OTHER, "other values than JSON has, such as NaN and unknown tags"),
    ];

    /// Returns `true` if the sets have a kind in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns `true` if the set has all of these kinds.
    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the kinds that a `type` of JSON Schema names.
    pub(super) fn of_type(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::NULL,
            "boolean" => Self::BOOL,
            "integer" => Self::INTEGER,
            "number" => Self::NUMBER,
            "string" => Self::TEXT,
            "array" => Self::LIST,
            "object" => Self::OBJECT,
            _ => return None,
        })
    }

    /// Returns the types of JSON Schema that this set has.
    pub(super) fn types(self) -> Vec<&'static str> {
        let mut types = Vec::new();
        let names = [
            (Self::NULL, "null"),
            (Self::BOOL, "boolean"),
            (Self::NUMBER, "number"),
            (Self::INTEGER, "integer"),
            (Self::TEXT, "string"),
            (Self::LIST, "array"),
            (Self::OBJECT, "object"),
        ];
        for (kind, name) in names {
            if self.has(kind) && !(kind == Self::INTEGER && self.has(Self::NUMBER)) {
                types.push(name);
            }
        }
        types
    }
}

impl BitOr for Kinds {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Kinds {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}
