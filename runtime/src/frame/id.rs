//! Names frames and items.
//!
//! A feeder gives a frame its id. Each hop appends `.<k>` to the id of a frame for its outputs, so the fed id is always the part
//! before the first dot. If the first item of these outputs is not the frame's first item, its position comes before that dot, as
//! in `a#8.0`. That happens when other items were requeued. A fed id may contain these characters too: a dot is written as `%2E`,
//! `#` as `%23`, and `%` as `%25`.

use std::fmt;

/// The prefix of the message ids that nodes use.
const OF_NODES: &str = "pcluster.";

/// The most bytes of the id of a fed item. All outputs of the item carry it in their headers, where some characters take three
/// bytes. Dead letters leave out a longer id if they have no room for it.
const ID_MAX: usize = 1 << 10;

/// Why a text cannot be the id of a fed item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The id is empty or has a character that headers cannot hold.
    #[error("the id must have at least one character, and no spaces or line breaks")]
    Malformed,
    /// The id is too long for the headers of outputs.
    #[error("the id has {0} bytes; {ID_MAX} is the most: every output of the item carries it")]
    TooLong(usize),
    /// The id could be the message id of a node.
    #[error("the id `{0}` begins with `{OF_NODES}`, which is reserved for nodes; choose another")]
    Reserved(String),
}

/// Checks the id of an item to feed.
pub fn check_fed_id(id: &str) -> Result<(), IdError> {
    if id.is_empty() || id.chars().any(|character| character.is_control() || character == ' ') {
        return Err(IdError::Malformed);
    }
    if id.len() > ID_MAX {
        return Err(IdError::TooLong(id.len()));
    }
    if id.starts_with(OF_NODES) { Err(IdError::Reserved(id.to_owned())) } else { Ok(()) }
}

/// The id of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrameId(String);

impl FrameId {
    /// Returns the id of a frame that was fed under this text.
    pub fn from_fed(text: &str) -> Self {
        Self(text.replace('%', "%25").replace('.', "%2E").replace('#', "%23"))
    }

    /// Returns the id of a frame that a node has published. `text` is the value of its header.
    pub fn from_header(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Returns the id of a frame that was fed without one. It is a ULID of the time and the stream sequence of the message, so it
    /// is the same at each delivery. `millis` is the time since the Unix epoch.
    pub fn from_stored(millis: u64, sequence: u64) -> Self {
        Self(ulid::Ulid::from_parts(millis, u128::from(sequence)).to_string())
    }

    /// Returns the id of a hop's `k`th output frame of this frame. `first` is the position of the first of these items.
    pub fn child(&self, first: usize, k: usize) -> Self {
        if first == 0 { Self(format!("{}.{k}", self.0)) } else { Self(format!("{}#{first}.{k}", self.0)) }
    }

    /// Returns the id of the original frame's item at this position. A requeued item keeps its id.
    pub fn item(&self, position: usize) -> String {
        if position == 0 { self.0.clone() } else { format!("{}#{position}", self.0) }
    }

    /// Returns `true` if no hop has handled the frame yet.
    pub fn is_fed(&self) -> bool {
        !self.0.contains('.')
    }

    /// Returns how many hops the frame's items went through.
    pub(crate) fn hops(&self) -> usize {
        self.0.matches('.').count()
    }

    /// Returns the fed id.
    pub fn root(&self) -> String {
        let escaped = self.0.split(['.', '#']).next().unwrap_or_default();
        escaped.replace("%2E", ".").replace("%23", "#").replace("%25", "%")
    }

    /// Returns the id as it is in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns the id of an item of a fed frame: the frame's own for the first item, `<frame>#<n>` for the others.
pub fn fed_id(root: &str, index: usize) -> String {
    if index == 0 { root.to_owned() } else { format!("{root}#{index}") }
}

/// For each item of a frame, the root item it descends from.
///
/// The header is a list of runs: `4` is one item that descends from item 4, `4x3` are three of them, and `4-7` is one item each
/// of the items 4, 5, 6 and 7. Without the header, the items descend from 0, 1, 2, … in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index(Vec<u32>);

/// The header is not an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of runs like `4`, `4x3` or `4-7` for {1} items")]
pub struct IndexError(String, usize);

impl Index {
    /// Returns 0, 1, 2, … as an index.
    pub fn in_order(len: usize) -> Self {
        Self((0..).take(len).collect())
    }

    /// Returns the entries of the items at these positions.
    pub fn pick(&self, positions: &[usize]) -> Self {
        positions.iter().map(|position| self.get(*position)).collect()
    }

    /// Returns the entries.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|root| *root as usize)
    }

    /// Returns the root item of the item at this position.
    pub fn get(&self, position: usize) -> usize {
        self.0.get(position).map_or(0, |root| *root as usize)
    }

    /// Returns `true` if the index needs no header. It is then 0, 1, 2, … in order.
    pub fn is_in_order(&self) -> bool {
        self.0.iter().zip(0..).all(|(root, position)| *root == position)
    }

    /// Returns `true` if an item descends from item `root`.
    pub fn contains(&self, root: usize) -> bool {
        u32::try_from(root).is_ok_and(|root| self.0.contains(&root))
    }

    /// Reads the header of a frame with `len` items.
    pub fn parse(header: &str, len: usize) -> Result<Self, IndexError> {
        let index = Self::parse_list(header, len)?;
        if index.0.len() == len { Ok(index) } else { Err(IndexError(header.to_owned(), len)) }
    }

    /// Reads a list of runs with at most `max` entries.
    pub fn parse_list(header: &str, max: usize) -> Result<Self, IndexError> {
        let error = || IndexError(header.to_owned(), max);
        let number = |text: &str| text.parse::<u32>().map_err(|_| error());
        let mut roots = Vec::new();
        for run in header.split(',') {
            if let Some((root, count)) = run.split_once('x') {
                let (root, count) = (number(root)?, number(count)? as usize);
                if count == 0 {
                    return Err(error());
                }
                roots.extend(std::iter::repeat_n(root, count.min(max + 1)));
            } else if let Some((first, last)) = run.split_once('-') {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(error());
                }
                roots.extend((first..=last).take(max + 1));
            } else {
                roots.push(number(run)?);
            }
            if roots.len() > max {
                return Err(error());
            }
        }
        Ok(Self(roots))
    }
}

impl FromIterator<usize> for Index {
    fn from_iter<I: IntoIterator<Item = usize>>(roots: I) -> Self {
        Self(roots.into_iter().map(|root| u32::try_from(root).unwrap_or(u32::MAX)).collect())
    }
}

impl fmt::Display for Index {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        let mut separator = "";
        while let Some(&first) = rest.first() {
            let same = rest.iter().take_while(|root| **root == first).count();
            let rising = rest.iter().zip(first..=u32::MAX).take_while(|(root, expected)| **root == *expected).count();
            write!(formatter, "{separator}{first}")?;
            let run = if same > 1 {
                write!(formatter, "x{same}")?;
                same
            } else {
                if rising > 1 {
                    write!(formatter, "-{}", rest[rising - 1])?;
                }
                rising
            };
            rest = &rest[run..];
            separator = ",";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_no_key_of_a_node_and_fits_a_header() {
        for id in ["a", "order.7", "pcluster", "Pcluster.1", "größe/1#2%"] {
            assert_eq!(check_fed_id(id), Ok(()));
        }
        for id in ["", "a b", "a\nb", "a\tb", "\u{7f}"] {
            assert_eq!(check_fed_id(id), Err(IdError::Malformed), "{id:?}");
        }
        for id in ["pcluster.", "pcluster.1.9.0", "pcluster.dead.4"] {
            assert_eq!(check_fed_id(id), Err(IdError::Reserved(id.to_owned())));
        }
        assert_eq!(check_fed_id(&"a".repeat(ID_MAX)), Ok(()));
        assert_eq!(check_fed_id(&"ä".repeat(ID_MAX)), Err(IdError::TooLong(2 * ID_MAX)));
    }

    #[test]
    fn the_fed_id_comes_back_whatever_it_holds() {
        for fed in ["a", "file.csv-7", "100%", "%2E.", "ä.b.c", "a#3", "%23#.", "#"] {
            let descendant = FrameId::from_fed(fed).child(7, 3).child(0, 0);
            assert_eq!(FrameId::from_header(descendant.as_str()).root(), fed);
        }
    }

    #[test]
    fn parts_of_one_frame_have_children_of_different_names() {
        let id = FrameId::from_fed("a");
        assert_eq!(id.child(0, 0).as_str(), "a.0");
        assert_eq!(id.child(8, 0).as_str(), "a#8.0");
        assert_eq!((id.item(0), id.item(8)), ("a".to_owned(), "a#8".to_owned()));
    }

    #[test]
    fn an_id_made_of_the_stored_place_is_always_the_same() {
        assert_eq!(FrameId::from_stored(1_700_000_000_000, 42), FrameId::from_stored(1_700_000_000_000, 42));
        assert_ne!(FrameId::from_stored(1_700_000_000_000, 42), FrameId::from_stored(1_700_000_000_000, 43));
    }

    #[test]
    fn an_index_survives_its_header() {
        for (roots, header) in [
            (vec![0, 1, 2], "0-2"),
            (vec![5], "5"),
            (vec![0, 0, 0], "0x3"),
            (vec![4, 5, 5, 9, 7, 8], "4-5,5,9,7-8"),
            (vec![3, 3, 4, 5], "3x2,4-5"),
            (vec![u32::MAX, u32::MAX, 0], "4294967295x2,0"),
            (vec![u32::MAX - 1, u32::MAX, 0], "4294967294-4294967295,0"),
        ] {
            let index = Index(roots);
            assert_eq!(index.to_string(), header);
            assert_eq!(Index::parse(header, index.0.len()), Ok(index));
        }
    }

    #[test]
    fn an_index_for_another_number_of_items_is_refused() {
        for header in ["", "x", "0-9", "0-2,3-1", "0-2,4x0", "0x4294967295", "3-1", "0,0", "-1", "0-4294967295"] {
            assert!(Index::parse(header, 3).is_err(), "{header}");
        }
    }
}
