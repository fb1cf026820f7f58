//! A task that makes each call of the SDK, and returns what came of it.

use std::collections::BTreeMap;

use pcluster_sdk::{CallError, Context, Error, FailureKind, Secret, http, kv, objects, publish, secrets, task};
use serde::Deserialize;

/// The configuration of `tour`.
#[derive(Debug, Deserialize)]
struct Tour {
    /// A server that answers `POST` requests.
    url: String,
}

/// What came of each step.
type Steps = BTreeMap<&'static str, String>;

/// Makes each call, on a bucket and a store named `tour` and subjects below it. Returns what came of each step.
#[task(calls(http, kv, objects, publish, secrets))]
fn tour(item: String, cx: &Context<Tour>) -> Result<Steps, Error> {
    let mut steps = Steps::new();
    entries(&mut steps)?;
    data(&mut steps)?;
    let stored = publish::message("tour.kept", item.as_str()).header("X-Tour", "1").wait()?;
    steps.insert("kept", format!("{} {}", stored.sequence, stored.duplicate));
    publish::publish("tour.heard", item.as_str())?;
    steps.insert("revealed", secrets::reveal("open")?);
    let response = http::post(&cx.config().url)
        .header("Content-Type", "text/plain")
        .header("Authorization", Secret("password").basic("ada"))
        .body(item)
        .send()?
        .error_for_status()?;
    let tag = response.header("ETag").unwrap_or_default();
    steps.insert("answered", format!("{} {tag} {}", response.status(), response.text()?));
    Ok(steps)
}

fn entries(steps: &mut Steps) -> Result<(), CallError> {
    let bucket = kv::bucket("tour");
    let first = bucket.put("a", "1")?;
    let entry = bucket.get("a")?;
    steps.insert(
        "got",
        entry.map_or_else(String::new, |entry| format!("{:?} {}", entry.text(), entry.revision == first)),
    );
    let second = bucket.update("a", "2", first)?;
    steps.insert("raised", (second > first).to_string());
    steps.insert("stale", kind(bucket.update("a", "3", first)));
    steps.insert("created twice", kind(bucket.create("a", "4")));
    let created = bucket.create("b.c", "")?;
    steps.insert("keys", names(bucket.keys(""))?);
    steps.insert("keys below b", names(bucket.keys("b."))?);
    steps.insert("deleted stale", kind(bucket.delete_revision("b.c", created + 100)));
    bucket.delete_revision("b.c", created)?;
    bucket.delete("a")?;
    steps.insert("gone", format!("{:?}", bucket.get("a")?));
    Ok(())
}

fn data(steps: &mut Steps) -> Result<(), CallError> {
    let store = objects::store("tour");
    // More than one message of the store.
    let large: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let stored = store.put("m/1", &large)?;
    let whole = store.get("m/1")?;
    let is_same = whole.is_some_and(|object| object.data == large && object.digest == stored.digest);
    steps.insert("object", format!("{} {is_same}", stored.size));
    let range = store.get_range("m/1", 5..8)?;
    steps.insert("range", range.map_or_else(String::new, |object| format!("{:?} of {}", object.data, object.size)));
    store.put("n", "")?;
    steps.insert("objects", names(store.list("m/").map(|info| info.map(|info| info.name)))?);
    steps.insert("no object", format!("{:?}", store.get("none")?));
    Ok(())
}

fn names(names: impl Iterator<Item = Result<String, CallError>>) -> Result<String, CallError> {
    Ok(names.collect::<Result<Vec<String>, _>>()?.join(" "))
}

/// Returns the kind of the error.
fn kind<T>(result: Result<T, CallError>) -> String {
    result.err().as_ref().map(CallError::kind).map_or("none", FailureKind::name).to_owned()
}

#[cfg(test)]
mod tests {
    use pcluster_sdk::testing::World;

    use super::*;

    #[test]
    fn each_step_goes_as_on_a_node() {
        const URL: &str = "https://a.example/";
        let answer = http::Response::for_test(201, "made").with_header("ETag", "7");
        let world = World::new().kv("tour", &[]).object("tour", "n", "x").secret("open", "sesame");
        let world = world.http("POST", URL, answer);
        let context = Context::for_test(Tour { url: URL.to_owned() });
        let steps = world.run(|| tour("hello".to_owned(), &context)).expect("the steps");
        let expected = [
            ("answered", "201 7 made"),
            ("created twice", "conflict"),
            ("deleted stale", "conflict"),
            ("gone", "None"),
            ("got", "Ok(\"1\") true"),
            ("kept", "1 false"),
            ("keys", "a b.c"),
            ("keys below b", "b.c"),
            ("no object", "None"),
            ("object", "300000 true"),
            ("objects", "m/1"),
            ("raised", "true"),
            ("range", "[5, 6, 7] of 300000"),
            ("revealed", "sesame"),
            ("stale", "conflict"),
        ];
        assert_eq!(steps.iter().map(|(step, came)| (*step, came.as_str())).collect::<Vec<_>>(), expected);
        assert_eq!(world.requests()[0].header("authorization"), Some("Basic ada:{password}"));
    }
}
