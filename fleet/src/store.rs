//! Proofs on disk: `NAME.claim.json` beside `NAME.proof`, in one folder.
//!
//! Both are public. The witness that a proof was made from is never written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use prover_api::proof;
use triton_vm::prelude::{Claim, Proof};

/// The file name of a transaction's assembled collection: `bincode(ProofCollection)`.
pub const COLLECTION: &str = "proof-collection.bin";

/// Why a claim or a proof cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system says no.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Not a claim as JSON.
    #[error("{}: not a claim: {reason}", path.display())]
    Claim {
        /// Where.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// Not a proof.
    #[error("{}", path.display())]
    Proof {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        source: proof::ProofError,
    },
    /// A folder without a single proof.
    #[error("{}: no proofs here; they lie in pairs NAME.claim.json and NAME.proof", .0.display())]
    Empty(PathBuf),
}

/// A claim and its encoded proof, by the name they have in the folder.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The part before `.proof`.
    pub name: String,
    /// What is claimed.
    pub claim: Claim,
    /// `bincode(Proof)`.
    pub proof: Vec<u8>,
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    |source| StoreError::Io { path, source }
}

/// Writes a pair into a folder, which is made when missing. Proofs of the same claim are replaced.
///
/// # Errors
///
/// [`StoreError::Io`], or a proof that has no encoding.
pub fn write(folder: &Path, name: &str, claim: &Claim, proof: &Proof) -> Result<(), StoreError> {
    let outer = folder;
    let path = outer.join(format!("{name}.claim.json"));
    // A name may have folders of its own: the leaf proofs of a transaction do.
    let folder = path.parent().unwrap_or(outer);
    fs::create_dir_all(folder).map_err(io_at(folder))?;
    let json = serde_json::to_vec_pretty(claim)
        .map_err(|error| StoreError::Claim { path: path.clone(), reason: error.to_string() })?;
    replace(&path, &json)?;
    let path = outer.join(format!("{name}.proof"));
    let encoded = proof::encode(proof).map_err(|source| StoreError::Proof { path: path.clone(), source })?;
    replace(&path, &encoded)
}

/// Writes a file so that nobody ever sees half of it.
///
/// # Errors
///
/// [`StoreError::Io`].
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    fs::write(&unfinished, bytes).map_err(io_at(&unfinished))?;
    fs::rename(&unfinished, path).map_err(io_at(path))
}

/// Reads a claim.
///
/// # Errors
///
/// [`StoreError`].
pub fn claim(path: &Path) -> Result<Claim, StoreError> {
    let bytes = fs::read(path).map_err(io_at(path))?;
    serde_json::from_slice(&bytes).map_err(|error| StoreError::Claim { path: path.to_owned(), reason: error.to_string() })
}

/// Reads the bytes of a proof, no more of them than a proof can have.
///
/// # Errors
///
/// [`StoreError::Io`].
pub fn proof_bytes(path: &Path) -> Result<Vec<u8>, StoreError> {
    use io::Read;

    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(io_at(path))?;
    file.take(proof::MAX_PROOF_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io_at(path))?;
    Ok(bytes)
}

/// All pairs of a folder, by name.
///
/// # Errors
///
/// [`StoreError`], also when a proof has no claim or there are no proofs at all.
pub fn pairs(folder: &Path) -> Result<Vec<Stored>, StoreError> {
    let mut names = vec![];
    for entry in fs::read_dir(folder).map_err(io_at(folder))? {
        let name = entry.map_err(io_at(folder))?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".proof")).map(str::to_owned));
    }
    names.sort();
    if names.is_empty() {
        return Err(StoreError::Empty(folder.to_owned()));
    }
    let read = |name: String| {
        let claim = claim(&folder.join(format!("{name}.claim.json")))?;
        let proof = proof_bytes(&folder.join(format!("{name}.proof")))?;
        Ok(Stored { name, claim, proof })
    };
    names.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use triton_vm::prelude::{BFieldElement, Digest, bfe_vec};

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().join("new");
        let claim = Claim::new(Digest::default()).with_input(bfe_vec![1]);
        let proof = Proof(bfe_vec![1, 2, 3]);
        write(&folder, "b", &claim, &proof).expect("the folder is writable");
        write(&folder, "a.v2", &claim, &proof).expect("the folder is writable");
        write(&folder, "a.v2", &claim, &proof).expect("a proof may be replaced");
        write(&folder, "tx/leaf", &claim, &proof).expect("a folder inside the folder");

        let stored = pairs(&folder).expect("two pairs");
        assert_eq!(["a.v2", "b"], [&*stored[0].name, &*stored[1].name]);
        assert_eq!(claim, stored[0].claim);
        assert_eq!(Ok(proof), proof::decode(&stored[0].proof));
        assert_eq!(5, fs::read_dir(&folder).expect("readable").count(), "nothing unfinished is left");
        assert_eq!("leaf", pairs(&folder.join("tx")).expect("one pair")[0].name);
    }

    #[test]
    fn a_folder_without_proofs_says_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(pairs(folder.path()), Err(StoreError::Empty(_))));
        fs::write(folder.path().join("lonely.proof"), [0; 8]).expect("writable");
        assert!(matches!(pairs(folder.path()), Err(StoreError::Io { .. })), "its claim is missing");
    }
}
