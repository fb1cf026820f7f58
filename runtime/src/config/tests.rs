//! Tests of the settings: which source wins, what is shown of each, and what is refused.

use super::*;

fn resolve(sources: Sources) -> Result<Settings, ConfigError> {
    Settings::resolve(&Sources { node: "me".to_owned(), memory: 1 << 30, ..sources })
}

fn flags(given: &[(&str, &str)]) -> Dict {
    given.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect()
}

#[test]
fn the_later_source_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(FILE);
    std::fs::write(&file, "nats = \"nats://file\"\ngrace = \"1s\"\ninstances = 5\n").expect("written");
    let environment = BTreeMap::from([
        ("PCLUSTER_GRACE".to_owned(), "2s".to_owned()),
        ("PCLUSTER_INSTANCES".to_owned(), "6".to_owned()),
    ]);
    let flags = Dict::from([("instances".to_owned(), 7_u32.into())]);
    let settings =
        resolve(Sources { file: Some(file.clone()), environment, flags, ..Sources::default() }).expect("valid");
    assert_eq!(settings.address().url, "nats://file");
    assert_eq!((settings.grace, settings.instances), (Duration::from_secs(2), 7));
    assert_eq!(settings.source("nats"), format!("`{}`", file.display()));
    assert_eq!(settings.source("grace"), "environment PCLUSTER_GRACE");
    assert_eq!(settings.source("instances"), "flag --instances");
    assert_eq!(settings.source("node"), "default");
}

#[test]
fn a_context_gives_what_no_source_as_strong_says_and_secrets_are_masked() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("context")).expect("made");
    let text = r#"{"url":"nats://me:secret@host","user":"me","password":"secret","jetstream_domain":"hub"}"#;
    std::fs::write(folder.path().join("context/a.json"), text).expect("written");
    let with = |environment: &[(&str, &str)], given: &[(&str, &str)]| {
        let own = |value: &&str| (*value).to_owned();
        let environment = environment.iter().map(|(name, value)| (own(name), own(value))).collect();
        let nats = Some(folder.path().to_owned());
        resolve(Sources { environment, flags: flags(given), nats, ..Sources::default() }).expect("valid")
    };
    let settings = with(&[("PCLUSTER_NATS", "nats://other"), ("PCLUSTER_TOKEN", "t")], &[("context", "a")]);
    let address = settings.address();
    assert_eq!((address.url.as_str(), address.user.as_deref()), ("nats://me:secret@host", Some("me")));
    assert_eq!((address.token.as_deref(), address.domain.as_deref()), (None, Some("hub")));
    let shown: Vec<String> = settings.resolved().into_iter().map(|setting| setting.value).collect();
    assert!(!shown.iter().any(|value| value.contains("secret")) && shown.contains(&"***".to_owned()), "{shown:?}");
    assert_eq!(settings.source("domain"), "context `a`");
    let settings = with(&[("PCLUSTER_CONTEXT", "a")], &[("token", "t"), ("nats", "nats://b")]);
    let address = settings.address();
    assert_eq!((address.url.as_str(), address.token.as_deref()), ("nats://b", Some("t")));
    assert_eq!(address.user, None, "a login is taken from one place");
    let settings = with(&[("PCLUSTER_CONTEXT", "a"), ("PCLUSTER_DOMAIN", "")], &[("user", "")]);
    let address = settings.address();
    assert_eq!(address.domain, None, "an empty value counts as given");
    assert_eq!(address.user.as_deref(), Some("me"), "an empty value is no login");
}

#[test]
fn what_cannot_connect_is_refused_at_once() {
    let refused = |given: &[(&str, &str)]| {
        resolve(Sources { flags: flags(given), ..Sources::default() }).expect_err("refused").to_string()
    };
    assert!(refused(&[("nats", "nats://a, wss://b:443")]).contains("WebSocket is not supported"));
    assert!(refused(&[("tlscert", "c.pem")]).contains("set without `tlskey`"));
    assert!(refused(&[("domain", "a.b")]).contains("cannot be a domain"));
}

#[test]
fn a_wrong_value_is_named_with_its_source() {
    let environment = BTreeMap::from([("PCLUSTER_GRACE".to_owned(), "soon".to_owned())]);
    let error = resolve(Sources { environment, ..Sources::default() }).expect_err("wrong");
    assert_eq!(
        error.to_string(),
        "the setting `grace` from environment PCLUSTER_GRACE: `soon` is not a duration; write one like \"30s\""
    );
}

#[test]
fn a_mistyped_variable_is_found_and_others_are_left_alone() {
    let names = ["PCLUSTER_NATZ", "PCLUSTER_NATS", "PCLUSTER_INSTANCE", "PCLUSTER_NATS_PORT", "PCLUSTER_"];
    let environment = names.map(|name| (name.to_owned(), String::new())).into();
    let pair = |typed: &str, meant: &str| (typed.to_owned(), meant.to_owned());
    let found = [pair("PCLUSTER_INSTANCE", "PCLUSTER_INSTANCES"), pair("PCLUSTER_NATZ", "PCLUSTER_NATS")];
    assert_eq!(mistyped(&environment), found);
}

#[test]
fn the_default_folder_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt;

    let folder = PathBuf::from(std::ffi::OsString::from_vec(b"/caches\xff/pcluster".to_vec()));
    let cache = |given: &[(&str, &str)]| {
        let cache = Some(folder.clone());
        resolve(Sources { cache, flags: flags(given), ..Sources::default() }).expect("sound").cache
    };
    assert_eq!(cache(&[]), Some(folder.clone()));
    assert_eq!(cache(&[("cache", "/other")]), Some("/other".into()));
    assert_eq!(cache(&[("cache", "")]), None);
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(FILE);
    let with = |text: &str| {
        std::fs::write(&file, text).expect("written");
        resolve(Sources { file: Some(file.clone()), ..Sources::default() }).expect_err("wrong").to_string()
    };
    assert!(with("nats =").contains("line 1: "));
    assert!(with("natz = \"x\"").ends_with("unknown setting `natz`; did you mean `nats`?"));
    assert!(with("unlike = 1").ends_with(", nats_server, python, javascript, log"));
    assert!(with("user = [1]").ends_with("`: must be a text or a number, not an array"));
    assert!(with("[node]\nname = 1").ends_with("`: must be a text or a number, not a table"));
    assert!(with("node = true\ngrace = 1.5").ends_with("`1.5` is not a duration; write one like \"30s\""));
    let missing = Sources { file: Some(folder.path().join("none.toml")), ..Sources::default() };
    assert!(resolve(missing).expect_err("missing").to_string().starts_with("cannot read the settings file `"));
}

#[test]
fn a_list_comes_from_each_source_and_the_later_one_replaces_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(FILE);
    let with = |text: &str, environment: &[(&str, &str)], flags: Dict| {
        std::fs::write(&file, text).expect("written");
        let own = |value: &str| value.to_owned();
        let environment = environment.iter().map(|(name, value)| (own(name), own(value))).collect();
        let settings = resolve(Sources { file: Some(file.clone()), environment, flags, ..Sources::default() });
        settings.map_err(|error| error.to_string()).map(|settings| {
            let shown = settings.resolved().into_iter().find(|setting| setting.key == "allow.exec").expect("known");
            (shown.value, shown.source, settings.allow.exec.is_empty())
        })
    };
    let in_file = "[allow]\nexec = [\"python3\", \"/opt/sim/bin/*\"]\n";
    let source = format!("`{}`", file.display());
    assert_eq!(with("", &[], Dict::new()), Ok((String::new(), "default".to_owned(), true)));
    assert_eq!(with(in_file, &[], Dict::new()), Ok(("python3, /opt/sim/bin/*".to_owned(), source, false)));
    let variable = [("PCLUSTER_ALLOW_EXEC", "sh,shipped:weather")];
    let from_variable = ("sh,shipped:weather".to_owned(), "environment PCLUSTER_ALLOW_EXEC".to_owned(), false);
    assert_eq!(with(in_file, &variable, Dict::new()), Ok(from_variable));
    let none = [("PCLUSTER_ALLOW_EXEC", "")];
    assert!(with(in_file, &none, Dict::new()).expect("valid").2, "nothing is allowed by an empty list");
    let flag = Dict::from([("allow.exec".to_owned(), vec!["cat"].into())]);
    let from_flag = ("cat".to_owned(), "flag --allow-exec".to_owned(), false);
    assert_eq!(with(in_file, &variable, flag), Ok(from_flag));
    for (text, told) in [
        ("[allow]\nexec = [\"bin/x\"]", ": `bin/x` allows nothing: write a name"),
        ("[allow]\nexec = [1]", ": must be a list of texts, as in `[\"python3\", \"/opt/sim/bin/*\"]`"),
        ("allow = \"python3\"", "the setting `allow` from "),
        ("allow = \"python3\"", ": must be a table; write `exec = [\"python3\"]` below `[allow]`"),
        ("[allow]\nexce = [\"x\"]", "unknown setting `allow.exce`; did you mean `exec`?"),
    ] {
        let wrong = with(text, &[], Dict::new()).expect_err(text);
        assert!(wrong.contains(told), "{wrong}");
    }
}

#[test]
fn slots_and_labels_are_tables_or_texts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(FILE);
    let with = |text: &str, environment: &[(&str, &str)]| {
        std::fs::write(&file, text).expect("written");
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let settings = resolve(Sources { file: Some(file.clone()), environment, ..Sources::default() });
        settings.map_err(|error| error.to_string()).map(|settings| {
            let shown: Vec<String> = ["slots", "label"]
                .map(|key| settings.resolved().into_iter().find(|setting| setting.key == key).expect("known").value)
                .into();
            let slots: Vec<String> =
                settings.slots.counts().map(|(slot, count)| format!("{slot}={count}")).take(2).collect();
            (shown.join("; "), slots.join(" "), settings.label.all().get("zone").cloned())
        })
    };
    let table = "[slots]\ngpu = \"0-1\"\nlicense.matlab = 3\n[label]\nzone = \"eu\"\n";
    let (shown, slots, zone) = with(table, &[]).expect("valid");
    assert_eq!((shown.as_str(), slots.as_str()), ("gpu=0-1, license.matlab=3; zone=eu", "gpu=2 license.matlab=3"));
    assert_eq!(zone.as_deref(), Some("eu"));
    let (shown, slots, _) = with(table, &[("PCLUSTER_SLOTS", "tape=1,gpu=1,3")]).expect("valid");
    assert_eq!((shown.as_str(), slots.as_str()), ("tape=1,gpu=1,3; zone=eu", "gpu=2 tape=1"));
    for (text, told) in [
        ("slots = 3", "the setting `slots` from "),
        ("[slots]\ngpu = 0", "`gpu=0`: write how many slots there are"),
        ("[slots]\ngpu = true", "must be a table of names and values"),
        ("[label]\narch = \"z80\"", "`arch` is `"),
    ] {
        let refused = with(text, &[]).expect_err(text);
        assert!(refused.contains(told), "{refused}");
    }
}

/// Returns what a settings file, variables and flags allow. Each setting of `[allow]` that is given is shown with its source.
fn allowed(text: &str, environment: &[(&str, &str)], flags: Dict) -> Result<(Ceiling, Vec<String>), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(FILE);
    std::fs::write(&file, text).expect("written");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let settings = resolve(Sources { file: Some(file), environment, flags, ..Sources::default() });
    let settings = settings.map_err(|error| error.to_string())?;
    let given = settings
        .resolved()
        .into_iter()
        .filter(|setting| setting.key.starts_with("allow.") && setting.source != "default");
    let shown = given.map(|setting| format!("{} = {}", setting.key, setting.value)).collect();
    Ok((settings.ceiling().map_err(|error| error.to_string())?, shown))
}

#[test]
fn a_node_allows_nothing_until_its_operator_does() {
    let (nothing, shown) = allowed("", &[], Dict::new()).expect("valid");
    assert_eq!((nothing, shown.len()), (Ceiling::default(), 0));
    let file = r#"
        [allow]
        http = ["https://*", "http://API.internal:9000"]
        networks = { "api.internal" = "10.0.3.0/24", "*.lan" = ["10.1.0.0/16", "fd00::/8"] }
        http_proxy = "http://proxy:3128"
        kv = ["cache", "rates=read"]
        objects = { models = "read" }
        publish = ["alerts.>"]
        secrets = { from = "environment" }
    "#;
    let (from_file, shown) = allowed(file, &[], Dict::new()).expect("valid");
    assert_eq!(
        shown,
        [
            "allow.http = https://*, http://API.internal:9000",
            "allow.networks = *.lan=10.1.0.0/16, *.lan=fd00::/8, api.internal=10.0.3.0/24",
            "allow.http_proxy = http://proxy:3128",
            "allow.kv = cache, rates=read",
            "allow.objects = models=read",
            "allow.publish = alerts.>",
            "allow.secrets = from=environment",
        ]
    );
    let variables = [
        ("PCLUSTER_ALLOW_HTTP", "https://*, http://api.internal:9000"),
        ("PCLUSTER_ALLOW_NETWORKS", "*.lan=10.1.0.0/16,fd00::/8,api.internal=10.0.3.0/24"),
        ("PCLUSTER_ALLOW_HTTP_PROXY", "http://PROXY:3128"),
        ("PCLUSTER_ALLOW_KV", "cache,rates=read"),
        ("PCLUSTER_ALLOW_OBJECTS", "models=read"),
        ("PCLUSTER_ALLOW_PUBLISH", "alerts.>"),
        ("PCLUSTER_ALLOW_SECRETS", "environment"),
    ];
    let (from_environment, _) = allowed("", &variables, Dict::new()).expect("valid");
    assert_eq!(from_environment, from_file);
    let list = |key: &str, values: &[&str]| (key.to_owned(), values.to_vec().into());
    let flags = Dict::from([
        list("allow.http", &["https://*", "http://api.internal:9000"]),
        list("allow.networks", &["*.lan=10.1.0.0/16,fd00::/8", "api.internal=10.0.3.0/24"]),
        list("allow.kv", &["cache=read-write", "rates=read"]),
    ]);
    let (from_flags, shown) = allowed(file, &variables, flags).expect("valid");
    assert_eq!(from_flags, from_file);
    assert!(shown.contains(&"allow.kv = cache=read-write, rates=read".to_owned()), "{shown:?}");
}

#[test]
fn what_cannot_be_allowed_is_told_with_its_source() {
    for (text, told) in [
        ("htpp = []", "unknown setting `allow.htpp`; did you mean `http`?"),
        ("http = [\"*\"]", ": `*` alone would be everything; write `https://*` for all hosts with TLS"),
        ("http = \"api.example.com\"", ": `api.example.com` has no scheme; write `https://api.example.com`"),
        ("http = { a = \"b\" }", ": must be a list of texts, as in `[\"https://*\"]`"),
        ("networks = \"10.0.0.0/8\"", "is not a network; write one like \"10.0.3.0/24\""),
        ("networks = { \"*\" = \"10.0.0.0/8\" }", ": `*`: `*` would let each public name point into the network"),
        ("networks = { a = \"10.0.0.1/8\" }", ": `a`: `10.0.0.1/8` has bits behind its prefix; write `10.0.0.0/8`"),
        (
            "networks = { a = 10 }",
            ": must be a table of hosts and networks, as in `{ \"api.internal\" = \"10.0.3.0/24\" }`",
        ),
        ("http_proxy = \"proxy:3128\"", ": `proxy:3128` has no scheme; write `http://proxy:3128`"),
        ("http_proxy = \"https://proxy\"", ": a proxy is reached without TLS; write `http://proxy`"),
        ("http_proxy = \"http://me:hidden@proxy\"", ": names a user, and a node logs in to no proxy; leave it out"),
        ("http_proxy = \"http://proxy/x\"", "an origin has no path, query or fragment; write `http://proxy`"),
        ("http_ca = \"/nowhere/own.pem\"", "the setting `allow.http_ca` from "),
        ("http_ca = \"/nowhere/own.pem\"", ": there is no file `/nowhere/own.pem`"),
        ("kv = [\"cache=wirte\"]", ": `cache`: `wirte` is not known; write \"read\" or \"read-write\""),
        ("kv = [\"pcluster_chains\"]", ": the bucket `pcluster_chains` belongs to pcluster, and is never granted"),
        ("publish = [\">\"]", ": the pattern of subjects `>` has a wildcard in the wrong place"),
        ("secrets = { form = \"/run/secrets\" }", ": must be `{ from = \"/run/secrets\" }` or"),
        ("secrets = \"enviroment\"", ": `enviroment` is no place of secrets; did you mean `environment`?"),
        ("secrets = \"keys\"", ": `keys` is no place of secrets; write \"environment\", or a folder, as in"),
        ("secrets = { from = \"/nowhere\" }", ": there is no folder `/nowhere`"),
    ] {
        let wrong = allowed(&format!("[allow]\n{text}"), &[], Dict::new()).expect_err(text);
        assert!(wrong.contains(told) && wrong.contains("pcluster.toml`"), "{text}: {wrong}");
        assert!(!wrong.contains("hidden"), "{wrong}");
    }
}
