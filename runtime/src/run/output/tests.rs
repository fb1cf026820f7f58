//! What outputs keep of their items.

use super::*;
use crate::frame::large::{Form, Hasher};

fn first(item: ItemBytes) -> u8 {
    item.into_whole().expect("in memory")[0]
}

fn file() -> ItemFile {
    ItemFile::new(tempfile::tempfile().expect("a file"), 0, &Hasher::default().digest(), Form::Text)
}

#[test]
fn items_come_back_as_they_went_in() {
    let mut outputs = Outputs::default();
    outputs.push(b"\x01");
    outputs.push(b"\x61a");
    assert_eq!(outputs.all().items().collect::<Vec<_>>(), [b"\x01".as_slice(), b"\x61a"]);
    assert_eq!((outputs.len(), outputs.bytes()), (2, 3));
    let mut twice = outputs.clone();
    twice.append(outputs.slice(1..2));
    assert_eq!(twice.slice(1..3).items().collect::<Vec<_>>(), [b"\x61a", b"\x61a"]);
    let items = twice.split_off(1).into_items();
    assert_eq!(items, [Bytes::from_static(b"\x61a").into(), Bytes::from_static(b"\x61a").into()]);
    assert_eq!(twice.into_payload(), b"\x01".as_slice());
}

#[test]
fn references_stay_references() {
    let digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned();
    let reference = Reference { name: "a".to_owned(), size: 1, digest, form: crate::frame::large::Form::Bytes };
    let mut outputs = Outputs::default();
    for number in 0..4 {
        if number % 2 == 0 { outputs.push(&[1]) } else { outputs.push_large(&reference) }
    }
    let large = |slice: Slice<'_>| slice.large().collect::<Vec<_>>();
    assert_eq!(large(outputs.all()), [1, 3]);
    assert_eq!(large(outputs.slice(1..3)), [0]);
    assert_eq!(large(outputs.slice(2..4)), [1]);
    let mut twice = outputs.clone();
    twice.append(outputs.slice(2..4));
    assert_eq!(large(twice.all()), [1, 3, 5]);
    assert_eq!(large(twice.split_off(3).all()), [0, 2]);
    assert_eq!(large(twice.all()), [1]);
    twice.truncate(1);
    assert!(large(twice.all()).is_empty());
}

#[test]
fn items_in_files_stay_in_their_files() {
    let mut outputs = Outputs::default();
    outputs.push(&[1]);
    outputs.push_file(file());
    outputs.push(&[2]);
    let given = |slice: Slice<'_>| slice.given().map(|given| format!("{given:?}")[..5].to_owned()).collect::<Vec<_>>();
    assert_eq!(given(outputs.all()), ["Whole", "File(", "Whole"]);
    assert_eq!(given(outputs.slice(1..2)), ["File("]);
    assert_eq!(outputs.all().payload(), [1, 2]);
    let mut twice = outputs.clone();
    twice.append(outputs.slice(1..3));
    assert_eq!(given(twice.all()), ["Whole", "File(", "Whole", "File(", "Whole"]);
    let rest = twice.split_off(3);
    assert_eq!(given(rest.all()), ["File(", "Whole"]);
    assert_eq!(rest.into_items(), [ItemBytes::File(file()), Bytes::from_static(&[2]).into()]);
    twice.truncate(1);
    assert!(!twice.has_files() && outputs.all().has_files());
}

#[test]
fn topics_stay_with_their_outputs() {
    let topic = |text: &str| Some(text.parse::<Topic>().expect("a topic"));
    let mut outputs = Outputs::default();
    outputs.push(&[0]);
    outputs.push_to(topic("a"), &[1]);
    outputs.push_to(None, &[2]);
    outputs.push(&[3]);
    let topics =
        |slice: Slice<'_>| (0..slice.items().count()).map(|number| slice.topic(number).cloned()).collect::<Vec<_>>();
    assert_eq!(topics(outputs.all()), [None, Some(topic("a")), Some(None), None]);
    assert_eq!(topics(outputs.slice(2..4)), [Some(None), None]);
    assert!(!outputs.slice(3..4).has_topics() && outputs.slice(0..2).has_topics());
    let mut twice = outputs.clone();
    twice.append(outputs.slice(1..3));
    assert_eq!(topics(twice.slice(4..6)), [Some(topic("a")), Some(None)]);
    assert_eq!(topics(twice.split_off(2).all()), [Some(None), None, Some(topic("a")), Some(None)]);
    let mut given = FrameOutputs::default();
    given.append_to(&topic("b"), outputs.all());
    assert_eq!(topics(given.open()), [Some(topic("b")), Some(topic("a")), Some(None), Some(topic("b"))]);
}

#[test]
fn outputs_of_a_failed_item_are_dropped() {
    let mut given = FrameOutputs::default();
    given.push(b"\x01");
    given.push(b"\x02");
    given.end(4);
    given.end(5);
    given.push(b"\x03");
    assert_eq!(given.open().payload(), b"\x03");
    given.drop_open();
    given.push(b"\x04");
    given.end(7);
    let items: Vec<(usize, &[u8])> = given.items().map(|(position, slice)| (position, slice.payload())).collect();
    assert_eq!(items, [(4, b"\x01\x02".as_slice()), (5, b""), (7, b"\x04")]);
    let copy = FrameOutputs { outputs: given.outputs.clone(), ended: given.ended.clone() };
    let items: Vec<(usize, u8)> = copy.into_items().map(|(position, item)| (position, first(item))).collect();
    assert_eq!(items, [(4, 1), (4, 2), (7, 4)]);
    given.push(b"\x05");
    assert_eq!(given.take_open().into_payload(), b"\x05".as_slice());
    assert_eq!(given.into_outputs().into_payload(), b"\x01\x02\x04".as_slice());
}
