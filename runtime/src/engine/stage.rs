//! The task of a stage that is deployed, as every process that runs it makes it.

use ciborium::Value;
use pcluster_abi as abi;

use super::limits::Limits;
use super::static_context::StaticContext;
use super::task::Task;
use super::{EngineError, Plugin};
use crate::chain::Stage;
use crate::chain::record::Deployed;

impl Plugin {
    /// Returns the task `name` for a stage with this many `after` it.
    ///
    /// It has the limits and the context that the revision gives it. `output_item_bytes` is the most that the server takes.
    ///
    /// # Errors
    ///
    /// If the plugin has no such task, or cannot start within the limits.
    pub(crate) fn task_of(
        &self,
        deployed: &Deployed,
        stage: &Stage,
        name: &str,
        after: usize,
        output_item_bytes: usize,
    ) -> Result<Task, EngineError> {
        let limits = Limits { timeout: stage.timeout, memory: stage.memory, output_item_bytes };
        Ok(self.task(name, limits, static_context(deployed, stage), stage.reuse)?.with_after(after))
    }
}

fn static_context(deployed: &Deployed, stage: &Stage) -> StaticContext {
    let config = Value::serialized(&stage.config).unwrap_or(Value::Null);
    let constant = vec![
        (abi::context::CHAIN, Value::from(deployed.chain.as_str())),
        (abi::context::VERSION, Value::from(deployed.version.as_str())),
        (abi::context::REVISION, Value::from(deployed.revision.number())),
        (abi::context::STAGE, Value::from(stage.name.as_str())),
        (abi::context::CONFIG, config),
    ];
    StaticContext::new(constant, stage.env.iter().map(|(name, value)| format!("{name}={value}")).collect())
}
