//! Which targets grants allow, which grants others cover, and that both agree.

use super::*;

fn grant(text: &str) -> HttpGrant {
    HttpGrant::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

fn target(text: &str) -> Target {
    Target::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
}

#[test]
fn a_grant_allows_what_it_says() {
    for (text, allowed, denied) in [
        (
            "https://api.example.com",
            &["https://api.example.com", "https://API.example.com.:443/x?y", "https://api.example.com/%2e%2e/a%2fb"][..],
            &[
                "http://api.example.com",
                "https://api.example.com:8443",
                "https://example.com",
                "https://x.api.example.com",
                "https://api.example.com.evil.example",
                "https://evilapi.example.com",
                "http://api.example.com:443",
            ][..],
        ),
        (
            "https://*.example.org:8443",
            &["https://a.example.org:8443", "https://a.b.example.org:8443/x"],
            &[
                "https://example.org:8443",
                "https://a.example.org",
                "https://aexample.org:8443",
                "https://.example.org:8443",
            ],
        ),
        ("https://*", &["https://a.example", "https://a.example:8443/x", "https://127.0.0.1:9"], &["http://a.example"]),
        ("https://*:8443", &["https://a.example:8443"], &["https://a.example", "https://a.example:8444"]),
        ("https://*:443", &["https://a.example"], &["https://a.example:8443"]),
        (
            "http://api.internal:9000/v1",
            &[
                "http://api.internal:9000/v1",
                "http://api.internal:9000/v1/",
                "http://api.internal:9000/v1/x?y",
                "http://api.internal:9000/v1/../v1/x",
                "http://api.internal:9000/v0/%2e%2e/v1/x",
            ],
            &[
                "http://api.internal:9000/v1x",
                "http://api.internal:9000/",
                "http://api.internal:9000/v1/../admin",
                "http://api.internal:9000/v1/%2e%2e/admin",
                "http://api.internal:9000/v1/..%2fadmin",
                "http://api.internal:9000/v1/%2e%2e%2fadmin",
                "http://api.internal:9000/v1/..%252fadmin",
                "http://api.internal:9000/v1/..;/admin",
                "http://api.internal:9000/v1/..%3b/admin",
                "http://api.internal:9000/v1\\..\\admin",
                "http://api.internal:9000//v1/x",
                "http://api.internal/v1",
            ],
        ),
        ("http://2130706433", &["http://127.0.0.1"], &["http://127.0.0.2"]),
        ("http://[::1]:9000", &["http://[0:0::1]:9000"], &["http://[::1]"]),
        ("https://*.BÜCHER.example", &["https://a.xn--bcher-kva.example"], &["https://bücher.example"]),
    ] {
        for url in allowed {
            assert!(grant(text).allows(&target(url)), "{text} should allow {url}");
        }
        for url in denied.iter().filter_map(|url| Target::parse(url).ok()) {
            assert!(!grant(text).allows(&url), "{text} should not allow {url}");
        }
    }
}

#[test]
fn a_grant_is_shown_in_one_spelling() {
    for (text, shown) in [
        ("HTTPS://API.example.com:443/", "https://api.example.com"),
        ("https://*.Example.org.:8443/v1/", "https://*.example.org:8443/v1"),
        ("https://*", "https://*"),
        ("https://*:443", "https://*:443"),
        ("http://a.example:443/a/../b", "http://a.example:443/b"),
        ("http://a.example/a%20b/%c3%a4/ö", "http://a.example/a%20b/%C3%A4/%C3%B6"),
    ] {
        assert_eq!(grant(text).to_string(), shown, "{text}");
        assert_eq!(grant(shown), grant(text), "{text}");
    }
}

#[test]
fn a_grant_that_does_not_parse_is_answered_with_the_right_spelling() {
    for (text, told) in [
        ("*", "`*` alone would be everything; write `https://*` for all hosts with TLS"),
        ("", "`` has no scheme; write `https://api.example.com`"),
        ("api.example.com", "`api.example.com` has no scheme; write `https://api.example.com`"),
        ("api.example.com:8443/v1", "`api.example.com:8443/v1` has no scheme; write `https://api.example.com:8443/v1`"),
        ("*.example.org", "`*.example.org` has no scheme; write `https://*.example.org`"),
        ("//api.example.com", "`//api.example.com` has no scheme; write `https://api.example.com`"),
        ("https:/api.example.com", "`https:/api.example.com` has no scheme; write `https://api.example.com`"),
        ("htps://api.example.com", "`htps://api.example.com` has the scheme `htps`; did you mean `https`?"),
        ("ftp://a.example", "`ftp://a.example` has the scheme `ftp`; only `http` and `https` are granted"),
        ("*://a.example", "`*://a.example` has the scheme `*`; only `http` and `https` are granted"),
        (
            "https://",
            "`https://` has no host; write one, as in `https://api.example.com`, or `https://*` for all hosts",
        ),
        ("http:///v1", "`http:///v1` has no host; write one, as in `http://api.example.com`"),
        ("https://:443", "`https://:443` has no host"),
        (
            "https://api.*.example.org",
            "stands for whole labels at the beginning of a name; write `https://*.example.org`",
        ),
        ("https://a*.example.org", "stands for whole labels at the beginning of a name; write `https://*.example.org`"),
        ("https://*.*.example.org", "write `https://*.example.org`"),
        ("https://**.example.org", "write `https://*.example.org`"),
        ("https://*example.org", "write `https://*.example.org`"),
        ("https://api.x*y.example.org", "write `https://*.example.org`"),
        ("https://example.*", "`*` stands for the first labels of a name, and none follow; name the host"),
        ("https://*.", "is not a URL"),
        ("https://*.0.0.1", "is an address"),
        ("https://a.example:70000", "`https://a.example:70000` has the port `70000`; write a number from 1 to 65535"),
        ("https://a.example:0", "has the port `0`; write a number"),
        ("https://a.example:*", "has the port `*`; write a number from 1 to 65535, or none for the scheme's own"),
        ("https://a.example:", "has the port ``; write a number"),
        ("https://[::1]:+80", "has the port `+80`; write a number"),
        ("https://ada:secret@a.example", "a grant names no user; leave out what stands before `@`"),
        (
            "https://a.example/v1/*",
            "a path covers all below it, and `*` stands for hosts only; write `https://a.example/v1`",
        ),
        ("https://a.example/*", "write `https://a.example`"),
        ("https://a.example/v1?x=1", "a grant ends with its path, and covers each query; write `https://a.example/v1`"),
        ("https://a.example#x", "a grant ends with its path, and covers each query; write `https://a.example`"),
        ("https://a.example\\v1", "has a `\\`; write `/`"),
        ("https://a.example/a%2Fb", "has a path that a server may read as another one: it has an encoded `/`"),
        ("https://a.example/a%5Cb", "it has an encoded `\\`"),
        ("https://a.example/%2e%2e/a", "it has an encoded `.`"),
        ("https://a.example/v1/%2E/", "it has an encoded `.`"),
        ("https://a.example/..%252f", "it is encoded twice"),
        ("https://a.example/..%3b/", "it has a segment of dots"),
        ("https://a.example/..;/", "it has a segment of dots"),
        ("https://a.example//v1", "has two slashes in a row"),
        ("https://a b.example", "white space"),
        ("https://a_b,c.example", "`a_b,c.example` is not a host"),
    ] {
        let problem = HttpGrant::parse(text).expect_err(text).to_string();
        assert!(problem.contains(told), "{text}: {problem}");
        assert!(!problem.contains("secret@"), "{problem}");
    }
}

/// All combinations of some schemes, hosts, ports and paths.
fn all(hosts: &[&str], ports: &[&str], paths: &[&str]) -> Vec<String> {
    let mut all = Vec::new();
    for scheme in ["http", "https"] {
        for host in hosts {
            for port in ports {
                all.extend(paths.iter().map(|path| format!("{scheme}://{host}{port}{path}")));
            }
        }
    }
    all
}

#[test]
fn a_grant_covers_another_if_and_only_if_it_allows_all_that_the_other_does() {
    let paths = ["", "/v1", "/v1/a", "/v1x"];
    let patterns = all(&["*", "*.b", "*.a.b", "a.b", "b", "127.0.0.1"], &["", ":443", ":8443"], &paths);
    let urls = all(
        &["b", "a.b", "x.b", "x.a.b", "y.x.a.b", "xa.b", "127.0.0.1", "c", "other"],
        &["", ":443", ":8443", ":9"],
        &["", "/v1", "/v1/", "/v1/a", "/v1/a/b", "/v1/ab", "/v1x", "/v1x/a", "/other", "/v1/..%2f", "/v1/a/..;/"],
    );
    let (grants, targets): (Vec<HttpGrant>, Vec<Target>) =
        (patterns.iter().map(|text| grant(text)).collect(), urls.iter().map(|url| target(url)).collect());
    let allowed: Vec<Vec<bool>> =
        grants.iter().map(|grant| targets.iter().map(|target| grant.allows(target)).collect()).collect();
    for (ceiling, own) in grants.iter().zip(&allowed) {
        for (inner, other) in grants.iter().zip(&allowed) {
            let allows_all = own.iter().zip(other).all(|(own, other)| *own || !*other);
            assert_eq!(ceiling.covers(inner), allows_all, "{ceiling} and {inner}");
        }
    }
}
