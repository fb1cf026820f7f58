//! Header blocks that no correct client writes.

use super::{Random, rounds};
use crate::frame::block;

/// The parts of a block, besides random bytes.
const PARTS: [&[u8]; 22] = [
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b": ",
    b":",
    b" ",
    b"\t",
    b"\0",
    b"X-A",
    b"Nats-Msg-Id",
    b"Pcluster-Id",
    b"value",
    b"\xe4",
    b"\xc3\xa4",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"404",
    b" 100 Idle Heartbeat\r\n",
    b"B: c\r\n",
];

/// Returns endless blocks. Most of them begin with a valid first line.
pub(crate) fn blocks(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut random = Random::new(seed);
    std::iter::from_fn(move || Some(random_block(&mut random)))
}

fn random_block(random: &mut Random) -> Vec<u8> {
    let mut block = if random.once_in(5) { Vec::new() } else { b"NATS/1.0\r\n".to_vec() };
    for _ in 0..random.below(10) {
        match random.below(20) {
            0 => block.extend(random.bytes(8)),
            1..=8 => block.extend_from_slice(b"X: y\r\n"),
            _ => block.extend_from_slice(PARTS[random.below(PARTS.len())]),
        }
    }
    block
}

#[test]
fn of_any_block_the_headers_that_are_left_can_be_sent_and_read_again() {
    for block in blocks(super::from_environment("PCLUSTER_FUZZ_SEED").unwrap_or(1)).take(usize_of(rounds())) {
        let headers = block::decode(&block);
        let mut again = b"NATS/1.0\r\n".to_vec();
        for (name, value) in headers.iter() {
            again.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        again.extend_from_slice(b"\r\n");
        assert_eq!(block::fault(&again), None, "{}", block.escape_ascii());
        // A value that continues from an empty line begins with a space, which is lost.
        let trimmed = headers.iter().map(|(name, value)| (name, value.trim_start()));
        assert!(block::decode(&again).iter().eq(trimmed), "{}", block.escape_ascii());
    }
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
