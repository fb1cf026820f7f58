//! Reads requests of calls that reach NATS.

use std::num::NonZeroU64;

use bytes::Bytes;
use pcluster_abi::call;

use super::{Before, EntryCall, Message, ObjectCall, PAGE_MAX, Page, StoreRequest};
use crate::calls::failure::{CallFailure, FailureKind};
use crate::calls::message::{List, Request, Value, missing, quoted, wrong};
use crate::calls::names::{BucketName, KeyName, KeyPrefix, NameProblem, ObjectName, StoreName, Subject};
use crate::frame::Headers;
use crate::frame::outgoing::{HEADER_ROOM, header_size};

/// The most headers of a message.
const HEADERS_MAX: u64 = 100;
/// The most bytes of a prefix of names of objects, and of the name that a page begins after.
const TEXT_MAX: usize = 1 << 10;

impl StoreRequest {
    /// Reads the request of a call with this name.
    pub(crate) fn read(name: &str, request: &mut Request<'_>) -> Result<Self, CallFailure> {
        match name {
            call::KV_GET => entry(request, |_| Ok(EntryCall::Get)),
            call::KV_PUT => entry(request, |request| write(request, Before::Any)),
            call::KV_CREATE => entry(request, |request| write(request, Before::Nothing)),
            call::KV_UPDATE => entry(request, |request| {
                let revision = request.number("revision")?.ok_or_else(|| missing("revision"))?;
                write(request, Before::Revision(revision))
            }),
            call::KV_DELETE => entry(request, |request| Ok(EntryCall::Delete(request.number("revision")?))),
            call::KV_KEYS => {
                let bucket = parse(request, "bucket", BucketName::parse)?;
                let prefix =
                    KeyPrefix::parse(request.text("prefix")?.unwrap_or_default()).map_err(|problem| named(&problem))?;
                Ok(Self::Keys(bucket, prefix, page(request)?))
            }
            call::OBJECTS_GET => object(request, |request| {
                let from = request.number("from")?.unwrap_or(0);
                Ok(ObjectCall::Get { from, length: request.number("length")? })
            }),
            call::OBJECTS_PUT => object(request, |request| Ok(ObjectCall::Put(bytes(request, "data")?))),
            call::OBJECTS_LIST => {
                let store = parse(request, "store", StoreName::parse)?;
                Ok(Self::Objects(store, short(request, "prefix")?, page(request)?))
            }
            call::PUBLISH => Ok(Self::Publish(message(request)?)),
            _ => Err(CallFailure::invalid(format!("there is no call `{}`", quoted(name)))),
        }
    }
}

fn entry(
    request: &mut Request<'_>,
    call: impl FnOnce(&mut Request<'_>) -> Result<EntryCall, CallFailure>,
) -> Result<StoreRequest, CallFailure> {
    let (bucket, key) = (parse(request, "bucket", BucketName::parse)?, parse(request, "key", KeyName::parse)?);
    Ok(StoreRequest::Entry(bucket, key, call(request)?))
}

fn object(
    request: &mut Request<'_>,
    call: impl FnOnce(&mut Request<'_>) -> Result<ObjectCall, CallFailure>,
) -> Result<StoreRequest, CallFailure> {
    let (store, name) = (parse(request, "store", StoreName::parse)?, parse(request, "name", ObjectName::parse)?);
    Ok(StoreRequest::Object(store, name, call(request)?))
}

fn write(request: &mut Request<'_>, before: Before) -> Result<EntryCall, CallFailure> {
    let ttl = match request.number("ttl_ms")? {
        None => None,
        Some(millis) => {
            let seconds = NonZeroU64::new(millis.div_ceil(1000));
            Some(seconds.ok_or_else(|| CallFailure::invalid("`ttl_ms` of the request is 0; leave it out for none"))?)
        }
    };
    Ok(EntryCall::Write { value: bytes(request, "value")?, before, ttl })
}

fn page(request: &mut Request<'_>) -> Result<Page, CallFailure> {
    let limit = match request.number("limit")? {
        None => PAGE_MAX,
        Some(limit) => usize::try_from(limit).ok().filter(|limit| (1..=PAGE_MAX).contains(limit)).ok_or_else(|| {
            CallFailure::invalid(format!("`limit` of the request is {limit}; it may be 1 to {PAGE_MAX}"))
        })?,
    };
    Ok(Page { after: short(request, "after")?, limit })
}

fn message(request: &mut Request<'_>) -> Result<Message, CallFailure> {
    let subject = parse(request, "subject", Subject::parse)?;
    let payload = request.bytes("payload")?.map(Bytes::copy_from_slice).unwrap_or_default();
    let headers = match request.list("headers")? {
        None => Headers::new(),
        Some(list) => headers(list)?,
    };
    let waits = request.flag("wait")?.unwrap_or(false);
    Ok(Message { subject, payload, headers, waits })
}

fn headers(list: List<'_>) -> Result<Headers, CallFailure> {
    if list.len() > HEADERS_MAX {
        let said = format!("the message has {} headers; {HEADERS_MAX} is the most", list.len());
        return Err(CallFailure::new(FailureKind::TooLarge, said));
    }
    let mut headers = Headers::new();
    for pair in list.values() {
        let (name, value) = pair_of(&pair?).ok_or_else(|| wrong("headers", "a list of pairs of a name and a value"))?;
        check_header(name, value)?;
        headers.push(name.to_owned(), value);
    }
    let size = header_size(headers.iter());
    if size > HEADER_ROOM {
        let said = format!("the headers of the message have {size} bytes; {HEADER_ROOM} is the most");
        return Err(CallFailure::new(FailureKind::TooLarge, said));
    }
    Ok(headers)
}

fn pair_of<'a>(pair: &Value<'a>) -> Option<(&'a str, &'a str)> {
    let Value::List(pair) = pair else { return None };
    let mut values = pair.values();
    let (Some(Ok(Value::Text(name))), Some(Ok(value)), None) = (values.next(), values.next(), values.next()) else {
        return None;
    };
    match value {
        Value::Text(value) => Some((name, value)),
        Value::Bytes(value) => Some((name, std::str::from_utf8(value).ok()?)),
        _ => None,
    }
}

/// Refuses a header that NATS would act on, or that some client cannot read.
fn check_header(name: &str, value: &str) -> Result<(), CallFailure> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        let said = "has a character that the name of a header may not have, or none";
        return Err(CallFailure::invalid(format!("the header `{}` {said}", quoted(name))));
    }
    if name.get(..5).is_some_and(|beginning| beginning.eq_ignore_ascii_case("nats-")) {
        return Err(CallFailure::invalid(format!("the header `{name}` is the server's: a task may not set `Nats-…`")));
    }
    if value.chars().any(|character| character.is_control() && character != '\t') {
        return Err(CallFailure::invalid(format!("the value of the header `{name}` has a control character")));
    }
    if value.trim() != value {
        return Err(CallFailure::invalid(format!("the value of the header `{name}` begins or ends with a space")));
    }
    Ok(())
}

fn parse<T>(
    request: &mut Request<'_>,
    key: &str,
    parse: impl FnOnce(&str) -> Result<T, NameProblem>,
) -> Result<T, CallFailure> {
    parse(request.text(key)?.ok_or_else(|| missing(key))?).map_err(|problem| named(&problem))
}

/// Returns the failure of a request with a bad name. What is never granted is denied.
fn named(problem: &NameProblem) -> CallFailure {
    match problem {
        NameProblem::Reserved { .. } => CallFailure::denied(problem.to_string()),
        _ => CallFailure::invalid(problem.to_string()),
    }
}

fn bytes(request: &mut Request<'_>, key: &str) -> Result<Bytes, CallFailure> {
    request.bytes(key)?.map(Bytes::copy_from_slice).ok_or_else(|| missing(key))
}

fn short(request: &mut Request<'_>, key: &str) -> Result<String, CallFailure> {
    let text = request.text(key)?.unwrap_or_default();
    if text.len() > TEXT_MAX {
        let said = format!("`{key}` of the request has {} bytes; {TEXT_MAX} is the most", text.len());
        return Err(CallFailure::invalid(said));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Need;
    use super::*;
    use crate::calls::message::Response;

    fn read(name: &str, response: Response) -> Result<StoreRequest, CallFailure> {
        let bytes = response.finish();
        let mut request = Request::read(&bytes)?;
        let read = StoreRequest::read(name, &mut request)?;
        request.end().map(|()| read)
    }

    fn of(texts: &[(&str, &str)], numbers: &[(&str, u64)]) -> Response {
        let mut response = Response::new();
        for (key, text) in texts {
            response.text(key, text);
        }
        for (key, number) in numbers {
            response.number(key, *number);
        }
        response
    }

    const ENTRY: [(&str, &str); 2] = [("bucket", "cache"), ("key", "a.b")];
    const WRITE: [(&str, &str); 3] = [("bucket", "cache"), ("key", "a.b"), ("value", "v")];

    #[test]
    fn each_call_is_read_with_what_it_needs_and_is_about() {
        let (object, listed) = ([("store", "models"), ("name", "a b\n")], [("store", "models"), ("prefix", "a")]);
        let put = [object[0], object[1], ("data", "12345")];
        let table: [(&str, Response, bool, &str, usize); 10] = [
            (call::KV_GET, of(&ENTRY, &[]), false, "cache/a.b", 0),
            (call::KV_PUT, of(&WRITE, &[("ttl_ms", 1)]), true, "cache/a.b", 1),
            (call::KV_CREATE, of(&WRITE, &[]), true, "cache/a.b", 1),
            (call::KV_UPDATE, of(&WRITE, &[("revision", 7)]), true, "cache/a.b", 1),
            (call::KV_DELETE, of(&ENTRY, &[("revision", 7)]), true, "cache/a.b", 0),
            (call::KV_KEYS, of(&[("bucket", "cache"), ("prefix", "a.")], &[("limit", 5)]), false, "cache/a.*", 0),
            (call::OBJECTS_GET, of(&object, &[("from", 1), ("length", 2)]), false, "models/a b\\n", 0),
            (call::OBJECTS_PUT, of(&put, &[]), true, "models/a b\\n", 5),
            (call::OBJECTS_LIST, of(&listed, &[]), false, "models/a*", 0),
            (call::PUBLISH, of(&[("subject", "alerts.a"), ("payload", "hot")], &[]), true, "alerts.a", 3),
        ];
        for (name, request, writes, target, bytes) in table {
            let read = read(name, request).expect(name);
            let needed = match read.need() {
                Need::Bucket(bucket, writes) => (bucket.as_str() == "cache", writes),
                Need::Store(store, writes) => (store.as_str() == "models", writes),
                Need::Subject(subject) => (subject.as_str() == "alerts.a", true),
            };
            assert_eq!((needed, read.target().as_str(), read.bytes()), ((true, writes), target, bytes), "{name}");
        }
    }

    #[test]
    fn a_lifetime_is_whole_seconds_and_no_less_than_asked_for() {
        for (millis, seconds) in [(1, 1), (1000, 1), (1001, 2), (u64::MAX, u64::MAX / 1000 + 1)] {
            let read = read(call::KV_PUT, of(&WRITE, &[("ttl_ms", millis)])).expect("a request");
            let StoreRequest::Entry(_, _, EntryCall::Write { ttl, .. }) = read else { panic!("a write") };
            assert_eq!(ttl.map(NonZeroU64::get), Some(seconds), "{millis}");
        }
    }

    #[test]
    fn a_bad_request_is_refused_with_the_reason() {
        let own = [("bucket", "pcluster_chains"), ("key", "a")];
        let table: [(&str, Response, FailureKind, &str); 11] = [
            (call::KV_GET, of(&ENTRY[..1], &[]), FailureKind::Invalid, "the request lacks `key`"),
            (call::KV_GET, of(&[("bucket", "a b"), ("key", "a")], &[]), FailureKind::Invalid, "the character ' '"),
            (call::KV_GET, of(&own, &[]), FailureKind::Denied, "belongs to pcluster"),
            (call::KV_GET, of(&WRITE, &[]), FailureKind::Invalid, "an unknown key `value`"),
            (call::KV_PUT, of(&ENTRY, &[]), FailureKind::Invalid, "the request lacks `value`"),
            (call::KV_PUT, of(&WRITE, &[("ttl_ms", 0)]), FailureKind::Invalid, "leave it out"),
            (call::KV_UPDATE, of(&WRITE, &[]), FailureKind::Invalid, "the request lacks `revision`"),
            (call::KV_KEYS, of(&ENTRY[..1], &[("limit", 1001)]), FailureKind::Invalid, "it may be 1 to 1000"),
            (call::KV_KEYS, of(&ENTRY[..1], &[("limit", 0)]), FailureKind::Invalid, "it may be 1 to 1000"),
            (call::PUBLISH, of(&[("subject", "$JS.API.INFO")], &[]), FailureKind::Denied, "belongs to NATS"),
            ("kv.purge", of(&ENTRY, &[]), FailureKind::Invalid, "there is no call `kv.purge`"),
        ];
        for (name, request, kind, said) in table {
            let failure = read(name, request).expect_err(name);
            assert!(failure.kind == kind && failure.message.contains(said), "{name}: {failure:?}");
        }
    }

    #[test]
    fn a_header_that_nats_would_act_on_or_misread_is_refused() {
        let publish = |name: &str, value: &[u8]| {
            let mut request = of(&[("subject", "alerts.a")], &[]);
            request.pairs("headers", [(name, value)].into_iter());
            read(call::PUBLISH, request)
        };
        for (name, value) in [("X-Room", b"7".as_slice()), ("a", b""), ("natsy", b"a\tb"), ("x", "größe".as_bytes())]
        {
            assert!(publish(name, value).is_ok(), "{name}");
        }
        for (name, value) in [
            ("", b"1".as_slice()),
            ("a b", b"1"),
            ("a:b", b"1"),
            ("a\r\nb", b"1"),
            ("ä", b"1"),
            ("Nats-Msg-Id", b"1"),
            ("nats-rollup", b"all"),
            ("a", b"1\r\nNats-Rollup: all"),
            ("a", b"1\r2"),
            ("a", b"1\0"),
            ("a", b" 1"),
            ("a", b"\xff"),
        ] {
            assert!(publish(name, value).is_err(), "{name:?} {value:?}");
        }
        let mut many = of(&[("subject", "alerts.a")], &[]);
        many.pairs("headers", (0..101).map(|_| ("a", b"1".as_slice())));
        assert_eq!(read(call::PUBLISH, many).expect_err("too many").kind, FailureKind::TooLarge);
    }
}
