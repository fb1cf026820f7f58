//! The worked example of calls: a stage that asks an HTTP API, caches in a KV bucket, and gives nothing away.

use std::fs;

use support::{plugin, repository};
use wasmparser::{Parser, Payload};

/// The functions of the ABI that a plugin imports.
fn imports(name: &str) -> Vec<String> {
    let module = fs::read(plugin(name)).unwrap();
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(&module) {
        if let Payload::ImportSection(section) = payload.unwrap() {
            let imports = section.into_imports().map(Result::unwrap);
            names.extend(imports.filter(|import| import.module == "pcluster_v1").map(|import| import.name.to_owned()));
        }
    }
    names
}

/// The blocks of code in this language on the page of authors, below "Reaching the world".
fn shown(language: &str) -> Vec<String> {
    let page = fs::read_to_string(repository().join("sdk/README.md")).unwrap();
    let (_, section) = page.split_once("\n## Reaching the world\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(&format!("{language}\n")).map(|code| code.to_owned() + "\n")).collect()
}

#[test]
fn a_plugin_imports_calls_only_if_it_calls() {
    for (name, calls) in [("text", false), ("waiting", false), ("probe", true), ("enrich", true)] {
        let imports = imports(name);
        assert!(imports.iter().any(|import| import == "emit"), "{name}: {imports:?}");
        for call in ["call", "call_read", "retry_after"] {
            assert_eq!(imports.iter().any(|import| import == call), calls, "{name}: {imports:?}");
        }
    }
}

#[test]
fn the_page_of_authors_shows_the_example() {
    let [code, manifest] = ["src/lib.rs", "chain.toml"]
        .map(|file| fs::read_to_string(repository().join("plugins/enrich").join(file)).unwrap());
    let rust = shown("rust");
    assert!(code.contains(&rust[0]), "plugins/enrich/src/lib.rs is not as the page has it:\n{}", rust[0]);
    assert!(code.contains(&shown("rust,ignore")[0]), "the test of plugins/enrich is not as the page has it");
    assert!(manifest.contains(&shown("toml")[0]), "plugins/enrich/chain.toml is not as the page has it");
}
