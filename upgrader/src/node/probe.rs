//! What backs a transaction, learned from the first bytes of its proof.
//!
//! No call says whether a mempool transaction has a ProofCollection (10 MB of JSON) or a SingleProof (2.5 MB), only the proof
//! itself does: as an object or as a text. So the answer is read until that shows and then dropped.

use serde_json::json;

use super::{NodeError, Nodes};
use crate::TxId;

/// What the node shows of a transaction's proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A ProofCollection.
    Collection,
    /// A SingleProof.
    Single,
    /// Nothing: the transaction is gone or backed by a witness.
    Nothing,
}

const METHOD: &str = "mempool_getTransactionProof";

/// More than the envelope of any answer.
const MOST: usize = 4096;

impl Nodes {
    /// What backs this transaction.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn shown(&self, txid: TxId) -> Result<Shown, NodeError> {
        let params = json!([txid]);
        let mut response = self.send(METHOD, params).await.map_err(|error| NodeError::Unreachable(error.to_string()))?;
        let mut read = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| NodeError::Unreachable(super::transport::chain(&error)))?
        {
            self.count(METHOD, |stats| stats.bytes_received += chunk.len() as u64);
            read.extend_from_slice(&chunk[..chunk.len().min(MOST - read.len().min(MOST))]);
            if let Some(shown) = shown_by(&read) {
                return Ok(shown);
            }
            if read.len() >= MOST {
                break;
            }
        }
        self.distrust();
        Err(NodeError::Nonsense("the answer shows no proof and says no error".to_owned()))
    }
}

/// The first character of the value of `"proof"` inside `"result"`, or that there is an error instead.
fn shown_by(text: &[u8]) -> Option<Shown> {
    let text = String::from_utf8_lossy(text);
    let (_, result) = text.split_once("\"result\"")?;
    let value = result.trim_start().strip_prefix(':')?.trim_start();
    if value.starts_with("null") {
        return Some(Shown::Nothing);
    }
    let (_, proof) = value.split_once("\"proof\"")?;
    let value = proof.trim_start().strip_prefix(':')?.trim_start();
    match value.bytes().next()? {
        b'"' => Some(Shown::Single),
        b'{' => Some(Shown::Collection),
        b'n' => Some(Shown::Nothing),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (text, shown) in [
            (r#"{"jsonrpc":"2.0","id":3,"result":{"proof":"0x00"#, Some(Shown::Single)),
            (r#"{"jsonrpc":"2.0","id":3,"result":{"proof":{"collect"#, Some(Shown::Collection)),
            (r#"{"jsonrpc":"2.0","id":3,"result":{"proof":null}}"#, Some(Shown::Nothing)),
            (r#"{"id":3, "result" : { "proof" : {"#, Some(Shown::Collection)),
            (r#"{"jsonrpc":"2.0","id":3,"result":{"proof":"#, None),
            (r#"{"jsonrpc":"2.0","id":3,"err"#, None),
            ("", None),
        ] {
            assert_eq!(shown_by(text.as_bytes()), shown, "{text}");
        }
    }
}
