//! The transaction file that `fleet prove` takes.
//!
//! JSON, one object:
//!
//! ```json
//! {"format": "upgrader-fleet/transaction", "version": 1, "witness": { … }}
//! ```
//!
//! `witness` is neptune-consensus' `PrimitiveWitness` as serde writes it. **It is a secret**: whoever reads it can
//! spend the inputs and learns all amounts. [`write()`] makes the file for its owner alone (mode 0600) and never
//! overwrites one; [`read`] refuses nothing over its mode but reports it, see [`readable_by_others`].

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

const FORMAT: &str = "upgrader-fleet/transaction";
const VERSION: u32 = 1;

/// No transaction that a pod would take is larger: the limit of a job's body.
const MAX_BYTES: u64 = 256 << 20;

#[derive(Deserialize)]
struct Header<'a> {
    format: &'a str,
    version: u32,
    #[serde(borrow)]
    witness: &'a RawValue,
}

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    version: u32,
    witness: &'a PrimitiveWitness,
}

/// Why a transaction file cannot be read or written. Never shows what the file holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransactionFileError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Longer than any job may be.
    #[error("larger than {} MiB; that is no transaction", MAX_BYTES >> 20)]
    TooLarge,
    /// Another kind of file.
    #[error("not a transaction file: it is no JSON object with \"format\": \"{FORMAT}\"")]
    OtherFormat,
    /// A transaction file of a later release.
    #[error("transaction file of version {0}; this release reads version {VERSION}, a newer one is needed")]
    OtherVersion(u32),
    /// The envelope is right and its content is not.
    #[error(
        "the witness is no PrimitiveWitness of neptune-consensus 0.19: it breaks off or differs at line {line}, column {column}"
    )]
    Witness {
        /// Line within the witness, from 1.
        line: usize,
        /// Column within that line, from 1.
        column: usize,
    },
}

/// Whether the text is a transaction file of any version: a look at its envelope.
pub fn is_transaction(text: &[u8]) -> bool {
    serde_json::from_slice::<Header<'_>>(text).is_ok_and(|header| header.format == FORMAT)
}

/// The witness in the text of a transaction file.
///
/// # Errors
///
/// [`TransactionFileError`]; serde's own message is cut down to a place, since it may quote the value found there.
pub fn parse(text: &[u8]) -> Result<PrimitiveWitness, TransactionFileError> {
    let header: Header<'_> = serde_json::from_slice(text).map_err(|_| TransactionFileError::OtherFormat)?;
    if header.format != FORMAT {
        return Err(TransactionFileError::OtherFormat);
    }
    if header.version != VERSION {
        return Err(TransactionFileError::OtherVersion(header.version));
    }
    serde_json::from_str(header.witness.get())
        .map_err(|error| TransactionFileError::Witness { line: error.line(), column: error.column() })
}

/// Reads a transaction file.
///
/// # Errors
///
/// [`TransactionFileError`] when the file cannot be read or is something else.
pub fn read(path: &Path) -> Result<PrimitiveWitness, TransactionFileError> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(TransactionFileError::TooLarge);
    }
    parse(&text)
}

/// Whether others than its owner may read the file: for a transaction or a job with secrets, a thing to warn about.
pub fn readable_by_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0)
}

/// Writes a transaction file for its owner's eyes only.
///
/// # Errors
///
/// [`TransactionFileError::Io`], also when the file exists: a secret is not replaced by accident.
pub fn write(path: &Path, witness: &PrimitiveWitness) -> Result<(), TransactionFileError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut buffer = io::BufWriter::new(file);
    let document = Document { format: FORMAT, version: VERSION, witness };
    serde_json::to_writer(&mut buffer, &document).map_err(io::Error::from)?;
    buffer.write_all(b"\n")?;
    buffer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::example::{self, Shape};

    fn example() -> PrimitiveWitness {
        example::transaction(Shape { inputs: 1, outputs: 1, announcements: 0 }).expect("a small shape")
    }

    #[test]
    fn a_written_transaction_reads_back_and_only_its_owner_may() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("transaction.json");
        let witness = example();
        write(&path, &witness).expect("the folder is writable");
        assert!(!readable_by_others(&path));
        assert_eq!(witness, read(&path).expect("what was written"));

        let again = write(&path, &witness).expect_err("never overwrites");
        assert!(matches!(again, TransactionFileError::Io(error) if error.kind() == io::ErrorKind::AlreadyExists));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("own file");
        assert!(readable_by_others(&path));
    }

    #[test]
    fn other_files_are_told_apart_and_errors_quote_nothing() {
        assert!(matches!(parse(b"read_io 1 halt"), Err(TransactionFileError::OtherFormat)));
        assert!(matches!(
            parse(br#"{"format":"something-else","version":1,"witness":{}}"#),
            Err(TransactionFileError::OtherFormat)
        ));
        assert!(matches!(
            parse(br#"{"format":"upgrader-fleet/transaction","version":2,"witness":{}}"#),
            Err(TransactionFileError::OtherVersion(2))
        ));
        let secret = br#"{"format":"upgrader-fleet/transaction","version":1,"witness":{"input_utxos":"hunter2"}}"#;
        assert!(is_transaction(secret));
        let error = parse(secret).expect_err("no witness");
        assert!(matches!(error, TransactionFileError::Witness { .. }));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
