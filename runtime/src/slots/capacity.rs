//! What a node has in slots, and its labels.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;

use super::free::Free;
use crate::chain::needs::{Needs, Slot, check_label};

/// What a node has in slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    all: BTreeMap<Slot, Free>,
    /// `true` if the numbers of cores are those of processors that this process may use.
    has_processors: bool,
}

/// The most slots of one kind.
const COUNT_MAX: u32 = 65_536;

impl Capacity {
    /// Returns the processors that this process may use, and this many bytes of memory.
    pub(crate) fn of_machine(memory: u64) -> Self {
        // Also bound by a quota of time, which does not name processors.
        let count = std::thread::available_parallelism().map_or(1, NonZero::get);
        let all = BTreeMap::from([
            (Slot::Cores, Free::Numbers(processors().into_iter().take(count).collect())),
            (Slot::Memory, Free::Amount(memory)),
        ]);
        Self { all, has_processors: true }
    }

    /// Adds or replaces a kind of slot: a number of slots, or their numbers as in `0-3,6`. Memory is a size.
    ///
    /// # Errors
    ///
    /// What is wrong with the name or the value.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let slot: Slot = name.parse().map_err(|error| format!("{error}"))?;
        let free = match slot {
            Slot::Memory => match value.parse::<bytesize::ByteSize>() {
                Ok(size) if size.as_u64() > 0 => Free::Amount(size.as_u64()),
                _ => return Err(format!("`memory={value}`: write a size, as in `memory=8GiB`")),
            },
            _ => Free::Numbers(numbers(&slot, value).ok_or_else(|| {
                let or = format!("or their numbers, as in `{name}=0-3,6`");
                format!("`{name}={value}`: write how many slots there are, as in `{name}=2`, {or}")
            })?),
        };
        if let (Slot::Cores, Free::Numbers(cores)) = (&slot, &free) {
            self.has_processors = cores.is_subset(&processors().into_iter().collect());
        }
        self.all.insert(slot, free);
        Ok(())
    }

    /// Returns all slots.
    pub(crate) fn all(&self) -> BTreeMap<Slot, Free> {
        self.all.clone()
    }

    /// Returns how much of each kind there is.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Slot, u64)> {
        self.all.iter().map(|(slot, free)| (slot, free.count()))
    }

    /// Returns `true` if the numbers of cores are those of processors.
    pub(crate) fn has_processors(&self) -> bool {
        self.has_processors
    }

    /// Returns the numbers of the processors to which programs are bound. Empty if they are bound to none.
    pub(crate) fn bound(&self) -> Vec<u32> {
        match self.all.get(&Slot::Cores) {
            Some(Free::Numbers(cores)) if self.has_processors => cores.iter().copied().collect(),
            _ => Vec::new(),
        }
    }

    /// Returns what the node lacks of these needs even if all is free. `None` if it lacks nothing.
    pub(crate) fn lacks(&self, needs: &Needs) -> Option<String> {
        let (slot, number) = needs.iter().find(|(slot, number)| self.count(slot) < *number)?;
        let has = match self.count(slot) {
            0 => "none".to_owned(),
            has => slot.amount(has),
        };
        Some(format!("it needs {slot} = {}, and this node has {has}, as its `--slots` say", slot.amount(number)))
    }

    /// Returns how many items with these needs may run at once. `None` if they need nothing.
    pub(crate) fn fits(&self, needs: &Needs) -> Option<u64> {
        needs.iter().map(|(slot, number)| self.count(slot) / number.max(1)).min()
    }

    fn count(&self, slot: &Slot) -> u64 {
        self.all.get(slot).map_or(0, Free::count)
    }
}

/// Reads a number of slots, or a list of their numbers.
fn numbers(slot: &Slot, value: &str) -> Option<BTreeSet<u32>> {
    if let Ok(count) = value.parse::<u32>() {
        let own = processors();
        // The first processors that this process may use, if there are as many.
        let is_within = *slot == Slot::Cores && count as usize <= own.len();
        return match count {
            1..=COUNT_MAX if is_within => Some(own.into_iter().take(count as usize).collect()),
            1..=COUNT_MAX => Some((0..count).collect()),
            _ => None,
        };
    }
    let mut numbers = BTreeSet::new();
    for part in value.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        if first > last || last > COUNT_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Returns the numbers of the processors that this process may use.
fn processors() -> Vec<u32> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    let numbers = |set: CpuSet| (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect::<Vec<_>>();
    let own = sched_getaffinity(None).map_or_else(|_| vec![0], numbers);
    own.into_iter().filter_map(|number| u32::try_from(number).ok()).collect()
}

/// The labels of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Returns the labels that each node has: `arch` and `os`.
    pub(crate) fn of_machine() -> Self {
        let own = [("arch", std::env::consts::ARCH), ("os", std::env::consts::OS)];
        Self(own.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// Adds a label.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        check_label(name, value)?;
        match self.0.get(name) {
            Some(own) if matches!(name, "arch" | "os") && own != value => {
                return Err(format!("`{name}` is `{own}` on this machine; leave it out"));
            }
            _ => self.0.insert(name.to_owned(), value.to_owned()),
        };
        Ok(())
    }

    /// Returns all labels.
    pub(crate) fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Returns the label that the node lacks of these. `None` if it has all.
    pub(crate) fn lacks(&self, labels: &BTreeMap<String, String>) -> Option<String> {
        let (name, value) = labels.iter().find(|(name, value)| self.0.get(*name) != Some(value))?;
        let has = self.0.get(name).map_or("no such label".to_owned(), |has| format!("{name} = {has}"));
        Some(format!("it runs where {name} = {value}, and this node has {has}, as its `--label` says"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_or_numbered() {
        let mut capacity = Capacity::of_machine(1 << 30);
        for (name, value) in [("gpu", "2"), ("bus", "0-2,7"), ("memory", "8GiB")] {
            capacity.set(name, value).expect(name);
        }
        let counts: BTreeMap<String, u64> = capacity.counts().map(|(slot, count)| (slot.to_string(), count)).collect();
        assert_eq!((counts["gpu"], counts["bus"], counts["memory"]), (2, 4, 8 << 30));
        assert_eq!(capacity.all()[&"bus".parse().expect("a slot")], Free::Numbers(BTreeSet::from([0, 1, 2, 7])));
        assert!(counts["cores"] > 0 && capacity.has_processors());
        capacity.set("cores", "5000").expect("more than there are");
        assert!(!capacity.has_processors(), "nothing to be bound to");
        for (name, value) in
            [("gpu", "0"), ("gpu", "-1"), ("gpu", "3-1"), ("gpu", ""), ("gpu", "a"), ("GPU", "1"), ("memory", "2x")]
        {
            capacity.set(name, value).expect_err(value);
        }
    }

    #[test]
    fn what_a_node_lacks_is_told() {
        let mut capacity = Capacity::of_machine(1 << 30);
        capacity.set("gpu", "2").expect("valid");
        let needs = |slot: &str, number| Needs::from_iter([(slot.parse().expect("a slot"), number)]);
        assert_eq!((capacity.lacks(&needs("gpu", 2)), capacity.fits(&needs("gpu", 1))), (None, Some(2)));
        let lacks = |slot, number| capacity.lacks(&needs(slot, number)).expect("too much");
        assert_eq!(lacks("gpu", 3), "it needs gpu = 3, and this node has 2, as its `--slots` say");
        assert_eq!(lacks("tape", 1), "it needs tape = 1, and this node has none, as its `--slots` say");
        let mut labels = Labels::of_machine();
        labels.set("zone", "eu").expect("valid");
        let lacks = |name: &str, value: &str| labels.lacks(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert_eq!(lacks("zone", "eu"), None);
        assert!(
            lacks("zone", "us").expect("other").starts_with("it runs where zone = us, and this node has zone = eu")
        );
        assert!(
            lacks("rack", "1").expect("none").starts_with("it runs where rack = 1, and this node has no such label")
        );
        labels.set("arch", "z80").expect_err("a lie");
    }
}
