//! The hops of a chain. A hop is a stage with a queue in front of it, and the inline stages that follow.

use std::ops::Range;

use super::{Chain, ChainError, Reader, Stage, manifest};

impl Chain {
    /// Returns the positions of the stages of each hop. The first stage gives the hop its name, queue, concurrency and attempts.
    pub fn hops(&self) -> Vec<Range<usize>> {
        let mut hops: Vec<Range<usize>> = Vec::new();
        for (position, stage) in self.stages.iter().enumerate() {
            match hops.last_mut() {
                Some(hop) if stage.inline => hop.end = position + 1,
                _ => hops.push(position..position + 1),
            }
        }
        hops
    }

    /// Returns the first stage of each hop.
    pub fn queued_stages(&self) -> impl Iterator<Item = &Stage> {
        self.hops().into_iter().map(|hop| &self.stages[hop.start])
    }

    /// Returns the first stage of the hop that a stage belongs to.
    pub fn hop_of(&self, position: usize) -> &Stage {
        let hop = self.hops().into_iter().find(|hop| hop.contains(&position));
        &self.stages[hop.map_or(position, |hop| hop.start)]
    }
}

/// Returns `true` if a stage is inline. An inline stage must not set values of a queue, because it has none.
pub(super) fn inline(reader: &Reader, raw: &manifest::Stage, is_first: bool) -> Result<bool, ChainError> {
    if raw.inline != Some(true) {
        return Ok(false);
    }
    if is_first {
        return Err(reader.error("inline", "the first stage has none before it to run with; leave it out here"));
    }
    let given = [
        ("concurrency", raw.concurrency.is_some()),
        ("max_in_flight", raw.max_in_flight.is_some()),
        ("retry", raw.retry.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((key, _)) => {
            Err(reader.error(key, "an inline stage uses the value of the stage with a queue before it; write it there"))
        }
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::manifest::Manifest;

    fn chain(stages: &[&str]) -> Result<Chain, ChainError> {
        let mut text = "name = \"a\"\nversion = \"1\"\n".to_owned();
        for (number, rest) in stages.iter().enumerate() {
            text += &format!("[[stage]]\nname = \"s{number}\"\nplugin = \"p.wasm\"\n{rest}\n");
        }
        Chain::new(&Manifest::from_toml(&text).expect("the right shape"))
    }

    #[test]
    fn inline_stages_join_the_hop_before() {
        let chain =
            chain(&["", "inline = true", "inline = false", "", "inline = true", "inline = true"]).expect("valid");
        assert_eq!(chain.hops(), [0..2, 2..3, 3..6]);
        let names: Vec<&str> = chain.queued_stages().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["s0", "s2", "s3"]);
        assert_eq!(chain.hop_of(5).name.as_str(), "s3");
    }

    #[test]
    fn an_inline_stage_needs_one_before_it_and_has_no_queue_of_its_own() {
        for (stages, message) in [
            (&["inline = true"][..], "stage `s0`: `inline`: the first stage has none before it"),
            (
                &["", "inline = true\nconcurrency = 3"],
                "stage `s1`: `concurrency`: an inline stage uses the value of the stage",
            ),
            (
                &["", "inline = true\nretry = { attempts = 3 }"],
                "stage `s1`: `retry`: an inline stage uses the value of",
            ),
        ] {
            let error = chain(stages).expect_err(message).to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
