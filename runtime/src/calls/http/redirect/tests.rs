use super::*;
use crate::calls::http::header::Content;

fn outgoing(method: &str) -> Outgoing {
    let header = |name: &str| (name.parse().expect("a name"), Content::Plain("1".parse().expect("a value")));
    Outgoing {
        target: Target::parse("https://a.example/x/y").expect("a target"),
        method: method.parse().expect("a method"),
        headers: ["authorization", "cookie", "x-api-key", "accept", "content-type"].map(header).to_vec(),
        body: Bytes::from_static(b"body"),
        key: Some("key".parse().expect("a value")),
    }
}

fn headers(locations: &[&str]) -> HeaderMap {
    locations
        .iter()
        .map(|location| (LOCATION, HeaderValue::from_bytes(location.as_bytes()).expect("a value")))
        .collect()
}

fn follow(method: &str, status: u16, location: &str) -> Result<Outgoing, CallFailure> {
    let mut outgoing = outgoing(method);
    let status = StatusCode::from_u16(status).expect("a status");
    assert!(is_redirect(status, &headers(&[location])));
    outgoing.follow(status, &headers(&[location]))?;
    Ok(outgoing)
}

#[test]
fn method_and_body_are_as_the_status_says() {
    for (status, method, then) in [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (301, "PUT", "PUT"),
        (302, "DELETE", "DELETE"),
        (303, "PUT", "GET"),
        (303, "DELETE", "GET"),
        (307, "PUT", "PUT"),
        (303, "HEAD", "HEAD"),
        (301, "HEAD", "HEAD"),
    ] {
        let outgoing = follow(method, status, "/z").expect("followed");
        assert_eq!(outgoing.method, then, "{status} {method}");
        let has_body = method == then;
        assert_eq!((!outgoing.body.is_empty(), outgoing.key.is_some()), (has_body, has_body), "{status} {method}");
        assert_eq!(outgoing.headers.iter().any(|(name, _)| name == CONTENT_TYPE), has_body, "{status} {method}");
        assert_eq!(outgoing.target.to_string(), "https://a.example/z");
    }
    assert!(!is_redirect(StatusCode::FOUND, &HeaderMap::new()));
    for status in [200, 300, 304, 305, 306] {
        assert!(!is_redirect(StatusCode::from_u16(status).expect("a status"), &headers(&["/z"])), "{status}");
    }
}

#[test]
fn credentials_stay_with_their_origin() {
    let names = |location: &str| -> Vec<String> {
        follow("GET", 307, location).expect(location).headers.iter().map(|(name, _)| name.to_string()).collect()
    };
    for own in ["/z", "z", "//a.example/", "https://A.example:443/z", "https://a.example./"] {
        assert_eq!(names(own).len(), 5, "{own}");
    }
    for other in ["https://b.example/", "https://a.example:444/", "https://x.a.example/", "//b.example"] {
        assert_eq!(names(other), ["accept", "content-type"], "{other}");
    }
}

#[test]
fn a_redirect_that_cannot_be_followed_is_told() {
    for (location, told) in [
        ("http://a.example/x/y", "redirects from https to http"),
        ("ftp://a.example/", "has the scheme `ftp`"),
        ("javascript:alert(1)", "has the scheme `javascript`"),
        ("file:///etc/passwd", "has the scheme `file`"),
        ("https://ada:pw@a.example/", "names a user"),
        ("https://a.example:0/", "has the port 0"),
        ("/a b", "holds white space"),
        ("https://", "redirects to a malformed URL"),
    ] {
        let failure = follow("GET", 302, location).expect_err(location);
        assert!(failure.message.contains(told) && !failure.is_transient, "{location}: {failure}");
    }
    let several = outgoing("GET").follow(StatusCode::FOUND, &headers(&["/a", "/b"])).expect_err("which");
    assert!(several.message.contains("several places"));
    let mut binary = HeaderMap::new();
    binary.insert(LOCATION, HeaderValue::from_bytes(b"/\xff").expect("a value"));
    assert!(outgoing("GET").follow(StatusCode::FOUND, &binary).expect_err("no text").message.contains("malformed URL"));
}
