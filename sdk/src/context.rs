//! The context of a task.

mod last;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, IgnoredAny};

pub(crate) use self::last::lend;
use crate::{Error, cbor, host};

/// The context of a task: the chain, the item, the attempt, and the stage's `config`.
///
/// `C` is the type of the configuration, which the author of the task defines. The default `C` ignores the configuration, and
/// [`Value`](crate::Value) takes any. A stage without `config` counts as a stage with an empty `config`. So a type whose fields
/// all have a `#[serde(default)]` always fits. A configuration that does not fit fails the item for good.
///
/// ```
/// use pcluster_sdk::{Context, task};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Config {
///     #[serde(default)]
///     prefix: String,
/// }
///
/// #[task]
/// fn label(text: String, cx: &Context<Config>) -> String {
///     format!("{}{text} (attempt {})", cx.config().prefix, cx.attempt())
/// }
///
/// let context = Context::for_test(Config { prefix: "> ".to_owned() }).with_attempt(2);
/// assert_eq!(label("hello".to_owned(), &context), "> hello (attempt 2)");
/// ```
// The fields have the names of the keys in the ABI's context map.
#[derive(Debug, Clone, Deserialize)]
#[serde(bound = "C: DeserializeOwned")]
pub struct Context<C = IgnoredAny> {
    chain: String,
    version: String,
    revision: u64,
    stage: String,
    #[serde(default)]
    topic: Option<String>,
    id: String,
    attempt: u32,
    #[serde(deserialize_with = "config")]
    config: C,
}

impl<C> Context<C> {
    /// Creates a context for a test without a node. The chain, version, stage and id are `test`. The revision and the attempt are
    /// 1.
    pub fn for_test(config: C) -> Self {
        let test = || "test".to_owned();
        let (chain, version, stage, id) = (test(), test(), test(), test());
        Self { chain, version, revision: 1, stage, topic: None, id, attempt: 1, config }
    }

    /// Returns the name of the chain.
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// Returns the version of the chain, as its author wrote it.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the revision number of the version.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the name of the stage.
    pub fn stage(&self) -> &str {
        &self.stage
    }

    /// Returns the topic of the item. `None` if it has none. Outputs get it too; [`WithTopic`](crate::WithTopic) sets another.
    pub fn topic(&self) -> Option<&str> {
        self.topic.as_deref()
    }

    /// Returns the id of the item. It is the same for every attempt.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the number of the attempt: 1 for the first on this item, 2 for the second, and so on.
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the stage's `config`.
    pub const fn config(&self) -> &C {
        &self.config
    }

    /// Sets the name of the chain.
    pub fn with_chain(self, chain: &str) -> Self {
        Self { chain: chain.to_owned(), ..self }
    }

    /// Sets the version of the chain.
    pub fn with_version(self, version: &str, revision: u64) -> Self {
        Self { version: version.to_owned(), revision, ..self }
    }

    /// Sets the name of the stage.
    pub fn with_stage(self, stage: &str) -> Self {
        Self { stage: stage.to_owned(), ..self }
    }

    /// Sets the topic of the item.
    pub fn with_topic(self, topic: &str) -> Self {
        Self { topic: Some(topic.to_owned()), ..self }
    }

    /// Sets the id of the item.
    pub fn with_id(self, id: &str) -> Self {
        Self { id: id.to_owned(), ..self }
    }

    /// Sets the number of the attempt.
    pub fn with_attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }
}

/// The same as [`Context::for_test`] with the default configuration.
impl<C: Default> Default for Context<C> {
    fn default() -> Self {
        Self::for_test(C::default())
    }
}

/// Reads only the stage's `config` from the node.
pub(crate) fn read_config<C: DeserializeOwned>() -> Result<C, Error> {
    #[derive(Deserialize)]
    #[serde(bound = "C: DeserializeOwned")]
    struct Configuration<C> {
        #[serde(deserialize_with = "config")]
        config: C,
    }
    decode(&host::context()).map(|Configuration { config }| config)
}

fn decode<T: DeserializeOwned>(context: &[u8]) -> Result<T, Error> {
    cbor::decode(context)
        .map_err(|error| Error::fatal(format_args!("the stage's `config` does not fit the task: {error}")))
}

/// Reads a configuration. If there is none, tries null (`Option`, `Value`) and then an empty table.
fn config<'de, D: Deserializer<'de>, C: DeserializeOwned>(deserializer: D) -> Result<C, D::Error> {
    const NULL: &[u8] = &[0xf6];
    const EMPTY_MAP: &[u8] = &[0xa0];
    if let Some(config) = Option::deserialize(deserializer)? {
        return Ok(config);
    }
    // Neither of the two has a key.
    let decode = |bytes| cbor::decode_within(bytes, &mut []);
    decode(NULL).or_else(|_| decode(EMPTY_MAP)).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use ciborium::cbor;
    use pcluster_abi::context as key;

    use super::*;
    use crate::Value;

    #[derive(Debug, Deserialize)]
    struct Config {
        seconds: f64,
    }

    #[derive(Debug, Deserialize)]
    struct Lenient {
        #[serde(default)]
        seconds: Option<f64>,
    }

    fn read<C: DeserializeOwned>(config: &Value) -> Result<Context<C>, Error> {
        let context = cbor!({
            key::CHAIN => "example",
            key::VERSION => "1.0",
            key::REVISION => 3,
            key::STAGE => "wait",
            key::ID => "01J",
            key::ATTEMPT => 2,
            key::CONFIG => config,
            "of a later version" => true,
        });
        let mut bytes = Vec::new();
        cbor::encode(&context.expect("a context"), &mut bytes).expect("an encodable context");
        host::set_context(bytes);
        decode(&host::context())
    }

    #[test]
    fn the_keys_of_the_contract_are_read() {
        let context = read::<Config>(&cbor!({ "seconds" => 2 }).expect("a config")).expect("a context");
        assert_eq!((context.chain(), context.version(), context.revision()), ("example", "1.0", 3));
        assert_eq!((context.stage(), context.id(), context.attempt()), ("wait", "01J", 2));
        assert_eq!(context.topic(), None);
        assert!((context.config().seconds - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_missing_config_counts_as_an_empty_one() {
        assert_eq!(read::<Lenient>(&Value::Null).expect("a context").config().seconds, None);
        assert_eq!(*read::<Value>(&Value::Null).expect("a context").config(), Value::Null);
        let error = read::<Config>(&Value::Null).expect_err("an error");
        assert_eq!(error.message(), "the stage's `config` does not fit the task: missing field `seconds`");
    }

    #[test]
    fn a_config_that_does_not_fit_is_fatal_unless_nobody_looks() {
        let config = cbor!({ "seconds" => "two" }).expect("a config");
        assert!(read::<Config>(&config).expect_err("an error").is_fatal());
        assert!(read::<IgnoredAny>(&config).is_ok());
    }

    #[test]
    fn a_config_can_be_read_alone() {
        let config = cbor!({ "seconds" => 2 }).expect("a config");
        read::<IgnoredAny>(&config).expect("a context");
        assert_eq!(read_config::<Value>().expect("a config"), config);
        read::<IgnoredAny>(&Value::Null).expect("a context");
        assert_eq!(read_config::<Lenient>().expect("a config").seconds, None);
        assert!(read_config::<Config>().expect_err("an error").is_fatal());
    }
}
