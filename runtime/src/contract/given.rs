//! What a schema gives: objects with the properties that it names, and with others only if it says so.
//!
//! Schemas of types leave `additionalProperties` out, and a task gives no property all the same that its type does not have. So an
//! object of which a schema names properties is read as closed, as long as nothing there is about properties that have no name.

use std::collections::{BTreeSet, HashMap};

use super::kinds::Kinds;
use super::node::{Id, Node};

/// How a node is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Mode {
    /// As it is written.
    Open,
    /// With the parts of a value closed.
    Parts,
    /// With the value closed too: it has at most these properties, and those that the node names.
    Closed(BTreeSet<String>),
}

/// Returns nodes that say what a schema gives, if a value fits the schema too. The root comes first.
pub(super) fn given(nodes: &[Node], root: Id) -> Vec<Node> {
    let mut closing = Closing { nodes, ids: HashMap::new(), due: Vec::new(), new: Vec::new() };
    closing.id_of(root, Mode::Closed(BTreeSet::new()));
    while let Some((id, mode, new)) = closing.due.pop() {
        let node = match mode {
            Mode::Open => closing.with(id, &Mode::Open),
            Mode::Parts => closing.with(id, &Mode::Parts),
            Mode::Closed(names) => closing.closed(id, names),
        };
        closing.new[new] = node;
    }
    closing.new
}

/// Makes nodes anew, each in the ways in which it is read.
struct Closing<'a> {
    nodes: &'a [Node],
    ids: HashMap<(Id, Mode), Id>,
    due: Vec<(Id, Mode, Id)>,
    new: Vec<Node>,
}

impl Closing<'_> {
    fn id_of(&mut self, id: Id, mode: Mode) -> Id {
        let next = self.new.len();
        let new = *self.ids.entry((id, mode.clone())).or_insert(next);
        if new == next {
            self.new.push(Node::default());
            self.due.push((id, mode, new));
        }
        new
    }

    /// Returns a node with the same value read in this mode, and its parts as the mode says.
    fn with(&mut self, id: Id, mode: &Mode) -> Node {
        let mut node = self.nodes[id].clone();
        let part = if *mode == Mode::Open { Mode::Open } else { Mode::Closed(BTreeSet::new()) };
        let (list, object, logic) = (&mut node.list, &mut node.object, &mut node.logic);
        let maps = object.properties.values_mut().chain(object.patterns.values_mut());
        for id in list.prefix.iter_mut().chain(&mut list.rest).chain(&mut object.others).chain(maps) {
            *id = self.id_of(*id, part.clone());
        }
        let several = logic.any.iter_mut().chain(&mut logic.one).flatten();
        for id in logic.all.iter_mut().chain(several).chain(object.schemas.values_mut()) {
            *id = self.id_of(*id, mode.clone());
        }
        // What is only asked about a value is read as it is written.
        for id in [&mut list.contains, &mut object.names, &mut logic.not].into_iter().flatten() {
            *id = self.id_of(*id, Mode::Open);
        }
        if let Some((when, then, other)) = &mut logic.condition {
            *when = self.id_of(*when, Mode::Open);
            for id in [then, other].into_iter().flatten() {
                *id = self.id_of(*id, mode.clone());
            }
        }
        node
    }

    /// Returns a node with its value closed, or that of each of the schemas it may fit.
    fn closed(&mut self, id: Id, mut names: BTreeSet<String>) -> Node {
        let mut node = self.with(id, &Mode::Parts);
        let original = &self.nodes[id];
        let several: BTreeSet<Id> = original.logic.any.iter().chain(&original.logic.one).flatten().copied().collect();
        let others: BTreeSet<Id> = original.in_place().filter(|id| !several.contains(id)).collect();
        let is_open = says_of_others(original)
            || others.iter().any(|id| self.alongside(*id).iter().any(|id| says_of_others(&self.nodes[*id])));
        names.extend(original.object.properties.keys().cloned());
        for id in &others {
            names.extend(self.names(*id));
        }
        if is_open {
            return node;
        }
        if several.is_empty() {
            if !names.is_empty() && node.kinds.meets(Kinds::OBJECT) {
                self.close(&mut node, names);
            }
            return node;
        }
        let lists = [original.logic.any.clone(), original.logic.one.clone()];
        for at in 0..lists.len() {
            let Some(list) = &lists[at] else { continue };
            let mut inherited = names.clone();
            for id in lists[1 - at].iter().flatten() {
                inherited.extend(self.names(*id));
            }
            let closed: Vec<Id> = list.iter().map(|id| self.id_of(*id, Mode::Closed(inherited.clone()))).collect();
            // Closed schemas overlap less than they do as written, against which a value is held too. One of them must do.
            if at == 0 {
                node.logic.any = Some(closed);
            } else {
                node.logic.one = None;
                self.new.push(Node {
                    logic: super::node::Logic { any: Some(closed), ..Default::default() },
                    ..Node::default()
                });
                node.logic.all.push(self.new.len() - 1);
            }
        }
        node
    }

    /// Lets objects have no other properties.
    fn close(&mut self, node: &mut Node, names: BTreeSet<String>) {
        self.new.extend([Node::default(), Node::nothing()]);
        let (anything, nothing) = (self.new.len() - 2, self.new.len() - 1);
        for name in names {
            node.object.properties.entry(name).or_insert(anything);
        }
        node.object.others = Some(nothing);
    }

    /// Returns a node and all that the same value is held against.
    fn alongside(&self, id: Id) -> BTreeSet<Id> {
        let (mut all, mut due) = (BTreeSet::new(), vec![id]);
        while let Some(id) = due.pop() {
            if all.insert(id) {
                due.extend(self.nodes[id].in_place());
            }
        }
        all
    }

    /// Returns the names of all properties that a node names.
    fn names(&self, id: Id) -> BTreeSet<String> {
        self.alongside(id).into_iter().flat_map(|id| self.nodes[id].object.properties.keys().cloned()).collect()
    }
}

/// Returns `true` if a node is about properties that have no name in it.
fn says_of_others(node: &Node) -> bool {
    let object = &node.object;
    let is_unknown = node.unknown.iter().any(|(kinds, _)| kinds.meets(Kinds::OBJECT));
    object.others.is_some()
        || !object.patterns.is_empty()
        || object.names.is_some()
        || object.size.least > 0
        || is_unknown
}
