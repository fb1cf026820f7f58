//! Tasks in all languages: that of a new folder, a record of some 200 bytes, and with packages that many use.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use ciborium::{Value, cbor};
use pcluster::internal::{Plugin, to_cbor};
use support::{Cluster, Run, installed_packages, python, repository};

use super::{Tried, Variant, loaded};
use crate::authors::{Author, LANGUAGES, Language, PYTHON, TYPESCRIPT, WITH_TASKS};
use crate::relays::PACK;
use crate::report::{Aim, Row};
use crate::series::Settings;

/// The end of the name of a new folder and of its task.
const HELLO: &str = "hello";

/// Returns the tasks of all languages, and a row for each that lacks something.
pub(super) fn variants(items: usize) -> (Vec<Variant>, Vec<Row>) {
    let cluster = Cluster::start();
    let author = Author::new(&cluster);
    let mut found = Found { items, variants: Vec::new(), missing: Vec::new() };
    for language in &LANGUAGES {
        let task: &'static str = Box::leak(format!("{}_{HELLO}", language.name).into_boxed_str());
        let plugin = plugin_of(&author, language, HELLO, None);
        found.add(&format!("{}, a word", language.title), &plugin, task, &word(), [None, None]);
    }
    for language in &WITH_TASKS {
        found.add_records(&author, language);
    }
    (found.variants, found.missing)
}

/// Builds a new folder of a language, with a source of the benchmarks if one is named.
fn plugin_of(author: &Author<'_>, language: &Language, folder: &str, source: Option<&str>) -> Result<Plugin, String> {
    let source = source.map(|name| language.source(name));
    let file = author.plugin(language, &format!("{}-{folder}", language.name), source.as_deref())?;
    Ok(loaded(&file))
}

/// The tasks so far.
struct Found {
    items: usize,
    variants: Vec<Variant>,
    missing: Vec<Row>,
}

impl Found {
    /// Adds the records of a language.
    fn add_records(&mut self, author: &Author<'_>, language: &Language) {
        let at_most = |micros| Some(Aim::AtMost(micros));
        let is_python = language.name == PYTHON.name;
        let plugin = if is_python {
            Ok(loaded(&python_plugin()))
        } else {
            plugin_of(author, language, "record", Some("record"))
        };
        let aims = if is_python { [at_most(45.0), at_most(5.0)] } else { [None, None] };
        self.add(&format!("{}, a record", language.title), &plugin, "record", &record(), aims);
        if is_python {
            self.add("Python, a record by pydantic", &plugin, "model", &record(), [at_most(120.0), None]);
        }
        if language.name == TYPESCRIPT.name {
            let hello = to_cbor(&cbor!({ "name" => "Ada" }).unwrap());
            self.add("TypeScript, hello", &plugin, "hello", &hello, [at_most(25.0), None]);
            self.add("TypeScript, a record of 13 fields", &plugin, "wide", &wide(), [None, None]);
            let with_zod = plugin_of(author, language, "model", Some("model"));
            self.add("TypeScript, a record by zod", &with_zod, "model", &record(), [at_most(500.0), None]);
        }
    }

    /// Adds a task in fresh and in reused instances, each with an aim.
    fn add(
        &mut self,
        name: &str,
        plugin: &Result<Plugin, String>,
        task: &'static str,
        item: &Bytes,
        [fresh, reused]: [Option<Aim>; 2],
    ) {
        let plugin = match plugin {
            Ok(plugin) => plugin,
            Err(why) => return self.missing.push(Row::new("engine", name, None, "µs/item").missing(why)),
        };
        let tried = || Tried::of(plugin, task, &Value::Null).with_item(item.clone());
        let of_fresh = Variant::new(format!("{name}, fresh instance"), tried().with_state(), self.items, 1, fresh);
        let of_reused = tried().reused().with_state();
        let of_reused = Variant::new(format!("{name}, reused instance"), of_reused, self.items, PACK, reused);
        self.variants.extend([of_fresh, of_reused]);
    }
}

/// Returns the microseconds that a task takes, in fresh and in reused instances.
pub fn micros(plugin: &Path, task: &'static str, item: &Bytes, settings: Settings) -> [f64; 2] {
    let plugin = loaded(plugin);
    let tried = || Tried::of(&plugin, task, &Value::Null).with_item(item.clone());
    let packs = settings.either(40, 2);
    [tried().with_state().micros(packs * PACK, 1), tried().reused().with_state().micros(packs, PACK)]
}

/// Builds the tasks in Python, with pydantic. Returns the plugin.
fn python_plugin() -> PathBuf {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(repository().join("tests/bench/tasks/record.py"), folder.path().join("record.py")).unwrap();
    let plugin = repository().join("target/bench/record.wasm");
    let [folder, out, packages] =
        [folder.path(), &plugin, &installed_packages("python-tasks")].map(|path: &Path| path.display().to_string());
    Run::of(python(&["-m", "pcluster.build", &folder, "-o", &out, "--packages", &packages]), b"").succeeded();
    plugin
}

/// Returns the item of the task of a new folder.
pub fn word() -> Bytes {
    to_cbor(&cbor!({ "word" => "example" }).unwrap())
}

/// Returns a record of some 200 bytes.
fn record() -> Bytes {
    let record = cbor!({
        "id" => 4711, "customer" => "ada@example.com", "articles" => ["tea", "milk", "sugar"], "total" => 12.75,
        "paid" => true, "zone" => "eu-west-1",
        "note" => "please ring twice, the bell is hard to hear from the garden behind the house"
    });
    to_cbor(&record.unwrap())
}

/// Returns a record of thirteen fields.
fn wide() -> Bytes {
    let record = cbor!({
        "id" => 4711, "customer" => "ada@example.com", "articles" => ["tea", "milk", "sugar"], "total" => 12.75,
        "paid" => true, "zone" => "eu-west-1",
        "note" => "please ring twice, the bell is hard to hear from the garden behind the house",
        "street" => "Long Lane 1", "city" => "Bath", "code" => "BA1", "country" => "GB", "weight" => 2.5, "gift" => false
    });
    to_cbor(&record.unwrap())
}
