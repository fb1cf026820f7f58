//! The number of the wire: which streams, subjects, headers and keys a chain uses, and their meaning.
//!
//! A deploy writes the number into the manifest of its revision, into the chain's state, and into the metadata of the chain's
//! streams. Without a number, they were made by a release before numbers; that is wire 1.

/// The wire of the chains that this program deploys.
///
/// Programs of wire 1 refuse every manifest with an unknown key, and so one with a number. They leave a revision of wire 2 to
/// other nodes, and go on with their own.
pub const WIRE: u32 = 2;
/// The oldest wire that this program still serves.
pub const OLDEST_WIRE: u32 = 1;
/// The key of the number in the metadata of a stream.
pub const METADATA: &str = "pcluster.wire";

/// A chain or stream has a wire that this program refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{thing} speaks wire {number}, but this pcluster ({}) speaks wires {OLDEST_WIRE} to {WIRE}; use {}",
    env!("CARGO_PKG_VERSION"),
    self.remedy()
)]
#[non_exhaustive]
pub struct WireError {
    /// The chain or stream, as in ``chain `orders` ``.
    pub thing: String,
    /// The number as it is written there.
    pub number: String,
}

impl WireError {
    fn remedy(&self) -> &'static str {
        if self.number.parse::<u64>().is_ok_and(|number| number < OLDEST_WIRE.into()) {
            "the release that deployed it, and deploy it again with each release up to this one"
        } else {
            "the release that deployed it or a newer one, here and on every node"
        }
    }
}

/// Returns the wire of a chain or stream.
pub fn check(thing: impl FnOnce() -> String, number: Option<&str>) -> Result<u32, WireError> {
    let Some(number) = number else { return Ok(OLDEST_WIRE) };
    match number.parse() {
        Ok(known) if (OLDEST_WIRE..=WIRE).contains(&known) => Ok(known),
        _ => Err(WireError { thing: thing(), number: number.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_of_this_release_and_the_one_before_are_spoken() {
        let checked = |number| check(|| "chain `a`".to_owned(), number);
        assert_eq!(checked(None), Ok(1));
        assert_eq!(checked(Some("1")), Ok(1));
        assert_eq!(checked(Some("2")), Ok(WIRE));
        let newer = checked(Some("3")).expect_err("too new").to_string();
        assert!(newer.starts_with("chain `a` speaks wire 3, but this pcluster ("), "{newer}");
        assert!(newer.ends_with("use the release that deployed it or a newer one, here and on every node"), "{newer}");
        let older = checked(Some("0")).expect_err("too old").to_string();
        assert!(older.ends_with("deploy it again with each release up to this one"), "{older}");
        assert!(checked(Some("two")).is_err());
    }
}
