//! Drives one upgrade: has done what its DAG says, and tells the DAG what happened.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fleet::transaction::{Leaf, VerifiedCollection};
use futures::future::BoxFuture;
use neptune_consensus::transaction::TransactionProof;
use neptune_consensus::transaction::transaction_kernel::TransactionKernel;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use prover_api::Priority;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use triton_vm::prelude::{Digest, Proof};

use super::context::Context;
use super::proving::{self, Made};
use super::stage::Stage;
use super::submission::{NotTaken, Submitted, submit};
use crate::dag::{Dag, Effect, Event, Failure, Kind, Lag, Node, Outcome, Superseded};
use crate::jobs::{self, CheckedProof, Gobbler, Step, StepError};
use crate::mempool::{input_id, input_ids};
use crate::node::{NodeError, refusal_name, txid_of};
use crate::policy::Incentive;
use crate::ring::Ring;
use crate::select::{ProofKind, Work};
use crate::{TxId, logs};

/// Attempts to download a kernel or a proof.
const DOWNLOADS: u32 = 5;

/// Pause before the second; doubles.
const DOWNLOAD_PAUSE: Duration = Duration::from_millis(250);

/// How an upgrade went.
#[derive(Debug)]
pub struct Report {
    /// What was to be done.
    pub work: Work,
    /// What kind it was, once known.
    pub kind: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was submitted last: its id, how much of it is ours, what it spends, and the commitment of the fee's UTXO.
    pub result: Option<Submitted>,
    /// What was given to a node whose answer was never seen, and how much of it is ours: it may be in the mempool all the same.
    pub unanswered: Option<(TxId, NativeCurrencyAmount)>,
    /// What a download showed of the transaction.
    pub learned: Option<(TxId, ProofKind)>,
    /// From the start to the end.
    pub elapsed: Duration,
}

/// One upgrade under way.
pub struct Upgrade {
    context: Arc<Context>,
    work: Work,
    incentive: Incentive,
    ring: watch::Receiver<Ring>,
    control: mpsc::UnboundedReceiver<Superseded>,
    stage: watch::Sender<Stage>,
    began: Instant,
}

/// What the DAG's nodes are made from.
struct Materials {
    kind: Kind,
    kernel: TransactionKernel,
    collection: Option<VerifiedCollection>,
    gobbler: Option<Gobbler>,
    leaves: BTreeMap<Leaf, Proof>,
    raised: Option<CheckedProof>,
    raised_gobbler: Option<CheckedProof>,
    pair: Option<(CheckedProof, CheckedProof)>,
    result: Option<CheckedProof>,
    /// The block that the running update leads to.
    target: Option<Digest>,
}

impl Materials {
    fn of(kind: Kind, kernel: TransactionKernel) -> Self {
        Self {
            kind,
            kernel,
            collection: None,
            gobbler: None,
            leaves: BTreeMap::new(),
            raised: None,
            raised_gobbler: None,
            pair: None,
            result: None,
            target: None,
        }
    }

    /// Where the result, or what it is made of, stands.
    fn lag(&self, ring: &Ring) -> Lag {
        let kernel = self.result.as_ref().map_or(&self.kernel, CheckedProof::kernel);
        let Some(blocks) = ring.lag(kernel.mutator_set_hash) else { return Lag::Unknown };
        let inputs = input_ids(kernel);
        let spent = blocks > 0 && ring.spent_since(kernel.mutator_set_hash, |indices| inputs.contains(&input_id(indices)));
        if spent { Lag::Spent } else { Lag::Blocks(blocks) }
    }
}

impl Upgrade {
    /// An upgrade that has not begun.
    pub fn new(
        context: Arc<Context>,
        work: Work,
        incentive: Incentive,
        ring: watch::Receiver<Ring>,
        control: mpsc::UnboundedReceiver<Superseded>,
        stage: watch::Sender<Stage>,
    ) -> Self {
        Self { context, work, incentive, ring, control, stage, began: Instant::now() }
    }

    /// Does it, to the end.
    pub async fn run(mut self) -> Report {
        let mut learned = None;
        let prepared = tokio::select! {
            prepared = prepare(&self.context, self.work, self.incentive, &mut self.ring, &mut learned) => prepared,
            Some(why) = self.control.recv() => Err(Outcome::Superseded { why }),
        };
        let mut unanswered = None;
        let (kind, outcome, result) = match prepared {
            Ok(materials) => {
                logs::starting(materials.kind, self.context.gpu.load(Ordering::Relaxed));
                let kind = materials.kind;
                let (outcome, result) = self.drive(materials, &mut unanswered).await;
                (kind.name(), outcome, result)
            }
            Err(outcome) => (name_of(self.work), outcome, None),
        };
        Report { work: self.work, kind, outcome, result, unanswered, learned, elapsed: self.began.elapsed() }
    }

    async fn drive(
        &mut self,
        mut materials: Materials,
        unanswered: &mut Option<(TxId, NativeCurrencyAmount)>,
    ) -> (Outcome, Option<Submitted>) {
        let lag = materials.lag(&self.ring.borrow_and_update());
        let (mut dag, mut effects) = Dag::begin(materials.kind, lag);
        let mut proofs: JoinSet<(Node, Result<Made, Failure>)> = JoinSet::new();
        let mut running: HashMap<Node, AbortHandle> = HashMap::new();
        let mut submission: JoinSet<Result<Submitted, NotTaken>> = JoinSet::new();
        let mut submitted = None;
        // Whether a node may have taken what it gave no answer for.
        let unsure = Arc::new(AtomicBool::new(false));
        let inputs: Arc<[_]> = materials.kernel.inputs.iter().map(|input| input.absolute_indices).collect();
        loop {
            let mut events = Vec::new();
            for effect in effects.drain(..) {
                match effect {
                    Effect::Prove(node) => match self.begin(node, &mut materials) {
                        Ok(proof) => {
                            let out = Out::new(&self.context, node, proving::priority(node, self.incentive));
                            running.insert(
                                node,
                                proofs.spawn(async move {
                                    let made = proof.await;
                                    drop(out);
                                    (node, made)
                                }),
                            );
                        }
                        Err(event) => events.push(event),
                    },
                    Effect::Cancel(node) => {
                        // Dropping the client's future withdraws the job from its pod.
                        if let Some(handle) = running.remove(&node) {
                            handle.abort();
                        }
                    }
                    Effect::Submit => {
                        if let Some(result) = materials.result.clone() {
                            let fee = fee(&materials);
                            let own = self.own(&materials);
                            *unanswered = Some((txid_of(result.kernel()), own));
                            let ring = self.ring.clone();
                            submission.spawn(submit(self.context.clone(), ring, result, own, fee, Arc::clone(&unsure)));
                        }
                    }
                    Effect::Finish(outcome) => {
                        proofs.abort_all();
                        submission.abort_all();
                        return (outcome, submitted);
                    }
                }
            }
            let result = submitted.as_ref().map(|submitted: &Submitted| submitted.txid);
            self.stage.send_replace(Stage::of(&dag, self.began, result, inputs.clone()));
            if events.is_empty() {
                tokio::select! {
                    biased;
                    Some(why) = self.control.recv() => events.push(Event::Superseded(why)),
                    Ok(()) = self.ring.changed() => {
                        let ring = self.ring.borrow_and_update().clone();
                        if materials.target.is_some_and(|target| !ring.contains(target)) {
                            events.push(Event::Retarget);
                        }
                        events.push(Event::Lag(materials.lag(&ring)));
                    }
                    Some(done) = proofs.join_next() => match done {
                        Ok((node, made)) => {
                            running.remove(&node);
                            events.extend(self.take(node, made, &mut materials));
                        }
                        Err(error) if error.is_cancelled() => {}
                        Err(error) => {
                            // Which one it was is told by its handle alone.
                            let node = running.iter().find(|(_, handle)| handle.is_finished()).map(|(node, _)| *node);
                            let failure = Failure::Poison { because: format!("neptune-consensus panicked: {error}") };
                            events.extend(node.map(|node| Event::ProofFailed(node, failure)));
                        }
                    },
                    Some(done) = submission.join_next() => match done {
                        Ok(Ok(result)) => {
                            submitted = Some(result);
                            *unanswered = None;
                            events.push(Event::Accepted);
                        }
                        Ok(Err(why)) => {
                            if !unsure.load(Ordering::Relaxed) {
                                *unanswered = None;
                            }
                            events.push(Event::NotAccepted(self.failure(why)));
                        }
                        Err(error) => events.push(Event::NotAccepted(Failure::Node { because: error.to_string() })),
                    },
                }
            }
            effects = events.into_iter().flat_map(|event| dag.on(event)).collect();
        }
    }

    /// The future that makes a proof, or what came up instead.
    fn begin(&self, node: Node, materials: &mut Materials) -> Result<BoxFuture<'static, Result<Made, Failure>>, Event> {
        let priority = proving::priority(node, self.incentive);
        let context = self.context.clone();
        if let Node::GobblerLeaf(index) = node {
            let job = materials.gobbler.as_ref().and_then(|gobbler| gobbler.plan.jobs.get(index)).cloned();
            let job = job.ok_or_else(|| missing(node))?;
            return Ok(Box::pin(proving::leaf(context, job, priority)));
        }
        if node == Node::RaiseGobbler {
            let gobbler = materials.gobbler.as_ref().ok_or_else(|| missing(node))?;
            let (kernel, frame) = (gobbler.kernel.clone(), gobbler.plan.frame.clone());
            let leaves = std::mem::take(&mut materials.leaves);
            return Ok(Box::pin(async move {
                let poison = |because: String| Failure::Poison { because };
                let collection = frame.assemble(leaves).map_err(|error| poison(error.to_string()))?;
                let collection =
                    VerifiedCollection::check(collection, context.network).await.map_err(|error| poison(error.to_string()))?;
                let step = jobs::raise(kernel, collection).map_err(|error| poison(error.to_string()))?;
                proving::single(context, step, priority).await
            }));
        }
        let step = self.step(node, materials).map_err(|error| match error {
            StepError::Spent(_) => Event::Lag(Lag::Spent),
            error => Event::ProofFailed(node, Failure::Poison { because: error.to_string() }),
        })?;
        Ok(Box::pin(proving::single(context, step, priority)))
    }

    fn step(&self, node: Node, materials: &mut Materials) -> Result<Step, StepError> {
        match node {
            Node::Raise => {
                let collection = materials.collection.take().ok_or(StepError::ForeignCollection)?;
                jobs::raise(materials.kernel.clone(), collection)
            }
            Node::Merge => {
                let mutator_set = materials.kernel.mutator_set_hash;
                let (left, right, seed) = if let Some((left, right)) = materials.pair.take() {
                    let seed =
                        self.context.choices.merge_shuffle_seed(txid_of(left.kernel()), txid_of(right.kernel()), mutator_set);
                    (left, right, seed)
                } else {
                    let pair = materials.raised_gobbler.take().zip(materials.raised.take());
                    let (gobbler, raised) = pair.ok_or(StepError::MutatorSetsDiffer)?;
                    let seed = self.context.choices.gobble_shuffle_seed(txid_of(raised.kernel()), mutator_set);
                    (gobbler, raised, seed)
                };
                jobs::merge(left, right, seed)
            }
            Node::Update => {
                let result = materials.result.clone().ok_or(StepError::NoInputs)?;
                let ring = self.ring.borrow();
                let (mutator_set, change) =
                    ring.change_since(result.kernel().mutator_set_hash).ok_or(StepError::OtherMutatorSet)?;
                materials.target = ring.tip().map(|tip| tip.hash);
                jobs::update(result, &mutator_set, &change)
            }
            Node::GobblerLeaf(_) | Node::RaiseGobbler => Err(StepError::NoInputs),
        }
    }

    /// Keeps what was made and says so.
    fn take(&self, node: Node, made: Result<Made, Failure>, materials: &mut Materials) -> Vec<Event> {
        let made = match made {
            Ok(made) => made,
            Err(failure) => return vec![Event::ProofFailed(node, failure)],
        };
        match made {
            Made::Leaf(leaf, proof) => {
                materials.leaves.insert(leaf, proof);
            }
            Made::Single(checked) => match node {
                Node::RaiseGobbler => materials.raised_gobbler = Some(*checked),
                Node::Raise if matches!(materials.kind, Kind::PaidRaise { .. }) => materials.raised = Some(*checked),
                _ => {
                    materials.result = Some(*checked);
                    materials.target = None;
                    // Where the new result stands has to be known before anything is done with it.
                    return vec![Event::Lag(materials.lag(&self.ring.borrow())), Event::Proven(node)];
                }
            },
        }
        vec![Event::Proven(node)]
    }

    fn failure(&self, why: NotTaken) -> Failure {
        match why {
            NotTaken::Orphaned => Failure::Orphaned,
            NotTaken::Node(NodeError::Refused(refusal)) => {
                self.context.metrics.refused(refusal_name(refusal));
                Failure::Refused { reason: refusal_name(refusal).to_owned() }
            }
            NotTaken::Node(error) => Failure::Node { because: error.to_string() },
        }
    }

    fn own(&self, materials: &Materials) -> NativeCurrencyAmount {
        match (materials.kind, self.incentive) {
            (Kind::FreeRaise | Kind::Update, Incentive::Gobble(_)) => NativeCurrencyAmount::from_nau(0),
            (_, incentive) => incentive.amount(),
        }
    }
}

/// The fee that the upgrade gobbles, and the commitment of its UTXO.
fn fee(materials: &Materials) -> Option<(NativeCurrencyAmount, Digest)> {
    let gobbler = materials.gobbler.as_ref()?;
    gobbler.kernel.outputs.first().map(|output| (-gobbler.kernel.fee, output.canonical_commitment))
}

/// Counts a proof that is out; dropped with the proof's future, also when that is aborted.
struct Out(Arc<Context>);

impl Out {
    fn new(context: &Arc<Context>, node: Node, priority: Priority) -> Self {
        let number = context.jobs.fetch_add(1, Ordering::Relaxed) + 1;
        let running = context.running.fetch_add(1, Ordering::Relaxed) + 1;
        logs::job_running(number, node, priority, running, context.gpu.load(Ordering::Relaxed));
        Self(context.clone())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

fn missing(node: Node) -> Event {
    Event::ProofFailed(node, Failure::NoProver { because: "what it is made of is missing".to_owned() })
}

fn name_of(work: Work) -> &'static str {
    match work {
        Work::Raise { .. } => "raise",
        Work::Update { .. } => "update",
        Work::Merge { .. } => "merge",
    }
}

/// Downloads and checks what the upgrade is made of.
async fn prepare(
    context: &Arc<Context>,
    work: Work,
    incentive: Incentive,
    ring: &mut watch::Receiver<Ring>,
    learned: &mut Option<(TxId, ProofKind)>,
) -> Result<Materials, Outcome> {
    let superseded = |why| Outcome::Superseded { why };
    match work {
        Work::Raise { txid, gobble } => {
            let (kernel, proof) = download(context, txid).await?;
            let collection = match proof {
                TransactionProof::ProofCollection(collection) => collection,
                TransactionProof::SingleProof(_) => {
                    *learned = Some((txid, ProofKind::Single));
                    return Err(superseded(Superseded::BetterProof));
                }
                TransactionProof::Witness(_) => return Err(superseded(Superseded::Gone)),
            };
            let proofs = collection.num_proofs();
            *learned = Some((txid, ProofKind::Collection { at_least_proofs: proofs }));
            if proofs > context.policy.max_num_proofs {
                return Err(superseded(Superseded::Gone)); // the next plan says why
            }
            let collection = {
                let _one_at_a_time = context.heavy.acquire().await;
                VerifiedCollection::check(collection, context.network).await
            };
            let collection = collection.map_err(|error| poison(&error.to_string()))?;
            if collection.collection().kernel_mast_hash != neptune_primitives::mast_hash::MastHash::mast_hash(&kernel) {
                return Err(poison("the proof collection belongs to another kernel"));
            }
            let gobbler = match (&context.address, incentive) {
                (Some(address), Incentive::Gobble(_)) if gobble.is_positive() => {
                    Some(gobbler(context, address, txid, &kernel, gobble, ring).await?)
                }
                _ => None,
            };
            let kind = gobbler.as_ref().map_or(Kind::FreeRaise, |gobbler| Kind::PaidRaise { leaves: gobbler.plan.jobs.len() });
            Ok(Materials { collection: Some(collection), gobbler, ..Materials::of(kind, kernel) })
        }
        Work::Update { txid } => {
            let checked = single(context, txid).await?;
            let kernel = checked.kernel().clone();
            Ok(Materials { result: Some(checked), ..Materials::of(Kind::Update, kernel) })
        }
        Work::Merge { left, right } => {
            let pair = (single(context, left).await?, single(context, right).await?);
            if pair.0.kernel().mutator_set_hash != pair.1.kernel().mutator_set_hash {
                return Err(superseded(Superseded::Gone)); // a block came between the two downloads
            }
            let mut kernel = pair.0.kernel().clone();
            // For the lag all that both spend counts.
            let inputs = [kernel.inputs.clone(), pair.1.kernel().inputs.clone()].concat();
            kernel = neptune_consensus::transaction::transaction_kernel::TransactionKernelModifier::default()
                .inputs(inputs)
                .modify(kernel);
            Ok(Materials { pair: Some(pair), ..Materials::of(Kind::Merge, kernel) })
        }
    }
}

async fn gobbler(
    context: &Context,
    address: &crate::recipient::FeeAddress,
    txid: TxId,
    kernel: &TransactionKernel,
    amount: NativeCurrencyAmount,
    ring: &mut watch::Receiver<Ring>,
) -> Result<Gobbler, Outcome> {
    let mutator_set = ring.borrow().mutator_set(kernel.mutator_set_hash).cloned();
    let mutator_set = mutator_set.ok_or(Outcome::Failed { failure: Failure::Orphaned })?;
    let randomness = context.choices.sender_randomness(txid, kernel.mutator_set_hash);
    tracing::info!("Producing gobbler-transaction for a value of {amount}");
    let notify = |utxo: &_| Some(address.announcement(utxo, randomness));
    let gobbler = jobs::gobbler(amount, &address.recipient(), randomness, mutator_set, kernel.timestamp, notify).await;
    gobbler.map_err(|error| poison(&error.to_string()))
}

async fn download(context: &Context, txid: TxId) -> Result<(TransactionKernel, TransactionProof), Outcome> {
    let kernel = patiently(|| context.nodes.kernel(txid)).await?;
    let proof = patiently(|| context.nodes.proof(txid)).await?;
    kernel.zip(proof).ok_or(Outcome::Superseded { why: Superseded::Gone })
}

/// Asks a node, again and again if none answers.
async fn patiently<T, F: Future<Output = Result<T, NodeError>>>(ask: impl Fn() -> F) -> Result<T, Outcome> {
    let mut pause = DOWNLOAD_PAUSE;
    for _ in 1..DOWNLOADS {
        match ask().await {
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "could not download, trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            answer => return answer.map_err(|error| unanswered(&error)),
        }
    }
    ask().await.map_err(|error| unanswered(&error))
}

fn unanswered(error: &NodeError) -> Outcome {
    Outcome::Failed { failure: Failure::Node { because: error.to_string() } }
}

async fn single(context: &Context, txid: TxId) -> Result<CheckedProof, Outcome> {
    match download(context, txid).await? {
        (kernel, TransactionProof::SingleProof(proof)) => {
            let _one_at_a_time = context.heavy.acquire().await;
            match CheckedProof::check(kernel, proof, context.network).await {
                Ok(checked) => Ok(checked),
                // Kernel and proof are two calls; an update may have come between them.
                Err(_) if txid_changed(context, txid).await => Err(Outcome::Superseded { why: Superseded::BetterProof }),
                Err(error) => Err(poison(&error.to_string())),
            }
        }
        _ => Err(Outcome::Superseded { why: Superseded::Gone }),
    }
}

/// Whether kernel and proof, downloaded once more, fit each other: then the misfit was one of time.
async fn txid_changed(context: &Context, txid: TxId) -> bool {
    match download(context, txid).await {
        Ok((kernel, TransactionProof::SingleProof(proof))) => CheckedProof::check(kernel, proof, context.network).await.is_ok(),
        _ => true,
    }
}

fn poison(because: &str) -> Outcome {
    Outcome::Failed { failure: Failure::Poison { because: because.to_owned() } }
}
