//! Plugins that take too long or too much memory to compile. A process of its own compiles them.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pcluster::internal::{Compiler, CompilerLimits, Engine, EngineSettings};
use pcluster::name::Digest;
use support::{Cluster, probe_chain};

const PCLUSTER: &str = env!("CARGO_BIN_EXE_pcluster");

/// A small plugin whose task has so many blocks and variables. What a compiler needs grows with the product of the two.
fn bomb(blocks: usize) -> Vec<u8> {
    let mut task = format!("(local {})", "i32 ".repeat(blocks));
    for local in 2..blocks + 2 {
        task += &format!("block local.get 0 br_if 0 local.get {local} i32.const 1 i32.add local.set {local} end\n");
    }
    task += "i32.const 0\n";
    for local in 2..blocks + 2 {
        task += &format!("local.get {local} i32.add\n");
    }
    let module = format!(
        r#"(module (memory (export "memory") 1)
            (func (export "pcluster_alloc") (param i32) (result i32) i32.const 16)
            (func (export "pcluster_task:t") (param i32 i32) (result i32) {task}))"#
    );
    wat::parse_str(module).unwrap()
}

fn settings(limits: CompilerLimits) -> EngineSettings {
    let compiler = Compiler::new(PCLUSTER.into(), "compile", limits);
    EngineSettings { instances: 1, compiler: Some(Arc::new(compiler)), ..EngineSettings::default() }
}

#[test]
fn what_takes_too_long_or_too_much_memory_to_compile_is_refused_and_not_tried_again() {
    let digest = |bytes: &[u8]| Digest::of(bytes);
    let modest = CompilerLimits::default();
    let cases = [
        (CompilerLimits { time: Duration::from_secs(3), ..modest }, "compiling it takes longer than 3s"),
        (CompilerLimits { memory: 100 << 20, ..modest }, "compiling it takes more than 100.0 MiB of memory"),
    ];
    for (limits, said) in cases {
        let engine = Engine::new(&settings(limits)).unwrap();
        for _ in 0..2 {
            let bytes = bomb(9_000);
            let error = engine.load(&digest(&bytes), bytes).err().expect("it is refused").to_string();
            assert_eq!(error, format!("cannot load the plugin: {said}"));
        }
        let bytes = bomb(3);
        engine.load(&digest(&bytes), bytes).expect("others are compiled");
    }
    let missing = Compiler::new("./no-such-program".into(), "compile", modest);
    let engine = Engine::new(&EngineSettings { compiler: Some(Arc::new(missing)), ..settings(modest) }).unwrap();
    let bytes = bomb(3);
    let error = engine.load(&digest(&bytes), bytes).err().expect("there is no compiler").to_string();
    assert!(error.contains("cannot start a process that compiles it, `./no-such-program`: "), "{error}");
}

#[test]
fn functions_of_edited_plugins_are_kept_beside_the_code_and_a_damaged_file_of_them_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("edited.functions");
    let load = |compiler: Compiler, blocks| {
        let settings = settings(CompilerLimits::default());
        let settings =
            EngineSettings { cache: Some(folder.path().into()), compiler: Some(Arc::new(compiler)), ..settings };
        let bytes = bomb(blocks);
        Engine::new(&settings).unwrap().load(&Digest::of(&bytes), bytes).expect("it is compiled");
        std::fs::read(&kept).unwrap_or_default()
    };
    let compiler = || Compiler::new(PCLUSTER.into(), "compile", CompilerLimits::default());
    assert!(load(compiler(), 3).is_empty(), "a node keeps none");
    let of_one = load(compiler().keeping_functions(), 4).len();
    assert!(of_one > 0);
    let of_two = load(compiler().keeping_functions(), 5).len();
    assert!(of_one < of_two && of_two < 2 * of_one, "only the task differs: {of_one}, then {of_two} bytes");
    std::fs::write(&kept, "damaged").unwrap();
    assert!(load(compiler().keeping_functions(), 6).len() > of_one / 2);
}

#[test]
fn a_plugin_that_cannot_be_compiled_keeps_no_other_chain_from_its_work() {
    let cluster = Cluster::start();
    cluster.file("bomb.wasm", bomb(10_000));
    cluster.deploy(&probe_chain("good", &["echo"], ""));
    let node = cluster.node("a");
    let manifest = "name = \"bad\"\nversion = \"1\"\n[[stage]]\nname = \"t\"\nplugin = \"bomb.wasm\"\n";
    cluster.deploy(manifest);
    cluster.ok(&["feed", "good", "1", "2"]);
    assert_eq!(cluster.ok(&["pull", "good", "-n", "2"]).lines().count(), 2);
    let problem = "stage `t`: cannot load the plugin: compiling it takes more than 1.0 GiB of memory";
    node.said(problem);
    cluster.run(&["status"]).failed(0, problem);
    cluster.ok(&["feed", "bad", "1"]);
    cluster.run(&["wait", "bad", "-t", "1s"]).failed(3, "");
    // A new version is served as soon as it is there.
    let mended = probe_chain("bad", &["echo"], "").replacen("1.0", "2", 1);
    cluster.deploy(&mended);
    cluster.ok(&["feed", "bad", "7"]);
    assert_eq!(cluster.ok(&["pull", "bad", "-n", "1"]), "7\n");
}

/// Kills the process when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_compiler_ends_with_the_node_that_waits_for_it() {
    let module = bomb(8_000);
    let mut command = Command::new(PCLUSTER);
    command.args(["compile", "8000000000", "600000"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut compiler = Killed(child);
    let mut input = compiler.0.stdin.take().unwrap();
    input.write_all(&(module.len() as u64).to_le_bytes()).unwrap();
    input.write_all(&module).unwrap();
    drop(input);
    let mut said = String::new();
    compiler.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "nobody waits for the compiler any more\n");
    assert_eq!(compiler.0.wait().unwrap().code(), Some(1));
}
