//! The context of one item after the other.
//!
//! Within an instance, only the id and the attempt differ from item to item. So the rest, such as the `config`, is read only
//! once.

use std::any::Any;
use std::cell::RefCell;

use serde::de::DeserializeOwned;

use super::{Context, decode};
use crate::{Error, host};

/// The context of the previous item.
struct Last<C> {
    /// The part of the context before the id.
    common: Vec<u8>,
    context: Context<C>,
}

/// Reads the context from the node, and lends it to `body`.
pub(crate) fn lend<C: DeserializeOwned + 'static>(
    body: impl FnOnce(&Context<C>) -> Result<(), Error>,
) -> Result<(), Error> {
    thread_local! {
        static LAST: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    }
    let bytes = host::context();
    let own = Own::find(&bytes);
    LAST.with_borrow_mut(|place| {
        let last = place.as_mut().and_then(|last| last.downcast_mut::<Last<C>>());
        if let (Some(last), Some(own)) = (last, &own)
            && last.common == own.common
        {
            own.id.clone_into(&mut last.context.id);
            last.context.attempt = own.attempt;
            return body(&last.context);
        }
        let context: Context<C> = decode(&bytes)?;
        let result = body(&context);
        *place = match (&place, own) {
            // An instance for a single item has no use for a saved context.
            (None, _) => Some(Box::new(())),
            (Some(_), Some(own)) if own.id == context.id && own.attempt == context.attempt => {
                Some(Box::new(Last { common: own.common.to_vec(), context }))
            }
            _ => place.take(),
        };
        result
    })
}

/// The id and the attempt, if they are where nodes write them: at the end, the id first. Elsewhere they are read too, but
/// together with the whole context each time.
struct Own<'a> {
    common: &'a [u8],
    id: &'a str,
    attempt: u32,
}

impl<'a> Own<'a> {
    // Most contexts are read only here, and serde's code would be large for it.
    fn find(bytes: &'a [u8]) -> Option<Self> {
        const ID: &[u8] = b"\x62id";
        const ATTEMPT: &[u8] = b"\x67attempt";
        const UNSIGNED: u8 = 0;
        const TEXT: u8 = 3;
        let key = bytes.windows(ID.len()).rposition(|window| window == ID)?;
        let (common, rest) = bytes.split_at(key + ID.len());
        let (length, rest) = head(TEXT, rest)?;
        let (id, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        let (attempt, rest) = head(UNSIGNED, rest.strip_prefix(ATTEMPT)?)?;
        let (id, attempt) = (str::from_utf8(id).ok()?, u32::try_from(attempt).ok()?);
        rest.is_empty().then_some(Self { common, id, attempt })
    }
}

/// Returns the number in the head of a data item. The head must be of this major type. Also returns the bytes after the head.
fn head(major: u8, bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let width = match first & 0x1f {
        number @ 0..24 => return (first >> 5 == major).then_some((number.into(), rest)),
        width @ 24..28 => 1 << (width - 24),
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(width)?;
    let number = number.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    (first >> 5 == major).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use ciborium::cbor;
    use serde::{Deserialize, Deserializer};

    use super::*;
    use crate::{Value, cbor};

    thread_local! {
        static READ: Cell<u32> = const { Cell::new(0) };
    }

    /// A configuration that counts how often it is read.
    struct Config(Value);

    impl<'de> Deserialize<'de> for Config {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            READ.set(READ.get() + 1);
            Value::deserialize(deserializer).map(Self)
        }
    }

    /// Returns the id, the attempt and the configuration that a task sees.
    fn seen(context: Result<Value, ciborium::value::Error>) -> (String, u32, Value) {
        let mut bytes = Vec::new();
        cbor::encode(&context.expect("a context"), &mut bytes).expect("an encodable context");
        host::set_context(bytes);
        let mut seen = None;
        lend(|context: &Context<Config>| {
            seen = Some((context.id.clone(), context.attempt, context.config.0.clone()));
            Ok(())
        })
        .expect("a context");
        seen.expect("a call")
    }

    /// Returns the context as a node writes it.
    fn written(config: &str, id: &str, attempt: u32) -> Result<Value, ciborium::value::Error> {
        cbor!({
            "chain" => "example",
            "version" => "1.0",
            "revision" => 3,
            "stage" => "mark",
            "config" => config,
            "id" => id,
            "attempt" => attempt,
        })
    }

    #[test]
    fn the_config_of_an_instance_that_handles_many_items_is_read_twice() {
        assert_eq!(seen(written("a", "01J-0", 1)), ("01J-0".to_owned(), 1, "a".into()));
        for (id, attempt) in [("01J-1", 1), ("01J-23", 1), ("01J-23", 300), ("", 0), ("01J-1", 1)] {
            assert_eq!(seen(written("a", id, attempt)), (id.to_owned(), attempt, "a".into()));
            assert_eq!(READ.get(), 2);
        }
        assert_eq!(seen(written("b", "01J-1", 1)), ("01J-1".to_owned(), 1, "b".into()));
        assert_eq!(READ.get(), 3);
    }

    #[test]
    fn each_item_has_its_own_topic() {
        let with_topic = |topic: Option<&str>, id: &str| {
            let mut entries = vec![("config".into(), "a".into())];
            entries.extend(topic.map(|topic| ("topic".into(), topic.into())));
            entries.extend(
                [("chain", "c"), ("version", "1"), ("stage", "s"), ("id", id)]
                    .map(|(key, value)| (key.into(), value.into())),
            );
            entries.extend([("revision".into(), 1.into()), ("attempt".into(), 1.into())]);
            Value::Map(entries)
        };
        let topic = |context: Value| {
            let mut bytes = Vec::new();
            cbor::encode(&context, &mut bytes).expect("an encodable context");
            host::set_context(bytes);
            let mut topic = None;
            lend(|context: &Context<Config>| {
                topic = context.topic().map(str::to_owned);
                Ok(())
            })
            .expect("a context");
            topic
        };
        for (given, id) in
            [(Some("x"), "1"), (Some("x"), "2"), (None, "3"), (Some("y"), "4"), (Some("y"), "5"), (None, "6")]
        {
            assert_eq!(topic(with_topic(given, id)).as_deref(), given);
        }
    }

    #[test]
    fn the_entries_may_have_another_order() {
        let context = |id: &str, attempt: u32, config: &str| {
            cbor!({
                "id" => id,
                "attempt" => attempt,
                "chain" => "example",
                "version" => "1.0",
                "revision" => 3,
                "stage" => "mark",
                "config" => config,
            })
        };
        for (id, attempt, config) in [("1", 1, "a"), ("1", 2, "a"), ("2", 2, "b"), ("2", 2, "bidb2gattempt\u{2}")] {
            assert_eq!(seen(context(id, attempt, config)), (id.to_owned(), attempt, config.into()));
        }
        assert_eq!(seen(written("a", "3", 1)), ("3".to_owned(), 1, "a".into()));
    }

    #[test]
    fn tasks_of_one_plugin_may_read_different_configs() {
        assert_eq!(seen(written("a", "1", 1)).2, "a".into());
        let as_text = |context: &Context<String>| if context.config == "a" { Ok(()) } else { Err(Error::new("other")) };
        lend(as_text).expect("the same config");
        assert_eq!(seen(written("a", "2", 1)), ("2".to_owned(), 1, "a".into()));
    }

    #[test]
    fn a_context_that_cannot_be_read_fails_only_its_item() {
        assert_eq!(seen(written("a", "1", 1)).0, "1");
        host::set_context(vec![0xa0]);
        assert!(lend(|_: &Context<Config>| Ok(())).is_err());
        assert_eq!(seen(written("a", "2", 1)).0, "2");
    }
}
