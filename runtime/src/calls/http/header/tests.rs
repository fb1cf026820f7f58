use super::*;
use crate::calls::grant::SecretsFrom;
use crate::calls::secrets::Secrets;

/// Returns a list with one pair.
fn read_one(name: &[u8], value: &[u8]) -> Result<(Headers, usize), CallFailure> {
    let mut list = vec![0x81, 0x82, 0x78, u8::try_from(name.len()).expect("short")];
    list.extend_from_slice(name);
    list.extend_from_slice(value);
    read_list(&list)
}

fn read_list(list: &[u8]) -> Result<(Headers, usize), CallFailure> {
    let request = [b"\xa1\x61h".as_slice(), list].concat();
    let mut request = Request::read(&request)?;
    read(request.list("h")?)
}

#[test]
fn headers_that_frame_a_message_are_refused_in_any_spelling() {
    for name in [
        "Host",
        "connection",
        "Content-Length",
        "content_length",
        "Transfer-Encoding",
        "TRANSFER_ENCODING",
        "TE",
        "Trailer",
        "Upgrade",
        "Keep-Alive",
        "Expect",
        "HTTP2-Settings",
        "Accept-Encoding",
        "Idempotency-Key",
        "Proxy-Authorization",
        "Proxy-Anything",
    ] {
        let failure = read_one(name.as_bytes(), b"\x411").expect_err(name);
        assert!(failure.message.starts_with("a task cannot set the header `"), "{name}: {failure}");
    }
    for name in ["X-Token", "Authorization", "Content-Type", "Range", "User-Agent", "x_y"] {
        assert!(read_one(name.as_bytes(), b"\x411").is_ok(), "{name}");
    }
}

#[test]
fn nothing_in_a_header_begins_another() {
    for name in ["", "a b", "a:", "a\r\nb", "a\n", " a", "ä", "a\0"] {
        assert!(
            read_one(name.as_bytes(), b"\x411").is_err_and(|failure| failure.message.contains("not the name")),
            "{name:?}"
        );
    }
    for value in ["a\r\nb: c", "a\n", "\r", "a\0", "a\r\n b", "\x7f"] {
        let value = [&[0x40 | u8::try_from(value.len()).expect("short")], value.as_bytes()].concat();
        assert!(read_one(b"a", &value).is_err_and(|failure| failure.message.contains("a line break")), "{value:?}");
    }
    let (headers, bytes) = read_one(b"A", b"\x43a\tb").expect("a header");
    assert_eq!((headers[0].0.as_str(), bytes), ("a", 4));
    assert!(read_one(b"a", b"\x42\xff ").is_ok(), "any other byte");
}

#[test]
fn headers_are_pairs_and_bounded() {
    for list in
        [&b"\x81\x01"[..], b"\x81\x81\x61a", b"\x81\x83\x61a\x61b\x61c", b"\x81\x82\x01\x61b", b"\x81\x82\x61a\x01"]
    {
        assert!(read_list(list).is_err_and(|failure| failure.message.contains("a list of pairs")), "{list:x?}");
    }
    let many = [&b"\x98\x65"[..], &b"\x82\x61a\x61b".repeat(101)].concat();
    assert!(read_list(&many).is_err_and(|failure| failure.message.contains("more than 100")));
    let large = [&b"\x81\x82\x61a\x59\x80\x00"[..], &vec![b'x'; 32 << 10]].concat();
    assert!(read_list(&large).is_err_and(|failure| failure.message.contains("32 KiB")));
}

/// Returns the value of a secret in CBOR: `secret`, and another key.
fn secret(key: &str, text: &str) -> Vec<u8> {
    let mut map = crate::calls::message::Response::new();
    map.text("secret", "token");
    if !key.is_empty() {
        map.text(key, text);
    }
    map.finish().to_vec()
}

#[tokio::test]
async fn a_secret_is_filled_in_after_its_prefix_or_for_its_user() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "s3cret\n").expect("written");
    let name = SecretName::parse("token").expect("a name");
    let token = Secrets::new(Some(SecretsFrom::Folder(folder.path().to_owned()))).get(&name).await.expect("a secret");
    for (key, text, filled, masked) in [
        ("", "", "s3cret", "******"),
        ("prefix", "Bearer ", "Bearer s3cret", "Bearer ******"),
        ("basic", "ada", "Basic YWRhOnMzY3JldA==", "Basic ****************"),
    ] {
        let (headers, _) = read_one(b"Authorization", &secret(key, text)).expect(key);
        let Content::Secret(value) = &headers[0].1 else { panic!("a secret") };
        let mask = Mask::default();
        let value = value.fill(&token, &mask).expect("a value");
        assert_eq!((value.as_bytes(), value.is_sensitive()), (filled.as_bytes(), true));
        assert!(!format!("{value:?}").contains("s3cret"));
        assert_eq!(mask.apply(value.as_bytes()), masked.as_bytes());
    }
    for (key, text) in [("prefix", "a\r\nb: "), ("basic", "ada:b"), ("basic", "ada\n"), ("other", "a")] {
        assert!(read_one(b"Authorization", &secret(key, text)).is_err(), "{key} {text:?}");
    }
}

#[test]
fn headers_with_credentials_are_known_by_name_or_value() {
    let is = |name: &str| {
        is_credential(
            &HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            &Content::Plain("a".parse().expect("a value")),
        )
    };
    for name in ["authorization", "cookie", "x-api-key", "x_api_key", "x-auth-token", "x-amz-security-token", "apikey"]
    {
        assert!(is(name), "{name}");
    }
    for name in ["accept", "content-type", "x-request-id", "user-agent", "if-match"] {
        assert!(!is(name), "{name}");
    }
    let (headers, _) = read_one(b"x-plain", &secret("", "")).expect("a secret");
    assert!(is_credential(&headers[0].0, &headers[0].1));
}
