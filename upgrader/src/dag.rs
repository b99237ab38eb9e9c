//! The proofs of one upgrade, as a pure state machine: what is done, what may run, what to do when the chain moves.
//!
//! A paid raise is the largest:
//!
//! ```text
//! raise(tx) ───────────────────────────────┐
//! leaf 0 ┐                                 ├─ merge ─ submit ─ update ─ submit … until at the tip
//! …      ├─ raise(gobbler) ────────────────┘
//! leaf n ┘
//! ```
//!
//! Independent proofs run at once. The result is submitted as soon as nodes admit it, which is up to [`ADMITTED_LAG`] blocks
//! behind the tip, and then updated until it is at the tip. What the chain does in the meantime comes in as [`Event::Lag`].
//!
//! The machine knows nothing of kernels and proofs; whoever drives it keeps those. It promises: an upgrade that is over has no
//! proof running, and one that is not over has a proof running or a submission on its way.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

/// Blocks behind the tip that nodes still admit (`MAX_TX_SYNC_DEPTH` of neptune-core).
pub const ADMITTED_LAG: usize = 3;

/// One proof of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Node {
    /// The foreign transaction to a SingleProof.
    Raise,
    /// A proof of the gobbler's collection.
    GobblerLeaf(usize),
    /// The gobbler to a SingleProof.
    RaiseGobbler,
    /// Gobbler and transaction, or two transactions, to one.
    Merge,
    /// The result to the tip's mutator set.
    Update,
}

/// What kind of upgrade this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A raise for nothing.
    FreeRaise,
    /// A raise with a gobbler of this many leaf proofs.
    PaidRaise {
        /// Leaf proofs of the gobbler.
        leaves: usize,
    },
    /// Two SingleProofs to one.
    Merge,
    /// A SingleProof to the tip.
    Update,
}

impl Kind {
    /// A word for labels and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::FreeRaise => "raise",
            Self::PaidRaise { .. } => "paid-raise",
            Self::Merge => "merge",
            Self::Update => "update",
        }
    }

    fn nodes(self) -> Vec<Node> {
        match self {
            Self::FreeRaise => vec![Node::Raise],
            Self::PaidRaise { leaves } => {
                let leaves = (0..leaves).map(Node::GobblerLeaf);
                [Node::Raise].into_iter().chain(leaves).chain([Node::RaiseGobbler, Node::Merge]).collect()
            }
            Self::Merge => vec![Node::Merge],
            Self::Update => vec![Node::Update],
        }
    }

    fn needs(self, node: Node) -> Vec<Node> {
        match (self, node) {
            (Self::PaidRaise { leaves }, Node::RaiseGobbler) => (0..leaves).map(Node::GobblerLeaf).collect(),
            (Self::PaidRaise { .. }, Node::Merge) => vec![Node::Raise, Node::RaiseGobbler],
            _ => vec![],
        }
    }
}

/// Where the result, or what it is made of, stands relative to the tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lag {
    /// This many blocks behind.
    Blocks(usize),
    /// An input was spent by a block.
    Spent,
    /// On no block of the chain any more: a reorganization, or too far back.
    Unknown,
}

/// Why nobody needs the upgrade any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Superseded {
    /// Somebody else's proof of it is in the mempool.
    BetterProof,
    /// It is in a block, or its inputs are.
    Confirmed,
    /// The mempool no longer has it: replaced, expired or evicted.
    Gone,
    /// It retires too soon.
    Retired,
    /// We are shutting down.
    Shutdown,
}

/// Why an upgrade failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "failure", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Failure {
    /// A prover refused the job for good, or its program failed: the transaction is poison.
    Poison {
        /// What was said.
        because: String,
    },
    /// No prover is large enough.
    TooBig {
        /// log2 of the padded height.
        log2_padded_height: u8,
    },
    /// No prover took the job for a long time.
    NoProver {
        /// What the last one said.
        because: String,
    },
    /// The node refuses the result.
    Refused {
        /// The node's typed reason.
        reason: String,
    },
    /// No node could be reached for the submission.
    Node {
        /// The last error.
        because: String,
    },
    /// Its mutator set is on no block of the chain any more.
    Orphaned,
}

impl Failure {
    /// A word for labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Poison { .. } => "poison",
            Self::TooBig { .. } => "too-big",
            Self::NoProver { .. } => "no-prover",
            Self::Refused { .. } => "refused",
            Self::Node { .. } => "node",
            Self::Orphaned => "orphaned",
        }
    }
}

/// How an upgrade ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// In the mempool, at the tip.
    Submitted,
    /// Not needed any more.
    Superseded {
        /// Why.
        why: Superseded,
    },
    /// It could not be done.
    Failed {
        /// Why.
        #[serde(flatten)]
        failure: Failure,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A proof is there.
    Proven(Node),
    /// A proof will never be there.
    ProofFailed(Node, Failure),
    /// The tip moved. The lag is that of the transaction, or of the result once there is one.
    Lag(Lag),
    /// The block that the running update leads to is no longer on the chain.
    Retarget,
    /// Nobody needs it.
    Superseded(Superseded),
    /// The node took the result.
    Accepted,
    /// The node did not take the result.
    NotAccepted(Failure),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Have this proven. [`Node::Update`]: from where the result is now to the tip.
    Prove(Node),
    /// Stop proving this; whatever comes of it is not wanted.
    Cancel(Node),
    /// Give the result to the node.
    Submit,
    /// It is over.
    Finish(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Done,
}

/// The state of one upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dag {
    kind: Kind,
    nodes: BTreeMap<Node, State>,
    lag: Lag,
    submitting: bool,
    /// The result as it stands was given to the node.
    submitted: bool,
    outcome: Option<Outcome>,
}

impl Dag {
    /// Begins an upgrade of transactions that lag like this.
    pub fn begin(kind: Kind, lag: Lag) -> (Self, Vec<Effect>) {
        let nodes = kind.nodes().into_iter().map(|node| (node, State::Waiting)).collect();
        let mut dag = Self { kind, nodes, lag, submitting: false, submitted: false, outcome: None };
        let effects = dag.go_on();
        (dag, effects)
    }

    /// What kind of upgrade it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// What is being proven.
    pub fn running(&self) -> impl Iterator<Item = Node> {
        self.nodes.iter().filter(|(_, state)| **state == State::Running).map(|(node, _)| *node)
    }

    /// Whether the result is on its way to the node.
    pub fn is_submitting(&self) -> bool {
        self.submitting
    }

    /// Proofs that are done, and proofs in all.
    pub fn progress(&self) -> (usize, usize) {
        (self.nodes.values().filter(|state| **state == State::Done).count(), self.nodes.len())
    }

    /// Takes in what happened and says what to do. Late news of what was cancelled, or of an upgrade that is over, changes
    /// nothing.
    pub fn on(&mut self, event: Event) -> Vec<Effect> {
        if self.outcome.is_some() {
            return vec![];
        }
        match event {
            Event::Proven(node) => {
                if self.nodes.get(&node) != Some(&State::Running) {
                    return vec![];
                }
                self.nodes.insert(node, State::Done);
                self.submitted = false;
                // An update was made for the tip of that time; whoever drives us says how far that is behind by now.
                self.go_on()
            }
            Event::ProofFailed(node, failure) => {
                if self.nodes.get(&node) != Some(&State::Running) {
                    return vec![];
                }
                self.nodes.insert(node, State::Waiting);
                self.fail(failure)
            }
            Event::Retarget => {
                if self.nodes.get(&Node::Update) == Some(&State::Running) {
                    vec![Effect::Cancel(Node::Update), Effect::Prove(Node::Update)]
                } else {
                    vec![]
                }
            }
            Event::Lag(lag) => self.moved(lag),
            Event::Superseded(why) => self.finish(Outcome::Superseded { why }),
            Event::Accepted => {
                if !self.submitting {
                    return vec![];
                }
                (self.submitting, self.submitted) = (false, true);
                self.go_on()
            }
            Event::NotAccepted(failure) => {
                if !self.submitting {
                    return vec![];
                }
                self.submitting = false;
                // Behind the tip a refusal may be about the lag alone: an update cures that.
                match self.lag {
                    Lag::Blocks(blocks) if blocks > 0 && matches!(failure, Failure::Refused { .. }) => {
                        self.submitted = true; // as it stands, it need not be offered again
                        self.go_on()
                    }
                    _ => self.fail(failure),
                }
            }
        }
    }

    fn moved(&mut self, lag: Lag) -> Vec<Effect> {
        let before = std::mem::replace(&mut self.lag, lag);
        match lag {
            Lag::Spent => self.finish(Outcome::Superseded { why: Superseded::Confirmed }),
            // Not even an update can begin where no block is. A reorganization back would bring it to life again, and so will
            // the mempool.
            Lag::Unknown => self.fail(Failure::Orphaned),
            Lag::Blocks(_) if lag == before => vec![],
            Lag::Blocks(_) => self.go_on(),
        }
    }

    /// Starts all that can be started, or ends.
    fn go_on(&mut self) -> Vec<Effect> {
        match self.lag {
            Lag::Spent => return self.finish(Outcome::Superseded { why: Superseded::Confirmed }),
            Lag::Unknown => return self.fail(Failure::Orphaned),
            Lag::Blocks(0) if self.kind == Kind::Update && self.nodes[&Node::Update] == State::Waiting => {
                return self.finish(Outcome::Superseded { why: Superseded::BetterProof }); // already at the tip
            }
            Lag::Blocks(_) => {}
        }
        let mut effects = Vec::new();
        let ready: Vec<Node> =
            self.nodes.iter().filter(|(_, state)| **state == State::Waiting).map(|(node, _)| *node).collect();
        for node in ready {
            if self.kind.needs(node).iter().all(|need| self.nodes[need] == State::Done) {
                self.nodes.insert(node, State::Running);
                effects.push(Effect::Prove(node));
            }
        }
        if self.nodes.values().any(|state| *state != State::Done) || self.submitting {
            return effects;
        }
        // There is a result and nothing else going on.
        let Lag::Blocks(blocks) = self.lag else { return effects };
        if !self.submitted && blocks <= ADMITTED_LAG {
            self.submitting = true;
            effects.push(Effect::Submit);
        } else if blocks > 0 {
            self.nodes.insert(Node::Update, State::Running);
            effects.push(Effect::Prove(Node::Update));
        } else {
            effects.extend(self.finish(Outcome::Submitted));
        }
        effects
    }

    fn fail(&mut self, failure: Failure) -> Vec<Effect> {
        self.finish(Outcome::Failed { failure })
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<Effect> {
        let mut effects: Vec<Effect> = self.running().map(Effect::Cancel).collect();
        self.nodes.values_mut().filter(|state| **state == State::Running).for_each(|state| *state = State::Waiting);
        self.submitting = false;
        self.outcome = Some(outcome.clone());
        effects.push(Effect::Finish(outcome));
        effects
    }
}
