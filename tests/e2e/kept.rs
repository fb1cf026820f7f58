//! What a node need not do twice: compile the code of an interpreter, fetch a plugin, make a state.

use std::path::{Path, PathBuf};

use ciborium::Value;
use pcluster::internal::{Compiler, CompilerLimits, Isolation};
use support::{Cluster, NatsClient, build_javascript, build_python};

use crate::languages::{chain, each};
use crate::tried::{Tried, load, load_with};

/// Builds a plugin with one task, which appends its name to a text.
fn built(folder: &Path, language: &str, task: &str) -> PathBuf {
    let (source, plugin) = (folder.join(task), folder.join(format!("{task}.wasm")));
    std::fs::create_dir_all(&source).unwrap();
    if language == "python" {
        let text = format!(
            "from pcluster import task\n\n\n@task\ndef {task}(text: str) -> str:\n    return text + '{task}'\n"
        );
        std::fs::write(source.join("tasks.py"), text).unwrap();
        build_python(&source, &plugin).succeeded();
    } else {
        let file = source.join("tasks.ts");
        let text = format!(
            "import {{ task }} from \"pcluster\";\nexport const {task} = task((text: string) => text + \"{task}\");\n"
        );
        std::fs::write(&file, text).unwrap();
        build_javascript(&file, &plugin).succeeded();
    }
    plugin
}

#[test]
fn a_second_plugin_of_an_interpreter_compiles_nothing() {
    for language in ["python", "javascript"] {
        let folder = tempfile::tempdir().unwrap();
        load(&built(folder.path(), language, "first"));
        let cannot = Compiler::new("./no-such-program".into(), "compile", CompilerLimits::default());
        let second = load_with(&built(folder.path(), language, "second"), Some(cannot));
        let task = Tried::new(&second, "second", Value::Null, &[], Isolation::Item).with_state("second");
        assert_eq!(task.value(&Value::from("the ")), Value::from("the second"), "{language}");
    }
}

#[test]
fn a_node_that_starts_again_serves_a_plugin_that_it_cannot_fetch() {
    let cluster = Cluster::start();
    let plugin = built(&cluster.path("tasks"), "javascript", "again");
    cluster.deploy(&chain("kept", &plugin, &["again"], ""));
    let mut first = cluster.node("a");
    assert_eq!(each(&cluster, "kept", &["once "]), ["\"once again\""]);
    assert_eq!(first.stop(), Some(0));

    NatsClient::connect(&cluster).with(async |jetstream| {
        let stream = jetstream.get_stream("OBJ_pcluster_plugins").await.unwrap();
        stream.purge().filter("$O.pcluster_plugins.C.>").await.unwrap();
    });
    let _again = cluster.node("b");
    assert_eq!(each(&cluster, "kept", &["once ", "and once "]), ["\"once again\"", "\"and once again\""]);
}
