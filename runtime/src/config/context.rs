//! Contexts of the `nats` program. A context is a file that says where a server is and how to log in.

use std::collections::BTreeMap;
use std::path::Path;

use crate::file;
use crate::name::nearest;

/// The name that stands for the context that `nats context select` has selected.
pub const SELECTED: &str = "-";
/// The keys of a context that are settings, each with its setting.
const KEYS: [(&str, &str); 11] = [
    ("url", "nats"),
    ("creds", "creds"),
    ("nkey", "nkey"),
    ("user", "user"),
    ("password", "password"),
    ("token", "token"),
    ("ca", "tlsca"),
    ("cert", "tlscert"),
    ("key", "tlskey"),
    ("jetstream_domain", "domain"),
    ("inbox_prefix", "inbox_prefix"),
];
/// The keys of a context whose values are paths of files.
const FILES: [&str; 5] = ["creds", "nkey", "ca", "cert", "key"];
/// The keys of a context that change how the server is reached and that pcluster cannot obey.
const UNSUPPORTED: [&str; 6] = ["nsc", "socks_proxy", "jetstream_api_prefix", "user_jwt", "user_seed", "tls_first"];

/// Returns the settings that a context gives, without empty ones. `folder` has the configuration of the `nats` program.
pub(super) fn read(name: &str, folder: &Path, home: Option<&Path>) -> Result<BTreeMap<&'static str, String>, String> {
    let name = if name == SELECTED { selected(folder)? } else { name.to_owned() };
    let contexts = folder.join("context");
    let path = contexts.join(format!("{name}.json"));
    let text = match file::read_text(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(unknown(&name, &contexts)),
        Err(error) => return Err(format!("cannot read `{}`: {error}", path.display())),
    };
    let context: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let text_of = |key: &str| match context.get(key) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Bool(true)) => "true".to_owned(),
        _ => String::new(),
    };
    if let Some(key) = UNSUPPORTED.iter().find(|key| !text_of(key).is_empty()) {
        return Err(format!("`{}` sets `{key}`, which pcluster does not support", path.display()));
    }
    let mut given = BTreeMap::new();
    for (key, setting) in KEYS {
        let text = text_of(key);
        let text = if FILES.contains(&key) { expanded(text, home)? } else { text };
        if !text.is_empty() {
            given.insert(setting, text);
        }
    }
    Ok(given)
}

fn selected(folder: &Path) -> Result<String, String> {
    let name = std::fs::read_to_string(folder.join("context.txt")).unwrap_or_default().trim().to_owned();
    let none = "no context is selected; `nats context select` selects one";
    if name.is_empty() { Err(none.to_owned()) } else { Ok(name) }
}

fn unknown(name: &str, contexts: &Path) -> String {
    let files = std::fs::read_dir(contexts).into_iter().flatten().flatten();
    let mut known: Vec<String> =
        files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".json")?.to_owned())).collect();
    known.sort();
    let hint = match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "`nats context add` makes one".to_owned(),
        None => format!("the contexts are {}", known.join(", ")),
    };
    format!("there is no context `{name}` in `{}`; {hint}", contexts.display())
}

/// Puts the user's home folder in place of a leading `~`.
fn expanded(path: String, home: Option<&Path>) -> Result<String, String> {
    let (Some(rest), Some(home)) = (path.strip_prefix("~/"), home) else { return Ok(path) };
    let full = home.join(rest).into_os_string().into_string();
    full.map_err(|full| format!("`{path}` stands for `{}`, which is not UTF-8", full.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_context_is_read_as_the_nats_program_writes_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("context")).expect("made");
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join("context").join(format!("{name}.json")), text).expect("written");
        };
        let given = |name: &str| read(name, folder.path(), Some(Path::new("/home/ada")));
        assert!(given("x").expect_err("none").contains("`nats context add` makes one"));
        write(
            "prod",
            r#"{"description":"","url":"tls://a,tls://b","creds":"~/a.creds","ca":"/ca.pem","token":"","jetstream_domain":"hub","tls_first":false}"#,
        );
        let expected =
            [("creds", "/home/ada/a.creds"), ("domain", "hub"), ("nats", "tls://a,tls://b"), ("tlsca", "/ca.pem")];
        assert_eq!(given("prod").expect("a context"), expected.map(|(key, text)| (key, text.to_owned())).into());
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/home/\xff"));
        let error = read("prod", folder.path(), Some(odd)).expect_err("no text");
        assert!(error.starts_with("`~/a.creds` stands for") && error.ends_with("which is not UTF-8"), "{error}");
        assert!(given("prdo").expect_err("none").ends_with("did you mean `prod`?"));
        write("proxy", r#"{"url":"nats://a","socks_proxy":"socks5://b"}"#);
        assert!(given("proxy").expect_err("not supported").contains("`socks_proxy`"));
        assert!(given(SELECTED).expect_err("none").contains("no context is selected"));
        std::fs::write(folder.path().join("context.txt"), "prod\n").expect("written");
        assert_eq!(given(SELECTED), given("prod"));
    }
}
