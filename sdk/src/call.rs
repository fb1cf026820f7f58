//! Calls of the host: the way of `http`, `kv`, `objects`, `publish` and `secrets`.

mod error;
pub(crate) mod pages;

pub use self::error::CallError;
pub(crate) use self::error::Cause;
pub use self::pages::Pages;
use crate::cbor::fields::{self, Field, Writer};
use crate::host;

/// The answer to a call: a map.
pub(crate) struct Answer(Vec<u8>);

/// Calls the host by name.
pub(crate) fn call(name: &str, request: Writer) -> Result<Answer, CallError> {
    host::call(name, &request.finish()).map(Answer).map_err(|failure| CallError::read(&failure))
}

/// Calls the host for something that may not be there. `None` if it is not.
pub(crate) fn call_for(name: &str, request: Writer) -> Result<Option<Answer>, CallError> {
    match call(name, request) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    }
}

impl Answer {
    /// Returns a number.
    pub(crate) fn number(&self, key: &str) -> Result<u64, CallError> {
        match self.field(key) {
            Some(Field::Number(number)) => Ok(number),
            _ => Err(unreadable(key)),
        }
    }

    /// Returns a text.
    pub(crate) fn text(&self, key: &str) -> Result<String, CallError> {
        match self.field(key) {
            Some(Field::Text(text)) => Ok(text.to_owned()),
            _ => Err(unreadable(key)),
        }
    }

    /// Returns `true` if this flag is set.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.field(key) == Some(Field::Flag(true))
    }

    /// Returns the values of a list.
    pub(crate) fn list(&self, key: &str) -> Result<fields::Values<'_>, CallError> {
        match self.field(key) {
            Some(Field::List(values)) => Ok(values),
            _ => Err(unreadable(key)),
        }
    }

    /// Returns bytes. They stay in their allocation, because they may be most of a guest's memory.
    pub(crate) fn into_bytes(self, key: &str) -> Result<Vec<u8>, CallError> {
        let Some(Field::Bytes(bytes)) = self.field(key) else { return Err(unreadable(key)) };
        let start = bytes.as_ptr() as usize - self.0.as_ptr() as usize;
        let end = start + bytes.len();
        let mut all = self.0;
        all.truncate(end);
        all.drain(..start);
        Ok(all)
    }

    fn field(&self, key: &str) -> Option<Field<'_>> {
        fields::field(&self.0, key)
    }
}

/// Returns the error of an answer that lacks what it must have.
#[cold]
pub(crate) fn unreadable(key: &str) -> CallError {
    CallError::new(crate::FailureKind::Unavailable, format!("the answer of the node has no readable `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_an_answer_are_read_or_named() {
        let mut map = Writer::new();
        map.number("revision", 7);
        map.text("digest", "x");
        map.bytes("value", b"hello");
        map.flag("more", true);
        map.list("keys", 0, b"");
        let answer = Answer(map.finish());
        assert_eq!(answer.number("revision"), Ok(7));
        assert_eq!(answer.text("digest"), Ok("x".to_owned()));
        assert!(answer.flag("more") && !answer.flag("less"));
        assert_eq!(answer.list("keys").map(Iterator::count), Ok(0));
        let error = answer.number("value").expect_err("an error");
        assert_eq!(error.message(), "the answer of the node has no readable `value`");
        assert!(error.is_transient());
        assert_eq!(answer.into_bytes("value"), Ok(b"hello".to_vec()));
    }
}
