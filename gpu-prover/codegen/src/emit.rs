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

use crate::dag::{Dag, Id, Input, Node};

/// A factor of a product that fits 16 bits enters the accumulator with two multiply-adds instead of four.
const SMALL: u64 = 1 << 16;

/// Writes the statements of one kernel's row function.
#[derive(Debug)]
pub struct Emitter<'a> {
    dag: &'a Dag,
    keep: HashSet<Id>,
    kept: HashMap<Id, String>,
    local: HashMap<Id, String>,
    forms: HashMap<(Id, Form), String>,
    uses: HashMap<Id, usize>,
    counter: usize,
    body: String,
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
            counter: 0,
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
        writeln!(self.body, "    {text}").expect("writing to a string does not fail");
    }

    fn fresh(&mut self) -> String {
        self.counter += 1;
        format!("v{}", self.counter)
    }

    /// Whether a node may be dissolved into the sum above it.
    fn dissolves(&self, id: Id) -> bool {
        let known = self.kept.contains_key(&id) || self.local.contains_key(&id);
        !known && !self.keep.contains(&id) && self.uses.get(&id).copied().unwrap_or(0) <= 1
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
        if let Some(name) = self.kept.get(&id).or_else(|| self.local.get(&id)) {
            return name.clone();
        }
        let name = match self.dag.node(id) {
            Node::Constant(_) | Node::Challenge(_) => return self.operand(id),
            Node::Input(input) => {
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
        let scope = if self.keep.contains(&id) { &mut self.kept } else { &mut self.local };
        scope.insert(id, name.clone());
        name
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
    fn sum(&mut self, terms: &[Term], extension: bool) -> String {
        // Operands first: their statements must stand before the accumulator's.
        let mut constant = BFieldElement::new(0);
        let mut steps = vec![];
        let mut subtractions = 0;
        let mut products = false;
        for &term in terms {
            match term {
                Term::Single { negative, value } => {
                    if let Some(c) = self.dag.constant(value) {
                        constant += if negative { -c } else { c };
                        continue;
                    }
                    subtractions += usize::from(negative);
                    let x = self.dag.is_extension(value);
                    steps.push((if negative { "sub" } else { "add" }, x, self.operand(value)));
                }
                Term::Product { negative, left, right } => {
                    products = true;
                    steps.push(self.product(negative, left, right));
                }
            }
        }
        if constant.value() != 0 {
            steps.push(("add", false, literal(constant)));
        }

        let name = self.fresh();
        let (kind, prefix) = match (extension, products) {
            (false, false) => ("Sum", "sum"),
            (false, true) => ("Acc", "acc"),
            (true, false) => ("SumX", "sumx"),
            (true, true) => ("AccX", "accx"),
        };
        self.line(&format!("{kind} s{name} = {prefix}_zero({subtractions});"));
        for (operation, of_extension, arguments) in steps {
            // A base field summand of an extension field sum only meets its lowest coefficient.
            let (prefix, target) = match (extension, of_extension) {
                (true, false) => (if products { "acc" } else { "sum" }, format!("s{name}.c0")),
                _ => (prefix, format!("s{name}")),
            };
            self.line(&format!("{prefix}_{operation}({target}, {arguments});"));
        }
        let result = if extension { "X" } else { "u64" };
        self.line(&format!("{result} {name} = {prefix}_value(s{name});"));
        name
    }

    /// One product as (operation, whether it is of the extension field, arguments).
    fn product(&mut self, negative: bool, left: Id, right: Id) -> (&'static str, bool, String) {
        // The factor of lower rank first: constant, base, extension; a challenge last.
        let (a, b) = if self.rank(left) <= self.rank(right) { (left, right) } else { (right, left) };
        match (self.dag.is_extension(a), self.dag.is_extension(b)) {
            (false, false) => match self.dag.constant(a) {
                Some(c) => {
                    let c = if negative { -c } else { c };
                    let value = self.operand(b);
                    if c.value() < SMALL {
                        ("mul_small", false, format!("{value}, {}u", c.value()))
                    } else {
                        ("mul", false, format!("{value}, {}", literal(c)))
                    }
                }
                None => {
                    let a = if negative { self.form(a, Form::Negated) } else { self.operand(a) };
                    let b = self.operand(b);
                    ("mul", false, format!("{a}, {b}"))
                }
            },
            (false, true) => {
                let factor = match self.dag.constant(a) {
                    Some(c) => literal(if negative { -c } else { c }),
                    None if negative => self.form(a, Form::Negated),
                    None => self.operand(a),
                };
                let value = self.operand(b);
                ("mul_base", true, format!("{value}, {factor}"))
            }
            _ => {
                let value = if negative { self.form(a, Form::Negated) } else { self.operand(a) };
                let matrix = match self.dag.node(b) {
                    Node::Challenge(i) => format!("challenge({i})"),
                    _ => self.form(b, Form::Matrix),
                };
                ("mul", true, format!("{value}, {matrix}"))
            }
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
        if let Some(name) = self.forms.get(&(id, form)) {
            return name.clone();
        }
        let value = self.operand(id);
        let name = self.fresh();
        let statement = match (form, self.dag.is_extension(id)) {
            (Form::Matrix, _) => format!("XMat {name} = x_matrix({value});"),
            (Form::Negated, true) => format!("X {name} = x_neg_any({value});"),
            (Form::Negated, false) => format!("u64 {name} = neg_any({value});"),
        };
        self.line(&statement);
        self.forms.insert((id, form), name.clone());
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

/// A constant in Montgomery form.
fn literal(c: BFieldElement) -> String {
    format!("{:#x}ull", c.raw_u64())
}

fn load(input: Input) -> String {
    let table = if input.aux { "aux" } else { "main" };
    let row = if input.next { "next" } else { "here" };
    format!("{table}_{row}({})", input.column)
}
