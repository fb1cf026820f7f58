use super::*;
use crate::calls::message::Response;

fn read(write: impl FnOnce(&mut Response)) -> Result<HttpRequest, CallFailure> {
    let mut response = Response::new();
    write(&mut response);
    let bytes = response.finish();
    let mut request = Request::read(&bytes)?;
    let read = HttpRequest::read(&mut request)?;
    request.end().map(|()| read)
}

fn with(write: impl FnOnce(&mut Response)) -> Result<HttpRequest, CallFailure> {
    read(|request| {
        request.text("url", "https://a.example/x");
        write(request);
    })
}

#[test]
fn a_request_needs_only_a_url() {
    let request = with(|_| ()).expect("a request");
    assert_eq!(request.method, Method::GET);
    assert!(request.is_safe() && !request.needs_key());
    assert_eq!((request.redirects, request.timeout, request.bytes()), (5, None, 19));
    let request = with(|request| {
        request.text("method", "POST");
        request.bytes("body", b"12345");
        request.pairs("headers", [("Accept", b"text/plain".as_slice())].into_iter());
        request.number("timeout_ms", 1_500);
        request.number("redirects", 0);
    });
    let request = request.expect("a request");
    assert!(!request.is_safe() && request.needs_key());
    assert_eq!(request.bytes(), 19 + 5 + 16);
    assert_eq!((request.redirects, request.timeout), (0, Some(Duration::from_millis(1_500))));
}

#[test]
fn keys_may_be_given_or_left_out() {
    let of = |write: fn(&mut Response)| with(write).map(|request| request.idempotency);
    assert_eq!(of(|request| request.flag("idempotency", false)), Ok(Idempotency::Off));
    assert_eq!(of(|request| request.flag("idempotency", true)), Ok(Idempotency::Host));
    let given = of(|request| request.text("idempotency", "order-1"));
    assert_eq!(given, Ok(Idempotency::Given(HeaderValue::from_static("order-1"))));
    for write in [
        |request: &mut Response| request.text("idempotency", ""),
        |request: &mut Response| request.text("idempotency", "a b"),
        |request: &mut Response| request.text("idempotency", "a\r\nb: c"),
        |request: &mut Response| request.text("idempotency", "ä"),
        |request: &mut Response| request.text("idempotency", &"a".repeat(256)),
        |request: &mut Response| request.number("idempotency", 1),
    ] {
        assert!(of(write).is_err_and(|failure| failure.message.contains("`idempotency`")));
    }
}

#[test]
fn what_is_no_request_is_told() {
    let told = |read: Result<HttpRequest, CallFailure>| read.expect_err("refused").message;
    assert_eq!(told(read(|_| ())), "the request lacks `url`");
    assert!(told(read(|request| request.text("url", "a.example"))).contains("has no scheme"));
    for (method, problem) in [
        ("get", "`get` is not an HTTP method"),
        ("GET /", "`GET /` is not an HTTP method"),
        ("GET\r\nHost: b", "is not an HTTP method"),
        ("", "`` is not an HTTP method"),
        ("CONNECT", "a task cannot use the method CONNECT"),
        ("TRACE", "a task cannot use the method TRACE"),
    ] {
        assert!(told(with(|request| request.text("method", method))).contains(problem), "{method}");
    }
    assert!(told(with(|request| request.number("redirects", 6))).contains("`redirects`"));
    assert!(told(with(|request| request.number("timeout_ms", 0))).contains("`timeout_ms`"));
    assert_eq!(
        with(|request| request.number("timeout_ms", u64::MAX)).map(|request| request.timeout),
        Ok(Some(TIMEOUT_MAX))
    );
}
