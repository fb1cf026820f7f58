//! How many items an instance handles before it is replaced.

use super::{ChainError, Reader, bounds, manifest};

/// Which items may share an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// No items: each has a fresh instance.
    #[default]
    Item,
    /// Items of one frame, one after the other.
    Frame,
    /// All items, one after the other.
    Worker,
}

impl Isolation {
    /// Returns the word for it in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Item => "item",
            Self::Frame => "frame",
            Self::Worker => "worker",
        }
    }
}

/// How instances are reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reuse {
    /// Which items may share an instance.
    pub isolation: Isolation,
    /// The most items that share an instance. `None` sets no limit.
    pub items: Option<u32>,
}

/// Reads `isolation` and `reuse`.
pub(super) fn reuse(reader: &Reader, raw: &manifest::Stage) -> Result<Reuse, ChainError> {
    let all = [Isolation::Item, Isolation::Frame, Isolation::Worker];
    let isolation = match raw.isolation.as_deref() {
        None => Isolation::default(),
        Some(name) => all.into_iter().find(|each| each.name() == name).ok_or_else(|| {
            let problem = format!("`{name}` is not known; write \"item\", \"frame\" or \"worker\"");
            reader.error("isolation", problem)
        })?,
    };
    let items = match raw.reuse {
        None => None,
        Some(_) if isolation == Isolation::Item => {
            let problem = "every item has a fresh instance; leave it out, or write `isolation = \"worker\"`";
            return Err(reader.error("reuse", problem));
        }
        given => Some(bounds::REUSE.count(reader, given, 0)?),
    };
    Ok(Reuse { isolation, items })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;
    use crate::chain::manifest::Manifest;

    fn reuse_of(rest: &str) -> Result<Reuse, String> {
        let text = format!("name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\nplugin = \"p.wasm\"\n{rest}");
        let manifest = Manifest::from_toml(&text).expect("the right shape");
        Chain::new(&manifest).map(|chain| chain.stages[0].reuse).map_err(|error| error.to_string())
    }

    #[test]
    fn an_instance_handles_one_item_unless_the_manifest_says_more() {
        assert_eq!(reuse_of(""), Ok(Reuse { isolation: Isolation::Item, items: None }));
        assert_eq!(reuse_of("isolation = \"frame\""), Ok(Reuse { isolation: Isolation::Frame, items: None }));
        let worker = Reuse { isolation: Isolation::Worker, items: Some(1000) };
        assert_eq!(reuse_of("isolation = \"worker\"\nreuse = 1000"), Ok(worker));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |rest: &str, message: &str| {
            let error = reuse_of(rest).expect_err(rest);
            assert!(error.starts_with(message), "{error}");
        };
        refused("isolation = \"none\"", "stage `s`: `isolation`: `none` is not known; write \"item\", \"frame\" or");
        refused("reuse = 5", "stage `s`: `reuse`: every item has a fresh instance; leave it out");
        refused("isolation = \"frame\"\nreuse = 0", "stage `s`: `reuse`: must be at least 1");
    }
}
