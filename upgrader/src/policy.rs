//! What an upgrade is worth, as neptune-core reckons it.

use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;

/// What an operator wants to be paid, and how large a collection may be. Defaults are neptune-core's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The share of a transaction's fee that its upgrader keeps, from 0 to 1.
    pub gobbling_fraction: f64,
    /// Upgrades that bring less than this are left to others. Zero: work for free too.
    pub min_gobbling_fee: NativeCurrencyAmount,
    /// Collections with more proofs than this are not raised.
    pub max_num_proofs: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self { gobbling_fraction: 0.6, min_gobbling_fee: coins(1, 100), max_num_proofs: 16 }
    }
}

/// The smallest fee for which two transactions are merged without being paid for it: 1/2000 coin, as upstream.
pub fn minimum_fee_for_free_merge() -> NativeCurrencyAmount {
    coins(1, 2000)
}

fn coins(numerator: i128, denominator: i128) -> NativeCurrencyAmount {
    NativeCurrencyAmount::from_nau(NativeCurrencyAmount::coin_as_nau() * numerator / denominator)
}

/// Why somebody upgrades a transaction. Ordered: a possible fee below one that is already in it, and that below all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Incentive {
    /// This much can be gobbled.
    Gobble(NativeCurrencyAmount),
    /// This much of ours is in the transaction already.
    BalanceAffecting(NativeCurrencyAmount),
}

impl Incentive {
    /// The amount at stake.
    pub fn amount(self) -> NativeCurrencyAmount {
        match self {
            Self::Gobble(amount) | Self::BalanceAffecting(amount) => amount,
        }
    }

    /// The incentive to keep going once this upgrade is done.
    #[must_use]
    pub fn after_upgrade(self) -> Self {
        Self::BalanceAffecting(self.amount())
    }
}

impl Policy {
    /// What raising a foreign transaction with this fee brings.
    pub fn gobbling_potential(&self, fee: NativeCurrencyAmount) -> NativeCurrencyAmount {
        fee.lossy_f64_fraction_mul(self.gobbling_fraction)
    }

    /// Whether the incentive is worth a proof.
    pub fn is_worth_it(&self, incentive: Incentive) -> bool {
        match incentive {
            Incentive::Gobble(amount) => amount >= self.min_gobbling_fee,
            Incentive::BalanceAffecting(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn defaults_are_the_nodes() {
        let policy = Policy::default();
        assert_eq!(policy.min_gobbling_fee, NativeCurrencyAmount::coins_from_str("0.01").expect("is an amount"));
        // Upstream's own arithmetic, which is lossy: six coins less some nau.
        let potential = policy.gobbling_potential(NativeCurrencyAmount::coins(10));
        assert_eq!(potential.display_n_decimals(9), "6.000000000");
        assert_eq!(minimum_fee_for_free_merge(), NativeCurrencyAmount::coins_from_str("0.0005").expect("is an amount"));
    }

    proptest! {
        #[test]
        fn never_more_than_the_fee_is_gobbled(nau in 0..i128::MAX / 8, fraction in 0.0..=1.0) {
            let policy = Policy { gobbling_fraction: fraction, ..Policy::default() };
            let fee = NativeCurrencyAmount::from_nau(nau);
            let gobbled = policy.gobbling_potential(fee);
            prop_assert!(!gobbled.is_negative() && gobbled <= fee, "{gobbled} of {fee}");
        }

        #[test]
        fn money_that_is_already_ours_comes_first(one in 0..i128::MAX / 8, other in 0..i128::MAX / 8) {
            let [one, other] = [one, other].map(NativeCurrencyAmount::from_nau);
            prop_assert!(Incentive::Gobble(one) < Incentive::BalanceAffecting(other));
        }
    }
}
