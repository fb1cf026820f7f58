//! The layers of the figment: one provider for each source of settings.
//!
//! The metadata of a layer names the source. Its interpolater names a key as that source does, as in `--nats` for
//! `flag`.
//!
//! figment's own providers do not serve here: `Env` reads the password `0123` as a number, and an error of `Toml` has no line.

use std::collections::BTreeMap;
use std::path::Path;

use figment::value::{Dict, Empty, Map, Num, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{ConfigError, ENVIRONMENT_PREFIX, SETTINGS, Sources, context, value};
use crate::file;

/// The source that gives every setting.
pub const DEFAULT: &str = "default";
/// The settings that say who logs in.
const LOGIN: [&str; 5] = ["creds", "nkey", "user", "password", "token"];

/// The settings that one source gives.
///
/// A value is a text, or nothing if that text is empty. The settings `allow.exec`, `slots` and `label` may be arrays or tables. A
/// settings file may hold other arrays and tables, which no setting takes.
pub struct Layer {
    metadata: Metadata,
    values: Dict,
}

impl Layer {
    fn new<K: Into<String>, V: Into<Value>>(
        source: String,
        values: impl IntoIterator<Item = (K, V)>,
        own_key: fn(&str) -> String,
    ) -> Self {
        let metadata = Metadata::named(source).interpolater(move |_, path| own_key(&path.join(".")));
        let mut all = Dict::new();
        for (key, value) in values {
            place(&mut all, &key.into(), text_or_nothing(value.into()));
        }
        Self { metadata, values: all }
    }

    pub fn defaults(sources: &Sources) -> Self {
        let cache = sources.cache.as_ref().map(|folder| folder.display().to_string());
        let mut values = BTreeMap::from(SETTINGS.map(|(key, _)| (key, String::new())));
        values.extend([
            ("nats", "nats://127.0.0.1:4222".to_owned()),
            ("cache", cache.unwrap_or_default()),
            ("node", sources.node.clone()),
            ("grace", "30s".to_owned()),
            ("instances", "1000".to_owned()),
            ("memory", format!("{}MiB", sources.memory.max(value::MEMORY_MIN) >> 20)),
        ]);
        Self::new(DEFAULT.to_owned(), values, |_| String::new())
    }

    pub fn file(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |reason| ConfigError(format!("cannot read the settings file `{}`: {reason}", path.display()));
        let text = file::read_text(path).map_err(|error| unreadable(error.to_string()))?;
        let values: Dict = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            unreadable(format!("line {line}: {}", error.message()))
        })?;
        Ok(Self::new(format!("`{}`", path.display()), values, |_| String::new()))
    }

    pub fn environment(environment: &BTreeMap<String, String>) -> Self {
        let variable = |key: &str| format!("{ENVIRONMENT_PREFIX}{}", upper(key));
        let values = SETTINGS.iter().filter_map(|(key, _)| Some((*key, environment.get(&variable(key))?.clone())));
        Self::new("environment".to_owned(), values, variable)
    }

    pub fn flags(mut flags: Dict) -> Self {
        // A flag that was not given has no value.
        flags.retain(|_, value| !matches!(value, Value::Empty(..)));
        Self::new("flag".to_owned(), flags, |key| format!("--{}", key.replace(['_', '.'], "-")))
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// Adds the context of the `nats` program that the layers name, if they name one.
///
/// The context takes its place right below the layer that names it. Its login is taken as a whole or not at all: it replaces every
/// other login, unless that layer or a later one has a login.
pub fn add_context(layers: &mut Vec<Layer>, sources: &Sources) -> Result<(), ConfigError> {
    let at = layers.iter().rposition(|layer| layer.values.contains_key("context")).unwrap_or_default();
    let later = layers[at..].iter().fold(Figment::new(), Figment::merge);
    let name = text(&later, "context");
    if name.is_empty() {
        return Ok(());
    }
    let refused = |problem: String| refusal(&later, "context", problem);
    let folder = sources.nats.as_deref().ok_or_else(|| refused("there is no folder for configuration".to_owned()))?;
    let mut values = context::read(&name, folder, sources.home.as_deref()).map_err(refused)?;
    let login = LOGIN.map(|key| (key, values.remove(key).unwrap_or_default()));
    let source = format!("context `{name}`");
    if LOGIN.iter().all(|key| text(&later, key).is_empty()) {
        layers.push(Layer::new(source.clone(), login, |_| String::new()));
    }
    layers.insert(at, Layer::new(source, values, |_| String::new()));
    Ok(())
}

/// Puts the value of a setting where its key says. The key of a setting in a table is as in `allow.exec`.
fn place(values: &mut Dict, key: &str, value: Value) {
    let Some((table, key)) = key.split_once('.') else {
        values.insert(key.to_owned(), value);
        return;
    };
    let table = values.entry(table.to_owned()).or_insert_with(|| Dict::new().into());
    if let Value::Dict(_, table) = table {
        table.insert(key.to_owned(), value);
    }
}

/// Returns the key of a setting as the names of variables have it.
pub fn upper(key: &str) -> String {
    key.to_uppercase().replace('.', "_")
}

/// Returns a setting as text, which is empty if the setting has no value. A list or table has commas in its text.
pub fn text(figment: &Figment, key: &str) -> String {
    shown(figment.find_value(key).unwrap_or_else(|_| Empty::None.into()), "").join(", ")
}

/// Returns the parts of a value as text. `name` is that of the value in its table.
fn shown(value: Value, name: &str) -> Vec<String> {
    let own = |text: String| vec![if name.is_empty() { text } else { format!("{name}={text}") }];
    match text_or_nothing(value) {
        Value::String(_, text) => own(text),
        Value::Array(_, values) => values.into_iter().flat_map(|value| shown(value, name)).collect(),
        Value::Dict(_, table) => {
            let dot = if name.is_empty() { "" } else { "." };
            table.into_iter().flat_map(|(key, value)| shown(value, &format!("{name}{dot}{key}"))).collect()
        }
        Value::Empty(..) if name.is_empty() => own(String::new()),
        _ => Vec::new(),
    }
}

/// Returns the source of a setting in words, as in `flag --nats`.
pub fn in_words(metadata: Option<&Metadata>, path: &[impl AsRef<str>]) -> String {
    let words = |metadata: &Metadata| format!("{} {}", metadata.name, metadata.interpolate(&Profile::Default, path));
    metadata.map(words).unwrap_or_default().trim_end().to_owned()
}

/// Returns the error for a setting that cannot have its value.
pub fn refusal(figment: &Figment, key: &str, problem: String) -> ConfigError {
    let mut error = figment::Error::from(problem).with_path(key);
    error.metadata = figment.find_metadata(key).cloned();
    error.into()
}

fn text_or_nothing(value: Value) -> Value {
    match value {
        Value::String(_, text) if text.is_empty() => Empty::None.into(),
        Value::Num(_, Num::F64(number)) => number.to_string().into(),
        Value::Num(_, number) => {
            let signed = number.to_i128().map(|whole| whole.to_string());
            signed.or_else(|| number.to_u128().map(|whole| whole.to_string())).unwrap_or_default().into()
        }
        Value::Bool(_, bool) => bool.to_string().into(),
        value => value,
    }
}
