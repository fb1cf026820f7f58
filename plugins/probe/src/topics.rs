//! Tasks that read and change topics.

use pcluster_sdk::{Context, Value, WithTopic, task};
use serde::Deserialize;

/// An item of `to_topics`.
#[derive(Debug, Deserialize)]
struct Spread {
    topics: Vec<Option<String>>,
    value: u64,
}

/// Returns the item together with its topic.
#[task]
fn topic(item: Value, cx: &Context) -> (Option<String>, Value) {
    (cx.topic().map(str::to_owned), item)
}

/// Returns a value once for each of the item's topics. None stands for no topic.
#[task(generator)]
fn to_topics(item: Spread) -> impl Iterator<Item = WithTopic<u64>> {
    (0_u64..).zip(item.topics).map(move |(number, topic)| WithTopic::from_option(topic.as_deref(), item.value + number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_output_has_its_topic() {
        let item = Spread { topics: vec![None, Some("a".to_owned())], value: 5 };
        assert_eq!(to_topics(item).collect::<Vec<_>>(), [WithTopic::none(5), WithTopic::new("a", 6)]);
        let context = Context::default().with_topic("b");
        assert_eq!(topic(1.into(), &context), (Some("b".to_owned()), 1.into()));
    }
}
