//! What an upgrader may choose freely, chosen the same way by every upgrader of a fleet.
//!
//! A gobbler's sender randomness and the seed of a merge's shuffle could be any random numbers, and then two upgraders that
//! hold one transaction, or one upgrader before and after a restart, would make different claims and prove twice. So they
//! derive from a secret of the fleet and from what is being upgraded: equal work makes equal claims, and those meet in one
//! proof on the pods.
//!
//! The secret keeps strangers from linking the fleet's fees: whoever knows a fee's sender randomness recognises the UTXO.

use std::fmt;
use std::str::FromStr;

use triton_vm::prelude::{BFieldCodec, BFieldElement, Digest, Tip5};

use crate::TxId;

/// What all upgraders of a fleet know and nobody else. It spends nothing; who has it can recognise the fleet's fee UTXOs.
#[derive(Clone, PartialEq, Eq)]
pub struct FleetSecret(Digest);

/// Too short to be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a fleet secret has at least {} characters; make one with `openssl rand -hex 32`", FleetSecret::LEAST_CHARACTERS)]
pub struct InvalidSecret;

impl FleetSecret {
    /// 128 bits in hexadecimal.
    pub const LEAST_CHARACTERS: usize = 32;

    /// A secret for one process, when the operator gave none: restarts then repeat work.
    pub fn random() -> Self {
        Self(Digest::new(std::array::from_fn(|_| BFieldElement::new(rand::random()))))
    }
}

impl FromStr for FleetSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.chars().count() < Self::LEAST_CHARACTERS {
            return Err(InvalidSecret);
        }
        let words: Vec<BFieldElement> = text.bytes().map(|byte| BFieldElement::new(u64::from(byte))).collect();
        Ok(Self(Tip5::hash_varlen(&words)))
    }
}

impl fmt::Debug for FleetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetSecret(…)")
    }
}

/// One word for each use, so that no two of them share a value.
#[derive(Debug, Clone, Copy)]
enum Use {
    SenderRandomness = 1,
    GobbleShuffle = 2,
    MergeShuffle = 3,
}

/// The free choices of a fleet.
#[derive(Debug, Clone)]
pub struct Choices {
    secret: FleetSecret,
}

impl Choices {
    /// The choices under this secret.
    pub fn new(secret: FleetSecret) -> Self {
        Self { secret }
    }

    /// Sender randomness of the gobbler for this transaction on this mutator set.
    pub fn sender_randomness(&self, txid: TxId, mutator_set: Digest) -> Digest {
        self.derive(Use::SenderRandomness, &[txid.digest(), mutator_set])
    }

    /// Seed of the shuffle when the gobbler is merged with this transaction.
    pub fn gobble_shuffle_seed(&self, txid: TxId, mutator_set: Digest) -> [u8; 32] {
        seed(self.derive(Use::GobbleShuffle, &[txid.digest(), mutator_set]))
    }

    /// Seed of the shuffle when two transactions are merged.
    pub fn merge_shuffle_seed(&self, left: TxId, right: TxId, mutator_set: Digest) -> [u8; 32] {
        seed(self.derive(Use::MergeShuffle, &[left.digest(), right.digest(), mutator_set]))
    }

    fn derive(&self, use_: Use, parts: &[Digest]) -> Digest {
        let mut words = vec![BFieldElement::new(use_ as u64)];
        words.extend(self.secret.0.encode());
        words.extend(parts.iter().flat_map(|part| part.values()));
        Tip5::hash_varlen(&words)
    }
}

fn seed(digest: Digest) -> [u8; 32] {
    let bytes: [u8; Digest::BYTES] = digest.into();
    std::array::from_fn(|i| bytes[i])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn digest(n: u64) -> Digest {
        Tip5::hash(&n)
    }

    #[test]
    fn every_choice_depends_on_all_it_should() {
        let secrets = ["0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdeg"];
        let mut seen = HashSet::new();
        let mut count = 0;
        for secret in secrets {
            let choices = Choices::new(secret.parse().expect("long enough"));
            for (txid, mutator_set) in [(1, 3), (2, 3), (1, 4), (3, 1)] {
                let (txid, mutator_set) = (TxId::new(digest(txid)), digest(mutator_set));
                seen.insert(seed(choices.sender_randomness(txid, mutator_set)));
                seen.insert(choices.gobble_shuffle_seed(txid, mutator_set));
                seen.insert(choices.merge_shuffle_seed(txid, TxId::new(digest(9)), mutator_set));
                seen.insert(choices.merge_shuffle_seed(TxId::new(digest(9)), txid, mutator_set));
                count += 4;
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn choices_outlive_a_restart_and_a_release() {
        let choices = Choices::new("0123456789abcdef0123456789abcdef".parse().expect("long enough"));
        let chosen = choices.sender_randomness(TxId::new(digest(1)), digest(3));
        assert_eq!(chosen, choices.clone().sender_randomness(TxId::new(digest(1)), digest(3)));
        assert_eq!(chosen.to_hex(), GOLDEN, "changing this makes fleets of two releases prove twice");
    }

    const GOLDEN: &str = "223e991fe1a985b86bafba9d82f8b469e04979d0e2467ab9e74694f7c28acfb5ba3ed455a3d4a5bf";

    #[test]
    fn a_secret_is_never_shown_and_never_short() {
        assert_eq!("hunter2".parse::<FleetSecret>(), Err(InvalidSecret));
        assert_eq!(" ".repeat(64).parse::<FleetSecret>(), Err(InvalidSecret));
        assert_eq!(format!("{:?}", FleetSecret::random()), "FleetSecret(…)");
    }
}
