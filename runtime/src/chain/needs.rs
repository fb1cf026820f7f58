//! What a stage needs of the node that runs it: slots, and labels.

use std::collections::BTreeMap;
use std::fmt;

use super::manifest::{self, Need};
use super::{ChainError, Reader};

/// The slots that an item of a stage needs while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs(BTreeMap<Slot, u64>);

/// The name of what a node has in slots. The order is the one in which a waiting item collects them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// A kind that operators name, such as `gpu`.
    Named(String),
    /// Processors.
    Cores,
    /// Memory in bytes.
    Memory,
}

/// Why a text names no slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be the name of a slot; write small letters, digits, `_` and `.`, as in `gpu` or `license.matlab`"
)]
pub struct SlotError(String);

/// The most slots of one kind that an item may need.
const COUNT_MAX: i64 = 1_000_000;

impl std::str::FromStr for Slot {
    type Err = SlotError;

    fn from_str(text: &str) -> Result<Self, SlotError> {
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        match text {
            "cores" => Ok(Self::Cores),
            "memory" => Ok(Self::Memory),
            _ if text.len() <= 64 && text.split('.').all(is_part) => Ok(Self::Named(text.to_owned())),
            _ => Err(SlotError(text.to_owned())),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Named(name) => name,
            Self::Cores => "cores",
            Self::Memory => "memory",
        })
    }
}

impl Slot {
    /// Returns the variable that tells a program which slots of this kind it has.
    pub fn variable(&self) -> String {
        format!("PCLUSTER_SLOT_{}", self.to_string().to_uppercase().replace('.', "_"))
    }

    /// Returns a number of slots of this kind as people write it.
    pub fn amount(&self, number: u64) -> String {
        match self {
            Self::Memory => bytesize::ByteSize(number).to_string(),
            _ => number.to_string(),
        }
    }
}

impl fmt::Display for Needs {
    /// Writes the needs as in `cores = 2, gpu = 1`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (slot, number)) in self.0.iter().enumerate() {
            let separator = if place > 0 { ", " } else { "" };
            write!(formatter, "{separator}{slot} = {}", slot.amount(*number))?;
        }
        Ok(())
    }
}

impl FromIterator<(Slot, u64)> for Needs {
    fn from_iter<T: IntoIterator<Item = (Slot, u64)>>(needs: T) -> Self {
        Self(needs.into_iter().collect())
    }
}

impl Needs {
    /// Returns what a program needs whose stage does not say: one core.
    pub(super) fn of_program() -> Self {
        Self::from_iter([(Slot::Cores, 1)])
    }

    /// Returns the kinds with how much of each is needed, in the order in which they are collected.
    pub fn iter(&self) -> impl Iterator<Item = (&Slot, u64)> {
        self.0.iter().map(|(slot, number)| (slot, *number))
    }

    /// Returns what suffices for either of two stages that run one after the other.
    pub fn max(mut self, other: &Self) -> Self {
        for (slot, number) in other.iter() {
            let own = self.0.entry(slot.clone()).or_default();
            *own = (*own).max(number);
        }
        self
    }
}

/// Reads `needs`. `None` if the stage does not say.
pub(super) fn needs(reader: &Reader, raw: &manifest::Stage) -> Result<Option<Needs>, ChainError> {
    let Some(table) = &raw.needs else { return Ok(None) };
    let mut needs = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for (name, need) in table {
        let slot: Slot = name.parse().map_err(|error: SlotError| reader.error("needs", error.to_string()))?;
        let wrong = |problem: &str| Err(reader.error("needs", format!("`{name}`: {problem}")));
        let number = match (&slot, need) {
            (Slot::Memory, Need::Size(text)) => match reader.size("needs", text)? {
                0 => return wrong("must be more than nothing; leave it out if the stage needs none"),
                bytes => bytes,
            },
            (Slot::Memory, Need::Count(_)) => return wrong("a size is a text with its unit, as in \"4GiB\""),
            (_, Need::Count(number @ 1..=COUNT_MAX)) => number.unsigned_abs(),
            (_, Need::Count(number)) if *number > COUNT_MAX => return wrong("must be at most 1000000"),
            (_, Need::Count(_)) => return wrong("must be at least 1; leave it out if the stage needs none"),
            (_, Need::Size(_)) => return wrong("must be a whole number, as in `gpu = 1`"),
        };
        if let Some(other) = variables.insert(slot.variable(), name) {
            return wrong(&format!("tells the program its slots by the same variable as `{other}`; rename one"));
        }
        needs.insert(slot, number);
    }
    Ok(Some(Needs(needs)))
}

/// Reads `where`.
pub(super) fn labels(reader: &Reader, raw: &manifest::Stage) -> Result<BTreeMap<String, String>, ChainError> {
    for (name, value) in &raw.labels {
        check_label(name, value).map_err(|problem| reader.error("where", problem))?;
    }
    Ok(raw.labels.clone())
}

/// Returns why a label cannot be one.
pub(crate) fn check_label(name: &str, value: &str) -> Result<(), String> {
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 128
            && text.chars().all(|each| each.is_alphanumeric() || "._-/".contains(each))
    };
    match (is_plain(name), is_plain(value)) {
        (true, true) => Ok(()),
        (false, _) => {
            Err(format!("`{name}` cannot be the name of a label; write letters, digits, `.`, `_`, `-` and `/`"))
        }
        (_, false) => Err(format!(
            "`{name}`: `{value}` cannot be the value of a label; write letters, digits, `.`, `_`, `-` and `/`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Chain;
    use crate::chain::manifest::Manifest;

    fn stage(rest: &str) -> Result<crate::chain::Stage, String> {
        let text = format!("name = \"a\"\nversion = \"1\"\n[[stage]]\nname = \"s\"\n{rest}");
        let manifest = Manifest::from_toml(&text).map_err(|error| error.to_string())?;
        Chain::new(&manifest).map(|mut chain| chain.stages.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_needs_one_core_unless_the_manifest_says_otherwise_and_a_task_nothing() {
        for (rest, needs) in [
            ("exec = [\"x\"]", "cores = 1"),
            ("exec = [\"x\"]\nneeds = {}", ""),
            (
                "exec = [\"x\"]\nneeds = { gpu = 2, cores = 4, memory = \"1GiB\", \"license.matlab\" = 1 }",
                "gpu = 2, license.matlab = 1, cores = 4, memory = 1.0 GiB",
            ),
            ("plugin = \"p.wasm\"", ""),
            ("plugin = \"p.wasm\"\nneeds = { cores = 1 }", "cores = 1"),
        ] {
            assert_eq!(stage(rest).expect(rest).needs.to_string(), needs, "{rest}");
        }
        assert_eq!(Slot::Named("license.matlab".to_owned()).variable(), "PCLUSTER_SLOT_LICENSE_MATLAB");
    }

    #[test]
    fn wrong_needs_and_labels_are_told() {
        for (rest, told) in [
            ("needs = { gpu = 0 }", "`needs`: `gpu`: must be at least 1; leave it out"),
            ("needs = { gpu = -1 }", "`needs`: `gpu`: must be at least 1"),
            ("needs = { gpu = 9000000 }", "`needs`: `gpu`: must be at most 1000000"),
            ("needs = { gpu = \"two\" }", "`needs`: `gpu`: must be a whole number"),
            ("needs = { memory = 5 }", "`needs`: `memory`: a size is a text with its unit"),
            ("needs = { memory = \"lots\" }", "`needs`: `lots` is not a size"),
            ("needs = { GPU = 1 }", "`needs`: `GPU` cannot be the name of a slot"),
            ("needs = { \"a.b\" = 1, a_b = 1 }", "`needs`: `a_b`: tells the program its slots by the same variable"),
            ("where = { \"a b\" = \"c\" }", "`where`: `a b` cannot be the name of a label"),
            ("where = { zone = \"\" }", "`where`: `zone`: `` cannot be the value"),
        ] {
            let refused = stage(&format!("exec = [\"x\"]\n{rest}")).expect_err(rest);
            assert!(refused.starts_with(&format!("stage `s`: {told}")), "{rest}: {refused}");
        }
    }
}
