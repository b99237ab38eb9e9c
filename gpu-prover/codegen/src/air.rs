//! Triton VM's AIR and degree-lowering rules, from triton-constraint-builder.

use std::collections::HashMap;

use triton_constraint_builder::Constraints;
use triton_constraint_circuit::{CircuitExpression, ConstraintCircuit, ConstraintCircuitMonad, InputIndicator};

use crate::dag::{Dag, Id};

/// One constraint with the index of its weight.
#[derive(Debug, Clone, Copy)]
pub struct Constraint {
    /// The polynomial that vanishes.
    pub root: Id,
    /// Its place in the order initial, consistency, transition, terminal; in each, base field constraints first.
    pub weight: usize,
}

/// A column that degree lowering adds, and what it is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Derived {
    /// Column in the main or auxiliary table.
    pub column: usize,
    /// The value.
    pub root: Id,
}

/// Everything that is generated from.
#[derive(Debug)]
pub struct Air {
    /// The graph that all ids below point into.
    pub dag: Dag,
    /// Constraints on the first row.
    pub initial: Vec<Constraint>,
    /// Constraints on every row.
    pub consistency: Vec<Constraint>,
    /// Constraints on pairs of consecutive rows.
    pub transition: Vec<Constraint>,
    /// Constraints on the last row.
    pub terminal: Vec<Constraint>,
    /// Derived main columns that depend on one row.
    pub main_single: Vec<Derived>,
    /// Derived main columns that depend on two rows; 0 in the last row.
    pub main_dual: Vec<Derived>,
    /// Derived auxiliary columns, all of two rows; 0 in the last row.
    pub aux_dual: Vec<Derived>,
}

impl Air {
    /// Builds and lowers the constraints; deterministic, some seconds.
    ///
    /// # Panics
    /// If the constraints no longer have the shape that the kernels are written for: derived auxiliary columns of one
    /// row, or substitutions for terminal constraints.
    pub fn build() -> Self {
        let mut constraints = Constraints::all();
        let substitutions =
            constraints.lower_to_target_degree_through_substitutions(Constraints::default_degree_lowering_info());
        let mut dag = Dag::default();

        let (main, aux) = (&substitutions.main, &substitutions.aux);
        let first = main.lowering_info.num_main_cols;
        let mut main_single = derive(&mut dag, &main.init, first);
        main_single.extend(derive(&mut dag, &main.cons, first + main.init.len()));
        let main_dual = derive(&mut dag, &main.tran, first + main_single.len());
        let aux_dual = derive(&mut dag, &aux.tran, main.lowering_info.num_aux_cols);
        assert!(main.term.is_empty() && aux.term.is_empty(), "terminal constraints need no substitutions");
        assert!(aux.init.is_empty() && aux.cons.is_empty(), "derived auxiliary columns are all of two rows");

        let constraints = constraints.combine_with_substitution_induced_constraints(substitutions);
        let mut weight = 0;
        let initial = import(&mut dag, &constraints.init(), &mut weight);
        let consistency = import(&mut dag, &constraints.cons(), &mut weight);
        let transition = import(&mut dag, &constraints.tran(), &mut weight);
        let terminal = import(&mut dag, &constraints.term(), &mut weight);
        Self { dag, initial, consistency, transition, terminal, main_single, main_dual, aux_dual }
    }

    /// Number of constraints, and so of weights.
    pub fn num_constraints(&self) -> usize {
        self.initial.len() + self.consistency.len() + self.transition.len() + self.terminal.len()
    }
}

/// Base field constraints come before those over the extension field, as in the order of the quotients' weights.
fn import<I: InputIndicator>(dag: &mut Dag, set: &[ConstraintCircuit<I>], weight: &mut usize) -> Vec<Constraint> {
    let mut seen = HashMap::new();
    let (base, extension): (Vec<_>, Vec<_>) = set.iter().partition(|c| c.evaluates_to_base_element());
    let constraints = base.into_iter().chain(extension);
    constraints
        .map(|circuit| {
            let constraint = Constraint { root: dag.import(circuit, &mut seen), weight: *weight };
            *weight += 1;
            constraint
        })
        .collect()
}

/// A substitution arrives as the constraint `new - value`, that is `new + (-1) * value`.
fn derive<I: InputIndicator>(dag: &mut Dag, rules: &[ConstraintCircuitMonad<I>], first: usize) -> Vec<Derived> {
    // Ids are unique within one builder, which all rules of one set share.
    let mut seen = HashMap::new();
    let value_of = |rule: &ConstraintCircuitMonad<I>| {
        let circuit = rule.circuit.borrow();
        let CircuitExpression::BinOp(_, _, negated) = &circuit.expression else {
            unreachable!("a substitution rule is a sum");
        };
        let negated = negated.borrow();
        let CircuitExpression::BinOp(_, _, value) = &negated.expression else {
            unreachable!("the second summand of a substitution rule is a product with -1");
        };
        value.clone()
    };
    rules
        .iter()
        .enumerate()
        .map(|(i, rule)| Derived { column: first + i, root: dag.import(&value_of(rule).borrow(), &mut seen) })
        .collect()
}
