//! Tests the readers of foreign bytes with random and damaged input: [`frames`] tests payloads and headers of feeders and guests,
//! [`mod@headers`] header blocks, [`plugins`] plugins, and [`archives`] archives of files. [`contracts`] compares random schemas.
//!
//! Each run of the tests calls a reader 20,000 times. `PCLUSTER_FUZZ=1000000 cargo test --release -p pcluster --lib fuzz` calls
//! it more often, and `PCLUSTER_FUZZ_SEED` selects other bytes. A failure prints its input.

mod archives;
mod contracts;
mod frames;
pub(crate) mod headers;
mod plugins;

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returns how often each reader is called.
fn rounds() -> u64 {
    from_environment("PCLUSTER_FUZZ").unwrap_or(20_000)
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Random numbers (xorshift64*). The same seed gives the same numbers.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `end`, which must not be 0.
    fn below(&mut self, end: usize) -> usize {
        // The upper bits are more random.
        usize::try_from((self.next() >> 32) % end as u64).expect("it was a usize")
    }

    /// Returns `true` once in this many calls, on average.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.byte()).collect()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Bytes that readers may take for lengths, nestings or ends.
const INTERESTING: [u8; 24] = [
    0x00, 0x01, 0x0a, 0x17, 0x18, 0x1b, 0x1f, 0x20, 0x22, 0x2c, 0x3b, 0x5b, 0x5f, 0x7b, 0x7f, 0x80, 0x81, 0x9b, 0x9f,
    0xa1, 0xbb, 0xbf, 0xc1, 0xff,
];

/// Damages one to eight places in these bytes.
fn damage(random: &mut Random, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(16)).min(bytes.len());
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => drop(bytes.splice(at..at, random.bytes(8))),
            4 => {
                let other = random.pick(others);
                let from = random.below(other.len() + 1);
                drop(bytes.splice(at..end, other[from..].iter().copied()));
            }
            // Inserts a length that no item has.
            5 => drop(bytes.splice(at..end, vec![0xff; random.below(9)])),
            6 if at < bytes.len() => bytes[at] = *random.pick(&INTERESTING),
            _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            _ => bytes.push(random.byte()),
        }
    }
    bytes.truncate(1 << 16);
}

/// Checks inputs from `make`. If a check panics, the failure prints the input.
fn try_door<T: AsRef<[u8]>>(rounds: u64, mut make: impl FnMut(&mut Random) -> T, mut check: impl FnMut(&T)) {
    let seed = from_environment("PCLUSTER_FUZZ_SEED").unwrap_or(0x5eed);
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let input = make(&mut random);
        let checked = catch_unwind(AssertUnwindSafe(|| check(&input)));
        assert!(checked.is_ok(), "round {round} of PCLUSTER_FUZZ_SEED={seed}: {}", shown(input.as_ref()));
    }
}

/// Returns bytes in hexadecimal and as text.
fn shown(input: &[u8]) -> String {
    let hex = input.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("{hex}\n{:?}", String::from_utf8_lossy(input))
}
