//! Holds what a version takes at its door against what the one before it took.

use serde_json::Value;

use super::{DeployOptions, Prepared};
use crate::broker::plugins::Plugins;
use crate::chain::manifest::Manifest;
use crate::client::Client;
use crate::contract::{Fit, Schema, compare};
use crate::engine::schemas;
use crate::frame::json::to_json;

/// Returns a note if a version accepts less than the active one does, with an item that it would now refuse.
///
/// What a chain takes is its `[input] schema`, or else what its first stage takes.
pub(super) async fn narrowed(
    client: &Client,
    active: &Manifest,
    prepared: &Prepared,
    options: DeployOptions,
) -> Option<String> {
    let after = prepared.manifest.input.schema.as_ref().or(prepared.takes.as_ref())?;
    let before = match &active.input.schema {
        Some(schema) => schema.clone(),
        // Whoever tries each content deploys too often to fetch a plugin for each.
        None if options.is_try => return None,
        None => first_takes(client, active, &prepared.manifest).await?,
    };
    told((&active.version, &before), (&prepared.manifest.version, after))
}

/// Returns the schema of what the first stage takes. `None` if it is not known, or that of another manifest is the same.
async fn first_takes(client: &Client, active: &Manifest, other: &Manifest) -> Option<Value> {
    let (stage, first) = (active.stages.first()?, other.stages.first()?);
    if let Some(schema) = stage.schema.as_ref().and_then(|schema| schema.input.clone()) {
        return Some(schema);
    }
    let task = stage.task.as_deref().unwrap_or(&stage.name).to_owned();
    if stage.plugin == first.plugin && task == first.task.as_deref().unwrap_or(&first.name) && first.schema.is_none() {
        return None;
    }
    // A plugin that cannot be read is no reason to refuse another.
    let bytes = Plugins::of(&client.broker).get(&stage.plugin.as_ref()?.parse().ok()?).await.ok()?;
    let inspected = tokio::task::spawn_blocking(move || schemas::inspect(&bytes)).await.ok()?.ok()?;
    inspected.task(&task).ok()?.schema.input.clone()
}

fn told((old, before): (&str, &Value), (new, after): (&str, &Value)) -> Option<String> {
    let read = |schema: &Value| Schema::parse(schema.to_string().as_bytes()).ok();
    let Fit::Misfit(misfit) = compare(&read(before)?, &read(after)?) else { return None };
    let part = if misfit.path.is_empty() { "it".to_owned() } else { format!("`{}`", misfit.path) };
    let (reason, example) = (&misfit.reason, to_json(&misfit.example));
    Some(format!("{new} accepts less than {old} did; for example it refuses {example}: {part} {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_that_accepts_less_is_noted() {
        let order = |total: &str| json!({ "type": "object", "required": ["total"], "properties": { "total": { "type": total } } });
        let (wide, narrow) = (order("number"), order("integer"));
        assert_eq!(told(("2", &narrow), ("1", &wide)), None);
        assert_eq!(told(("1", &wide), ("1", &wide)), None);
        let note = "2 accepts less than 1 did; for example it refuses {\"total\":0.1}: `/total` is number, not integer";
        assert_eq!(told(("1", &wide), ("2", &narrow)).as_deref(), Some(note));
    }
}
