//! What a deploy would change.

use serde::Serialize;
use serde_json::Value;

use super::{DeployOptions, Package, check_version, intake, prepare};
use crate::broker::registry::Registry;
use crate::chain::manifest::{Manifest, Stage};
use crate::client::{Client, ClientError, status};
use crate::name::{ChainName, Revision, Version};

/// What a deploy would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The chain.
    pub chain: ChainName,
    /// The version of the manifest.
    pub version: Version,
    /// The version and revision that is active. `None` if the chain is not deployed.
    pub active: Option<(Version, Revision)>,
    /// What differs from the active revision. Empty if the deploy would change nothing.
    pub changes: Vec<Change>,
    /// Why the deploy would be refused. `None` if it would not.
    pub refusal: Option<String>,
    /// What waits in the queues. The version that it was fed to finishes it.
    pub queued: Vec<Queued>,
}

/// A difference between two manifests.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The stage. `None` if the difference is in the rest of the manifest.
    pub stage: Option<String>,
    /// The key, as in `config.limit`. `stage` for a stage that is added, removed or moved, with its place among the stages as value.
    pub key: String,
    /// The value before. `None` if there was none.
    pub before: Option<Value>,
    /// The value after. `None` if there is none.
    pub after: Option<Value>,
}

/// What waits in the queues of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Queued {
    /// The version.
    pub version: String,
    /// The revision.
    pub revision: u64,
    /// The number of messages. A message may hold many items.
    pub messages: u64,
}

impl Client {
    /// Returns what a deploy would change. Changes nothing.
    ///
    /// # Errors
    ///
    /// If the manifest or a plugin is invalid, or the server refuses a request.
    pub async fn compare(&self, package: impl Into<Package> + Send) -> Result<Comparison, ClientError> {
        self.compare_with(package, DeployOptions::default()).await
    }

    /// Returns what a deploy with these options would change. Changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`Client::compare`].
    pub async fn compare_with(
        &self,
        package: impl Into<Package> + Send,
        options: DeployOptions,
    ) -> Result<Comparison, ClientError> {
        compare(self, package.into(), options).await
    }
}

/// Compares a package with what is deployed.
async fn compare(client: &Client, package: Package, options: DeployOptions) -> Result<Comparison, ClientError> {
    let prepared = prepare(Some(client), package, options).await?;
    let (chain, version) = (prepared.chain.name.clone(), prepared.chain.version.clone());
    intake::check_intake_to_deploy(client, &chain).await?;
    let registry = Registry::open(&client.broker).await?;
    let mut known = None;
    if let Some(registry) = &registry
        && let Some(marked) = registry.state(&chain).await?
        && marked.state.is_deployed()
        && let Some(deployed) = registry.deployed(&chain, marked.state.active).await?
    {
        let refusal = match check_version(registry, &prepared, &marked.state).await {
            Err(error @ ClientError::VersionConflict { .. }) => Some(error.to_string()),
            checked => checked.map(|()| None)?,
        };
        known = Some((deployed, refusal));
    }
    let Some((deployed, refusal)) = known else {
        let changes = changes(None, &prepared.manifest);
        return Ok(Comparison { chain, version, active: None, changes, refusal: None, queued: Vec::new() });
    };
    let is_same = deployed.digest == prepared.digest;
    let changes = if is_same { Vec::new() } else { changes(Some(&deployed.manifest), &prepared.manifest) };
    let status = status::status(client, &chain, None).await?;
    let queued = status.revisions.into_iter().map(|revision| Queued {
        messages: revision.stages.iter().map(|stage| stage.queued_messages).sum(),
        version: revision.version,
        revision: revision.revision,
    });
    let queued = queued.filter(|queued| queued.messages > 0).collect();
    let active = Some((deployed.version, deployed.revision));
    Ok(Comparison { chain, version, active, changes, refusal, queued })
}

/// Returns the differences between two manifests with digests in place of file names.
fn changes(before: Option<&Manifest>, after: &Manifest) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(before) = before {
        compare_values(None, "", Some(&rest(before)), Some(&rest(after)), &mut changes);
    }
    let empty = Vec::new();
    let stages = before.map_or(&empty, |before| &before.stages);
    let place = |stages: &[Stage], name: &str| stages.iter().position(|stage| stage.name == name);
    for stage in stages.iter().filter(|stage| place(&after.stages, &stage.name).is_none()) {
        let before = place(stages, &stage.name).map(number);
        changes.push(Change { stage: Some(stage.name.clone()), key: "stage".to_owned(), before, after: None });
    }
    // A stage has moved if another of those that stay was before it.
    let stay = |stages: &[Stage], others: &[Stage]| -> Vec<String> {
        stages.iter().filter(|stage| place(others, &stage.name).is_some()).map(|stage| stage.name.clone()).collect()
    };
    let (old, new) = (stay(stages, &after.stages), stay(&after.stages, stages));
    for (now, stage) in after.stages.iter().enumerate() {
        let name = Some(stage.name.clone());
        let Some(then) = place(stages, &stage.name) else {
            changes.push(Change { stage: name, key: "stage".to_owned(), before: None, after: Some(number(now)) });
            continue;
        };
        let is_at = |names: &[String]| names.iter().position(|each| *each == stage.name);
        if is_at(&old) != is_at(&new) {
            let (before, after) = (Some(number(then)), Some(number(now)));
            changes.push(Change { stage: name.clone(), key: "stage".to_owned(), before, after });
        }
        let [before, after] = [&stages[then], stage].map(|stage| serde_json::to_value(stage).unwrap_or_default());
        compare_values(name.as_deref(), "", Some(&before), Some(&after), &mut changes);
    }
    changes
}

/// Returns the place of a stage among the stages, from 1.
fn number(position: usize) -> Value {
    (position + 1).into()
}

/// Returns a manifest without its stages, and without what a deploy writes.
fn rest(manifest: &Manifest) -> Value {
    let rest = Manifest { stages: Vec::new(), wire: None, ..manifest.clone() };
    serde_json::to_value(rest).unwrap_or_default()
}

/// Adds the differences between two values, table by table.
fn compare_values(
    stage: Option<&str>,
    key: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    changes: &mut Vec<Change>,
) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (before, after) {
        let keys = old.keys().chain(new.keys().filter(|name| !old.contains_key(*name)));
        for name in keys {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare_values(stage, &key, old.get(name), new.get(name), changes);
        }
        return;
    }
    let stage = stage.map(str::to_owned);
    changes.push(Change { stage, key: key.to_owned(), before: before.cloned(), after: after.cloned() });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest::from_toml(text).expect("a manifest")
    }

    /// Returns the differences as `stage key: before -> after`.
    fn told(before: Option<&str>, after: &str) -> Vec<String> {
        let before = before.map(manifest);
        let show = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), ToString::to_string);
        let told = |change: &Change| {
            let Change { stage, key, before, after } = change;
            format!("{} {key}: {} -> {}", stage.as_deref().unwrap_or("."), show(before), show(after))
        };
        changes(before.as_ref(), &manifest(after)).iter().map(told).collect()
    }

    const HEAD: &str = "name = 'a'\nversion = '1'\n";

    fn stages(names: &[&str]) -> String {
        let stage = |name: &&str| format!("[[stage]]\nname = '{name}'\nplugin = 'p.wasm'\n");
        HEAD.to_owned() + &names.iter().map(stage).collect::<String>()
    }

    #[test]
    fn each_key_that_differs_is_a_change_and_equal_manifests_have_none() {
        let before = format!(
            "{HEAD}[queue]\nlimit = 5\n[[stage]]\nname = 's'\nplugin = 'p.wasm'\nconfig = {{ a = 1, b = {{ c = 2 }} }}"
        );
        assert_eq!(told(Some(&before), &before), [""; 0]);
        let after = "name = 'a'\nversion = '2'\nreplicas = 3\n[[stage]]\nname = 's'\nplugin = 'q.wasm'\nconfig = { a = 1, b = { d = [2] } }";
        assert_eq!(
            told(Some(&before), after),
            [
                ". queue: {\"limit\":5} -> -",
                ". version: \"1\" -> \"2\"",
                ". replicas: - -> 3",
                "s config.b.c: 2 -> -",
                "s config.b.d: - -> [2]",
                "s plugin: \"p.wasm\" -> \"q.wasm\"",
            ]
        );
    }

    #[test]
    fn stages_are_added_removed_and_moved_by_their_names() {
        for (before, after, changes) in [
            (&["a", "b"][..], &["a", "b"][..], &[][..]),
            (&["a", "b"], &["a", "n", "b"], &["n stage: - -> 2"]),
            (&["a", "b"], &["b"], &["a stage: 1 -> -"]),
            (&["a", "b"], &["b", "a"], &["b stage: 2 -> 1", "a stage: 1 -> 2"]),
        ] {
            assert_eq!(told(Some(&stages(before)), &stages(after)), changes, "{before:?} {after:?}");
        }
        assert_eq!(told(None, &stages(&["a", "b"])), ["a stage: - -> 1", "b stage: - -> 2"]);
    }
}
