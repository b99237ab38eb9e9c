//! Arithmetic circuits as one hash-consed graph.
//!
//! The crate's four constraint sets are four separate circuits with reference-counted nodes. Here they share nodes, so
//! that a sub-expression that two constraints have in common is one node whatever circuit it came from.

use std::collections::HashMap;

use triton_constraint_circuit::{BinOp, CircuitExpression, ConstraintCircuit, InputIndicator};
use twenty_first::prelude::BFieldElement;

/// Index of a node in a [`Dag`]. Operands always have smaller indices than what is built from them.
pub type Id = usize;

/// A table element that a circuit reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Input {
    /// In the auxiliary table (extension field), else in the main table.
    pub aux: bool,
    /// In the next row, else in the current one.
    pub next: bool,
    /// Column of that table.
    pub column: usize,
}

/// One operation or leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// A base field constant.
    Constant(BFieldElement),
    /// A table element.
    Input(Input),
    /// A verifier challenge, by index.
    Challenge(usize),
    /// A sum.
    Add(Id, Id),
    /// A product.
    Mul(Id, Id),
}

/// A graph of nodes in which equal nodes are one.
#[derive(Debug, Default)]
pub struct Dag {
    nodes: Vec<Node>,
    extension: Vec<bool>,
    index: HashMap<Node, Id>,
}

impl Dag {
    /// The node behind an id.
    pub fn node(&self, id: Id) -> Node {
        self.nodes[id]
    }

    /// Whether the node's value lies in the extension field.
    pub fn is_extension(&self, id: Id) -> bool {
        self.extension[id]
    }

    /// The constant behind an id, if it is one.
    pub fn constant(&self, id: Id) -> Option<BFieldElement> {
        match self.nodes[id] {
            Node::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// The id of a node, new if it was not there.
    pub fn insert(&mut self, node: Node) -> Id {
        if let Some(&id) = self.index.get(&node) {
            return id;
        }
        let extension = match node {
            Node::Constant(_) => false,
            Node::Input(input) => input.aux,
            Node::Challenge(_) => true,
            Node::Add(a, b) | Node::Mul(a, b) => self.extension[a] || self.extension[b],
        };
        let id = self.nodes.len();
        self.nodes.push(node);
        self.extension.push(extension);
        self.index.insert(node, id);
        id
    }

    /// A sum, with the operands in canonical order and constants folded.
    pub fn add(&mut self, a: Id, b: Id) -> Id {
        match (self.constant(a), self.constant(b)) {
            (Some(x), Some(y)) => self.insert(Node::Constant(x + y)),
            (Some(x), None) if x.value() == 0 => b,
            (None, Some(y)) if y.value() == 0 => a,
            _ => self.insert(Node::Add(a.min(b), a.max(b))),
        }
    }

    /// A product, with the operands in canonical order and constants folded.
    pub fn mul(&mut self, a: Id, b: Id) -> Id {
        match (self.constant(a), self.constant(b)) {
            (Some(x), Some(y)) => self.insert(Node::Constant(x * y)),
            (Some(x), None) if x.value() == 1 => b,
            (None, Some(y)) if y.value() == 1 => a,
            (Some(x), None) if x.value() == 0 => a,
            (None, Some(y)) if y.value() == 0 => b,
            _ => self.insert(Node::Mul(a.min(b), a.max(b))),
        }
    }

    /// Copies a circuit in, sharing nodes with what is there.
    ///
    /// # Panics
    /// If the circuit holds an extension field constant that is no base field element. Triton VM's have none; a proof
    /// system that had would need another kind of leaf.
    pub fn import<I: InputIndicator>(&mut self, circuit: &ConstraintCircuit<I>, seen: &mut HashMap<u64, Id>) -> Id {
        if let Some(&id) = seen.get(&circuit.id) {
            return id;
        }
        let id = match &circuit.expression {
            CircuitExpression::BConst(c) => self.insert(Node::Constant(*c)),
            CircuitExpression::XConst(c) => {
                self.insert(Node::Constant(c.unlift().expect("constants of the AIR lie in the base field")))
            }
            CircuitExpression::Input(input) => self.insert(Node::Input(Input {
                aux: !input.is_main_table_column(),
                next: !input.is_current_row(),
                column: input.column(),
            })),
            CircuitExpression::Challenge(index) => self.insert(Node::Challenge(*index)),
            CircuitExpression::BinOp(op, left, right) => {
                let left = self.import(&left.borrow(), seen);
                let right = self.import(&right.borrow(), seen);
                match op {
                    BinOp::Add => self.add(left, right),
                    BinOp::Mul => self.mul(left, right),
                }
            }
        };
        seen.insert(circuit.id, id);
        id
    }

    /// All nodes below and including `roots`, in rising order (operands first).
    pub fn reachable(&self, roots: &[Id]) -> Vec<Id> {
        let mut marked = vec![false; self.nodes.len()];
        let mut stack = roots.to_vec();
        while let Some(id) = stack.pop() {
            if !std::mem::replace(&mut marked[id], true)
                && let Node::Add(a, b) | Node::Mul(a, b) = self.nodes[id]
            {
                stack.extend([a, b]);
            }
        }
        (0..self.nodes.len()).filter(|&id| marked[id]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_expressions_are_one_node() {
        let mut dag = Dag::default();
        let x = dag.insert(Node::Input(Input { aux: false, next: false, column: 3 }));
        let y = dag.insert(Node::Challenge(1));
        let (a, b) = (dag.mul(x, y), dag.mul(y, x));
        assert_eq!(a, b);
        assert!(dag.is_extension(a) && !dag.is_extension(x));
        assert_eq!(dag.reachable(&[a]), [x, y, a]);
    }

    #[test]
    fn constants_fold() {
        let mut dag = Dag::default();
        let x = dag.insert(Node::Challenge(0));
        let one = dag.insert(Node::Constant(BFieldElement::new(1)));
        let minus_one = dag.insert(Node::Constant(-BFieldElement::new(1)));
        let zero = dag.add(one, minus_one);
        assert_eq!(dag.constant(zero), Some(BFieldElement::new(0)));
        assert_eq!(dag.add(x, zero), x);
        assert_eq!(dag.mul(x, one), x);
        assert_eq!(dag.mul(x, zero), zero);
    }
}
