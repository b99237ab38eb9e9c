//! From graph to straight-line C++ for one row.
//!
//! Two ideas carry the speed. A sum of products is never reduced term by term: it goes into one 160-bit accumulator
//! (`accumulator.cuh`). And only what is expensive *and* shared by several constraints stays in registers; everything
//! else is computed or loaded again where it is needed, because a register held costs more than a product.
//!
//! Every value is "any" in the sense of `goldilocks.cuh` (below 2^64, congruent), so no term needs a correction.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use twenty_first::prelude::BFieldElement;

use crate::cluster::cost;
use crate::dag::{Dag, Id, Input, Node};

/// A factor of a product that fits 16 bits enters the accumulator with two multiply-adds instead of four.
const SMALL: u64 = 1 << 16;

/// The statement between two loads of one value that are not to become one.
pub const KEEP_APART: &str = "AIR_APART;";

/// Lines over which a cheap value is held.
const WINDOW: usize = 24;

/// Estimated instructions up to which a value is cheap. Loads are.
const CHEAP: usize = 24;

/// Registers that the operands of one group of summands may take.
const GROUP_REGISTERS: usize = 36;

/// Nodes below an operand from which on it is dear.
const DEAR: usize = 8;

/// Writes the statements of one kernel's row function.
#[derive(Debug)]
pub struct Emitter<'a> {
    dag: &'a Dag,
    keep: HashSet<Id>,
    kept: HashMap<Id, String>,
    local: HashMap<Id, Held>,
    forms: HashMap<(Id, Form), Held>,
    uses: HashMap<Id, usize>,
    /// Loaded since the last line that keeps loads apart.
    loaded: HashSet<Id>,
    counter: usize,
    lines: usize,
    body: String,
}

/// A variable and the line after which it was last wanted.
#[derive(Debug, Clone)]
struct Held {
    name: String,
    line: usize,
}

/// A derived form of a value that is worth a variable of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Negated,
    Matrix,
}

/// A flattened summand.
#[derive(Debug, Clone, Copy)]
enum Term {
    Single { negative: bool, value: Id },
    Product { negative: bool, left: Id, right: Id },
}

impl<'a> Emitter<'a> {
    /// An emitter that holds the nodes in `keep` in variables from their first use to the end of the kernel.
    pub fn new(dag: &'a Dag, keep: HashSet<Id>) -> Self {
        Self {
            dag,
            keep,
            kept: HashMap::new(),
            local: HashMap::new(),
            forms: HashMap::new(),
            uses: HashMap::new(),
            loaded: HashSet::new(),
            counter: 0,
            lines: 0,
            body: String::new(),
        }
    }

    /// The statements so far.
    pub fn into_body(self) -> String {
        self.body
    }

    /// Adds `weight * root` to the variable `total`. `weight` indexes the module's table of constants.
    pub fn weighted_constraint(&mut self, root: Id, weight: usize) {
        self.scope(&[root]);
        let value = self.materialize(root);
        if self.dag.is_extension(root) {
            self.line(&format!("accx_mul(total, {value}, air_constants[{weight}]);"));
        } else {
            self.line(&format!("accx_mul_weight(total, {value}, air_constants[{weight}]);"));
        }
    }

    /// Adds `weight` times the sum of some of a constraint's terms to `total`.
    pub fn weighted_terms(&mut self, terms: &[SplitTerm], weight: usize) {
        let operands: Vec<Id> = terms.iter().flat_map(SplitTerm::operands).collect();
        self.scope(&operands);
        let terms: Vec<Term> = terms.iter().map(|t| t.0).collect();
        let value = self.sum(&terms, true);
        self.line(&format!("accx_mul(total, {value}, air_constants[{weight}]);"));
    }

    /// Stores a derived column and lets later columns of the same row read it from its variable.
    pub fn derived_column(&mut self, root: Id, column: usize) {
        self.scope(&[root]);
        let value = self.operand(root);
        let extension = self.dag.is_extension(root);
        let store = if extension { "store_aux" } else { "store_main" };
        self.line(&format!("{store}({column}, {value});"));
    }

    /// Forget what is held only for one constraint, and count how often the next one uses each node.
    fn scope(&mut self, roots: &[Id]) {
        self.local.clear();
        self.forms.clear();
        self.uses.clear();
        for &root in roots {
            *self.uses.entry(root).or_default() += 1;
        }
        for id in self.dag.reachable(roots) {
            if let Node::Add(a, b) | Node::Mul(a, b) = self.dag.node(id) {
                *self.uses.entry(a).or_default() += 1;
                *self.uses.entry(b).or_default() += 1;
            }
        }
    }

    fn line(&mut self, text: &str) {
        self.lines += 1;
        writeln!(self.body, "    {text}").expect("writing to a string does not fail");
    }

    fn fresh(&mut self) -> String {
        self.counter += 1;
        format!("v{}", self.counter)
    }

    /// Whether a node may be dissolved into the sum above it. A column times a challenge may wherever it stands: as a product
    /// in an accumulator it costs less than its value does, reduced once and added twice.
    fn dissolves(&self, id: Id) -> bool {
        let known = self.kept.contains_key(&id) || self.local.contains_key(&id);
        !known && !self.keep.contains(&id) && (self.uses.get(&id).copied().unwrap_or(0) <= 1 || self.is_challenged_column(id))
    }

    fn is_challenged_column(&self, id: Id) -> bool {
        let Node::Mul(a, b) = self.dag.node(id) else { return false };
        let is_column = |id| matches!(self.dag.node(id), Node::Input(input) if !input.aux);
        let is_challenge = |id| matches!(self.dag.node(id), Node::Challenge(_));
        (is_column(a) && is_challenge(b)) || (is_challenge(a) && is_column(b))
    }

    /// The text of a value: a variable, a literal, a challenge.
    fn operand(&mut self, id: Id) -> String {
        match self.dag.node(id) {
            Node::Constant(c) => literal(c),
            Node::Challenge(i) => format!("challenge_value({i})"),
            _ => self.materialize(id),
        }
    }

    /// The variable that holds a node's value, computed now if it is not there.
    fn materialize(&mut self, id: Id) -> String {
        if let Some(name) = self.kept.get(&id) {
            return name.clone();
        }
        if let Some(name) = self.held(id).map(|held| held.name.clone()) {
            self.local.insert(id, Held { name: name.clone(), line: self.lines });
            return name;
        }
        let name = match self.dag.node(id) {
            Node::Constant(_) | Node::Challenge(_) => return self.operand(id),
            Node::Input(input) => {
                if !self.loaded.insert(id) {
                    // Else ptxas merges this load with the one before and holds, or spills, the value in between.
                    self.line(KEEP_APART);
                    self.loaded = HashSet::from([id]);
                }
                let name = self.fresh();
                let kind = if input.aux { "X" } else { "u64" };
                self.line(&format!("{kind} {name} = {};", load(input)));
                name
            }
            Node::Add(..) | Node::Mul(..) => {
                let mut terms = vec![];
                self.flatten(id, false, true, &mut terms);
                self.sum(&terms, self.dag.is_extension(id))
            }
        };
        if self.keep.contains(&id) {
            self.kept.insert(id, name.clone());
        } else {
            self.local.insert(id, Held { name: name.clone(), line: self.lines });
        }
        name
    }

    /// The variable that holds a value of this constraint, unless the value is cheap and was last wanted long ago.
    fn held(&self, id: Id) -> Option<&Held> {
        self.local.get(&id).filter(|held| self.lines < held.line + WINDOW || !self.is_cheap(id))
    }

    /// Whether a value is computed or loaded again rather than held over many lines.
    fn is_cheap(&self, id: Id) -> bool {
        cost(self.dag, &self.dag.reachable(&[id])) <= CHEAP
    }

    fn flatten(&self, id: Id, negative: bool, root: bool, terms: &mut Vec<Term>) {
        match self.dag.node(id) {
            Node::Add(a, b) if root || self.dissolves(id) => {
                self.flatten(a, negative, false, terms);
                self.flatten(b, negative, false, terms);
            }
            Node::Mul(a, b) if self.is_minus_one(a) => self.flatten(b, !negative, false, terms),
            Node::Mul(a, b) if self.is_minus_one(b) => self.flatten(a, !negative, false, terms),
            Node::Mul(left, right) if root || self.dissolves(id) => terms.push(Term::Product { negative, left, right }),
            _ => terms.push(Term::Single { negative, value: id }),
        }
    }

    fn is_minus_one(&self, id: Id) -> bool {
        self.dag.constant(id) == Some(-BFieldElement::new(1))
    }

    /// Emits a sum and returns its variable.
    ///
    /// Terms go into the accumulator in groups: all operands of a group first, so that their loads are under way
    /// together, then their steps. A group ends when its operands fill [`GROUP_REGISTERS`], or with a dear one. Dear operands
    /// come first.
    fn sum(&mut self, terms: &[Term], extension: bool) -> String {
        let mut constant = BFieldElement::new(0);
        let mut rest = vec![];
        for &term in terms {
            match term {
                Term::Single { negative, value } if self.dag.constant(value).is_some() => {
                    let c = self.dag.constant(value).unwrap_or_default();
                    constant += if negative { -c } else { c };
                }
                _ => rest.push(term),
            }
        }
        let subtractions = rest.iter().filter(|t| matches!(t, Term::Single { negative: true, .. })).count();
        let products = rest.iter().any(|t| matches!(t, Term::Product { .. }));
        let mut keyed: Vec<(usize, Term)> = rest.into_iter().map(|t| (self.dearest_operand(t), t)).collect();
        keyed.sort_by_key(|&(cost, _)| std::cmp::Reverse(cost));

        let name = self.fresh();
        let (kind, prefix) = match (extension, products) {
            (false, false) => ("Sum", "sum"),
            (false, true) => ("Acc", "acc"),
            (true, false) => ("SumX", "sumx"),
            (true, true) => ("AccX", "accx"),
        };
        let mut declared = false;
        let mut group = vec![];
        let mut registers = 0;
        let mut terms = keyed.into_iter().map(|(_, term)| term).peekable();
        loop {
            let next = terms.next();
            // What takes an accumulator of its own is not held beside others: it goes in at once.
            let is_dear = next.is_some_and(|term| self.dearest_operand(term) > DEAR);
            if let Some(term) = next {
                registers += self.held_registers(term);
                group.push(match term {
                    Term::Single { negative, value } => {
                        let operation = if negative { "sub" } else { "add" };
                        (operation, self.dag.is_extension(value), self.operand(value))
                    }
                    Term::Product { negative, left, right } => self.product(negative, left, right),
                });
            } else if constant.value() != 0 {
                group.push(("add", false, literal(constant)));
            }
            if next.is_some() && registers < GROUP_REGISTERS && terms.peek().is_some() && !is_dear {
                continue;
            }
            if !std::mem::replace(&mut declared, true) {
                self.line(&format!("{kind} s{name} = {prefix}_zero({subtractions});"));
            }
            for (operation, of_extension, arguments) in group.drain(..) {
                // A base field summand of an extension field sum only meets its lowest coefficient.
                let (prefix, target) = match (extension, of_extension) {
                    (true, false) => (if products { "acc" } else { "sum" }, format!("s{name}.c0")),
                    _ => (prefix, format!("s{name}")),
                };
                self.line(&format!("{prefix}_{operation}({target}, {arguments});"));
            }
            registers = 0;
            if next.is_none() {
                break;
            }
        }
        let result = if extension { "X" } else { "u64" };
        self.line(&format!("{result} {name} = {prefix}_value(s{name});"));
        name
    }

    fn operands(term: Term) -> [Option<Id>; 2] {
        match term {
            Term::Single { value, .. } => [Some(value), None],
            Term::Product { left, right, .. } => [Some(left), Some(right)],
        }
    }

    /// Nodes below a term's operands, a measure of what computing them takes.
    fn dearest_operand(&self, term: Term) -> usize {
        let below = |id: Id| match self.dag.node(id) {
            Node::Add(..) | Node::Mul(..) if !self.kept.contains_key(&id) && !self.local.contains_key(&id) => {
                self.dag.reachable(&[id]).len()
            }
            _ => 0,
        };
        Self::operands(term).into_iter().flatten().map(below).max().unwrap_or(0)
    }

    /// Registers that a term's operands take until they are accumulated, beyond those that are held anyway.
    fn held_registers(&self, term: Term) -> usize {
        let held = |id: Id| match self.dag.node(id) {
            Node::Constant(_) | Node::Challenge(_) => 0,
            _ if self.kept.contains_key(&id) || self.held(id).is_some() => 0,
            _ if self.dag.is_extension(id) => 6,
            _ => 2,
        };
        Self::operands(term).into_iter().flatten().map(held).sum()
    }

    /// One product as (operation, whether it is of the extension field, arguments).
    fn product(&mut self, negative: bool, left: Id, right: Id) -> (&'static str, bool, String) {
        // The factor of lower rank first: constant, base, extension; a challenge last.
        let (a, b) = if self.rank(left) <= self.rank(right) { (left, right) } else { (right, left) };
        match (self.dag.is_extension(a), self.dag.is_extension(b)) {
            (false, false) => {
                if let Some(c) = self.dag.constant(a) {
                    let c = if negative { -c } else { c };
                    let value = self.operand(b);
                    if c.value() < SMALL {
                        ("mul_small", false, format!("{value}, {}u", c.value()))
                    } else {
                        ("mul", false, format!("{value}, {}", literal(c)))
                    }
                } else {
                    let a = if negative { self.form(a, Form::Negated) } else { self.operand(a) };
                    let b = self.operand(b);
                    ("mul", false, format!("{a}, {b}"))
                }
            }
            (false, true) => {
                let negated_challenge = self.negated_challenge(b, negative);
                let negative = negative && negated_challenge.is_none();
                let factor = match self.dag.constant(a) {
                    Some(c) => literal(if negative { -c } else { c }),
                    None if negative => self.form(a, Form::Negated),
                    None => self.operand(a),
                };
                let value = match negated_challenge {
                    Some(i) => format!("challenge_negated_value({i})"),
                    None => self.operand(b),
                };
                ("mul_base", true, format!("{value}, {factor}"))
            }
            _ => {
                let negated_challenge = self.negated_challenge(b, negative);
                let negative = negative && negated_challenge.is_none();
                let value = if negative { self.form(a, Form::Negated) } else { self.operand(a) };
                let matrix = match (negated_challenge, self.dag.node(b)) {
                    (Some(i), _) => format!("challenge_negated({i})"),
                    (None, Node::Challenge(i)) => format!("challenge({i})"),
                    _ => self.form(b, Form::Matrix),
                };
                ("mul", true, format!("{value}, {matrix}"))
            }
        }
    }

    /// The challenge whose negative stands in the table of constants, so that the other factor need not be negated.
    fn negated_challenge(&self, id: Id, negative: bool) -> Option<usize> {
        match self.dag.node(id) {
            Node::Challenge(i) if negative => Some(i),
            _ => None,
        }
    }

    fn rank(&self, id: Id) -> (u8, usize) {
        let rank = match (self.dag.node(id), self.dag.is_extension(id)) {
            (Node::Constant(_), _) => 0,
            (Node::Challenge(_), _) => 3,
            (_, false) => 1,
            (_, true) => 2,
        };
        // Of two extension field values the one that is used more often gets the matrix form, which is kept.
        (rank, self.uses.get(&id).copied().unwrap_or(0))
    }

    fn form(&mut self, id: Id, form: Form) -> String {
        if let Some(held) = self.forms.get(&(id, form))
            && self.lines < held.line + WINDOW
        {
            return held.name.clone();
        }
        // A sum that nothing else wants is made with the other sign in the first place.
        if form == Form::Negated && matches!(self.dag.node(id), Node::Add(..)) && self.dissolves(id) {
            let mut terms = vec![];
            self.flatten(id, true, true, &mut terms);
            return self.sum(&terms, self.dag.is_extension(id));
        }
        let value = self.operand(id);
        let name = self.fresh();
        let statement = match (form, self.dag.is_extension(id)) {
            (Form::Matrix, _) => format!("XMat {name} = x_matrix({value});"),
            (Form::Negated, true) => format!("X {name} = x_neg_any({value});"),
            (Form::Negated, false) => format!("u64 {name} = neg_any({value});"),
        };
        self.line(&statement);
        self.forms.insert((id, form), Held { name: name.clone(), line: self.lines });
        name
    }
}

/// One summand of a constraint that is spread over several kernels.
#[derive(Debug, Clone, Copy)]
pub struct SplitTerm(Term);

impl SplitTerm {
    /// The nodes that the term is made of.
    pub fn operands(&self) -> Vec<Id> {
        match self.0 {
            Term::Single { value, .. } => vec![value],
            Term::Product { left, right, .. } => vec![left, right],
        }
    }
}

/// The summands of a constraint, as far as sums go down.
pub fn split(dag: &Dag, root: Id) -> Vec<SplitTerm> {
    let mut emitter = Emitter::new(dag, HashSet::new());
    emitter.scope(&[root]);
    let mut terms = vec![];
    emitter.flatten(root, false, true, &mut terms);
    terms.into_iter().map(SplitTerm).collect()
}

/// A product with a sum, multiplied out as far as the sum's own summands; `None` if neither factor is a sum.
pub fn distribute(dag: &mut Dag, term: SplitTerm) -> Option<Vec<SplitTerm>> {
    let Term::Product { negative, left, right } = term.0 else { return None };
    let size = |id: Id| dag.reachable(&[id]).len();
    let (factor, sum) = if size(left) <= size(right) { (left, right) } else { (right, left) };
    if !matches!(dag.node(sum), Node::Add(..)) {
        return None;
    }
    let minus_one = dag.insert(Node::Constant(-BFieldElement::new(1)));
    let terms = split(dag, sum);
    let product = |summand: SplitTerm, dag: &mut Dag| {
        let (flip, value) = match summand.0 {
            Term::Single { negative, value } => (negative, value),
            Term::Product { negative, left, right } => (negative, dag.mul(left, right)),
        };
        // A constant summand times an extension factor would be a product of a constant: fold the sign into it.
        match dag.constant(value) {
            Some(_) if flip => Term::Product { negative, left: factor, right: dag.mul(minus_one, value) },
            _ => Term::Product { negative: negative != flip, left: factor, right: value },
        }
    };
    Some(terms.into_iter().map(|summand| SplitTerm(product(summand, dag))).collect())
}

/// A constant in Montgomery form.
fn literal(c: BFieldElement) -> String {
    format!("{:#x}ull", c.raw_u64())
}

fn load(input: Input) -> String {
    let table = if input.aux { "aux" } else { "main" };
    let row = if input.next { "next" } else { "here" };
    format!("{table}_{row}({})", input.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_reduced_once() {
        let mut dag = Dag::default();
        let mut input = |column| dag.insert(Node::Input(Input { aux: false, next: false, column }));
        let (a, b, c, d) = (input(0), input(1), input(2), input(3));
        let (left, right) = (dag.mul(a, b), dag.mul(c, d));
        let root = dag.add(left, right);
        let mut emitter = Emitter::new(&dag, HashSet::new());
        emitter.weighted_constraint(root, 63);
        let body = emitter.into_body();
        assert_eq!(body.matches("acc_value").count(), 1);
        assert_eq!(body.matches("acc_mul(").count(), 2);
        assert_eq!(body.matches("accx_mul_weight(total").count(), 1);
    }
}
