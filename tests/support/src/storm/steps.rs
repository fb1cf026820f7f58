//! The steps that results went through, as the page of the wire describes them.

use async_nats::jetstream;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use ciborium::Value;

use super::{Plan, Report};

/// The stages of the chain of large items, and of the other one.
const LARGE: [&str; 3] = ["first", "append", "last"];
const SMALL: [&str; 3] = ["fan", "shaky", "drop_odd"];

/// Checks that the steps of a message of results name each stage once, in order, beside attempts that failed.
pub(super) fn look(message: &jetstream::Message, plan: &Plan, report: &mut Report) {
    let header = message.headers.as_ref().and_then(|headers| headers.get("Pcluster-Steps"));
    let Some(header) = header else {
        report.stepless += 1;
        return;
    };
    let expected = if plan.large { LARGE } else { SMALL };
    match stages(header.as_str()) {
        Some(stages) if stages == expected => {}
        // The oldest were left out.
        None => report.stepless += 1,
        Some(stages) => {
            report.misstepped += 1;
            report.story.push(format!("steps: {stages:?} of {:?}", message.headers));
        }
    }
}

/// Returns the stages of the attempts that succeeded. `None` if some were left out.
fn stages(header: &str) -> Option<Vec<String>> {
    let map: Value = ciborium::from_reader(&BASE64_STANDARD_NO_PAD.decode(header).unwrap()[..]).unwrap();
    if field(&map, "d").is_some() {
        return None;
    }
    let steps = field(&map, "s").unwrap().as_array().unwrap();
    let succeeded = steps.iter().filter(|step| field(step, "x").is_none());
    Some(succeeded.map(|step| field(step, "s").unwrap().as_text().unwrap().to_owned()).collect())
}

fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    map.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
}
