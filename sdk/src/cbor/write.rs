//! Stands between the author's type and ciborium's serializer, at every level.
//!
//! It only reports a human-readable format, which each nested value asks for again.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// A whole item, or a value inside one.
pub(super) struct Item<'a, T: ?Sized>(pub(super) &'a T);

impl<T: Serialize + ?Sized> Serialize for Item<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Between(serializer))
    }
}

/// A wrapper of a serializer, or of one for nested values.
struct Between<S>(S);

/// Methods that pass on a value without others inside.
macro_rules! write_plain {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {$(
        fn $method(self, $($name: $type),*) -> Result<S::Ok, S::Error> {
            self.0.$method($($name),*)
        }
    )*};
}

/// Methods that pass on a value with one inside.
macro_rules! write_inner {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {$(
        fn $method<T: Serialize + ?Sized>(self, $($name: $type,)* value: &T) -> Result<S::Ok, S::Error> {
            self.0.$method($($name,)* &Item(value))
        }
    )*};
}

/// Methods that begin a value with any number of others inside.
macro_rules! write_compound {
    ($($compound:ident: $method:ident($($name:ident: $type:ty),*);)*) => {$(
        fn $method(self, $($name: $type),*) -> Result<Self::$compound, S::Error> {
            self.0.$method($($name),*).map(Between)
        }
    )*};
}

type Name = &'static str;

impl<S: Serializer> Serializer for Between<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Between<S::SerializeSeq>;
    type SerializeTuple = Between<S::SerializeTuple>;
    type SerializeTupleStruct = Between<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Between<S::SerializeTupleVariant>;
    type SerializeMap = Between<S::SerializeMap>;
    type SerializeStruct = Between<S::SerializeStruct>;
    type SerializeStructVariant = Between<S::SerializeStructVariant>;

    write_plain! {
        serialize_bool(value: bool);
        serialize_i8(value: i8);
        serialize_i16(value: i16);
        serialize_i32(value: i32);
        serialize_i64(value: i64);
        serialize_i128(value: i128);
        serialize_u8(value: u8);
        serialize_u16(value: u16);
        serialize_u32(value: u32);
        serialize_u64(value: u64);
        serialize_u128(value: u128);
        serialize_f32(value: f32);
        serialize_f64(value: f64);
        serialize_char(value: char);
        serialize_str(value: &str);
        serialize_bytes(value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: Name);
        serialize_unit_variant(name: Name, index: u32, variant: Name);
    }

    write_inner! {
        serialize_some();
        serialize_newtype_struct(name: Name);
        serialize_newtype_variant(name: Name, index: u32, variant: Name);
    }

    write_compound! {
        SerializeSeq: serialize_seq(length: Option<usize>);
        SerializeTuple: serialize_tuple(length: usize);
        SerializeTupleStruct: serialize_tuple_struct(name: Name, length: usize);
        SerializeTupleVariant: serialize_tuple_variant(name: Name, index: u32, variant: Name, length: usize);
        SerializeMap: serialize_map(length: Option<usize>);
        SerializeStruct: serialize_struct(name: Name, length: usize);
        SerializeStructVariant: serialize_struct_variant(name: Name, index: u32, variant: Name, length: usize);
    }

    fn is_human_readable(&self) -> bool {
        true
    }
}

/// The traits for nested values. Each has one method per value, and one for the end.
macro_rules! inside {
    ($($trait:ident { $($method:ident($($key:ident: $type:ty)?);)* })*) => {$(
        impl<S: $trait> $trait for Between<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(fn $method<T: Serialize + ?Sized>(&mut self, $($key: $type,)? value: &T) -> Result<(), S::Error> {
                self.0.$method($($key,)? &Item(value))
            })*

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        }
    )*};
}

inside! {
    SerializeSeq { serialize_element(); }
    SerializeTuple { serialize_element(); }
    SerializeTupleStruct { serialize_field(); }
    SerializeTupleVariant { serialize_field(); }
    SerializeMap { serialize_key(); serialize_value(); }
    SerializeStruct { serialize_field(key: Name); }
    SerializeStructVariant { serialize_field(key: Name); }
}
