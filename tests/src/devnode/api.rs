//! The node's calls, over the dev node's chain.

use std::future::Future;
use std::pin::Pin;

use fleet::transaction::RULE_SET;
use neptune_consensus::transaction::transaction_kernel::TransactionLustrationError;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_mempool::tx_admission::{TxAdmissionError, admissible};
use neptune_rpc_api::api::rpc::{RpcApi, RpcError, RpcResult, SubmitTransactionError};
use neptune_rpc_api::model::block::header::TransactionKernelWithPriority;
use neptune_rpc_api::model::json::JsonError;
use neptune_rpc_api::model::message::{
    AreBloomIndicesSetRequest, AreBloomIndicesSetResponse, BanRequest, BanResponse, BatchAreBloomIndicesSetRequest,
    BatchAreBloomIndicesSetResponse, BestTransactionForNextBlockRequest, BestTransactionForNextBlockResponse,
    BlockHeightsByAbsoluteIndexSetsRequest, BlockHeightsByAbsoluteIndexSetsResponse, BlockHeightsByAdditionRecordsRequest,
    BlockHeightsByAdditionRecordsResponse, BlockHeightsByFlagsRequest, BlockHeightsByFlagsResponse, BurnedSupplyRequest,
    BurnedSupplyResponse, CirculatingSupplyRequest, CirculatingSupplyResponse, ClaimUtxoRequest, ClaimUtxoResponse,
    CountSentTransactionsAtBlockRequest, CountSentTransactionsAtBlockResponse, DerivationIndexRequest, DerivationIndexResponse,
    DialRequest, DialResponse, FindUtxoOriginRequest, FindUtxoOriginResponse, GenerateAddressRequest, GenerateAddressResponse,
    GetBalanceRequest, GetBalanceResponse, GetBlockAnnouncementsRequest, GetBlockAnnouncementsResponse, GetBlockBodyRequest,
    GetBlockBodyResponse, GetBlockDigestRequest, GetBlockDigestResponse, GetBlockDigestsRequest, GetBlockDigestsResponse,
    GetBlockHeaderRequest, GetBlockHeaderResponse, GetBlockKernelRequest, GetBlockKernelResponse, GetBlockProofRequest,
    GetBlockProofResponse, GetBlockRequest, GetBlockResponse, GetBlockTemplateRequest, GetBlockTemplateResponse,
    GetBlockTransactionKernelRequest, GetBlockTransactionKernelResponse, GetBlocksRequest, GetBlocksResponse,
    GetTransactionKernelRequest, GetTransactionKernelResponse, GetTransactionProofRequest, GetTransactionProofResponse,
    GetTransactionsByAbsoluteIndexSetsRequest, GetTransactionsByAbsoluteIndexSetsResponse,
    GetTransactionsByAdditionRecordsRequest, GetTransactionsByAdditionRecordsResponse, GetUtxoDigestRequest,
    GetUtxoDigestResponse, HeightRequest, HeightResponse, IncomingHistoryRequest, IncomingHistoryResponse,
    IsBlockCanonicalRequest, IsBlockCanonicalResponse, MaxSupplyRequest, MaxSupplyResponse, NetworkOverviewRequest,
    NetworkOverviewResponse, NetworkRequest, NetworkResponse, OutgoingHistoryRequest, OutgoingHistoryResponse, ProbeNatRequest,
    ProbeNatResponse, RescanAnnouncedRequest, RescanAnnouncedResponse, RescanExpectedRequest, RescanExpectedResponse,
    RescanGuesserRewardsRequest, RescanGuesserRewardsResponse, RescanOutgoingRequest, RescanOutgoingResponse,
    ResetRelayReservationsRequest, ResetRelayReservationsResponse, RestoreMembershipProofRequest,
    RestoreMembershipProofResponse, SendRequest, SendResponse, SetDerivationIndexRequest, SetDerivationIndexResponse,
    SubmitBlockRequest, SubmitBlockResponse, SubmitTransactionRequest, SubmitTransactionResponse, TipAnnouncementsRequest,
    TipAnnouncementsResponse, TipBodyRequest, TipBodyResponse, TipDigestRequest, TipDigestResponse, TipHeaderRequest,
    TipHeaderResponse, TipKernelRequest, TipKernelResponse, TipProofRequest, TipProofResponse, TipRequest, TipResponse,
    TipTransactionKernelRequest, TipTransactionKernelResponse, TransactionsRequest, TransactionsResponse, UnbanAllRequest,
    UnbanAllResponse, UnbanRequest, UnbanResponse, UnspentUtxosRequest, UnspentUtxosResponse,
    UtxoOriginFromAbsoluteIndicesRequest, UtxoOriginFromAbsoluteIndicesResponse, ValidateAddressRequest,
    ValidateAddressResponse, ValidateCoinsAmountRequest, ValidateCoinsAmountResponse, ValidateNauAmountRequest,
    ValidateNauAmountResponse, WasMinedRequest, WasMinedResponse,
};
use neptune_rpc_api::model::wallet::block::RpcWalletBlock;

use super::server::Inner;

/// Most blocks in one answer, as a node has it.
const MAX_BLOCKS: usize = 100;

type Answer<'a, T> = Pin<Box<dyn Future<Output = RpcResult<T>> + Send + 'a>>;

/// The trait's methods as `async_trait` writes them; what the dev node does not do answers as a node without that module.
macro_rules! calls {
    (
        $(fn $name:ident($self_:ident, $request:ident: $ask:ty) -> $answer:ty $body:block)*
        missing: $($missing:ident($missing_ask:ty) -> $missing_answer:ty;)*
    ) => {
        $(
            fn $name<'life0, 'async_trait>(&'life0 self, $request: $ask) -> Answer<'async_trait, $answer>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                let $self_ = self;
                Box::pin(async move { $body })
            }
        )*
        $(
            fn $missing<'life0, 'async_trait>(&'life0 self, _: $missing_ask) -> Answer<'async_trait, $missing_answer>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async { Err(RpcError::Server(JsonError::MethodNotFound)) })
            }
        )*
    };
}

impl RpcApi for Inner {
    calls! {
        fn network_call(inner, _request: NetworkRequest) -> NetworkResponse {
            Ok(NetworkResponse { network: inner.chain().network().to_string() })
        }
        fn height_call(inner, _request: HeightRequest) -> HeightResponse {
            Ok(HeightResponse { height: inner.shown_height().into() })
        }
        fn tip_digest_call(inner, _request: TipDigestRequest) -> TipDigestResponse {
            let height = inner.shown_height();
            Ok(TipDigestResponse { digest: inner.chain().states()[height as usize].block.hash() })
        }
        fn get_blocks_call(inner, request: GetBlocksRequest) -> GetBlocksResponse {
            let shown = inner.shown_height();
            let (from, to) = (request.from_height.value(), request.to_height.value().min(shown));
            if from == 0 || to < from {
                return Ok(GetBlocksResponse { blocks: vec![] });
            }
            let chain = inner.chain();
            let blocks = chain.states()[from as usize..=to as usize].iter().take(MAX_BLOCKS);
            Ok(GetBlocksResponse { blocks: blocks.map(|state| RpcWalletBlock::from(&state.block)).collect() })
        }
        fn transactions_call(inner, _request: TransactionsRequest) -> TransactionsResponse {
            let transactions = inner.chain().mempool().fee_density_iter().map(|(txid, _)| txid.into()).collect();
            Ok(TransactionsResponse { transactions })
        }
        fn get_transaction_kernel_call(inner, request: GetTransactionKernelRequest) -> GetTransactionKernelResponse {
            let chain = inner.chain();
            let transaction = chain.mempool().get(request.id.into());
            Ok(GetTransactionKernelResponse { kernel: transaction.map(|transaction| (&transaction.kernel).into()) })
        }
        fn get_transaction_proof_call(inner, request: GetTransactionProofRequest) -> GetTransactionProofResponse {
            let proof = inner.chain().mempool().get(request.id.into()).map(|transaction| transaction.proof.clone());
            let shown = proof.filter(|proof| !matches!(proof, TransactionProof::Witness(_)));
            Ok(GetTransactionProofResponse { proof: shown.and_then(|proof| proof.try_into().ok()) })
        }
        fn get_transactions_by_absolute_index_sets_call(inner, request: GetTransactionsByAbsoluteIndexSetsRequest)
            -> GetTransactionsByAbsoluteIndexSetsResponse
        {
            let wanted = request.absolute_index_sets.into_iter().collect();
            let found = inner.chain().mempool().with_matching_absolute_index_sets(&wanted);
            let transactions = found
                .into_iter()
                .map(|(kernel, order)| TransactionKernelWithPriority::new(&kernel, order.and_then(|order| u32::try_from(order).ok())))
                .collect();
            Ok(GetTransactionsByAbsoluteIndexSetsResponse { transactions })
        }
        fn submit_transaction_call(inner, request: SubmitTransactionRequest) -> SubmitTransactionResponse {
            let transaction: Transaction = request.transaction.into();
            loop {
                let (recent, lustration, now, network) = {
                    let chain = inner.chain();
                    (chain.recent().clone(), chain.lustration(), chain.now(), chain.network())
                };
                let admitted = admissible((&transaction).into(), &recent, lustration, false, now, network, RULE_SET).await;
                let mut chain = inner.chain();
                if chain.recent().tip_block_hash() != recent.tip_block_hash() {
                    continue; // judged against a chain that is no longer there
                }
                inner.count_submission(admitted.is_ok());
                admitted.map_err(|rejection| RpcError::SubmitTransaction(refusal(rejection)))?;
                chain.insert(transaction);
                break;
            }
            Ok(SubmitTransactionResponse { success: true })
        }
        missing:
        tip_call(TipRequest) -> TipResponse;
        tip_header_call(TipHeaderRequest) -> TipHeaderResponse;
        tip_proof_call(TipProofRequest) -> TipProofResponse;
        tip_kernel_call(TipKernelRequest) -> TipKernelResponse;
        tip_body_call(TipBodyRequest) -> TipBodyResponse;
        tip_transaction_kernel_call(TipTransactionKernelRequest) -> TipTransactionKernelResponse;
        tip_announcements_call(TipAnnouncementsRequest) -> TipAnnouncementsResponse;
        get_block_digests_call(GetBlockDigestsRequest) -> GetBlockDigestsResponse;
        get_block_digest_call(GetBlockDigestRequest) -> GetBlockDigestResponse;
        get_block_call(GetBlockRequest) -> GetBlockResponse;
        get_block_proof_call(GetBlockProofRequest) -> GetBlockProofResponse;
        get_block_kernel_call(GetBlockKernelRequest) -> GetBlockKernelResponse;
        get_block_header_call(GetBlockHeaderRequest) -> GetBlockHeaderResponse;
        get_block_body_call(GetBlockBodyRequest) -> GetBlockBodyResponse;
        get_block_transaction_kernel_call(GetBlockTransactionKernelRequest) -> GetBlockTransactionKernelResponse;
        get_block_announcements_call(GetBlockAnnouncementsRequest) -> GetBlockAnnouncementsResponse;
        is_block_canonical_call(IsBlockCanonicalRequest) -> IsBlockCanonicalResponse;
        get_utxo_digest_call(GetUtxoDigestRequest) -> GetUtxoDigestResponse;
        find_utxo_origin_call(FindUtxoOriginRequest) -> FindUtxoOriginResponse;
        utxo_origin_from_absolute_indices_call(UtxoOriginFromAbsoluteIndicesRequest) -> UtxoOriginFromAbsoluteIndicesResponse;
        are_bloom_indices_set_call(AreBloomIndicesSetRequest) -> AreBloomIndicesSetResponse;
        batch_are_bloom_indices_set_call(BatchAreBloomIndicesSetRequest) -> BatchAreBloomIndicesSetResponse;
        circulating_supply_call(CirculatingSupplyRequest) -> CirculatingSupplyResponse;
        max_supply_call(MaxSupplyRequest) -> MaxSupplyResponse;
        burned_supply_call(BurnedSupplyRequest) -> BurnedSupplyResponse;
        validate_address_call(ValidateAddressRequest) -> ValidateAddressResponse;
        validate_coins_amount_call(ValidateCoinsAmountRequest) -> ValidateCoinsAmountResponse;
        validate_nau_amount_call(ValidateNauAmountRequest) -> ValidateNauAmountResponse;
        restore_membership_proof_call(RestoreMembershipProofRequest) -> RestoreMembershipProofResponse;
        rescan_announced_call(RescanAnnouncedRequest) -> RescanAnnouncedResponse;
        rescan_expected_call(RescanExpectedRequest) -> RescanExpectedResponse;
        rescan_outgoing_call(RescanOutgoingRequest) -> RescanOutgoingResponse;
        rescan_guesser_rewards_call(RescanGuesserRewardsRequest) -> RescanGuesserRewardsResponse;
        derivation_index_call(DerivationIndexRequest) -> DerivationIndexResponse;
        set_derivation_index_call(SetDerivationIndexRequest) -> SetDerivationIndexResponse;
        generate_address_call(GenerateAddressRequest) -> GenerateAddressResponse;
        incoming_history_call(IncomingHistoryRequest) -> IncomingHistoryResponse;
        outgoing_history_call(OutgoingHistoryRequest) -> OutgoingHistoryResponse;
        unspent_utxos_call(UnspentUtxosRequest) -> UnspentUtxosResponse;
        get_balance_call(GetBalanceRequest) -> GetBalanceResponse;
        count_sent_transactions_at_block_call(CountSentTransactionsAtBlockRequest) -> CountSentTransactionsAtBlockResponse;
        send_call(SendRequest) -> SendResponse;
        claim_utxo_call(ClaimUtxoRequest) -> ClaimUtxoResponse;
        get_block_template_call(GetBlockTemplateRequest) -> GetBlockTemplateResponse;
        submit_block_call(SubmitBlockRequest) -> SubmitBlockResponse;
        block_heights_by_flags_call(BlockHeightsByFlagsRequest) -> BlockHeightsByFlagsResponse;
        block_heights_by_addition_records_call(BlockHeightsByAdditionRecordsRequest) -> BlockHeightsByAdditionRecordsResponse;
        block_heights_by_absolute_index_sets_call(BlockHeightsByAbsoluteIndexSetsRequest) -> BlockHeightsByAbsoluteIndexSetsResponse;
        was_mined_call(WasMinedRequest) -> WasMinedResponse;
        get_transactions_by_addition_records_call(GetTransactionsByAdditionRecordsRequest) -> GetTransactionsByAdditionRecordsResponse;
        best_transaction_for_next_block_call(BestTransactionForNextBlockRequest) -> BestTransactionForNextBlockResponse;
        ban_call(BanRequest) -> BanResponse;
        unban_call(UnbanRequest) -> UnbanResponse;
        unban_all_call(UnbanAllRequest) -> UnbanAllResponse;
        dial_call(DialRequest) -> DialResponse;
        probe_nat_call(ProbeNatRequest) -> ProbeNatResponse;
        reset_relay_reservations_call(ResetRelayReservationsRequest) -> ResetRelayReservationsResponse;
        network_overview_call(NetworkOverviewRequest) -> NetworkOverviewResponse;
    }
}

/// How a node words its admission rules over RPC.
fn refusal(rejection: TxAdmissionError) -> SubmitTransactionError {
    use SubmitTransactionError as Refusal;
    match rejection {
        TxAdmissionError::HasCoinbase => Refusal::CoinbaseTransaction,
        TxAdmissionError::NegativeFee => Refusal::FeeNegative,
        TxAdmissionError::TooOld => Refusal::TooOld,
        TxAdmissionError::Retired => Refusal::Retired,
        TxAdmissionError::FutureDated => Refusal::FutureDated,
        TxAdmissionError::NotConfirmable(_)
        | TxAdmissionError::CannotApplyToMutatorSet
        | TxAdmissionError::SpentSinceSync(_)
        | TxAdmissionError::NotYetActive
        | TxAdmissionError::NotSynced => Refusal::NotConfirmable,
        TxAdmissionError::TooManyInputs | TxAdmissionError::TooManyOutputs | TxAdmissionError::TooManyAnnouncements => {
            Refusal::TooBig
        }
        TxAdmissionError::Lustration(TransactionLustrationError::MissingLustrationAnnouncement) => Refusal::MissingLustration,
        TxAdmissionError::LustrationsWouldMakeCounterNegative => Refusal::LustrationMakesCounterNegative,
        TxAdmissionError::Lustration(_) | TxAdmissionError::Invalid | TxAdmissionError::AlreadyKnown => {
            Refusal::InvalidTransaction
        }
    }
}
