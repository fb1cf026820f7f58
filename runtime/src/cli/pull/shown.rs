//! How results and dead letters are printed and saved.

use ciborium::Value;

use crate::client::{Outcome, Record, Reference, ResultItem};
use crate::frame::json::to_json;
use crate::name::ChainName;
use crate::text::visible;

/// How results are printed.
#[derive(Debug, clap::Args)]
pub struct Form {
    /// Print each result with the id it was fed under, chain, version, revision, node, topic and headers
    #[arg(long)]
    pub(super) meta: bool,
    /// Print texts without quotes, and bytes as they are
    #[arg(long, conflicts_with = "meta")]
    pub(super) raw: bool,
}

/// A result or dead letter that is printed.
pub trait Shown: Send + 'static {
    /// Returns the bytes to print, with the end of the line.
    fn show(&self, chain: &ChainName, form: &Form) -> anyhow::Result<Vec<u8>>;

    /// Returns it with its origin, as JSON.
    fn meta(&self, chain: &ChainName) -> anyhow::Result<String>;

    /// Returns the steps that it went through. `None` if they are not recorded.
    fn record(&self) -> Option<&Record>;

    /// Returns the id that its item was fed under.
    fn id(&self) -> &str;

    /// Returns the reference to a result whose bytes are still to be fetched.
    fn large(&self) -> Option<&Reference>;

    /// Puts the item in the place of its reference.
    fn set_item(&mut self, item: Value);

    /// Returns `true` if `--output` saves it as a file.
    fn is_saved(&self) -> bool;

    /// Returns the bytes of its file.
    fn content(&self) -> Vec<u8>;
}

impl Shown for ResultItem {
    fn show(&self, chain: &ChainName, form: &Form) -> anyhow::Result<Vec<u8>> {
        if form.meta {
            return Ok(line(&self.meta(chain)?));
        }
        Ok(match &self.item {
            Value::Text(text) if form.raw => format!("{text}\n").into_bytes(),
            Value::Bytes(bytes) if form.raw => bytes.clone(),
            _ => line(&self.to_json()),
        })
    }

    fn meta(&self, chain: &ChainName) -> anyhow::Result<String> {
        Ok(serde_json::to_string(&self.with_meta(chain.as_str()))?)
    }

    fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn large(&self) -> Option<&Reference> {
        self.large.as_ref()
    }

    fn set_item(&mut self, item: Value) {
        self.item = item;
        self.large = None;
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn content(&self) -> Vec<u8> {
        match &self.item {
            Value::Text(text) => text.clone().into_bytes(),
            Value::Bytes(bytes) => bytes.clone(),
            item => format!("{}\n", to_json(item)).into_bytes(),
        }
    }
}

impl Shown for Outcome {
    fn show(&self, chain: &ChainName, form: &Form) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Result(result) => result.show(chain, form),
            Self::Failure(_) => Ok(line(&self.meta(chain)?)),
        }
    }

    fn meta(&self, chain: &ChainName) -> anyhow::Result<String> {
        match self {
            Self::Result(result) => result.meta(chain),
            Self::Failure(letter) => Ok(serde_json::to_string(letter)?),
        }
    }

    fn record(&self) -> Option<&Record> {
        match self {
            Self::Result(result) => result.record(),
            Self::Failure(letter) => letter.record.as_ref(),
        }
    }

    fn id(&self) -> &str {
        match self {
            Self::Result(result) => &result.id,
            Self::Failure(letter) => &letter.id,
        }
    }

    fn large(&self) -> Option<&Reference> {
        // A letter is printed with its reference.
        if let Self::Result(result) = self { result.large() } else { None }
    }

    fn set_item(&mut self, item: Value) {
        if let Self::Result(result) = self {
            result.set_item(item);
        }
    }

    fn is_saved(&self) -> bool {
        matches!(self, Self::Result(_))
    }

    fn content(&self) -> Vec<u8> {
        if let Self::Result(result) = self { result.content() } else { Vec::new() }
    }
}

/// Returns a line of text with its end.
pub fn line(text: &str) -> Vec<u8> {
    format!("{}\n", visible(text)).into_bytes()
}
