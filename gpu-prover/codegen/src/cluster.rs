//! Which constraints share a kernel.
//!
//! A kernel pays for each sub-expression once however many of its constraints use it, but everything it holds competes
//! for registers and instruction cache. So: constraints that share expensive sub-expressions go together, up to a size;
//! constraints that are themselves larger are cut into runs of summands; small ones fill up in table order, which keeps
//! the columns that a kernel reads close together.

use std::collections::{HashMap, HashSet};

use crate::air::Constraint;
use crate::dag::{Dag, Id, Node};
use crate::emit::{SplitTerm, distribute, split};

/// Estimated instructions of one operation on its own. Only ratios matter.
fn own_cost(dag: &Dag, id: Id) -> usize {
    let trivial = |id| matches!(dag.node(id), Node::Constant(_));
    match dag.node(id) {
        Node::Constant(_) | Node::Challenge(_) => 0,
        Node::Input(input) => {
            if input.aux {
                6
            } else {
                2
            }
        }
        Node::Add(..) => {
            if dag.is_extension(id) {
                10
            } else {
                4
            }
        }
        Node::Mul(a, b) => match (dag.is_extension(a), dag.is_extension(b)) {
            (false, false) if trivial(a) || trivial(b) => 5,
            (false, false) => 12,
            (true, true) => 90,
            _ => 40,
        },
    }
}

/// Estimated instructions of a set of nodes.
pub fn cost(dag: &Dag, nodes: &[Id]) -> usize {
    nodes.iter().map(|&id| own_cost(dag, id)).sum()
}

/// Estimated instructions that a piece takes to enter the weighted sum: its own sum's reduction and the product with a weight.
const PIECE_COST: usize = 60;

/// A constraint, or a run of a constraint's summands.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A whole constraint.
    Whole(Constraint),
    /// Some summands of a constraint with this weight.
    Part(Vec<SplitTerm>, usize),
}

impl Piece {
    fn roots(&self) -> Vec<Id> {
        match self {
            Self::Whole(constraint) => vec![constraint.root],
            Self::Part(terms, _) => terms.iter().flat_map(SplitTerm::operands).collect(),
        }
    }
}

/// The pieces of one kernel.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// What the kernel sums up.
    pub pieces: Vec<Piece>,
    /// Estimated instructions.
    pub cost: usize,
}

/// Cuts constraints into clusters of at most about `limit` estimated instructions.
pub fn clusters(dag: &mut Dag, constraints: &[Constraint], limit: usize) -> Vec<Cluster> {
    let pieces: Vec<Piece> = constraints.iter().flat_map(|&c| cut(dag, c, limit)).collect();
    let dag = &*dag;
    let sets: Vec<HashSet<Id>> = pieces.iter().map(|p| dag.reachable(&p.roots()).into_iter().collect()).collect();
    let weight = |set: &HashSet<Id>| set.iter().map(|&id| own_cost(dag, id)).sum::<usize>();

    // Agglomerate: always the two groups whose union saves most, as long as it stays below the limit.
    let mut groups: Vec<(Vec<usize>, HashSet<Id>)> = sets.into_iter().enumerate().map(|(i, s)| (vec![i], s)).collect();
    let saving = |a: &HashSet<Id>, b: &HashSet<Id>| {
        let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
        // Inputs are loaded again anyway: they only count a little, as cache lines that are already there.
        let shared = small.iter().filter(|id| large.contains(id));
        shared.map(|&id| if matches!(dag.node(id), Node::Input(_)) { 1 } else { 4 * own_cost(dag, id) }).sum::<usize>()
    };
    let mut savings: HashMap<(usize, usize), usize> = HashMap::new();
    for i in 0..groups.len() {
        for j in i + 1..groups.len() {
            savings.insert((i, j), saving(&groups[i].1, &groups[j].1));
        }
    }
    let mut alive: Vec<bool> = vec![true; groups.len()];
    loop {
        let mut candidates: Vec<_> = savings.iter().filter(|&(_, &s)| s > 0).map(|(&k, &s)| (s, k)).collect();
        // Deterministic: by saving, then by index.
        candidates.sort_by_key(|&(s, k)| (std::cmp::Reverse(s), k));
        let fits = |&(_, (i, j)): &(usize, (usize, usize))| {
            let union: HashSet<Id> = groups[i].1.union(&groups[j].1).copied().collect();
            weight(&union) + PIECE_COST * (groups[i].0.len() + groups[j].0.len()) <= limit
        };
        let Some(&(_, (i, j))) = candidates.iter().find(|c| fits(c)) else { break };
        let (members, set) = std::mem::take(&mut groups[j]);
        groups[i].0.extend(members);
        groups[i].1.extend(set);
        alive[j] = false;
        savings.retain(|&(a, b), _| a != j && b != j);
        for k in (0..groups.len()).filter(|&k| alive[k] && k != i) {
            savings.insert((i.min(k), i.max(k)), saving(&groups[i].1, &groups[k].1));
        }
    }

    let mut groups: Vec<_> = groups.into_iter().zip(alive).filter(|(_, alive)| *alive).map(|(g, _)| g).collect();
    groups.sort_by_key(|(members, _)| members.iter().min().copied());
    // What shares nothing fills up in order.
    let mut filled: Vec<(Vec<usize>, HashSet<Id>)> = vec![];
    for (members, set) in groups {
        let room = |(others, have): &(Vec<usize>, HashSet<Id>)| {
            weight(have) + weight(&set) + PIECE_COST * (others.len() + members.len()) <= limit * 3 / 4
        };
        match filled.iter_mut().find(|group| room(group)) {
            Some((m, have)) => {
                m.extend(members);
                have.extend(set);
            }
            None => filled.push((members, set)),
        }
    }
    filled
        .into_iter()
        .map(|(mut members, set)| {
            members.sort_unstable();
            let pieces: Vec<Piece> = members.iter().map(|&i| pieces[i].clone()).collect();
            let cost = weight(&set) + PIECE_COST * pieces.len();
            Cluster { pieces, cost }
        })
        .collect()
}

/// Nodes that at least two pieces use and whose sub-graph costs more than `least`: what a kernel may hold on to.
pub fn kept(dag: &Dag, pieces: &[Piece], least: usize) -> HashSet<Id> {
    let mut count: HashMap<Id, usize> = HashMap::new();
    for piece in pieces {
        for id in dag.reachable(&piece.roots()) {
            *count.entry(id).or_default() += 1;
        }
    }
    let dear = |id: Id| matches!(dag.node(id), Node::Add(..) | Node::Mul(..)) && cost(dag, &dag.reachable(&[id])) > least;
    let shared: HashSet<Id> = count.iter().filter(|&(&id, &c)| c >= 2 && dear(id)).map(|(&id, _)| id).collect();
    // Only the topmost of nested shared nodes, unless something else needs the inner one too.
    let mut needed = HashSet::new();
    for piece in pieces {
        let mut stack = piece.roots();
        let mut seen = HashSet::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id) {
                continue;
            }
            if shared.contains(&id) {
                needed.insert(id);
            } else if let Node::Add(a, b) | Node::Mul(a, b) = dag.node(id) {
                stack.extend([a, b]);
            }
        }
    }
    needed
}

/// A constraint that is larger than the limit falls into runs of summands.
fn cut(dag: &mut Dag, constraint: Constraint, limit: usize) -> Vec<Piece> {
    if cost(dag, &dag.reachable(&[constraint.root])) <= limit || !dag.is_extension(constraint.root) {
        return vec![Piece::Whole(constraint)];
    }
    let mut parts: Vec<Vec<SplitTerm>> = vec![vec![]];
    let mut have: HashSet<Id> = HashSet::new();
    let mut terms: Vec<SplitTerm> = vec![];
    let mut waiting = split(dag, constraint.root);
    waiting.reverse();
    while let Some(term) = waiting.pop() {
        let too_dear = cost(dag, &dag.reachable(&term.operands())) > limit;
        match too_dear.then(|| distribute(dag, term)).flatten() {
            Some(summands) => waiting.extend(summands.into_iter().rev()),
            None => terms.push(term),
        }
    }
    for term in terms {
        let nodes = dag.reachable(&term.operands());
        let union: Vec<Id> = have.iter().copied().chain(nodes.iter().copied().filter(|id| !have.contains(id))).collect();
        if !have.is_empty() && cost(dag, &union) > limit {
            parts.push(vec![]);
            have.clear();
        }
        have.extend(nodes);
        parts.last_mut().expect("there is always a current part").push(term);
    }
    parts.into_iter().map(|terms| Piece::Part(terms, constraint.weight)).collect()
}
