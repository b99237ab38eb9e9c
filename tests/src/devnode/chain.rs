//! The dev node's chain and mempool.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};
use fleet::transaction::RULE_SET;
use neptune_consensus::block::block_appendix::BlockAppendix;
use neptune_consensus::block::block_body::BlockBody;
use neptune_consensus::block::block_header::BlockHeader;
use neptune_consensus::block::mutator_set_update::MutatorSetUpdate;
use neptune_consensus::block::pow::LustrationStatus;
use neptune_consensus::block::{Block, BlockProof};
use neptune_consensus::proof_abstractions::tx_proving_capability::TxProvingCapability;
use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use neptune_consensus::transaction::transaction_kernel::TransactionKernelProxy;
use neptune_consensus::transaction::validity::neptune_proof::NeptuneProof;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_mempool::mempool::Mempool;
use neptune_mempool::recent_mutator_sets::RecentMutatorSets;
use neptune_mempool::transaction_kernel_id::Txid;
use neptune_mempool::upgrade_priority::UpgradePriority;
use neptune_mutator_set::authenticated_item::AuthenticatedItem;
use neptune_mutator_set::mutator_set_accumulator::MutatorSetAccumulator;
use neptune_mutator_set::removal_record::RemovalRecord;
use neptune_mutator_set::removal_record::removal_record_list::RemovalRecordList;
use neptune_primitives::network::Network;
use neptune_primitives::timestamp::Timestamp;
use tasm_lib::twenty_first::prelude::Mmr;
use triton_vm::prelude::{Digest, Tip5};
use upgrader::TxId;

use super::wallet::{self, Coin, Output, SpendError};

/// What a coin of the dev node is worth.
const COIN: u32 = 100;

/// A block with all that stands after it.
#[derive(Clone)]
pub(super) struct State {
    pub block: Block,
    pub mutator_set: MutatorSetAccumulator,
    coins: Vec<Coin>,
}

/// The chain, the mempool, and the wallet whose coins live on the chain.
pub struct Chain {
    network: Network,
    states: Vec<State>,
    mempool: Mempool,
    recent: RecentMutatorSets,
    promised: HashSet<Digest>,
    lustration: Option<LustrationStatus>,
    seed: u64,
    /// What time it is, where that is not the machine's: [`Chain::at`].
    clock: Option<Timestamp>,
}

/// Why a block cannot be mined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MineError {
    /// There is no such block.
    #[error("the chain is not that deep")]
    TooDeep,
}

impl Chain {
    /// Genesis, and one block that pays the dev node this many coins of 100.
    ///
    /// # Errors
    /// When neptune-consensus finds our blocks contradictory, which would be a bug here.
    pub fn new(network: Network, coins: usize) -> Result<Self> {
        ensure!(network.use_mock_proof(), "a dev node mines with mock proofs: network regtest or testnet-mock");
        Self::with_unproven_blocks(network, coins)
    }

    /// The same on any network. Whoever verifies the blocks' proofs would see that there are none.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_unproven_blocks(network: Network, coins: usize) -> Result<Self> {
        Self::begin(network, coins, None)
    }

    fn begin(network: Network, coins: usize, clock: Option<Timestamp>) -> Result<Self> {
        let genesis = Block::genesis(network);
        let mutator_set = genesis.mutator_set_accumulator_after().map_err(|error| anyhow::anyhow!("{error}"))?;
        let mempool = Mempool::new(bytesize::ByteSize::gb(1), TxProvingCapability::PrimitiveWitness, &genesis);
        let recent = RecentMutatorSets::new(&genesis, network);
        let states = vec![State { block: genesis, mutator_set, coins: vec![] }];
        let mut chain = Self { network, states, mempool, recent, promised: HashSet::new(), lustration: None, seed: 1, clock };
        chain.mine_with(&[], coins)?;
        Ok(chain)
    }

    /// The same under a clock that stands still but for the target interval that each block takes: the same commands make the same
    /// chain every time, and what was proven for it once is proven for ever.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn at(network: Network, coins: usize, clock: Timestamp) -> Result<Self> {
        Self::begin(network, coins, Some(clock))
    }

    /// What time it is for the node.
    pub fn now(&self) -> Timestamp {
        self.clock.unwrap_or_else(Timestamp::now)
    }

    /// The network.
    pub fn network(&self) -> Network {
        self.network
    }

    pub(super) fn states(&self) -> &[State] {
        &self.states
    }

    pub(super) fn tip(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    /// Height of the tip.
    pub fn height(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// The mempool, as a node has it.
    pub fn mempool(&self) -> &Mempool {
        &self.mempool
    }

    /// Mutator sets of the tip and its nearest ancestors, as a node keeps them.
    pub fn recent(&self) -> &RecentMutatorSets {
        &self.recent
    }

    /// What the node demands of transactions that spend old coins; nothing at first. The dev node's own announce it from then on.
    pub fn demand_lustration(&mut self, status: Option<LustrationStatus>) {
        self.lustration = status;
    }

    pub(super) fn lustration(&self) -> Option<LustrationStatus> {
        self.lustration
    }

    /// Whether a block of the chain leads to the mutator set with this hash.
    pub fn has_mutator_set(&self, hash: Digest) -> bool {
        self.states.iter().rev().any(|state| state.mutator_set.hash() == hash)
    }

    /// The transaction's kernel and proof, if the mempool has it.
    pub fn transaction(&self, txid: TxId) -> Option<&Transaction> {
        self.mempool.get(upstream_id(txid)?)
    }

    /// Sends a transaction of the dev node's own, with a ProofCollection of mock proofs, into the mempool as if a peer had.
    ///
    /// # Errors
    /// [`SpendError`].
    pub fn send(&mut self, fee: NativeCurrencyAmount) -> Result<TxId, SpendError> {
        let witness = self.spend(fee)?;
        Ok(self.put(wallet::proven(&witness)))
    }

    /// As a node does with what its own wallet sends: the transaction stands in the mempool before it is proven, backed by its
    /// witness, which the node shows to nobody. [`Self::prove`] puts the ProofCollection there.
    ///
    /// # Errors
    /// [`SpendError`].
    pub fn send_unproven(&mut self, fee: NativeCurrencyAmount) -> Result<TxId, SpendError> {
        let witness = self.spend(fee)?;
        Ok(self.put(wallet::unproven(&witness)))
    }

    /// Gives a ProofCollection to a transaction that stands in the mempool with its witness.
    pub fn prove(&mut self, txid: TxId) -> bool {
        let found = self.transaction(txid).and_then(|found| match &found.proof {
            TransactionProof::Witness(witness) => Some(wallet::proven(witness)),
            _ => None,
        });
        found.map(|proven| self.put(proven)).is_some()
    }

    /// Puts a transaction into the mempool as if a peer had sent it and it had been admitted.
    pub fn put(&mut self, transaction: Transaction) -> TxId {
        let txid = TxId::from(transaction.kernel.txid());
        self.mempool.insert(transaction, UpgradePriority::Irrelevant);
        txid
    }

    /// Spends one of the dev node's coins. The transaction is nowhere yet; [`Self::put`] it with its proofs.
    ///
    /// # Errors
    /// [`SpendError`].
    pub fn spend(&mut self, fee: NativeCurrencyAmount) -> Result<PrimitiveWitness, SpendError> {
        let tip = self.tip();
        // After a reorganization the mempool may restore what it had merged: its inputs are not free either.
        let is_free = |coin: &&Coin| {
            let spent = tip.mutator_set.drop(coin.place.item, &coin.place.ms_membership_proof).absolute_indices;
            !self.promised.contains(&coin.place.item_and_place())
                && self.mempool.with_matching_absolute_index_sets(&[spent].into()).is_empty()
        };
        let free = tip.coins.iter().find(is_free);
        let coin = free.ok_or(SpendError::NoCoin)?.clone();
        let mutator_set = tip.mutator_set.clone();
        self.seed += 1;
        let witness = wallet::spend(&coin, &mutator_set, fee, self.now(), self.seed, self.lustration)?;
        self.promised.insert(coin.place.item_and_place());
        Ok(witness)
    }

    /// Inserts an admitted transaction, as a node does with what was submitted.
    pub fn insert(&mut self, transaction: Transaction) {
        self.mempool.insert(transaction, UpgradePriority::Critical);
    }

    /// Mines a block with at most this many of the best SingleProofs at the tip. Gives their ids.
    ///
    /// # Errors
    /// When the block contradicts itself, which would be a bug here.
    pub fn mine(&mut self, most: usize) -> Result<Vec<TxId>> {
        let chosen = if most == 0 {
            vec![]
        } else {
            self.mempool.get_transactions_for_block_composition(RULE_SET, usize::MAX, Some(most))
        };
        self.mine_with(&chosen, 1)?;
        Ok(chosen.iter().map(|transaction| TxId::from(transaction.kernel.txid())).collect())
    }

    /// Undoes the last blocks and mines one more than that in their place, without transactions. The mempool is empty after that,
    /// as a real node's is; the coins of its transactions are free again.
    ///
    /// # Errors
    /// [`MineError::TooDeep`] when genesis or the first block would go.
    pub fn reorganize(&mut self, depth: usize) -> Result<()> {
        ensure!(depth + 2 <= self.states.len(), MineError::TooDeep);
        let kept = self.states.len() - depth;
        self.states.truncate(kept);
        // The first block of the other branch extends no tip that the mempool knows: it is cleared.
        self.promised.clear();
        for _ in 0..=depth {
            self.mine_with(&[], 1)?;
        }
        Ok(())
    }

    fn mine_with(&mut self, transactions: &[Transaction], coins: usize) -> Result<()> {
        let previous = self.tip().clone();
        let bad = |error: &dyn std::fmt::Display| anyhow::anyhow!("{error}");
        let rewards: Vec<Output> = (0..coins)
            .map(|_| {
                self.seed += 1;
                Output::new(NativeCurrencyAmount::coins(COIN), (1 << 32) + self.seed)
            })
            .collect();
        let inputs: Vec<_> = transactions.iter().flat_map(|transaction| transaction.kernel.inputs.clone()).collect();
        let paid = transactions.iter().flat_map(|transaction| transaction.kernel.outputs.clone());
        let outputs: Vec<_> = rewards.iter().map(Output::addition_record).chain(paid).collect();
        let announcements = transactions.iter().flat_map(|transaction| transaction.kernel.announcements.clone()).collect();
        let fee = transactions.iter().fold(NativeCurrencyAmount::from_nau(0), |sum, transaction| sum + transaction.kernel.fee);
        self.clock = self.clock.map(|clock| clock + self.network.target_block_interval());
        let now = self.now();
        let kernel = TransactionKernelProxy {
            inputs: RemovalRecordList::pack(inputs.clone(), RULE_SET.allow_big_chunks()),
            outputs: outputs.clone(),
            announcements,
            fee,
            coinbase: Some(NativeCurrencyAmount::coins(COIN)),
            timestamp: now,
            mutator_set_hash: previous.mutator_set.hash(),
            merge_bit: true,
        }
        .into_kernel();
        let mut without_guesser = previous.mutator_set.clone();
        MutatorSetUpdate::new(inputs, outputs)
            .apply_to_accumulator(&mut without_guesser)
            .context("the block's transactions")?;
        let mut blocks = previous.block.body().block_mmr_accumulator.clone();
        blocks.append(previous.block.hash());
        let lock_free = previous.block.body().lock_free_mmr_accumulator.clone();
        let body = BlockBody::new(kernel, without_guesser, lock_free, blocks);
        let header = BlockHeader::template_header(
            previous.block.header(),
            previous.block.hash(),
            now,
            self.network.target_block_interval(),
            self.network,
        );
        let block = Block::new(header, body, BlockAppendix::default(), BlockProof::SingleProof(NeptuneProof::valid_mock()));
        let change = block.mutator_set_update(self.network).map_err(|error| bad(&error))?;
        let coins = carry_over(&previous, &change, &rewards);
        let mutator_set = block.mutator_set_accumulator_after().map_err(|error| bad(&error))?;
        self.mempool.update_with_block(&block)?;
        self.recent.update(&block, self.network);
        self.states.push(State { block, mutator_set, coins });
        Ok(())
    }
}

/// The coins that are left after a block, and those that it brought, each with its place in the new mutator set.
fn carry_over(previous: &State, change: &MutatorSetUpdate, rewards: &[Output]) -> Vec<Coin> {
    let spent: HashSet<_> = change.removals.iter().map(|removal| removal.absolute_indices).collect();
    let indices = |coin: &Coin| previous.mutator_set.drop(coin.place.item, &coin.place.ms_membership_proof).absolute_indices;
    let mut coins: Vec<Coin> = previous.coins.iter().filter(|coin| !spent.contains(&indices(coin))).cloned().collect();
    let mut removals = change.removals.clone();
    let mut state = previous.mutator_set.clone();
    let preimage = wallet::key().receiver_preimage();
    for (index, addition) in change.additions.iter().enumerate() {
        RemovalRecord::batch_update_from_addition(&mut removals.iter_mut().collect::<Vec<_>>(), &state);
        let mut places: Vec<&mut AuthenticatedItem> = coins.iter_mut().map(|coin| &mut coin.place).collect();
        AuthenticatedItem::batch_update_from_addition(&mut places, &state, *addition);
        if let Some(output) = rewards.get(index) {
            let item = Tip5::hash(&output.utxo);
            let ms_membership_proof = state.prove(item, output.sender_randomness, preimage);
            coins.push(Coin { utxo: output.utxo.clone(), place: AuthenticatedItem { item, ms_membership_proof } });
        }
        state.add(addition);
    }
    let mut proofs: Vec<_> = coins.iter_mut().map(|coin| &mut coin.place.ms_membership_proof).collect();
    state.batch_remove(removals, &mut proofs);
    coins
}

/// A name for a coin that does not change with the chain.
trait Name {
    fn item_and_place(&self) -> Digest;
}

impl Name for AuthenticatedItem {
    fn item_and_place(&self) -> Digest {
        Tip5::hash_pair(self.item, self.ms_membership_proof.sender_randomness)
    }
}

/// Our id as upstream's.
pub(super) fn upstream_id(txid: TxId) -> Option<neptune_mempool::transaction_kernel_id::TransactionKernelId> {
    txid.to_string().parse().ok()
}
