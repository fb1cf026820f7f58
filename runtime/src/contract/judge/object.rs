//! Holds objects against their rules.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Judge, Step, Truth, Why};
use crate::contract::datum::Datum;
use crate::contract::kinds::Kinds;
use crate::contract::node::{Id, ObjectRules};

type Entries<'d> = BTreeMap<Cow<'d, str>, Datum<'d>>;

impl<'a> Judge<'a> {
    /// Holds an object against its rules.
    pub(super) fn judge_object(
        &mut self,
        id: Id,
        rules: &'a ObjectRules,
        entries: &Entries<'_>,
        datum: &Datum<'_>,
    ) -> Truth {
        // What is there says more than what is not: of several schemas, it tells which is meant.
        let mut truth = Truth::Yes;
        for (name, value) in entries {
            truth = truth.and(self.judge_property(id, rules, name, value));
            if truth == Truth::No {
                return truth;
            }
        }
        let needs =
            rules.needs.iter().filter(|(name, _)| entries.contains_key(name.as_str())).flat_map(|(_, names)| names);
        if let Some(missing) = rules.required.iter().chain(needs).find(|name| !entries.contains_key(name.as_str())) {
            return self.refuse(id, Why::Missing(missing.clone()));
        }
        if !rules.size.allows(entries.len() as u64) {
            return self.refuse(id, Why::Size(rules.size.clone()));
        }
        for (name, schema) in &rules.schemas {
            if truth != Truth::No && entries.contains_key(name.as_str()) {
                truth = truth.and(self.judge(*schema, datum));
            }
        }
        truth
    }

    fn judge_property(&mut self, id: Id, rules: &'a ObjectRules, name: &str, value: &Datum<'_>) -> Truth {
        let mut truth = Truth::Yes;
        if let Some(names) = rules.names {
            let fits = self.silently(|judge| judge.judge(names, &Datum::text(name)));
            truth = if fits == Truth::No { return self.refuse(id, Why::Name(name.to_owned())) } else { fits };
        }
        let key = || Step::Key(name.to_owned());
        let (mut is_named, mut may_be_named) = (false, false);
        if let Some(rule) = rules.properties.get(name) {
            is_named = true;
            truth = truth.and(self.judge_part(*rule, key, value));
        }
        for (pattern, rule) in &rules.patterns {
            match self.patterns.matches(pattern, name) {
                Some(false) => {}
                Some(true) => {
                    is_named = true;
                    truth = truth.and(self.judge_part(*rule, key, value));
                }
                None => {
                    may_be_named = true;
                    if self.silently(|judge| judge.judge_part(*rule, key, value)) != Truth::Yes {
                        truth = truth.and(self.doubt(format!("the pattern `{pattern}`")));
                    }
                }
            }
            if truth == Truth::No {
                return truth;
            }
        }
        let Some(others) = rules.others.filter(|_| !is_named && truth != Truth::No) else { return truth };
        if may_be_named {
            let fits = self.silently(|judge| judge.judge_part(others, key, value));
            return if fits == Truth::Yes { truth } else { truth.and(self.doubt("a pattern of names".to_owned())) };
        }
        if self.nodes[others].kinds == Kinds::NONE {
            return self.refuse(id, Why::Extra(name.to_owned()));
        }
        truth.and(self.judge_part(others, key, value))
    }
}
