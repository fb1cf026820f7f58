//! A short storm; `make chaos` is the long one.

use std::time::Duration;

use support::storm::{self, Plan, WorldPlan};

#[test]
fn twenty_thousand_items_come_out_once_while_a_node_is_killed_every_two_seconds() {
    let plan = Plan {
        seed: 1,
        items: 20_000,
        // It ends once all items are fed.
        duration: Duration::from_mins(10),
        nodes: 3,
        servers: 1,
        every: Duration::from_secs(2),
        micros: 2_000,
        all: false,
        programs: None,
        large: false,
        records: false,
        trace: None,
    };
    let report = storm::run(&plan);
    assert!(report.is_exact(), "{report}");
    assert_eq!((report.items, report.results), (20_000, 30_000), "{report}");
    assert!(report.kills >= 3, "{report}");
}

#[test]
fn items_come_out_once_and_nothing_is_left_while_nodes_and_programs_are_killed() {
    let plan = Plan {
        seed: 2,
        items: 400,
        duration: Duration::from_mins(10),
        nodes: 2,
        servers: 1,
        every: Duration::from_secs(2),
        micros: 1_000,
        all: false,
        programs: Some(Duration::from_millis(400)),
        large: false,
        records: false,
        trace: None,
    };
    let report = storm::run(&plan);
    assert!(report.is_exact(), "{report}");
    assert_eq!((report.items, report.results), (400, 600), "{report}");
    assert!(report.kills + report.programs >= 1, "{report}");
}

#[test]
fn large_items_come_out_once_and_nothing_is_left_while_nodes_and_programs_are_killed() {
    let plan = Plan {
        seed: 4,
        items: 200,
        duration: Duration::from_mins(10),
        nodes: 2,
        servers: 1,
        every: Duration::from_secs(3),
        micros: 0,
        all: false,
        programs: Some(Duration::from_secs(1)),
        large: true,
        records: true,
        trace: None,
    };
    let report = storm::run(&plan);
    assert!(report.is_exact(), "{}\n{report}", report.story.join("\n"));
    assert_eq!((report.items, report.results), (200, 200), "{report}");
    assert!(report.kills + report.programs >= 1, "{report}");
}

#[test]
fn a_server_gets_each_item_under_one_key_and_items_come_out_once_while_nodes_are_killed() {
    let plan = WorldPlan { seed: 3, items: 1_500, nodes: 2, every: Duration::from_secs(2), concurrency: 8 };
    let report = storm::run_world(&plan);
    assert!(report.is_exact(), "{report}");
    assert!(report.kills >= 1, "{report}");
}
