//! Settings, resolved once: defaults, then `pcluster.toml`, then `PCLUSTER_*` in the environment, then flags. Arguments and
//! environment are handed in; nothing here reads the process's own.

mod context;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use figment::value::Value;

use crate::broker::Address;
use crate::file;
use crate::name::nearest;

/// The most bytes of a node's name, which are more than a host's name has. It is in the headers of each result and several times in
/// those of a dead letter.
const NODE_MAX: usize = 255;

/// The name of the settings file.
pub const FILE: &str = "pcluster.toml";
/// What the variables in the environment start with.
pub const ENVIRONMENT_PREFIX: &str = "PCLUSTER_";

/// One setting: its key in the file (in capitals in the environment), and what it is.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// All settings.
pub const SETTINGS: [Setting; 19] = [
    Setting { key: "nats", help: "URL of the NATS server, or several separated by commas" },
    Setting {
        key: "context",
        help: "context of the `nats` program to connect with; `-`: the selected one; empty: none",
    },
    Setting { key: "creds", help: "credentials file for NATS; empty: none" },
    Setting { key: "nkey", help: "file with the seed of an nkey; empty: none" },
    Setting { key: "user", help: "user; empty: none, or the one in the URL" },
    Setting { key: "password", help: "password of the user" },
    Setting { key: "token", help: "token to log in with; empty: none" },
    Setting { key: "tlsca", help: "certificate of the authority that signed the server's; empty: those of the system" },
    Setting { key: "tlscert", help: "certificate to show to the server; empty: none" },
    Setting { key: "tlskey", help: "private key of the certificate; empty: none" },
    Setting { key: "domain", help: "JetStream domain; empty: that of the server" },
    Setting { key: "inbox_prefix", help: "what the subjects of answers start with; empty: `_INBOX`" },
    Setting { key: "cache", help: "folder for compiled plugins; empty: none" },
    Setting { key: "node", help: "name of the node" },
    Setting { key: "grace", help: "how long a stopping node lets items finish" },
    Setting { key: "instances", help: "WebAssembly instances that may exist at once on a node" },
    Setting { key: "memory", help: "memory that a node gives to items: prefetched, running and their outputs" },
    Setting { key: "nats_server", help: "the nats-server program that `pcluster dev` starts; empty: look for it" },
    Setting {
        key: "log",
        help: "what pcluster says of itself: error, warn, info, debug or trace, or target=level,…; empty: depends on the command",
    },
];

/// The source of what nobody has set.
const DEFAULT: &str = "default";
/// The least memory that a node can work with, in bytes: a few items of usual size at once.
const MEMORY_MIN: u64 = 64 << 20;

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A settings file that must be there.
    pub file: Option<PathBuf>,
    /// Settings files of which the first that is there is taken.
    pub files: Vec<PathBuf>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// The flags that were given, by key.
    pub flags: BTreeMap<&'static str, String>,
    /// The folder of the `nats` program's configuration.
    pub nats: Option<PathBuf>,
    /// The user's folder.
    pub home: Option<PathBuf>,
    /// The folder for compiled plugins where nothing else is said, as the system has it: settings are text, and it need not be.
    pub cache: Option<PathBuf>,
}

/// A setting with its value.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Resolved {
    /// The key.
    pub key: &'static str,
    /// The value as text.
    pub value: String,
    /// Where it came from.
    pub source: String,
    /// What it means.
    pub help: &'static str,
}

/// All settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where NATS is.
    pub address: Address,
    /// Where compiled plugins are kept.
    pub cache: Option<PathBuf>,
    /// The node's name.
    pub node: String,
    /// How long a stopping node lets items finish.
    pub grace: Duration,
    /// WebAssembly instances that may exist at once.
    pub instances: u32,
    /// Memory that a node gives to items, in bytes.
    pub memory: u64,
    /// The nats-server program.
    pub nats_server: Option<PathBuf>,
    /// What to log.
    pub log: Option<String>,
    /// Each setting with its source.
    pub resolved: Vec<Resolved>,
}

/// Why the settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file `{}`: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file has a key that is not a setting.
    #[error("`{}`: unknown setting `{key}`; {hint}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What to do.
        hint: String,
    },
    /// A value cannot be.
    #[error("the setting `{key}` from {origin}: {problem}")]
    Value {
        /// The setting.
        key: &'static str,
        /// Where it came from.
        origin: String,
        /// What is wrong, and what to write.
        problem: String,
    },
}

/// Variables in the environment that look like settings and are none, each with the one that was meant. Others are not
/// pcluster's to judge.
#[must_use]
pub fn mistyped(environment: &BTreeMap<String, String>) -> Vec<(String, String)> {
    /// Services that are called pcluster-nats have variables of their own, such as `PCLUSTER_NATS_PORT`.
    const DIFFERENCE: usize = 2;
    let known: Vec<String> = SETTINGS.iter().map(|setting| setting.key.to_uppercase()).collect();
    let keys = environment.keys().filter_map(|name| Some((name, name.strip_prefix(ENVIRONMENT_PREFIX)?)));
    let unknown = keys.filter(|(_, key)| !known.iter().any(|known| known == key));
    let near = unknown.filter_map(|(name, key)| {
        let alike = known.iter().map(String::as_str).filter(|known| known.len().abs_diff(key.len()) <= DIFFERENCE);
        let near = nearest(key, alike)?;
        Some((name.clone(), format!("{ENVIRONMENT_PREFIX}{near}")))
    });
    near.collect()
}

impl Settings {
    /// Resolves and checks all settings. `defaults` gives those that depend on the machine.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or a value cannot be.
    pub fn resolve(sources: &Sources, defaults: &BTreeMap<&'static str, String>) -> Result<Self, ConfigError> {
        let file = match &sources.file {
            Some(file) => Some(file),
            None => sources.files.iter().find(|file| file.exists()),
        };
        let mut figment = Figment::from(Serialized::defaults(defaults));
        if let Some(file) = file {
            check_file(file)?;
            figment = figment.merge(Toml::file_exact(file));
        }
        let mut resolved: Vec<Resolved> = SETTINGS
            .iter()
            .map(|setting| {
                let variable = format!("{ENVIRONMENT_PREFIX}{}", setting.key.to_uppercase());
                let (value, source) = if let Some(value) = sources.flags.get(setting.key) {
                    (value.clone(), format!("flag --{}", setting.key.replace('_', "-")))
                } else if let Some(value) = sources.environment.get(&variable) {
                    (value.clone(), format!("environment {variable}"))
                } else {
                    let origin = match file {
                        Some(file) if in_file(&figment, setting.key) => format!("`{}`", file.display()),
                        _ => DEFAULT.to_owned(),
                    };
                    (figment.find_value(setting.key).map(|value| text(&value)).unwrap_or_default(), origin)
                };
                Resolved { key: setting.key, value, source, help: setting.help }
            })
            .collect();
        apply_context(&mut resolved, sources)?;
        let mut settings = Self::check(resolved)?;
        let is_default = |setting: &Resolved| setting.key == "cache" && setting.source == DEFAULT;
        if settings.resolved.iter().any(is_default) && sources.cache.is_some() {
            settings.cache.clone_from(&sources.cache);
        }
        settings.resolved.iter_mut().for_each(mask);
        Ok(settings)
    }

    fn check(resolved: Vec<Resolved>) -> Result<Self, ConfigError> {
        let find = |key: &str| resolved.iter().find(|setting| setting.key == key);
        let value = |key: &str| find(key).map_or("", |setting| setting.value.as_str());
        let optional = |key: &str| Some(value(key)).filter(|text| !text.is_empty()).map(str::to_owned);
        let wrong = |key: &'static str, problem: String| ConfigError::Value {
            key,
            origin: find(key).map(|setting| setting.source.clone()).unwrap_or_default(),
            problem,
        };
        let grace = humantime::parse_duration(value("grace"))
            .map_err(|_| wrong("grace", format!("`{}` is not a duration; write one like \"30s\"", value("grace"))))?;
        let instances =
            value("instances").parse().ok().filter(|number| (1..=100_000).contains(number)).ok_or_else(|| {
                wrong("instances", format!("`{}` is not a number from 1 to 100000", value("instances")))
            })?;
        let memory = value("memory").parse::<bytesize::ByteSize>().ok().filter(|size| size.0 >= MEMORY_MIN);
        let memory = memory.ok_or_else(|| {
            wrong("memory", format!("`{}` is not a size of at least 64MiB; write one like \"2GiB\"", value("memory")))
        })?;
        let node = value("node");
        if node.is_empty() || node.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(wrong("node", format!("`{node}` cannot be a name; write one without spaces")));
        }
        if node.len() > NODE_MAX {
            let problem = format!("a name of {} bytes; {NODE_MAX} is the most: each result carries it", node.len());
            return Err(wrong("node", problem));
        }
        if value("nats").is_empty() {
            return Err(wrong("nats", "empty; write a URL like \"nats://127.0.0.1:4222\"".to_owned()));
        }
        if value("nats").split(',').any(|url| ["ws://", "wss://"].iter().any(|scheme| url.trim().starts_with(scheme))) {
            let problem = "WebSocket is not supported; write the address of a port for clients, nats://HOST:4222";
            return Err(wrong("nats", problem.to_owned()));
        }
        for (key, other) in [("tlscert", "tlskey"), ("tlskey", "tlscert"), ("password", "user")] {
            if !value(key).is_empty() && value(other).is_empty() {
                return Err(wrong(key, format!("set without `{other}`; they go together")));
            }
        }
        let domain = value("domain");
        if domain.chars().any(|character| character.is_whitespace() || ".*>".contains(character)) {
            return Err(wrong("domain", format!("`{domain}` cannot be a domain: no spaces and none of `.*>`")));
        }
        let file = |key: &str| optional(key).map(PathBuf::from);
        let address = Address {
            url: value("nats").to_owned(),
            credentials: file("creds"),
            nkey: file("nkey"),
            user: optional("user"),
            password: optional("password"),
            token: optional("token"),
            tls_ca: file("tlsca"),
            tls_cert: file("tlscert").zip(file("tlskey")),
            domain: optional("domain"),
            inbox_prefix: optional("inbox_prefix"),
        };
        Ok(Self {
            address,
            cache: optional("cache").map(PathBuf::from),
            node: node.to_owned(),
            grace,
            instances,
            memory: memory.0,
            nats_server: optional("nats_server").map(PathBuf::from),
            log: optional("log"),
            resolved,
        })
    }
}

/// The defaults. `cache` is the folder for compiled plugins, `node` a name that is this process's own, `memory` what a node may
/// give to items on this machine, in bytes.
#[must_use]
pub fn defaults(cache: Option<&Path>, node: String, memory: u64) -> BTreeMap<&'static str, String> {
    let cache = cache.map(|folder| folder.display().to_string());
    BTreeMap::from([
        ("nats", "nats://127.0.0.1:4222".to_owned()),
        ("context", String::new()),
        ("creds", String::new()),
        ("nkey", String::new()),
        ("user", String::new()),
        ("password", String::new()),
        ("token", String::new()),
        ("tlsca", String::new()),
        ("tlscert", String::new()),
        ("tlskey", String::new()),
        ("domain", String::new()),
        ("inbox_prefix", String::new()),
        ("cache", cache.unwrap_or_default()),
        ("node", node),
        ("grace", "30s".to_owned()),
        ("instances", "1000".to_owned()),
        ("memory", format!("{}MiB", memory.max(MEMORY_MIN) >> 20)),
        ("nats_server", String::new()),
        ("log", String::new()),
    ])
}

/// The settings that say who logs in. They are taken together, from one place.
const LOGIN: [&str; 5] = ["creds", "nkey", "user", "password", "token"];

/// How strong a source is: what comes from a stronger one wins.
fn rank(source: &str) -> u8 {
    match source.split(' ').next() {
        Some(DEFAULT) => 0,
        Some("environment") => 2,
        Some("flag") => 3,
        _ => 1,
    }
}

/// Takes over what the context says that is named, but for what a source says that is as strong.
fn apply_context(resolved: &mut [Resolved], sources: &Sources) -> Result<(), ConfigError> {
    let Some(context) = resolved.iter().find(|setting| setting.key == "context" && !setting.value.is_empty()) else {
        return Ok(());
    };
    let (name, at) = (context.value.clone(), rank(&context.source));
    let wrong = |problem: String| ConfigError::Value { key: "context", origin: context.source.clone(), problem };
    let folder = sources.nats.as_deref().ok_or_else(|| wrong("there is no folder for configuration".to_owned()))?;
    let given = context::read(&name, folder, sources.home.as_deref()).map_err(wrong)?;
    let is_given = |setting: &Resolved| !setting.value.is_empty() && rank(&setting.source) >= at;
    let has_login = resolved.iter().any(|setting| LOGIN.contains(&setting.key) && is_given(setting));
    for setting in resolved {
        let is_login = LOGIN.contains(&setting.key);
        let value = match given.get(setting.key) {
            Some(_) if is_login && has_login || !is_login && rank(&setting.source) >= at => continue,
            Some(value) => value.clone(),
            None if is_login && !has_login => String::new(),
            None => continue,
        };
        (setting.value, setting.source) = (value, format!("context `{name}`"));
    }
    Ok(())
}

/// Hides what nobody else should see.
fn mask(setting: &mut Resolved) {
    match setting.key {
        "nats" => setting.value = Address::from(setting.value.as_str()).shown(),
        "password" | "token" if !setting.value.is_empty() => "***".clone_into(&mut setting.value),
        _ => {}
    }
}

fn in_file(figment: &Figment, key: &str) -> bool {
    let source = figment.find_metadata(key).and_then(|metadata| metadata.source.as_ref());
    matches!(source, Some(figment::Source::File(_)))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Num(_, number) => {
            number.to_i128().map_or_else(|| format!("{:?}", number.to_f64()), |whole| whole.to_string())
        }
        Value::Bool(_, bool) => bool.to_string(),
        _ => String::new(),
    }
}

fn check_file(path: &Path) -> Result<(), ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    let text = file::read_text(path).map_err(|error| unreadable(error.to_string()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        unreadable(format!("line {line}: {}", error.message()))
    })?;
    let known = || SETTINGS.iter().map(|setting| setting.key);
    for (key, value) in &table {
        let Some(known_key) = known().find(|each| each == key) else {
            let hint = match nearest(key, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", known().collect::<Vec<_>>().join(", ")),
            };
            return Err(ConfigError::Unknown { path: path.to_owned(), key: key.clone(), hint });
        };
        if value.is_array() || value.is_table() || value.is_datetime() {
            return Err(ConfigError::Value {
                key: known_key,
                origin: format!("`{}`", path.display()),
                problem: format!("must be a text or a number, not {}", with_article(value.type_str())),
            });
        }
    }
    Ok(())
}

fn with_article(noun: &str) -> String {
    format!("{} {noun}", if noun.starts_with('a') { "an" } else { "a" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(sources: &Sources) -> Result<Settings, ConfigError> {
        Settings::resolve(sources, &defaults(None, "me".to_owned(), 1 << 30))
    }

    fn source<'a>(settings: &'a Settings, key: &str) -> &'a str {
        &settings.resolved.iter().find(|setting| setting.key == key).expect("known").source
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
        let flags = BTreeMap::from([("instances", "7".to_owned())]);
        let settings =
            resolve(&Sources { files: vec![file.clone()], environment, flags, ..Sources::default() }).expect("valid");
        assert_eq!(settings.address.url, "nats://file");
        assert_eq!((settings.grace, settings.instances), (Duration::from_secs(2), 7));
        assert_eq!(source(&settings, "nats"), format!("`{}`", file.display()));
        assert_eq!(source(&settings, "grace"), "environment PCLUSTER_GRACE");
        assert_eq!(source(&settings, "instances"), "flag --instances");
        assert_eq!(source(&settings, "node"), "default");
    }

    #[test]
    fn a_context_gives_what_no_source_as_strong_says_and_secrets_are_masked() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("context")).expect("made");
        let text = r#"{"url":"nats://me:secret@host","user":"me","password":"secret","jetstream_domain":"hub"}"#;
        std::fs::write(folder.path().join("context/a.json"), text).expect("written");
        let with = |environment: &[(&str, &str)], flags: &[(&'static str, &str)]| {
            let own = |value: &&str| (*value).to_owned();
            let environment = environment.iter().map(|(name, value)| (own(name), own(value))).collect();
            let flags = flags.iter().map(|(key, value)| (*key, own(value))).collect();
            let nats = Some(folder.path().to_owned());
            resolve(&Sources { environment, flags, nats, ..Sources::default() }).expect("valid")
        };
        let settings = with(&[("PCLUSTER_NATS", "nats://other"), ("PCLUSTER_TOKEN", "t")], &[("context", "a")]);
        let address = &settings.address;
        assert_eq!((address.url.as_str(), address.user.as_deref()), ("nats://me:secret@host", Some("me")));
        assert_eq!((address.token.as_deref(), address.domain.as_deref()), (None, Some("hub")));
        let shown: Vec<&str> = settings.resolved.iter().map(|setting| setting.value.as_str()).collect();
        assert!(!shown.iter().any(|value| value.contains("secret")) && shown.contains(&"***"), "{shown:?}");
        assert_eq!(source(&settings, "domain"), "context `a`");
        let settings = with(&[("PCLUSTER_CONTEXT", "a")], &[("token", "t"), ("nats", "nats://b")]);
        let address = &settings.address;
        assert_eq!((address.url.as_str(), address.token.as_deref()), ("nats://b", Some("t")));
        assert_eq!(address.user, None, "who logs in is taken from one place");
    }

    #[test]
    fn what_cannot_connect_is_refused_at_once() {
        let refused = |flags: &[(&'static str, &str)]| {
            let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
            resolve(&Sources { flags, ..Sources::default() }).expect_err("refused").to_string()
        };
        assert!(refused(&[("nats", "nats://a, wss://b:443")]).contains("WebSocket is not supported"));
        assert!(refused(&[("tlscert", "c.pem")]).contains("set without `tlskey`"));
        assert!(refused(&[("domain", "a.b")]).contains("cannot be a domain"));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_source() {
        let environment = BTreeMap::from([("PCLUSTER_GRACE".to_owned(), "soon".to_owned())]);
        let error = resolve(&Sources { environment, ..Sources::default() }).expect_err("wrong");
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
        let defaults = defaults(Some(&folder), "me".to_owned(), 1 << 30);
        let mut sources = Sources { cache: Some(folder.clone()), ..Sources::default() };
        assert_eq!(Settings::resolve(&sources, &defaults).expect("sound").cache, Some(folder));
        sources.flags.insert("cache", "/other".to_owned());
        assert_eq!(Settings::resolve(&sources, &defaults).expect("sound").cache, Some("/other".into()));
        sources.flags.insert("cache", String::new());
        assert_eq!(Settings::resolve(&sources, &defaults).expect("sound").cache, None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FILE);
        let with = |text: &str| {
            std::fs::write(&file, text).expect("written");
            resolve(&Sources { file: Some(file.clone()), ..Sources::default() }).expect_err("wrong").to_string()
        };
        assert!(with("nats =").contains("line 1: "));
        assert!(with("natz = \"x\"").ends_with("unknown setting `natz`; did you mean `nats`?"));
        let missing = Sources { file: Some(folder.path().join("none.toml")), ..Sources::default() };
        assert!(matches!(resolve(&missing), Err(ConfigError::Unreadable { .. })));
    }
}
