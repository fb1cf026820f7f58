//! Items that leave too little room for headers: none is lost, and the reason is true.

use serde_json::Value;
use support::{Cluster, NatsClient, RawClient, Server, eventually, json_lines, probe_chain};

/// The server's `max_payload`.
const MAX: usize = 64 << 10;
/// How many bytes the items leave of it.
const ROOM: [usize; 6] = [0, 1, 100, 500, 1_000, 8_192];
const RETRIED: &str = "retry = { attempts = 2, backoff = [\"10ms\"] }";

/// A text of this many bytes as CBOR, or what is none.
fn item(chain: &str, size: usize) -> Vec<u8> {
    if chain == "unread" {
        return vec![b'{'; size];
    }
    let length = u32::try_from(size - 5).unwrap().to_be_bytes();
    [&[0x7a][..], &length, &vec![b'x'; size - 5]].concat()
}

/// How many bytes the items of letters leave.
fn rooms(letters: &[Value]) -> Vec<usize> {
    let room = |letter: &Value| {
        let text = letter["item"].as_str().unwrap_or_else(|| panic!("no item: {letter}"));
        MAX - text.len() - if letter["failure"] == "undecodable" { 0 } else { 5 }
    };
    let mut rooms: Vec<usize> = letters.iter().map(room).collect();
    rooms.sort_unstable();
    rooms
}

#[test]
fn an_item_of_any_size_that_the_server_takes_is_a_result_or_a_letter_with_the_item_and_the_reason() {
    let cluster = Cluster::with_server(Server::start(&format!("max_payload: {MAX}")));
    let (client, mut raw) = (NatsClient::connect(&cluster), RawClient::connect(&cluster));
    let chains = [("good", "echo"), ("bad", "fail"), ("trapped", "trap"), ("unread", "echo")];
    for (chain, task) in chains {
        cluster.deploy(&probe_chain(chain, &[task], RETRIED));
        for room in ROOM {
            raw.publish(format!("pcluster.{chain}.in"), b"", &item(chain, MAX - room));
        }
    }
    assert_eq!(raw.stored(), chains.len() * ROOM.len());
    let _node = cluster.node("a");
    let ls = |chain: &str| json_lines(&cluster.ok(&["dead", "ls", chain, "--json"]));
    for (chain, failure, reason) in [
        ("bad", "error", "this task always fails"),
        ("trapped", "trap", "this task always panics"),
        ("unread", "undecodable", "CBOR"),
    ] {
        cluster.ok(&["wait", chain]);
        let letters = ls(chain);
        assert_eq!(rooms(&letters), ROOM, "{chain}: each letter holds its item");
        assert_eq!(cluster.status(chain)["dead"], ROOM.len(), "{chain}");
        for letter in &letters {
            let said = letter["reason"].as_str().unwrap();
            assert!(letter["failure"] == failure && said.contains(reason), "{chain}: {said}");
            let is_told = said.contains("; not tried again: the item of 65");
            assert!(chain == "unread" || letter["attempts"] == 2 - u64::from(is_told), "{chain}: {letter}");
        }
    }
    cluster.ok(&["wait", "good"]);
    let failed = ls("good");
    let results = client.items_now("PCLUSTER_good_OUT");
    assert_eq!(results + failed.len(), ROOM.len());
    assert_eq!(rooms(&failed), ROOM[..failed.len()], "what leaves more room is a result");
    assert!(results > 0 && failed.iter().all(|letter| letter["failure"] == "output"), "{failed:?}");

    // Whoever takes the letters gets the items too, and no parts of them.
    let taken = json_lines(&cluster.ok(&["pull", "unread", "--all", "--with-failures", "--json"]));
    assert_eq!(taken.len(), ROOM.len(), "{taken:?}");
    let letters = ls("bad");
    let numbered = |room: usize| {
        let letter = letters.iter().find(|letter| rooms(std::slice::from_ref(letter)) == [room]).unwrap();
        letter["number"].to_string()
    };
    // What can be put back is, what cannot stays; with the letters go the parts.
    let retry = cluster.run(&["dead", "retry", "bad", &numbered(0), &numbered(8_192)]);
    retry.failed(1, "more than the server takes in one message");
    eventually("the other failed again", || (rooms(&ls("bad")) == ROOM).then_some(()));
    cluster.ok(&["dead", "drop", "bad", &numbered(0)]);
    assert_eq!(rooms(&ls("bad")), ROOM[1..]);
    assert_eq!(cluster.ok(&["dead", "drop", "bad", "--stage", "fail"]), "5 dead letters dropped\n");
    assert_eq!(cluster.ok(&["dead", "drop", "trapped", "--all"]), "6 dead letters dropped\n");
    assert_eq!((client.count("PCLUSTER_bad_DEAD"), client.count("PCLUSTER_trapped_DEAD")), (0, 0));
}
