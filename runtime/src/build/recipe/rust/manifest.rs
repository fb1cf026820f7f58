//! What a build must know of the manifests of cargo.

use toml::{Table, Value};

use crate::build::sdk::cargo::NAME;

/// The tables of dependencies in a manifest.
const DEPENDENCIES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Returns the name of the library of a package, as the compiler has it. `None` if there is no package.
pub(super) fn library(manifest: &Table) -> Option<String> {
    let name = |table: &str| manifest.get(table)?.get("name")?.as_str();
    Some(name("lib").or_else(|| name("package"))?.replace('-', "_"))
}

/// Returns `true` if a package takes the SDK from the registry, and no `[patch]` says otherwise.
pub(super) fn wants_sdk(manifest: &Table, root: &Table) -> bool {
    let shared = root.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let is_shared = || shared.and_then(Value::as_table).is_some_and(|table| table.iter().any(is_sdk_of_registry));
    let is_wanted = |table: &Table| {
        table.iter().any(|(name, value)| {
            let inherits = value.get("workspace").and_then(Value::as_bool).unwrap_or(false);
            if inherits { name == NAME && is_shared() } else { is_sdk_of_registry((name, value)) }
        })
    };
    let of_targets = manifest.get("target").and_then(Value::as_table).into_iter().flatten();
    let of_targets = of_targets.filter_map(|(_, target)| target.as_table());
    let tables = std::iter::once(manifest).chain(of_targets);
    let mut tables = tables.flat_map(|table| DEPENDENCIES.iter().filter_map(|name| table.get(*name)?.as_table()));
    let patched = root.get("patch").and_then(|patch| patch.get("crates-io")?.get(NAME));
    patched.is_none() && tables.any(is_wanted)
}

/// Returns `true` if a dependency is the SDK, and comes from the registry.
fn is_sdk_of_registry((name, value): (&String, &Value)) -> bool {
    let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
    let elsewhere = ["path", "git", "registry"].iter().any(|key| value.get(*key).is_some());
    package == NAME && !elsewhere
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().expect("TOML")
    }

    #[test]
    fn the_library_has_the_name_of_its_package_unless_it_has_its_own() {
        assert_eq!(library(&table("[package]\nname = \"clean-orders\"")).as_deref(), Some("clean_orders"));
        assert_eq!(library(&table("[package]\nname = \"a\"\n[lib]\nname = \"b\"")).as_deref(), Some("b"));
        assert_eq!(library(&table("[workspace]")), None);
    }

    #[test]
    fn the_sdk_is_provided_only_where_the_registry_would_be_asked_for_it() {
        let shared = "[workspace.dependencies]\npcluster-sdk = ";
        for (manifest, root, wants) in [
            ("[dependencies]\npcluster-sdk = \"0.1\"", "", true),
            ("[dependencies]\npcluster-sdk = { version = \"0.1\", features = [\"json\"] }", "", true),
            ("[dependencies]\nsdk = { package = \"pcluster-sdk\", version = \"0.1\" }", "", true),
            ("[target.'cfg(unix)'.dependencies]\npcluster-sdk = \"0.1\"", "", true),
            ("[dependencies]\npcluster-sdk = { path = \"../sdk\" }", "", false),
            ("[dependencies]\npcluster-sdk = \"0.1\"", "[patch.crates-io]\npcluster-sdk = { path = \"x\" }", false),
            ("[dependencies]\npcluster-sdk = { workspace = true }", &format!("{shared}\"0.1\""), true),
            ("[dependencies]\npcluster-sdk.workspace = true", &format!("{shared}{{ path = \"sdk\" }}"), false),
            ("[dependencies]\nserde = \"1\"", &format!("{shared}\"0.1\""), false),
        ] {
            assert_eq!(wants_sdk(&table(manifest), &table(root)), wants, "{manifest}\n{root}");
        }
    }
}
