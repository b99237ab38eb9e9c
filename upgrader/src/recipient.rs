//! Who gets the fees: a generation address, told of each fee by an announcement on chain.
//!
//! An upgrader holds no wallet. The address is public; the announcement is encrypted to it, and the owner's wallet finds the
//! fees by scanning the chain. A symmetric address will not do: there the address *is* the key.

use neptune_consensus::transaction::announcement::Announcement;
use neptune_consensus::transaction::transaction_kernel::TransactionKernel;
use neptune_consensus::transaction::utxo::Utxo;
use neptune_primitives::network::Network;
use neptune_wallet::address::ReceivingAddress;
use neptune_wallet::utxo_notification::UtxoNotificationPayload;
use triton_vm::prelude::Digest;

use crate::jobs::Recipient;

/// The address that fees go to.
#[derive(Debug, Clone)]
pub struct FeeAddress {
    address: ReceivingAddress,
}

/// Why an address cannot receive fees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAddress {
    /// No address at all, or of another network.
    #[error("this is no address on {network}: {why}")]
    Malformed {
        /// Where it should be valid.
        network: Network,
        /// What neptune-wallet says.
        why: String,
    },
    /// A kind of address that fees do not go to.
    #[error(
        "fees go to a generation address only (`neptune-cli next-receiving-address`, it begins with nolga); a symmetric \
         address is the spending key itself and must never leave the wallet"
    )]
    NotGeneration,
}

impl FeeAddress {
    /// Reads an address in its usual (bech32m) form.
    ///
    /// # Errors
    /// [`BadAddress`]; the message never repeats the text, which may be a key.
    pub fn parse(text: &str, network: Network) -> Result<Self, BadAddress> {
        let address = ReceivingAddress::from_bech32m(text.trim(), network)
            .map_err(|error| BadAddress::Malformed { network, why: error.to_string() })?;
        Self::new(address)
    }

    /// The address, if it is of the right kind.
    ///
    /// # Errors
    /// [`BadAddress::NotGeneration`].
    pub fn new(address: ReceivingAddress) -> Result<Self, BadAddress> {
        match address {
            ReceivingAddress::Generation(_) => Ok(Self { address }),
            _ => Err(BadAddress::NotGeneration),
        }
    }

    /// As the gobbler needs it.
    pub fn recipient(&self) -> Recipient {
        Recipient { lock_script_hash: self.address.lock_script_hash(), receiver_digest: self.address.privacy_digest() }
    }

    /// What tells the owner of the fee. Encrypted, and the same each time: its randomness derives from what it says.
    pub fn announcement(&self, utxo: &Utxo, sender_randomness: Digest) -> Announcement {
        self.address.generate_announcement(UtxoNotificationPayload::new(utxo.clone(), sender_randomness))
    }

    /// Whether the transaction carries a fee of this fleet, as far as can be told without the key: it is a merged one and an
    /// announcement in it is addressed to us. So a restarted upgrader, or another one of the fleet, knows its own.
    ///
    /// Anyone may address an announcement to us. What that buys them is an update of a transaction that they had to merge, hence
    /// to prove, themselves.
    pub fn is_in(&self, kernel: &TransactionKernel) -> bool {
        let (flag, receiver) = (self.address.flag(), self.address.receiver_identifier());
        kernel.merge_bit && kernel.announcements.iter().any(|announcement| announcement.message.starts_with(&[flag, receiver]))
    }
}

#[cfg(test)]
mod tests {
    use neptune_consensus::transaction::transaction_kernel::TransactionKernelProxy;
    use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
    use neptune_primitives::timestamp::Timestamp;
    use neptune_wallet::address::generation_address::GenerationSpendingKey;
    use neptune_wallet::address::symmetric_key::SymmetricKey;
    use triton_vm::prelude::Tip5;

    use super::*;

    fn address(seed: u64) -> ReceivingAddress {
        GenerationSpendingKey::derive_from_seed(Tip5::hash(&seed)).to_address().into()
    }

    #[test]
    fn only_generation_addresses_of_the_network_receive_fees() {
        let text = address(1).to_bech32m(Network::Main).expect("has a text");
        assert!(FeeAddress::parse(&format!(" {text}\n"), Network::Main).is_ok());
        assert!(matches!(FeeAddress::parse(&text, Network::RegTest), Err(BadAddress::Malformed { .. })));
        assert!(matches!(FeeAddress::parse("nonsense", Network::Main), Err(BadAddress::Malformed { .. })));

        let key = ReceivingAddress::from(SymmetricKey::from_seed(Tip5::hash(&1_u64)));
        let text = key.to_bech32m(Network::Main).expect("has a text");
        let error = FeeAddress::parse(&text, Network::Main).expect_err("is a key");
        assert_eq!(error, BadAddress::NotGeneration);
        assert!(!error.to_string().contains(&text));
    }

    #[test]
    fn a_fleet_knows_its_own_fees_and_nobody_elses() {
        let ours = FeeAddress::new(address(1)).expect("is a generation address");
        let utxo = Utxo::new_native_currency(ours.recipient().lock_script_hash, NativeCurrencyAmount::coins(1));
        let announcement = ours.announcement(&utxo, Tip5::hash(&7_u64));
        assert_eq!(announcement, ours.announcement(&utxo, Tip5::hash(&7_u64)), "equal fees make equal claims");
        let kernel = |merge_bit| {
            TransactionKernelProxy {
                inputs: vec![],
                outputs: vec![],
                announcements: vec![announcement.clone()],
                fee: NativeCurrencyAmount::coins(1),
                coinbase: None,
                timestamp: Timestamp::now(),
                mutator_set_hash: Digest::default(),
                merge_bit,
            }
            .into_kernel()
        };
        assert!(ours.is_in(&kernel(true)));
        assert!(!ours.is_in(&kernel(false)), "an announcement alone costs nothing and proves nothing");
        assert!(!FeeAddress::new(address(2)).expect("is a generation address").is_in(&kernel(true)));
    }
}
