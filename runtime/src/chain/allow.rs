//! Reads `[stage.allow]`: what a stage asks to reach outside of its sandbox.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use super::{Chain, ChainError, Reader, Work, bounds, manifest};
use crate::calls::grant::{Access, CallLimits, Grants, HttpGrant, SecretName, SecretUse};
use crate::calls::names::{BucketName, StoreName, SubjectPattern};
use crate::name::{StageName, nearest};

/// The values of `record`.
const RECORDS: [&str; 2] = ["calls", "bodies"];

impl Chain {
    /// Returns what each stage asks for. Stages that ask for nothing are left out.
    pub(crate) fn granted(&self) -> Vec<(StageName, Arc<Grants>)> {
        let asking = self.stages.iter().filter(|stage| !stage.grants.is_empty());
        asking.map(|stage| (stage.name.clone(), stage.grants.clone())).collect()
    }
}

/// Reads what a stage asks for.
pub(super) fn grants(reader: &Reader, raw: &manifest::Stage, work: &Work) -> Result<Grants, ChainError> {
    let Some(raw) = &raw.allow else { return Ok(Grants::default()) };
    if let Work::Program(_) = work {
        let problem = "a program runs outside of any sandbox and reaches what its user may; leave it out";
        return Err(reader.error("allow", problem));
    }
    let grants = Grants {
        http: list(reader, "allow.http", &raw.http, HttpGrant::parse)?,
        kv: table(reader, "allow.kv", &raw.kv, BucketName::parse, Access::parse)?,
        objects: table(reader, "allow.objects", &raw.objects, StoreName::parse, Access::parse)?,
        publish: list(reader, "allow.publish", &raw.publish, SubjectPattern::parse)?,
        secrets: table(reader, "allow.secrets", &raw.secrets, SecretName::parse, SecretUse::parse)?,
        limits: limits(reader, &raw.limits)?,
        records_bodies: records_bodies(reader, raw.record.as_deref())?,
    };
    check_secrets(reader, &grants)?;
    Ok(grants)
}

fn list<T: PartialEq, E: Display>(
    reader: &Reader,
    key: &'static str,
    texts: &[String],
    parse: fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, ChainError> {
    let mut all = Vec::with_capacity(texts.len());
    for text in texts {
        let one = parse(text).map_err(|problem| reader.error(key, problem.to_string()))?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    Ok(all)
}

fn table<K: Ord, V, E: Display, F: Display>(
    reader: &Reader,
    key: &'static str,
    entries: &BTreeMap<String, String>,
    name: fn(&str) -> Result<K, E>,
    value: fn(&str) -> Result<V, F>,
) -> Result<BTreeMap<K, V>, ChainError> {
    let entry = |(text, way): (&String, &String)| {
        let name = name(text).map_err(|problem| reader.error(key, problem.to_string()))?;
        let value = value(way).map_err(|problem| reader.error(key, format!("`{text}`: {problem}")))?;
        Ok((name, value))
    };
    entries.iter().map(entry).collect()
}

fn limits(reader: &Reader, raw: &manifest::CallLimits) -> Result<CallLimits, ChainError> {
    let default = CallLimits::default();
    let size = |bounds: bounds::Bounds<u64>, text: &Option<String>, default: u64| {
        text.as_ref().map_or(Ok(default), |text| bounds.size(reader, text))
    };
    let received = size(bounds::RECEIVED, &raw.received, default.received)?;
    let body = size(bounds::BODY, &raw.body, default.body.min(received))?;
    if body > received && !reader.is_deployed {
        let problem = "must be at most `allow.limits.received`, which counts the bodies of all responses of an item";
        return Err(reader.error(bounds::BODY.key, problem));
    }
    Ok(CallLimits {
        calls: bounds::CALLS.count(reader, raw.calls, default.calls)?,
        sent: size(bounds::SENT, &raw.sent, default.sent)?,
        received,
        body: body.min(received),
    })
}

fn records_bodies(reader: &Reader, record: Option<&str>) -> Result<bool, ChainError> {
    match record {
        None | Some("calls") => Ok(false),
        Some("bodies") => Ok(true),
        Some(other) => {
            let hint = match nearest(other, RECORDS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "write \"calls\" or \"bodies\"".to_owned(),
            };
            Err(reader.error("allow.record", format!("`{other}` is not known; {hint}")))
        }
    }
}

/// Refuses a secret that could be sent nowhere.
fn check_secrets(reader: &Reader, grants: &Grants) -> Result<(), ChainError> {
    for (name, way) in &grants.secrets {
        let SecretUse::Origin(origin) = way else { continue };
        if !grants.http.iter().any(|grant| grant.allows_origin(origin)) {
            let problem = format!(
                "`{name}` is for `{origin}`, which the stage may not request; add `\"{origin}\"` to `allow.http`"
            );
            return Err(reader.error("allow.secrets", problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::manifest::Manifest;

    const HEAD: &str = "name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\n";

    fn manifest(rest: &str) -> Result<Manifest, String> {
        let text = format!("{HEAD}plugin = \"p.wasm\"\n[stage.allow]\n{rest}");
        Manifest::from_toml(&text).map_err(|error| error.to_string())
    }

    fn grants_of(rest: &str) -> Result<Grants, String> {
        let chain = Chain::new(&manifest(rest)?).map_err(|error| error.to_string())?;
        Ok(Grants::clone(&chain.stages[0].grants))
    }

    const SAMPLE: &str = r#"
        http = ["https://api.example.com", "https://*.example.org:8443", "http://api.internal:9000/v1"]
        kv = { cache = "read-write" }
        objects = { models = "read" }
        secrets = { api_token = "https://api.example.com" }
        publish = ["alerts.>"]
        record = "bodies"
        limits = { calls = 10, received = "1MiB" }
    "#;

    #[test]
    fn a_stage_asks_for_what_its_table_says() {
        let grants = grants_of(SAMPLE).expect("valid");
        assert_eq!(
            grants.lines(),
            [
                "http https://api.example.com",
                "http https://*.example.org:8443",
                "http http://api.internal:9000/v1",
                "kv cache read-write",
                "objects models read",
                "publish alerts.>",
                "secret api_token for https://api.example.com",
            ]
        );
        assert!(grants.records_bodies);
        let limits = CallLimits { calls: 10, received: 1 << 20, body: 1 << 20, ..CallLimits::default() };
        assert_eq!(grants.limits, limits, "a body has no more room than all");
        assert!(grants_of("").expect("valid").is_empty());
        let plain = Manifest::from_toml(&format!("{HEAD}plugin = \"p.wasm\"")).expect("valid");
        assert!(Chain::new(&plain).expect("valid").stages[0].grants.is_empty());
        assert!(!serde_json::to_string(&plain).expect("JSON").contains("allow"));
    }

    #[test]
    fn grants_are_stored_with_their_version() {
        let written = manifest(SAMPLE).expect("valid");
        let json = serde_json::to_string(&written).expect("JSON");
        let stored: Manifest = serde_json::from_str(&json).expect("a manifest");
        assert_eq!(stored, written);
    }

    #[test]
    fn each_wrong_grant_is_answered_with_the_right_one() {
        for (rest, told) in [
            ("htpp = []", "line 7: unknown key `htpp`; did you mean `http`?"),
            ("secret = {}", "line 7: unknown key `secret`; did you mean `secrets`?"),
            (
                "http = \"https://api.example.com\"",
                "line 7: `http`: invalid type: string \"https://api.example.com\", expected a sequence; write a list, as in \
                 [\"https://api.example.com\"]",
            ),
            ("publish = \"alerts.>\"", "expected a sequence; write a list, as in [\"alerts.>\"]"),
            ("kv = [\"cache\"]", "expected a map; write a table, as in `kv = { cache = \"read\" }`"),
            ("objects = \"models\"", "expected a map; write a table, as in `objects = { models = \"read\" }`"),
            (
                "secrets = [\"api_token\"]",
                "expected a map; write a table, as in `secrets = { api_token = \"https://api.example.com\" }`",
            ),
            ("limits = { sent = 5 }", "expected a string; a size is a text with its unit, as in \"64MiB\" or \"1GiB\""),
            ("limits = { call = 5 }", "unknown key `call`; did you mean `calls`?"),
            (
                "http = [\"api.example.com\"]",
                "stage `s`: `allow.http`: `api.example.com` has no scheme; write `https://api.example.com`",
            ),
            ("http = [\"*\"]", "stage `s`: `allow.http`: `*` alone would be everything; write `https://*`"),
            (
                "kv = { cache = \"read-wirte\" }",
                "`allow.kv`: `cache`: `read-wirte` is not known; did you mean `read-write`?",
            ),
            ("kv = { \"a.b\" = \"read\" }", "`allow.kv`: the bucket `a.b` has the character '.'"),
            (
                "kv = { pcluster_chains = \"read\" }",
                "the bucket `pcluster_chains` belongs to pcluster, and is never granted",
            ),
            (
                "objects = { Pcluster_plugins = \"read\" }",
                "`allow.objects`: the object store `Pcluster_plugins` belongs to",
            ),
            ("publish = [\">\"]", "`allow.publish`: the pattern of subjects `>` has a wildcard in the wrong place"),
            ("publish = [\"pcluster.>\"]", "`allow.publish`: the pattern of subjects `pcluster.>` belongs to pcluster"),
            ("publish = [\"_INBOX.>\"]", "belongs to NATS, and is never granted"),
            ("secrets = { Key = \"reveal\" }", "`allow.secrets`: `Key` cannot be the name of a secret"),
            ("secrets = { key = \"revael\" }", "`allow.secrets`: `key`: `revael` is not known; did you mean `reveal`?"),
            (
                "secrets = { key = \"https://a.example\" }",
                "`allow.secrets`: `key` is for `https://a.example`, which the stage may not request; add `\"https://a.example\"` \
                 to `allow.http`",
            ),
            ("record = \"bodeis\"", "`allow.record`: `bodeis` is not known; did you mean `bodies`?"),
            ("record = \"none\"", "`allow.record`: `none` is not known; write \"calls\" or \"bodies\""),
            ("limits = { calls = 0 }", "`allow.limits.calls`: must be at least 1: "),
            ("limits = { calls = 1_000_001 }", "`allow.limits.calls`: must be at most 1000000: "),
            ("limits = { sent = \"1B\" }", "`allow.limits.sent`: must be at least \"1KiB\": "),
            ("limits = { sent = \"2TiB\" }", "`allow.limits.sent`: must be at most \"1TiB\": "),
            ("limits = { received = \"1B\" }", "`allow.limits.received`: must be at least \"1KiB\": "),
            ("limits = { received = \"2TiB\" }", "`allow.limits.received`: must be at most \"1TiB\": "),
            ("limits = { body = \"1B\" }", "`allow.limits.body`: must be at least \"1KiB\": "),
            ("limits = { body = \"2GiB\" }", "`allow.limits.body`: must be at most \"256MiB\": "),
            ("limits = { body = \"65MiB\" }", "`allow.limits.body`: must be at most `allow.limits.received`"),
            ("limits = { body = \"lots\" }", "`allow.limits.body`: `lots` is not a size"),
        ] {
            let error = grants_of(rest).expect_err(rest);
            assert!(error.contains(told), "{rest}: {error}");
        }
    }

    #[test]
    fn what_is_no_table_is_told_and_a_program_is_granted_nothing() {
        let of = |rest: &str| {
            let manifest = Manifest::from_toml(&format!("{HEAD}{rest}")).map_err(|error| error.to_string())?;
            Chain::new(&manifest).map_err(|error| error.to_string())
        };
        let error = of("plugin = \"p.wasm\"\nallow = \"https://*\"").expect_err("no table");
        assert!(error.ends_with("; write a table, as in `[stage.allow]`"), "{error}");
        let error = of("exec = [\"true\"]\n[stage.allow]\nkv = { cache = \"read\" }").expect_err("a program");
        assert!(error.starts_with("stage `s`: `allow`: a program runs outside of any sandbox"), "{error}");
    }

    #[test]
    fn limits_from_before_a_bound_was_drawn_are_served_within_it() {
        let written = manifest("limits = { calls = 0, body = \"2GiB\", sent = \"1B\" }").expect("the right shape");
        let chain = Chain::stored(&written).expect("served");
        let limits = chain.stages[0].grants.limits;
        assert_eq!(limits, CallLimits { calls: 1, sent: 1 << 10, body: 64 << 20, ..CallLimits::default() });
    }
}
