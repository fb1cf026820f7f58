//! What grants say of themselves.

use super::*;

fn target(text: &str) -> Target {
    Target::parse(text).expect(text)
}

fn grants() -> Grants {
    let http = |text: &str| HttpGrant::parse(text).expect(text);
    let secret = |name: &str, way: &str| {
        (
            SecretName::parse(name).expect(name),
            SecretUse::parse(way).unwrap_or_else(|problem| panic!("{way}: {problem}")),
        )
    };
    Grants {
        http: vec![http("https://api.example.com"), http("http://api.internal:9000/v1")],
        kv: [(BucketName::parse("cache").expect("a name"), Access::ReadWrite)].into(),
        objects: [(StoreName::parse("models").expect("a name"), Access::Read)].into(),
        publish: vec![SubjectPattern::parse("alerts.>").expect("a pattern")],
        secrets: [secret("api_token", "https://api.example.com"), secret("key", "reveal")].into(),
        ..Grants::default()
    }
}

#[test]
fn grants_are_shown_one_a_line_and_in_json_as_a_manifest_has_them() {
    assert_eq!(
        grants().lines(),
        [
            "http https://api.example.com",
            "http http://api.internal:9000/v1",
            "kv cache read-write",
            "objects models read",
            "publish alerts.>",
            "secret api_token for https://api.example.com",
            "secret key revealed to the task",
        ]
    );
    let document = json!({
        "http": ["https://api.example.com", "http://api.internal:9000/v1"],
        "kv": { "cache": "read-write" },
        "objects": { "models": "read" },
        "publish": ["alerts.>"],
        "secrets": { "api_token": "https://api.example.com", "key": "reveal" },
    });
    assert_eq!(grants().document(), document);
    assert_eq!(grants().groups(), GROUPS);
    assert!(Grants::default().is_empty() && Grants::default().groups().is_empty());
    assert_eq!(Grants::default().document(), json!({}));
}

#[test]
fn a_request_that_is_not_granted_is_answered_with_the_grant_to_add() {
    let refusal = |url: &str| grants().http_refusal(&target(url)).map(|refusal| refusal.to_string());
    assert_eq!(refusal("https://api.example.com/x"), None);
    assert_eq!(refusal("http://api.internal:9000/v1/x"), None);
    for (url, told) in [
        (
            "https://other.example/x",
            "the stage is not granted `https://other.example`; add `\"https://other.example\"` to `http` of its `[stage.allow]`",
        ),
        ("http://api.internal:9000/v2", "the stage is not granted `http://api.internal:9000/v2`; add "),
        (
            "http://api.internal:9000/v1/..%2fadmin",
            "`http://api.internal:9000/v1/..%2fadmin` has a path that a server may read as another one: it has an encoded `/`; ",
        ),
    ] {
        let refused = refusal(url).expect("refused");
        assert!(refused.starts_with(told), "{refused}");
    }
}

#[test]
fn an_access_that_is_none_is_answered_with_the_right_spelling() {
    for (text, told) in [
        ("read-wirte", "`read-wirte` is not known; did you mean `read-write`?"),
        ("raed", "`raed` is not known; did you mean `read`?"),
        ("readwrite", "`readwrite` is not known; did you mean `read-write`?"),
        ("write", "`write` is not known; write \"read\" or \"read-write\""),
        ("", "`` is not known; write \"read\" or \"read-write\""),
    ] {
        assert_eq!(Access::parse(text).expect_err(text).to_string(), told);
    }
}

#[test]
fn a_secret_is_for_one_origin() {
    for (text, told) in [
        ("revael", "`revael` is not known; did you mean `reveal`?"),
        (
            "api.example.com",
            "`api.example.com` has no scheme; write `https://api.example.com`; a secret is for an origin",
        ),
        ("https://api.example.com/v1", "an origin has no path, query or fragment; write `https://api.example.com`; "),
        ("https://*.example.com", "`https://*.example.com` is more than one origin, and a secret is for one"),
        ("*", "`*` is more than one origin"),
    ] {
        let problem = SecretUse::parse(text).expect_err(text).to_string();
        assert!(problem.starts_with(told), "{text}: {problem}");
    }
    for name in ["", "Api", "a b", "../x", "a.b", &"x".repeat(65)] {
        assert!(SecretName::parse(name).is_err(), "{name}");
    }
}
