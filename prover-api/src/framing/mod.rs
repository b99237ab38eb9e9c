//! The older ways in which a node hands a job to a prover: five JSON texts on standard input, and the TVMP v1 socket.
//!
//! Both carry the five parts of a [`crate::ProverJob`] as separate JSON texts. [`FiveTexts`] turns them into the one document of
//! neptune-core by splicing the texts as they are: the witness is never parsed on the way and exists no further time in memory.

mod five_texts;
pub mod tvmp;

pub use five_texts::{FiveTexts, MAX_TEXT_BYTES, MalformedTexts, Part, Shape};
