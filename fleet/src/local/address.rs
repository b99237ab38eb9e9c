//! The address that fees go to, judged before any process is started: an upgrader would only tell its log.

use neptune_primitives::network::Network;
use neptune_wallet::address::ReceivingAddress;

/// Whether fees can go to an address.
///
/// # Errors
/// Why not. The text never repeats the address, which may be a key.
pub fn check(text: &str, network: fleet_api::v1alpha1::Network) -> Result<(), String> {
    let node_network: Network = network.node_name().parse()?;
    match ReceivingAddress::from_bech32m(text.trim(), node_network) {
        Ok(ReceivingAddress::Generation(_)) => Ok(()),
        Ok(_) => {
            Err("fees go to a generation address only (it begins with nolga); a symmetric address is the spending key itself \
                      and must never leave the wallet"
                .to_owned())
        }
        Err(_) => Err(format!("this is no address on {network}; `neptune-cli next-receiving-address` prints one")),
    }
}

#[cfg(test)]
mod tests {
    use fleet_api::v1alpha1::Network as Named;
    use neptune_wallet::address::generation_address::GenerationSpendingKey;
    use neptune_wallet::address::symmetric_key::SymmetricKey;
    use triton_vm::prelude::Tip5;

    use super::*;

    #[test]
    fn only_a_generation_address_of_the_network_will_do_and_no_key_is_repeated() {
        let address = ReceivingAddress::from(GenerationSpendingKey::derive_from_seed(Tip5::hash(&1_u64)).to_address());
        let text = address.to_bech32m(Network::RegTest).expect("has a text");
        assert_eq!(check(&text, Named::Regtest), Ok(()));
        assert!(check(&text, Named::Main).expect_err("of another network").contains("no address on main"));
        assert!(check("nonsense", Named::Main).is_err());
        let key = ReceivingAddress::from(SymmetricKey::from_seed(Tip5::hash(&1_u64)));
        let text = key.to_bech32m(Network::Main).expect("has a text");
        let said = check(&text, Named::Main).expect_err("is a key");
        assert!(said.contains("spending key") && !said.contains(&text), "{said}");
    }
}
