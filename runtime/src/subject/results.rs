//! The subjects of results, and the consumers of one topic.

use super::notes;
use crate::name::{ChainName, Topic};

/// The prefix of the durable consumers that take the results of one topic. The topic follows.
const TOPIC_CONSUMER: &str = "topic_";

/// Returns the subject of results without a topic.
pub fn results(chain: &ChainName) -> String {
    format!("pcluster.{chain}.out")
}

/// Returns the subject of the results of a topic.
pub(crate) fn results_of(chain: &ChainName, topic: &Topic) -> String {
    format!("pcluster.{chain}.out.{topic}")
}

/// Returns the pattern of the results that have a topic.
pub(crate) fn results_with_topic(chain: &ChainName) -> String {
    format!("pcluster.{chain}.out.*")
}

/// Returns the subject and the pattern of all results.
pub(crate) fn results_all(chain: &ChainName) -> Vec<String> {
    vec![results(chain), results_with_topic(chain)]
}

/// Returns the subject of results that a puller of a topic has put back. Only pullers of the topic read it.
pub(crate) fn results_again(chain: &ChainName, topic: &str) -> String {
    format!("pcluster.{chain}.out.{topic}.again")
}

/// Returns the topic in the subject of results. `None` for results without a topic and for other subjects.
pub(crate) fn parse_results_topic(subject: &str) -> Option<Topic> {
    let mut tokens = subject.split('.');
    let ("pcluster", _chain, "out") = (tokens.next()?, tokens.next()?, tokens.next()?) else { return None };
    let topic = tokens.next()?.parse().ok()?;
    tokens.next().is_none().then_some(topic)
}

/// Returns the topic in the subject of results that its pullers have put back. `None` for other subjects.
pub(crate) fn parse_results_again(subject: &str) -> Option<Topic> {
    parse_results_topic(subject.strip_suffix(".again")?)
}

/// Returns the name of the durable consumer that all pullers of a topic share.
pub(crate) fn topic_consumer(topic: &Topic) -> String {
    format!("{TOPIC_CONSUMER}{topic}")
}

/// Returns all subjects of the stream of a chain's results.
pub(crate) fn results_stream_subjects(chain: &ChainName) -> Vec<String> {
    let mut subjects = results_all(chain);
    subjects.extend([results_again(chain, "*"), notes(chain)]);
    subjects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_from_results_alone() {
        let (chain, topic): (ChainName, Topic) = ("orders".parse().expect("valid"), "a-1".parse().expect("valid"));
        assert_eq!(parse_results_topic(&results_of(&chain, &topic)), Some(topic.clone()));
        assert_eq!(parse_results_again(&results_again(&chain, "a-1")), Some(topic));
        let again: Topic = "again".parse().expect("valid");
        assert_eq!(parse_results_again(&results_of(&chain, &again)), None, "a topic as any other");
        for other in [results(&chain), notes(&chain), results_again(&chain, "a"), "x.orders.out.a".to_owned()] {
            assert_eq!(parse_results_topic(&other), None, "{other}");
        }
    }
}
