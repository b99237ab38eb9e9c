//! Where two proofs differ, item by item.

use triton_vm::prelude::{BFieldCodec, Proof};
use triton_vm::proof_stream::ProofStream;

/// Name and number of the first item in which the proofs differ, with the first differing word; `None` if they are
/// equal byte by byte. The items are in the order of the transcript, so the first one names the stage that went wrong.
pub fn first_difference(ours: &Proof, theirs: &Proof) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let (ours, theirs) = match (ProofStream::try_from(ours), ProofStream::try_from(theirs)) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(error), _) => return Some(format!("our proof does not decode: {error}")),
        (_, Err(error)) => return Some(format!("their proof does not decode: {error}")),
    };
    for (number, (our_item, their_item)) in ours.items.iter().zip(&theirs.items).enumerate() {
        if our_item == their_item {
            continue;
        }
        let (our_words, their_words) = (our_item.encode(), their_item.encode());
        let word = our_words.iter().zip(&their_words).position(|(our, their)| our != their);
        let place = word.map_or_else(
            || format!("lengths {} and {}", our_words.len(), their_words.len()),
            |word| format!("word {word} of {}: {} and {}", our_words.len(), our_words[word], their_words[word]),
        );
        return Some(format!("item {number}, {our_item} (theirs: {their_item}), {place}"));
    }
    Some(format!("{} and {} items", ours.items.len(), theirs.items.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use triton_vm::proof_item::ProofItem;

    fn proof(log2_height: u32, extra: bool) -> Proof {
        let mut stream = ProofStream::new();
        stream.enqueue(ProofItem::Log2PaddedHeight(8));
        stream.enqueue(ProofItem::Log2PaddedHeight(log2_height));
        if extra {
            stream.enqueue(ProofItem::FriCodeword(vec![]));
        }
        stream.into()
    }

    #[test]
    fn the_first_differing_item_is_named() {
        assert_eq!(first_difference(&proof(9, false), &proof(9, false)), None);
        let difference = first_difference(&proof(9, false), &proof(10, false)).expect("the heights differ");
        assert!(difference.starts_with("item 1, Log2PaddedHeight"), "{difference}");
        assert_eq!(first_difference(&proof(9, false), &proof(9, true)).as_deref(), Some("2 and 3 items"));
    }
}
