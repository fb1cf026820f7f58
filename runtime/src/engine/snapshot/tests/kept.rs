//! Tests of what the cache keeps of plugins and their states.

use std::path::Path;
use std::sync::Arc;

use super::{given_on, plugin};
use crate::chain::isolation::Reuse;
use crate::engine::compiler::{Compiler, CompilerLimits};
use crate::engine::instance::Instance;
use crate::engine::snapshot::Surroundings;
use crate::engine::static_context::StaticContext;
use crate::engine::testing::{LIMITS, load};
use crate::engine::{Engine, EngineSettings, Plugin};
use crate::name::Digest;

/// Returns how many files of a cache have this extension.
fn kept(folder: &Path, extension: &str) -> usize {
    let files = std::fs::read_dir(folder).expect("a folder").flatten();
    files.filter(|file| file.path().extension().is_some_and(|found| found == extension)).count()
}

/// Returns how many modules with code a cache has.
fn codes(folder: &Path) -> usize {
    kept(folder, "cwasm")
}

/// Returns an engine with this cache, which keeps images apart. Unless it `is_able`, nothing that must be compiled can be.
fn start(cache: &Path, instances: u32, is_able: bool) -> Engine {
    let cannot = || Arc::new(Compiler::new("/nonexistent".into(), "compile", CompilerLimits::default()));
    let (cache, compiler) = (Some(cache.to_owned()), (!is_able).then(cannot));
    let settings = EngineSettings { instances, cache, compiler, ..EngineSettings::default() };
    Engine::new(&settings).expect("an engine").splitting()
}

#[tokio::test]
async fn plugins_with_the_same_code_compile_it_once_and_a_restart_compiles_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let one = plugin("", "");
    // Other data, another name of the task, and another function of the host with the same signature.
    let other = one
        .replace("made\"", "else\"")
        .replace(":t", ":u")
        .replace("\"emit\"", "\"fail\"")
        .replace("(memory (export \"memory\") 2)", "(memory (export \"memory\") 3)");
    let first = start(&cache, 4, true);
    assert_eq!(given_on(&first, &one, LIMITS).await.expect("a snapshot").1, ["made"]);
    assert_eq!(codes(&cache), 1);
    let second = load(&first, &other).expect("a plugin");
    assert_eq!(codes(&cache), 1, "the same code");
    let task = second.task("u", LIMITS, StaticContext::default(), Reuse::default()).expect("a task");
    assert!(second.with_state("u", "", &task, Surroundings::silent()).await.expect("a snapshot").is_some());
    drop((first, second, task));
    let again = start(&cache, 4, false);
    assert_eq!(given_on(&again, &one, LIMITS).await.expect("a snapshot").0, [2, 2, 2]);
    assert_eq!(codes(&cache), 1);
    let third = plugin("", "(nop)");
    assert!(load(&again, &third).is_err(), "other code must be compiled");
}

/// Returns a plugin whose initializer does this, and prints nothing else.
fn silent(init: &str) -> String {
    plugin("", init).replace("(call $log (i32.const 3) (i32.const 512) (i32.const 4))", "").replace(
        "(memory (export",
        r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $print (param i32 i32 i32 i32) (result i32)))
        (memory (export"#,
    )
}

/// Makes the state of the task `t` for a stage with this environment.
async fn make(plugin: &Plugin, variable: &str) {
    let context = StaticContext::new(vec![], vec![variable.to_owned()]);
    let task = plugin.task("t", LIMITS, context, Reuse::default()).expect("a task");
    let made = plugin.with_state("t", "chain.stage", &task, Surroundings::silent()).await;
    assert!(made.expect("a snapshot").is_some());
    plugin.engine.wait_for_cache();
}

#[tokio::test]
async fn a_state_is_kept_unless_it_depends_on_more_than_its_plugin_and_stage() {
    for (init, is_kept) in [
        ("", true),
        ("(call $log (i32.const 2) (i32.const 512) (i32.const 4))", false),
        ("(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 8)))", false),
        ("(drop (call $random (i32.const 8) (i32.const 8)))", false),
        (
            "(i32.store (i32.const 12) (i32.const 4))
            (drop (call $print (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 4)))",
            false,
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = folder.path().join("cache");
        make(&load(&start(&cache, 1, true), &silent(init)).expect("a plugin"), "A=1").await;
        // One image is of the plugin.
        assert_eq!(kept(&cache, "image"), 1 + usize::from(is_kept), "{init}");
    }
}

#[tokio::test]
async fn a_restart_neither_fetches_a_plugin_nor_runs_its_initializer() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let wat = silent("");
    let digest = Digest::of(&wat::parse_str(&wat).expect("a module"));
    let first = start(&cache, 1, true);
    assert!(first.kept(&digest).is_none(), "it was never loaded");
    make(&load(&first, &wat).expect("a plugin"), "A=1").await;
    drop(first);

    let again = start(&cache, 1, false);
    let plugin = again.kept(&digest).expect("it is kept");
    let context = StaticContext::new(vec![], vec!["A=1".to_owned()]);
    let task = plugin.task("t", LIMITS, context, Reuse::default()).expect("a task");
    // An initializer would need the only slot.
    let slot = Instance::slot(&task).await.expect("a slot");
    let made = plugin.with_state("t", "chain.stage", &task, Surroundings::silent()).await.expect("a snapshot");
    drop(slot);
    let task = made.expect("a task with state");
    let outputs = task.run(bytes::Bytes::from_static(b"\x05"), crate::run::call::Call::idle(), &task.instances()).await;
    assert_eq!(outputs.expect("outputs").into_payload().as_ref(), [2]);
}

#[tokio::test]
async fn a_stage_with_other_settings_has_a_state_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let plugin = load(&start(&cache, 1, true), &silent("")).expect("a plugin");
    let images = || {
        let files = std::fs::read_dir(&cache).expect("a folder").flatten().map(|file| file.path());
        let images = files.filter(|path| path.extension().is_some_and(|found| found == "image"));
        let mut images: Vec<_> = images.map(|path| std::fs::read(path).expect("an image")).collect();
        images.sort_unstable();
        images
    };
    make(&plugin, "A=1").await;
    let one = images();
    make(&plugin, "A=1").await;
    assert_eq!(images(), one);
    make(&plugin, "A=2").await;
    assert_eq!((images() == one, images().len()), (false, 2), "the newest replaces the older one");
}
