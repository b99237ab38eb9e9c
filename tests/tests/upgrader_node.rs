//! The dev node refuses what a real node refuses, for the same typed reasons, and an upgrader shows them and does not insist.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use neptune_consensus::block::pow::LustrationStatus;
use neptune_consensus::transaction::announcement::Announcement;
use neptune_consensus::transaction::transaction_kernel::{TransactionKernel, TransactionKernelModifier};
use neptune_consensus::transaction::validity::neptune_proof::NeptuneProof;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_primitives::network::Network;
use neptune_primitives::timestamp::Timestamp;
use neptune_rpc_api::api::rpc::SubmitTransactionError as Refusal;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use triton_vm::prelude::{Digest, Proof};
use upgrader::chain::can_prove_after;
use upgrader::node::{NodeError, Nodes};
use upgrader_fleet_tests::devnode::{Chain, DevNode};
use upgrader_fleet_tests::pods::{Pod, binary};
use upgrader_fleet_tests::upgraders::{Fleet, NETWORK, Upgrader};
use upgrader_fleet_tests::{story, upgrade};

fn coins(count: u32) -> NativeCurrencyAmount {
    NativeCurrencyAmount::coins(count)
}

/// Old enough for every coin of a test to need lustration, up to this many coins.
fn lustration(counter: u32) -> LustrationStatus {
    LustrationStatus { counter: coins(counter), max_lustrating_aocl_leaf_index: u64::from(u32::MAX) }
}

struct World {
    node: DevNode,
    nodes: Nodes,
}

impl World {
    async fn new() -> Result<Self> {
        let node = DevNode::start(Chain::new(NETWORK, 12)?, "127.0.0.1:0").await?;
        let nodes = Nodes::new([node.url()])?;
        Ok(Self { node, nodes })
    }

    /// The kernel of a transaction that the node would admit with a SingleProof.
    fn kernel(&self) -> Result<TransactionKernel> {
        let mut chain = self.node.chain();
        let txid = chain.send(coins(1))?;
        Ok(chain.transaction(txid).context("just sent")?.kernel.clone())
    }

    async fn submit(&self, kernel: TransactionKernel, proof: NeptuneProof) -> Result<(), NodeError> {
        self.nodes.submit(Transaction { kernel, proof: TransactionProof::SingleProof(proof) }).await
    }

    async fn refusal(&self, change: impl FnOnce(TransactionKernelModifier) -> TransactionKernelModifier) -> Result<Refusal> {
        let kernel = self.kernel()?;
        let kernel = change(TransactionKernelModifier::default()).modify(kernel);
        match self.submit(kernel, NeptuneProof::valid_mock()).await {
            Err(NodeError::Refused(refusal)) => Ok(refusal),
            other => anyhow::bail!("not refused: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_of_a_real_node_can_be_reached() -> Result<()> {
    let world = World::new().await?;
    let admitted = world.kernel()?;
    world.submit(admitted.clone(), NeptuneProof::valid_mock()).await?;
    let now = Timestamp::now();

    let got = [
        (world.refusal(|kernel| kernel.mutator_set_hash(Digest::default()).inputs(vec![])).await?, Refusal::NotConfirmable),
        (world.refusal(|kernel| kernel.coinbase(Some(coins(1)))).await?, Refusal::CoinbaseTransaction),
        (world.refusal(|kernel| kernel.fee(-coins(1))).await?, Refusal::FeeNegative),
        (world.refusal(|kernel| kernel.timestamp(now + Timestamp::hours(1))).await?, Refusal::FutureDated),
        (world.refusal(|kernel| kernel.timestamp(now - Timestamp::hours(11))).await?, Refusal::TooOld),
        (
            world.refusal(|kernel| kernel.announcements(vec![Announcement::retirement(now + Timestamp::minutes(50))])).await?,
            Refusal::Retired,
        ),
        (world.refusal(|kernel| kernel.announcements(vec![Announcement::new(vec![]); 17_000])).await?, Refusal::TooBig),
    ];
    for (refusal, expected) in got {
        ensure!(refusal == expected, "{refusal:?} instead of {expected:?}");
    }

    let wrong = world.submit(world.kernel()?, NeptuneProof::invalid_mock()).await;
    ensure!(wrong == Err(NodeError::Refused(Refusal::InvalidTransaction)), "{wrong:?}");

    ensure!(world.node.chain().mine(1)?.len() == 1, "the block takes what was admitted");
    let spent = world.submit(admitted, NeptuneProof::valid_mock()).await;
    ensure!(spent == Err(NodeError::Refused(Refusal::NotConfirmable)), "{spent:?}");

    let without = world.kernel()?;
    world.node.chain().demand_lustration(Some(lustration(1_000)));
    let missing = world.submit(without, NeptuneProof::valid_mock()).await;
    ensure!(missing == Err(NodeError::Refused(Refusal::MissingLustration)), "{missing:?}");
    let with = world.kernel()?;
    world.node.chain().demand_lustration(Some(lustration(1)));
    let exhausted = world.submit(with.clone(), NeptuneProof::valid_mock()).await;
    ensure!(exhausted == Err(NodeError::Refused(Refusal::LustrationMakesCounterNegative)), "{exhausted:?}");
    world.node.chain().demand_lustration(Some(lustration(1_000)));
    world.submit(with, NeptuneProof::valid_mock()).await?;
    ensure!(world.node.submissions() == (2, 11), "{:?}", world.node.submissions());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_result_is_counted_shown_and_not_offered_again_before_the_next_block() -> Result<()> {
    let mut fleet = Fleet::start(3, 1).await?;
    let txid = fleet.send("1")?;
    fleet.node.chain().demand_lustration(Some(lustration(1_000)));
    fleet.upgrade(&["--min-gobbling-fee", "0"])?;
    let refused = |fleet: &Fleet| fleet.node.submissions() == (0, 1);
    fleet.until("refused", Duration::from_secs(30), refused).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(fleet.node.submissions() == (0, 1), "{:?}", fleet.node.submissions());
    let upgrader = &fleet.upgraders[0];
    let counted = upgrader.metric("upgrader_submissions_refused_total{reason=\"MissingLustration\"}").await?;
    ensure!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
    let explained = upgrader.get(&format!("/explain/{txid}")).await?;
    ensure!(explained["why_not"]["reason"] == "resting" && explained.to_string().contains("MissingLustration"), "{explained}");

    // After a block it is tried again; and once the node wants it, it goes in.
    fleet.node.chain().demand_lustration(None);
    fleet.node.chain().mine(0)?;
    fleet.until("raised", Duration::from_secs(30), |fleet| fleet.is_done(txid)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_takes_over_when_the_first_dies_in_the_middle_of_a_raise() -> Result<()> {
    let mut fleet = Fleet::start(3, 1).await?;
    let txid = fleet.send("1")?;
    let target = fleet.node.url().trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let first = format!("http://{}", listener.local_addr()?);
    // The same chain under another address, which can be taken away.
    let passing_on = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut caller, _)) = listener.accept().await {
            let target = target.clone();
            connections.spawn(async move {
                let mut node = TcpStream::connect(target).await?;
                copy_bidirectional(&mut caller, &mut node).await
            });
        }
    });
    let second = fleet.node.url().to_owned();
    fleet.upgrade_through(&[&first, &second], &["--min-gobbling-fee", "0", "--mock-proof-time", "3s"])?;
    fleet.until("raising", Duration::from_secs(30), |fleet| fleet.upgraders[0].log().contains("job running")).await?;
    passing_on.abort();
    fleet.until("raised", Duration::from_secs(30), |fleet| fleet.is_done(txid)).await?;
    ensure!(fleet.node.submissions() == (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn under_rules_that_it_cannot_prove_for_an_upgrader_idles_and_says_so() -> Result<()> {
    // The first public testnet began with older rules.
    let network = Network::Testnet(0);
    ensure!(!can_prove_after(network, 1) && can_prove_after(NETWORK, 1));
    let node = DevNode::start(Chain::with_unproven_blocks(network, 2)?, "127.0.0.1:0").await?;
    let txid = node.chain().send(coins(1))?;
    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    let arguments = ["--node", node.url(), "--provers", pod.url(), "--min-gobbling-fee", "0"].map(str::to_owned);
    let upgrader = Upgrader::start_on(network, &arguments)?;
    let trouble = "the next block's rules are not supported";
    for _ in 0..200 {
        if upgrader.log().contains(trouble) && upgrader.log().contains("provers are ready") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(upgrader.log().matches(trouble).count() == 1, "once, not at each look: {}", upgrader.log());
    ensure!(!upgrader.log().contains("Attempting to upgrade"), "{}", upgrader.log());
    ensure!(node.submissions() == (0, 0));
    let ready = upgrader_fleet_tests::http::client()?.get(format!("{}/readyz", upgrader.url())).send().await?;
    ensure!(ready.status() == 503, "{}", ready.status());
    ensure!(ready.text().await?.contains(trouble));
    let explained = upgrader.get(&format!("/explain/{txid}")).await?;
    ensure!(explained["trouble"].as_str().is_some_and(|said| said.contains(trouble)), "{explained}");
    Ok(())
}

/// Real proofs from end to end, made once on a GPU and stored: pod, upgrader and node each verify them as they would on the main
/// net, and the node refuses what a network with mock proofs would take.
#[tokio::test(flavor = "multi_thread")]
async fn with_real_proofs_a_collection_is_raised_updated_and_mined_by_the_real_rules() -> Result<()> {
    let folder = story::folder();
    let (mut chain, witness) = story::begin()?;
    let transaction = story::stored(&folder, &witness)?;

    chain.put(transaction.clone());
    let node = DevNode::start(chain, "127.0.0.1:0").await?;
    let nodes = Nodes::new([node.url()])?;
    let another = std::fs::read(upgrade::folder().join("merge.bin"))?;
    for wrong in [NeptuneProof::valid_mock(), bincode::deserialize::<Proof>(&another)?.into()] {
        let proof = TransactionProof::SingleProof(wrong);
        let refused = nodes.submit(Transaction { kernel: transaction.kernel.clone(), proof }).await;
        ensure!(refused == Err(NodeError::Refused(Refusal::InvalidTransaction)), "{refused:?}");
    }
    drop(node);

    // A device that makes these proofs in no time, and no others.
    let (fake, proofs) = (binary("fake-worker")?, folder.to_str().context("is text")?);
    let worker = ["--worker-program", fake.to_str().context("is text")?, "--memory-limit", "256Gi"];
    let mut pod = Pod::start_at("127.0.0.1:0", &worker, &[("FAKE_WORKER_PROOFS", proofs)])?;
    pod.ready().await?;
    let (chain, _) = story::begin()?;
    let fleet = story::tell(chain, transaction, pod, Duration::from_mins(2)).await?;
    ensure!(fleet.node.submissions() == (2, 0), "{:?}", fleet.node.submissions());
    Ok(())
}
