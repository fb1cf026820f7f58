use super::*;

fn needs(text: &str) -> Arc<Needs> {
    let need = |part: &str| {
        let (slot, number) = part.split_once('=').expect("a pair");
        (slot.parse().expect("a slot"), number.parse().expect("a number"))
    };
    Arc::new(text.split_whitespace().map(need).collect())
}

fn slots(text: &str) -> Arc<Slots> {
    let mut capacity = Capacity::of_machine(1 << 30);
    for part in text.split_whitespace() {
        let (name, value) = part.split_once('=').expect("a pair");
        capacity.set(name, value).expect("valid");
    }
    Slots::new(capacity)
}

/// Returns the slots that a ticket has got. `None` if it still waits.
fn got(ticket: &mut Ticket) -> Option<SlotSet> {
    use futures_util::FutureExt;
    ticket.granted().now_or_never()
}

#[test]
fn each_slot_is_with_one_at_a_time() {
    let slots = slots("gpu=2");
    let one = needs("gpu=1");
    let told = |set: &SlotSet| set.variables(&one).collect::<Vec<_>>();
    let (first, second) = (slots.try_take(&one).expect("free"), slots.try_take(&one).expect("free"));
    assert_eq!(told(&first)[0], ("PCLUSTER_SLOT_GPU".to_owned(), "0".to_owned()));
    assert_eq!(told(&second)[1], ("CUDA_VISIBLE_DEVICES".to_owned(), "1".to_owned()));
    assert!(slots.try_take(&one).is_none());
    let mut third = slots.join(&one, Chance::Unknown);
    assert!(got(&mut third).is_none());
    drop(first);
    let third = got(&mut third).expect("free again");
    assert_eq!(told(&third)[0].1, "0");
    drop((second, third));
    assert_eq!(slots.unused()[&Slot::Named("gpu".to_owned())], 2);
    assert!(slots.try_take(&needs("gpu=1 tape=1")).is_none(), "there is no tape");
    assert_eq!(slots.unused()[&Slot::Named("gpu".to_owned())], 2, "nothing is taken in part");
}

#[test]
fn the_line_is_served_in_turn_and_whoever_leaves_it_keeps_nothing() {
    let slots = slots("gpu=1");
    let one = needs("gpu=1");
    let held = slots.try_take(&one).expect("free");
    let (mut first, mut second, third) =
        (slots.join(&one, Chance::Unknown), slots.join(&one, Chance::Likely), slots.join(&one, Chance::Unknown));
    assert_eq!(slots.waiting(), (3, true));
    drop(held);
    assert!(got(&mut second).is_none());
    let held = got(&mut first).expect("the first");
    drop(held);
    // It was granted, and nobody took it.
    drop(second);
    drop(third);
    assert_eq!((slots.waiting(), slots.unused()[&Slot::Named("gpu".to_owned())]), ((0, false), 1));
}

#[tokio::test]
async fn who_needs_much_is_overtaken_until_it_is_certain_to_have_an_item() {
    let slots = slots("cores=2");
    let (one, all) = (needs("cores=1"), needs("cores=2"));
    let (left, right) = (slots.try_take(&one).expect("free"), slots.try_take(&one).expect("free"));
    let mut large = slots.join(&all, Chance::Unknown);
    drop(left);
    let left = slots.try_take(&one).expect("nothing is kept for what may have no item");
    large.overtaken().notified().await;
    large.hold_back();
    drop(left);
    assert!(slots.try_take(&one).is_none(), "it is kept");
    let mut small = slots.join(&one, Chance::Certain);
    assert!(got(&mut small).is_none());
    drop(right);
    let held = got(&mut large).expect("all");
    assert!(got(&mut small).is_none());
    drop(held);
    assert!(got(&mut small).is_some());
}

#[test]
fn what_waits_for_a_rare_kind_keeps_no_core_from_others() {
    let slots = slots("cores=2 gpu=1");
    let gpu = slots.try_take(&needs("gpu=1")).expect("free");
    let mut both = slots.join(&needs("gpu=1 cores=2"), Chance::Certain);
    let core = slots.try_take(&needs("cores=1")).expect("not kept: the other kind is still lacking");
    drop(gpu);
    assert!(slots.try_take(&needs("gpu=1")).is_none(), "kept");
    assert!(slots.try_take(&needs("cores=1")).is_none(), "kept");
    drop(core);
    assert!(got(&mut both).is_some());
    drop(slots.join(&needs("gpu=1 cores=2"), Chance::Certain));
    drop(both);
    assert_eq!(slots.unused()[&Slot::Cores], 2);
}

#[test]
fn nothing_is_lost_or_doubled_in_any_order() {
    let slots = slots("cores=8 gpu=3 memory=1000B");
    let kinds =
        [needs("cores=1"), needs("cores=3 gpu=1"), needs("gpu=2"), needs("cores=8"), needs("memory=400 cores=1")];
    let (mut tickets, mut held) = (Vec::new(), Vec::new());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("small")
    };
    for _ in 0..20_000 {
        match random(6) {
            0 | 1 => {
                let chance = [Chance::Unknown, Chance::Likely, Chance::Certain][random(3)];
                tickets.push(slots.join(&kinds[random(kinds.len())], chance));
            }
            2 => held.extend(slots.try_take(&kinds[random(kinds.len())])),
            3 if !tickets.is_empty() => drop(tickets.swap_remove(random(tickets.len()))),
            4 if !held.is_empty() => drop(held.swap_remove(random(held.len()))),
            _ => {
                tickets.retain_mut(|ticket| match got(ticket) {
                    Some(set) => {
                        held.push(set);
                        false
                    }
                    None => true,
                });
            }
        }
        let mut seen: BTreeMap<Slot, BTreeSet<u32>> = BTreeMap::new();
        for (slot, taken) in held.iter().flat_map(|set| lock(&set.taken).clone()) {
            if let Free::Numbers(numbers) = taken {
                for number in numbers {
                    assert!(seen.entry(slot.clone()).or_default().insert(number), "{slot} {number} is with two");
                }
            }
        }
    }
    drop((tickets, held));
    assert_eq!(slots.unused(), slots.capacity().counts().map(|(slot, count)| (slot.clone(), count)).collect());
}

#[tokio::test]
async fn an_item_that_waits_for_long_lends_its_slots() {
    let slots = slots("gpu=2");
    let (one, both) = (needs("gpu=1"), needs("gpu=2"));
    let item = slots.take(&one).await;
    item.lend_while(async { assert!(slots.try_take(&both).is_none(), "for a moment it keeps them") }).await;
    let other = item.lend_while(slots.take(&both));
    let other = tokio::time::timeout(std::time::Duration::from_millis(500), other).await;
    assert!(other.is_err(), "it has no slots before the other has ended");
    assert_eq!(slots.unused()[&Slot::Named("gpu".to_owned())], 2, "whoever gave up leaves nothing behind");
    item.give_back();
    drop(item);
    assert_eq!(slots.unused()[&Slot::Named("gpu".to_owned())], 2, "nothing is given back twice");
}
