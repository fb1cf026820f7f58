//! The settings of a chain's streams.
//!
//! All revisions of a chain share its streams, so each setting is the widest that any of them needs. A wider setting is narrowed
//! only when that loses no message, because the server at once removes messages beyond a new limit.
//!
//! | setting | narrowed when |
//! |---|---|
//! | `limit` of the queues | no queue holds more than the new limit allows |
//! | `duplicate_window` | the old window has passed since the deploy that wants less |
//! | `max_age`, `max_bytes` | no message from before that deploy is left |
//! | `replicas` | no live revision needs them |

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Chain;

/// The settings of a chain's work stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkSettings {
    /// The most messages of each queue.
    pub limit: u64,
    /// How long the server remembers message ids.
    pub duplicate_window: Duration,
    /// The number of servers that keep a copy.
    pub replicas: u32,
}

/// The settings of a chain's results or dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptSettings {
    /// The greatest age of a message. `None` sets no limit.
    pub max_age: Option<Duration>,
    /// The room in bytes. `None` sets no limit.
    pub max_bytes: Option<u64>,
    /// How long the server remembers message ids. At most `max_age`.
    pub duplicate_window: Duration,
    /// The number of servers that keep a copy.
    pub replicas: u32,
}

/// A note that a deploy wants narrower settings than a stream has. Kept in the metadata of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The stream sequence of the last message at that time.
    pub sequence: u64,
    /// The time, in seconds since the Unix epoch.
    pub time: u64,
    /// The settings that the deploy wants, in one word.
    pub wanted: String,
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.sequence, self.time, self.wanted)
    }
}

impl FromStr for Note {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let [sequence, time, wanted] = text.split(' ').collect::<Vec<_>>().try_into().map_err(drop)?;
        let number = |text: &str| text.parse().map_err(drop);
        Ok(Self { sequence: number(sequence)?, time: number(time)?, wanted: wanted.to_owned() })
    }
}

/// The contents of a stream that its settings depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The number of messages.
    pub messages: u64,
    /// The stream sequence of the first message.
    pub first: u64,
    /// The stream sequence of the last message, even if it was removed.
    pub last: u64,
    /// The time, in seconds since the Unix epoch.
    pub now: u64,
}

/// The needs and the settings of a stream.
#[derive(Debug, Clone)]
pub struct Question<S> {
    /// The widest settings that any live revision needs. `None` if a manifest cannot be read.
    pub needed: Option<S>,
    /// The settings that the active revision wants.
    pub wanted: S,
    /// The settings of the stream.
    pub current: S,
    /// The note in the metadata of the stream.
    pub note: Option<Note>,
    /// The contents of the stream.
    pub held: Held,
}

/// The settings to give to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<S> {
    /// The settings.
    pub settings: S,
    /// The note for the metadata. `None` if no setting waits to be narrowed.
    pub note: Option<Note>,
}

impl<S> Question<S> {
    /// Returns the note to use: the old one if the wanted settings are the same.
    fn note_of(&self, wanted: String) -> Note {
        let old = self.note.as_ref().filter(|note| note.wanted == wanted);
        old.cloned().unwrap_or(Note { sequence: self.held.last, time: self.held.now, wanted })
    }
}

impl Note {
    /// Returns `true` if every message from before the note is gone.
    fn is_gone(&self, held: &Held) -> bool {
        held.messages == 0 || held.first > self.sequence
    }

    /// Returns `true` if the note is older than this.
    fn is_older(&self, than: Duration, held: &Held) -> bool {
        held.now.saturating_sub(self.time) > than.as_secs()
    }
}

/// Returns the wider of two limits. `None` is no limit, and so the widest.
fn widest<T: Ord>(left: Option<T>, right: Option<T>) -> Option<T> {
    left.zip(right).map(|(left, right)| left.max(right))
}

fn is_wider<T: Ord>(left: Option<T>, right: Option<T>) -> bool {
    match (left, right) {
        (None, right) => right.is_some(),
        (Some(_), None) => false,
        (Some(left), Some(right)) => left > right,
    }
}

impl WorkSettings {
    /// Returns the settings that a revision needs.
    pub fn of(chain: &Chain) -> Self {
        let (limit, duplicate_window) = (chain.queue.limit, chain.queue.duplicate_window);
        Self { limit, duplicate_window, replicas: chain.replicas }
    }

    /// Returns the wider of both in each setting.
    pub fn widest(self, other: Self) -> Self {
        Self {
            limit: self.limit.max(other.limit),
            duplicate_window: self.duplicate_window.max(other.duplicate_window),
            replicas: self.replicas.max(other.replicas),
        }
    }

    /// Decides on the settings of a work stream. Never narrows the limit; [`WorkSettings::narrower_limit`] does.
    pub fn decide(question: &Question<Self>) -> Answer<Self> {
        let Question { wanted, current, held, .. } = question;
        let note = question.note_of(wanted.word());
        let mut settings = current.widest(*wanted);
        if let Some(needed) = question.needed {
            settings = settings.widest(needed);
            settings.replicas = needed.replicas;
            if note.is_older(current.duplicate_window, held) {
                settings.duplicate_window = needed.duplicate_window;
            }
        }
        let waits = settings.duplicate_window > wanted.duplicate_window;
        Answer { settings, note: waits.then_some(note) }
    }

    /// Returns the limit to narrow to. `None` if the stream's limit is not wider than the live revisions need.
    pub fn narrower_limit(needed: Option<Self>, current: &Self) -> Option<u64> {
        needed.map(|needed| needed.limit).filter(|limit| *limit < current.limit)
    }

    fn word(self) -> String {
        format!("{}ns", self.duplicate_window.as_nanos())
    }
}

impl KeptSettings {
    /// Returns the settings that a revision needs.
    pub fn of(chain: &Chain) -> Self {
        let (max_age, max_bytes) = (chain.retention.max_age, chain.retention.max_bytes);
        let duplicate_window = chain.queue.duplicate_window.min(max_age);
        Self { max_age: Some(max_age), max_bytes, duplicate_window, replicas: chain.replicas }
    }

    /// Returns the wider of both in each setting.
    pub fn widest(self, other: Self) -> Self {
        Self {
            max_age: widest(self.max_age, other.max_age),
            max_bytes: widest(self.max_bytes, other.max_bytes),
            duplicate_window: self.duplicate_window.max(other.duplicate_window),
            replicas: self.replicas.max(other.replicas),
        }
    }

    /// Decides on the settings of a stream of results or dead letters.
    pub fn decide(question: &Question<Self>) -> Answer<Self> {
        let Question { wanted, current, held, .. } = question;
        let note = question.note_of(wanted.word());
        let mut settings = current.widest(*wanted);
        if let Some(needed) = question.needed {
            settings = settings.widest(needed);
            settings.replicas = needed.replicas;
            if note.is_gone(held) {
                settings = Self { duplicate_window: settings.duplicate_window, ..needed };
            }
            if note.is_older(current.duplicate_window, held) {
                settings.duplicate_window = needed.duplicate_window;
            }
        }
        if let Some(max_age) = settings.max_age {
            settings.duplicate_window = settings.duplicate_window.min(max_age);
        }
        let waits = settings.is_wider(wanted);
        Answer { settings, note: waits.then_some(note) }
    }

    /// Returns `true` if any setting is wider than the other's.
    pub fn is_wider(&self, other: &Self) -> bool {
        is_wider(self.max_age, other.max_age)
            || is_wider(self.max_bytes, other.max_bytes)
            || self.duplicate_window > other.duplicate_window
    }

    fn word(self) -> String {
        let limit = |limit: Option<u128>| limit.map_or("none".to_owned(), |limit| limit.to_string());
        let (age, bytes) = (self.max_age.map(|age| age.as_nanos()), self.max_bytes.map(u128::from));
        format!("{}ns,{}B,{}ns", limit(age), limit(bytes), self.duplicate_window.as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn work(limit: u64, window: u64, replicas: u32) -> WorkSettings {
        WorkSettings { limit, duplicate_window: Duration::from_secs(window), replicas }
    }

    fn kept(age: Option<u64>, bytes: Option<u64>, window: u64, replicas: u32) -> KeptSettings {
        let (max_age, duplicate_window) = (age.map(Duration::from_secs), Duration::from_secs(window));
        KeptSettings { max_age, max_bytes: bytes, duplicate_window, replicas }
    }

    fn held(first: u64, last: u64, now: u64) -> Held {
        Held { messages: (last + 1).saturating_sub(first), first, last, now }
    }

    #[test]
    fn the_widest_of_two_is_the_wider_of_each_setting() {
        for (left, right, widest) in [
            (work(100, 120, 1), work(5, 12, 3), work(100, 120, 3)),
            (work(1, 200, 3), work(2, 100, 1), work(2, 200, 3)),
        ] {
            assert_eq!((left.widest(right), right.widest(left)), (widest, widest));
        }
        for (left, right, widest) in [
            (kept(Some(60), Some(9), 30, 1), kept(Some(50), Some(8), 40, 3), kept(Some(60), Some(9), 40, 3)),
            (kept(Some(60), None, 30, 1), kept(None, Some(8), 30, 1), kept(None, None, 30, 1)),
        ] {
            assert_eq!((left.widest(right), right.widest(left)), (widest, widest));
        }
    }

    #[test]
    fn a_work_stream_is_widened_at_once_and_narrowed_when_nothing_is_lost() {
        let (wide, narrow) = (work(100, 120, 3), work(10, 12, 1));
        let note = |time| Note { sequence: 7, time, wanted: narrow.word() };
        let ask = |needed, wanted, current, note, now| {
            let answer = WorkSettings::decide(&Question { needed, wanted, current, note, held: held(1, 7, now) });
            (answer.settings, answer.note)
        };
        for (name, answer, expected) in [
            ("a wider one", ask(Some(wide), wide, narrow, None, 50), (wide, None)),
            ("the older needs it", ask(Some(wide), narrow, wide, None, 50), (wide, Some(note(50)))),
            ("the older has retired", ask(Some(narrow), narrow, wide, Some(note(50)), 60), {
                (work(100, 120, 1), Some(note(50)))
            }),
            ("the window has passed", ask(Some(narrow), narrow, wide, Some(note(50)), 171), (work(100, 12, 1), None)),
            ("retired, not met before", ask(Some(narrow), narrow, wide, None, 171), {
                (work(100, 120, 1), Some(note(171)))
            }),
            ("nobody knows", ask(None, narrow, wide, Some(note(50)), 999), (wide, Some(note(50)))),
        ] {
            assert_eq!(answer, expected, "{name}");
        }
        assert_eq!(WorkSettings::narrower_limit(Some(narrow), &wide), Some(10));
        assert_eq!(WorkSettings::narrower_limit(Some(wide), &wide), None);
        assert_eq!(WorkSettings::narrower_limit(None, &wide), None);
    }

    #[test]
    fn what_is_kept_is_narrowed_when_nothing_from_before_is_left() {
        let (wide, narrow) = (kept(Some(7 * DAY), None, 120, 3), kept(Some(60), Some(1000), 12, 1));
        let other = kept(Some(600), Some(1000), 12, 1);
        let note = |sequence, time, wanted: KeptSettings| Note { sequence, time, wanted: wanted.word() };
        let ask = |needed, wanted, current, note, held| {
            let answer = KeptSettings::decide(&Question { needed, wanted, current, note, held });
            (answer.settings, answer.note)
        };
        let deployed = note(7, 50, narrow);
        for (name, answer, expected) in [
            ("a wider one", ask(Some(wide), wide, narrow, None, held(1, 7, 50)), (wide, None)),
            ("the older needs it", ask(Some(wide), narrow, wide, None, held(1, 7, 50)), (wide, Some(deployed.clone()))),
            ("the older has retired", ask(Some(narrow), narrow, wide, Some(deployed.clone()), held(7, 20, 999)), {
                (KeptSettings { max_age: wide.max_age, max_bytes: wide.max_bytes, ..narrow }, Some(deployed.clone()))
            }),
            (
                "nothing from before is left",
                ask(Some(narrow), narrow, wide, Some(deployed.clone()), held(8, 20, 999)),
                { (narrow, None) },
            ),
            ("nor is anything", ask(Some(narrow), narrow, wide, Some(deployed.clone()), held(21, 20, 60)), {
                (KeptSettings { duplicate_window: Duration::from_mins(1), ..narrow }, Some(deployed.clone()))
            }),
            ("another deploy", ask(Some(narrow), other, wide, Some(deployed.clone()), held(8, 20, 999)), {
                (KeptSettings { replicas: 1, ..wide }, Some(note(20, 999, other)))
            }),
            ("nobody knows", ask(None, narrow, wide, Some(deployed.clone()), held(8, 20, 999)), {
                (wide, Some(deployed.clone()))
            }),
        ] {
            assert_eq!(answer, expected, "{name}");
        }
    }

    #[test]
    fn a_note_is_read_as_it_is_written() {
        let note = Note { sequence: 7, time: 50, wanted: work(1, 2, 3).word() };
        assert_eq!(note.to_string().parse(), Ok(note));
        assert_eq!("7 50".parse::<Note>(), Err(()));
    }
}
