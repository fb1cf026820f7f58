//! `pcluster inspect`

use std::path::PathBuf;

use super::Context;
use super::exit::NotFound;
use crate::contract::Schema;
use crate::engine::inspect::TaskDescription;
use crate::engine::schemas;
use crate::file;
use crate::frame::json::to_json;
use crate::name::Digest;

/// Show the tasks of a plugin, with their documentation and types, and the memory it starts with
///
/// Reads the file without running its tasks, and says what is wrong if no node could run it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin
    #[arg(value_name = "FILE.WASM")]
    file: PathBuf,
    /// Print an item that this task takes, by its schema
    #[arg(long, value_name = "TASK")]
    example: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let shown = args.file.display();
    let bytes = file::read(&args.file, file::PLUGIN_MAX).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::Error::new(NotFound(format!("there is no file `{shown}`"))),
        _ => anyhow::anyhow!("cannot read `{shown}`: {error}"),
    })?;
    let inspection = schemas::inspect(&bytes).map_err(|error| anyhow::anyhow!("`{shown}`: {error}"))?;
    if let Some(name) = &args.example {
        let task =
            inspection.task(name).map_err(|error| anyhow::Error::new(NotFound(format!("`{shown}`: {error}"))))?;
        return Ok(context.output.data(&example(task)?)?);
    }
    let digest = Digest::of(&bytes);
    if context.output.is_json() {
        let document = serde_json::json!({
            "digest": digest, "bytes": bytes.len(), "memory": inspection.memory, "tasks": inspection.tasks,
            "imports": inspection.imports,
        });
        return Ok(context.output.document(&document)?);
    }
    let memory = bytesize::ByteSize(inspection.memory).display().iec();
    context.output.data(&format!("{digest}  {} bytes, starts with {memory} of memory", bytes.len()))?;
    for task in &inspection.tasks {
        context.output.data("")?;
        context.output.data(&heading(task))?;
        if !task.state.is_empty() {
            context.output.data(&format!("    [state: {}]", task.state))?;
        }
        if !task.calls.is_empty() {
            context.output.data(&format!("    [calls: {}]", task.calls.join(", ")))?;
        }
        for (what, schema) in [("takes", &task.schema.input), ("gives", &task.schema.output)] {
            if let Some(schema) = schema {
                context.output.data(&format!("    [{what}: {schema}]"))?;
            }
        }
        for line in task.doc.lines() {
            context.output.data(format!("    {line}").trim_end())?;
        }
    }
    Ok(())
}

/// Returns an item that a task takes, as JSON.
fn example(task: &TaskDescription) -> anyhow::Result<String> {
    let name = &task.name;
    let schema = task.schema.input.as_ref();
    let schema = schema.ok_or_else(|| anyhow::anyhow!("the plugin has no schema of what `{name}` takes"))?;
    let schema = Schema::parse(schema.to_string().as_bytes());
    let schema = schema.map_err(|error| anyhow::anyhow!("the schema of what `{name}` takes is {error}"))?;
    let example = schema.example();
    let example = example.ok_or_else(|| anyhow::anyhow!("no item was found that fits the schema of `{name}`"))?;
    Ok(to_json(&example))
}

fn heading(task: &TaskDescription) -> String {
    let known = |text: &str| if text.is_empty() { "?".to_owned() } else { text.to_owned() };
    match task.kind.as_str() {
        "" => task.name.clone(),
        "sink" => format!("{} (sink): {}", task.name, known(&task.input)),
        kind => format!("{} ({kind}): {} -> {}", task.name, known(&task.input), known(&task.output)),
    }
}
