use super::*;

#[test]
fn the_connection_of_a_node_tells_which_it_is() {
    assert_eq!(parse_connection_name(&connection_name("a", "01X")), Some(("a", "01X")));
    for foreign in ["pcluster-node a", "pcluster-node service", "pcluster-node service a", "NATS CLI"] {
        assert_eq!(parse_connection_name(foreign), None, "{foreign}");
    }
}

#[test]
fn nodes_are_waited_for_as_long_as_they_may_be_there() {
    let connections = |names: &[&str]| {
        let connections: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
        json!({ "data": { "connections": connections } }).to_string()
    };
    let report = |incarnation: &str| NodeReport {
        programs: None,
        processors: Vec::new(),
        secrets: None,
        slots: Vec::new(),
        labels: std::collections::BTreeMap::default(),
        node: "a".to_owned(),
        incarnation: incarnation.to_owned(),
        pid: 1,
        host: String::new(),
        version: String::new(),
        uptime: 0.0,
        draining: false,
        memory_used: 0,
        memory_resident: 0,
        memory: 0,
        hops: Vec::new(),
        problems: Vec::new(),
    };
    let (a, b) = (connection_name("a", "A"), connection_name("b", "B"));
    for (is_alone, told, silent, patience) in [
        (true, Some(vec![a.as_str()]), vec![], Duration::ZERO),
        (true, Some(vec![a.as_str(), "leaf"]), vec![], NEXT_ANSWER),
        (false, Some(vec![a.as_str()]), vec![], NEXT_ANSWER),
        (true, None, vec![], NEXT_ANSWER),
        (true, Some(vec![a.as_str(), b.as_str()]), vec!["b"], FIRST_ANSWER),
    ] {
        let mut heard = Heard::from_now(is_alone);
        heard.last = Some(heard.began);
        heard.answered.push(report("A"));
        if let Some(told) = &told {
            heard.server(connections(told).as_bytes());
        }
        assert_eq!(heard.until() - heard.began, patience, "{told:?}");
        assert_eq!(heard.nodes().silent, silent, "{told:?}");
    }
}
