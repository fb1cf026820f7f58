//! Merges nodes that say the same, of one document or of two.

use std::collections::HashMap;

use super::node::{Id, Node};

/// The most rounds. Nodes that are not told apart by then stay apart.
const MAX_ROUNDS: usize = 60;
/// The most nodes in circles that are merged.
const MAX_IN_CIRCLES: usize = 1_000;

/// Returns the nodes of these documents, each once, and the root of each document. A document is given with its root.
///
/// Nodes that lead to themselves are taken for the same until they are told apart: by what they say, or by a node that they lead to.
/// So documents that refer to themselves are the same if they are written the same.
pub(super) fn merge(documents: &[(&[Node], Id)]) -> (Vec<Node>, Vec<Id>) {
    let mut all = Vec::new();
    let mut roots = Vec::new();
    for (document, (nodes, root)) in documents.iter().enumerate() {
        let offset = all.len();
        roots.push(root + offset);
        all.extend(nodes.iter().cloned().map(|mut node| {
            node.renumber(|id| id + offset);
            if !node.mark.is_empty() {
                node.mark.push(document);
            }
            node
        }));
    }
    let mut merged = Merged { classes: vec![None; all.len()], known: HashMap::new() };
    merged.merge_trees(&all);
    merged.merge_circles(&all);
    let Merged { classes, known } = merged;
    let class = |id: Id| classes[id].unwrap_or(id);
    let mut nodes: Vec<(Node, Id)> = known.into_iter().collect();
    nodes.sort_by_key(|(_, class)| *class);
    (nodes.into_iter().map(|(node, _)| node).collect(), roots.into_iter().map(class).collect())
}

/// Nodes that are told apart, by what they say in terms of others.
struct Merged {
    /// The class of each node. `None` if it is not known yet.
    classes: Vec<Option<Id>>,
    known: HashMap<Node, Id>,
}

impl Merged {
    /// Merges all nodes that lead to no circle, from the leaves on.
    fn merge_trees(&mut self, all: &[Node]) {
        let mut users: Vec<Vec<Id>> = vec![Vec::new(); all.len()];
        let mut waiting = vec![0_usize; all.len()];
        for (id, node) in all.iter().enumerate() {
            for used in node.used() {
                users[used].push(id);
                waiting[id] += 1;
            }
        }
        let mut done: Vec<Id> = (0..all.len()).filter(|id| waiting[*id] == 0).collect();
        while let Some(id) = done.pop() {
            let mut node = all[id].clone();
            node.renumber(|id| self.classes[id].unwrap_or(id));
            let new = self.known.len();
            self.classes[id] = Some(*self.known.entry(node).or_insert(new));
            for user in &users[id] {
                waiting[*user] -= 1;
                if waiting[*user] == 0 {
                    done.push(*user);
                }
            }
        }
    }

    /// Merges the others: they are taken for the same until they are told apart.
    fn merge_circles(&mut self, all: &[Node]) {
        let others: Vec<Id> = (0..all.len()).filter(|id| self.classes[*id].is_none()).collect();
        let first = self.known.len();
        let in_classes = |id: Id, classes: &[Option<Id>]| {
            let mut node = all[id].clone();
            node.renumber(|id| classes[id].unwrap_or(first));
            node
        };
        let rounds = if others.len() <= MAX_IN_CIRCLES { MAX_ROUNDS } else { 0 };
        let (mut classes, mut count) = (self.classes.clone(), 0);
        for _ in 0..rounds {
            let mut known: HashMap<Node, Id> = HashMap::new();
            let mut next = self.classes.clone();
            for id in &others {
                let new = first + known.len();
                next[*id] = Some(*known.entry(in_classes(*id, &classes)).or_insert(new));
            }
            classes = next;
            if known.len() == count {
                self.classes = classes;
                self.known.extend(known);
                return;
            }
            count = known.len();
        }
        for (at, id) in others.iter().enumerate() {
            self.classes[*id] = Some(first + at);
        }
        // Nodes that stay apart may say the same.
        for id in &others {
            let mut node = in_classes(*id, &self.classes);
            node.mark.extend([usize::MAX, self.classes[*id].unwrap_or(0)]);
            self.known.extend(self.classes[*id].map(|class| (node, class)));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::contract::read::read;

    use super::*;

    fn merged(documents: &[&str]) -> (usize, Vec<Id>) {
        let nodes: Vec<Vec<Node>> = documents.iter().map(|json| read(json.as_bytes()).expect("a schema")).collect();
        let (nodes, roots) = merge(&nodes.iter().map(|nodes| (nodes.as_slice(), 0)).collect::<Vec<_>>());
        (nodes.len(), roots)
    }

    #[test]
    fn what_says_the_same_is_one_node() {
        let (nodes, roots) = merged(&[
            r##"{"properties": {"next": {"$ref": "#"}, "a": {"type": "string"}}}"##,
            r##"{"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"next": {"$ref": "#/$defs/x"}, "a": {"type": "string", "title": "A"}}}}}"##,
        ]);
        assert_eq!((nodes, roots.len()), (3, 2));
        let list = r##"{"properties": {"next": {"$ref": "#"}}, "required": ["x"]}"##;
        let (nodes, roots) = merged(&[list, list, r##"{"properties": {"next": {"$ref": "#"}}, "required": ["y"]}"##]);
        assert_eq!((nodes, roots[0] == roots[1], roots[0] == roots[2]), (4, true, false));
    }
}
