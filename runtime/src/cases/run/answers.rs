//! The answers to the calls of a case, and what stands in for its programs.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use pcluster_abi::call;

use crate::calls::door::ItemDoor;
use crate::calls::failure::CallFailure;
use crate::cases::case::{Case, CaseCall, Given, StandIn};
use crate::cases::compare::is_equal;
use crate::cases::file::answer_example;
use crate::cases::value;
use crate::dead::FailureKind;
use crate::lock::lock;
use crate::name::StageName;
use crate::run::call::{Answer, Calls};
use crate::run::failure::Failure;

/// The answers of a case.
pub(super) struct Answers {
    calls: Vec<CaseCall>,
    programs: Vec<StandIn>,
    asked: Mutex<Asked>,
}

/// What was asked for.
#[derive(Default)]
struct Asked {
    /// The numbers of the answers that were given.
    calls: BTreeSet<usize>,
    /// The numbers of the stand-ins that an item came to.
    programs: BTreeSet<usize>,
    /// What was asked for and is not there. Each is told once.
    problems: Vec<String>,
}

/// What an item of a case may call.
pub(super) struct CaseCalls {
    /// The answers.
    pub(super) answers: Arc<Answers>,
    /// The stage.
    pub(super) stage: StageName,
    /// Checks each call as that of a node does.
    pub(super) door: Arc<ItemDoor>,
}

impl Calls for CaseCalls {
    fn call(self: Arc<Self>, name: &str, request: &[u8]) -> BoxFuture<'static, Answer> {
        let answer = match self.door.stand_aside(name, request) {
            Ok(target) => self.answers.answer(&self.stage, name, &target),
            Err(refusal) => refusal,
        };
        Box::pin(std::future::ready(answer))
    }
}

impl Answers {
    /// Returns the answers of a case, for one run of it.
    pub(super) fn of(case: &Case) -> Self {
        Self { calls: case.calls.clone(), programs: case.programs.clone(), asked: Mutex::default() }
    }

    /// Returns what was asked for and is not in the case.
    pub(super) fn problems(&self) -> Vec<String> {
        lock(&self.asked).problems.clone()
    }

    /// Returns what is in the case and was not asked for.
    pub(super) fn left(&self) -> Vec<String> {
        let asked = lock(&self.asked);
        let calls = self.calls.iter().enumerate().filter(|(number, _)| !asked.calls.contains(number));
        let calls = calls.map(|(_, CaseCall { stage, call, target, line, .. })| {
            format!("nobody asked for the answer of line {line}: stage `{stage}` has made no such call, `{call} {target}`; take it out")
        });
        let programs = self.programs.iter().enumerate().filter(|(number, _)| !asked.programs.contains(number));
        let programs = programs.map(|(_, StandIn { stage, line, .. })| {
            format!("no item of stage `{stage}` came to what stands in for its program in line {line}; take it out")
        });
        calls.chain(programs).collect()
    }

    /// Returns the answer to a call: the first that was not given yet.
    fn answer(&self, stage: &StageName, name: &str, target: &str) -> Answer {
        let mut asked = lock(&self.asked);
        let is_meant = |call: &CaseCall| call.stage == *stage && call.call == name && call.target == target;
        let next = self.calls.iter().enumerate().find(|(number, call)| !asked.calls.contains(number) && is_meant(call));
        if let Some((number, call)) = next {
            asked.calls.insert(number);
            return call.answer.clone();
        }
        let no = if self.calls.iter().any(is_meant) { "no further" } else { "no" };
        asked.note(format!(
            "stage `{stage}` calls `{name} {target}`, and the case has {no} answer to it; add:\n[[case.calls]]\nstage = {}\n{} = {}\n{}",
            value::string(stage.as_str()),
            name,
            value::string(target),
            or_none(name),
        ));
        CallFailure::denied("the case has no answer to this call").answer()
    }

    /// Returns what comes of an item in place of a program. Those that name the item come first; of several, each counts once, and the
    /// last from then on.
    pub(super) fn program(&self, stage: &StageName, item: &Bytes) -> Result<Vec<Bytes>, Failure> {
        let mut asked = lock(&self.asked);
        let own = self.programs.iter().enumerate().filter(|(_, stand_in)| stand_in.stage == *stage);
        let (named, any): (Vec<_>, Vec<_>) = own.partition(|(_, stand_in)| stand_in.item.is_some());
        let named = named.into_iter().filter(|(_, own)| own.item.as_ref().is_some_and(|own| is_equal(own, item, 0.0)));
        let named: Vec<_> = named.collect();
        let fitting = if named.is_empty() { any } else { named };
        let fresh = fitting.iter().find(|(number, _)| !asked.programs.contains(number)).or(fitting.last());
        let Some((number, stand_in)) = fresh else {
            let shown = value::write(item);
            asked.note(format!(
                "stage `{stage}` runs a program, which a test does not start, and nothing stands in for it; add:\n\
                 [[case.programs]]\nstage = {}\nitem = {shown}\noutputs = []",
                value::string(stage.as_str()),
            ));
            return Err(Failure::fatal(FailureKind::Node, "nothing in the case stands in for the program"));
        };
        asked.programs.insert(*number);
        match &stand_in.gives {
            Given::Outputs(outputs) => Ok(outputs.clone()),
            Given::Failure { kind, reason, is_transient: true } => Err(Failure::transient(*kind, reason.clone())),
            Given::Failure { kind, reason, .. } => Err(Failure::fatal(*kind, reason.clone())),
        }
    }
}

/// Returns how the answer to a call is written, also one that there is nothing.
fn or_none(name: &str) -> String {
    let example = answer_example(name);
    match name {
        call::KV_GET | call::OBJECTS_GET => {
            format!(
                "{example}\nor, if nothing is there, in place of `answer`:\nfailure = {{ kind = \"not_found\", message = \"no such key\" }}"
            )
        }
        _ => example.to_owned(),
    }
}

impl Asked {
    fn note(&mut self, problem: String) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}
