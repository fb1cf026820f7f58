//! Holds what each stage gives against what the next takes.

use serde_json::Value;

use crate::chain::manifest::StageSchemas;
use crate::client::ClientError;
use crate::contract::{Fit, Schema, compare};
use crate::engine::inspect::TaskSchemas;
use crate::name::StageName;

/// The contracts of a chain, stage by stage.
#[derive(Default)]
pub(super) struct Contracts {
    /// The stage before, and what it gives. `None` if that is not known.
    before: Option<(String, Schema)>,
    /// The schema of what the first stage takes. `None` if that is not known.
    pub takes: Option<Value>,
    /// `true` once a stage was added.
    has_first: bool,
    /// Stages of which it is not known whether they fit, and why.
    pub doubts: Vec<String>,
}

impl Contracts {
    /// Adds a stage of which nothing is known.
    pub(super) fn pass(&mut self) {
        self.has_first = true;
        self.before = None;
    }

    /// Takes note of what is fed, by `[input] schema`. Whether it is a schema was checked with the chain.
    pub(super) fn feed(&mut self, schema: &Value) {
        let fed = Schema::parse(schema.to_string().as_bytes()).ok();
        self.before = fed.map(|fed| ("[input]".to_owned(), fed));
    }

    /// Adds a stage, and refuses it if it does not take what the stage before gives. What the manifest says of it, in `written`,
    /// wins over what its plugin says.
    pub(super) fn add(
        &mut self,
        stage: &StageName,
        described: &TaskSchemas,
        written: Option<&StageSchemas>,
    ) -> Result<(), ClientError> {
        if !std::mem::replace(&mut self.has_first, true) {
            let written = written.and_then(|written| written.input.as_ref());
            self.takes = written.or(described.input.as_ref()).cloned();
        }
        let mut read = |what, described: &Option<Value>, written: Option<&Value>| {
            if let (Some(described), Some(written)) = (described, written)
                && described != written
            {
                let note = format!(
                    "`schema` of `{stage}` has another {what} than its plugin says; that of the manifest counts"
                );
                self.doubts.push(note);
            }
            let schema = written.or(described.as_ref());
            let read = schema.map(|schema| Schema::parse(schema.to_string().as_bytes())).transpose();
            read.map_err(|error| ClientError::Schema { stage: stage.clone(), what, error: error.to_string() })
        };
        let takes = read("input", &described.input, written.and_then(|written| written.input.as_ref()))?;
        let gives = read("output", &described.output, written.and_then(|written| written.output.as_ref()))?;
        let before = self.before.take();
        self.before = gives.map(|gives| (stage.to_string(), gives));
        if let (Some((before, given)), Some(takes)) = (before, takes) {
            match compare(&given, &takes) {
                Fit::Fits => {}
                Fit::Unknown(why) => {
                    self.doubts.push(format!("whether `{stage}` takes all that `{before}` gives is not known: {why}"));
                }
                Fit::Misfit(misfit) => {
                    let told = misfit.told(&before, stage.as_str()).to_string();
                    return Err(ClientError::Contract(told));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schemas(input: serde_json::Value, output: serde_json::Value) -> TaskSchemas {
        TaskSchemas { input: Some(input), output: Some(output) }
    }

    /// Adds stages in turn. Returns the doubts.
    fn added(stages: &[(&str, TaskSchemas)]) -> Result<Vec<String>, String> {
        let mut contracts = Contracts::default();
        for (name, schemas) in stages {
            let name = name.parse().expect("a name");
            contracts.add(&name, schemas, None).map_err(|error| error.to_string())?;
        }
        Ok(contracts.doubts)
    }

    #[test]
    fn neighbors_are_compared_and_nobody_else() {
        let text = || json!({ "type": "string" });
        let number = || json!({ "type": "number" });
        let count = schemas(text(), number());
        assert_eq!(added(&[("a", count.clone()), ("b", schemas(number(), text())), ("c", count.clone())]), Ok(vec![]));
        let untold = TaskSchemas::default();
        assert_eq!(added(&[("a", count.clone()), ("b", untold), ("c", count.clone())]), Ok(vec![]));
        assert_eq!(
            added(&[("a", count.clone()), ("b", count.clone())]),
            Err("stages that do not fit: `a` gives `number`, `b` takes `string`; for example 0".to_owned())
        );
        let times = schemas(json!({ "type": "number", "wavelength": 7 }), text());
        assert_eq!(
            added(&[("a", count), ("b", times)]),
            Ok(vec!["whether `b` takes all that `a` gives is not known: the keyword `wavelength`".to_owned()])
        );
        assert_eq!(
            added(&[("a", schemas(json!({ "type": "strng" }), text()))]),
            Err("stage `a`: the schema of its input is at `#`: `type` names `strng`, which is no type".to_owned())
        );
    }
}
