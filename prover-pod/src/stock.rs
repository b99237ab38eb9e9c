//! What the pod of a stock node gets from our image before the node starts: `prover-proxy`, and its wallet. Our image has neither a
//! shell nor `cp`, so this program does it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file of a wallet.
const WALLET: &str = "wallet.dat";
const PROXY: &str = "prover-proxy";

/// Why a node must not start.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A Secret without a wallet. The node would silently make a new one.
    #[error("{0} is empty: the Secret has no wallet")]
    NoWallet(PathBuf),
    /// The volume belongs to another wallet.
    #[error("{there} is another wallet than {given}: neither is overwritten")]
    OtherWallet {
        /// That of the volume.
        there: PathBuf,
        /// That of the Secret.
        given: PathBuf,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StockError {
    let path = path.to_owned();
    |source| StockError::File { path, source }
}

/// Puts the `prover-proxy` that lies beside `program` into a folder.
///
/// # Errors
/// It cannot be read or written.
pub fn give_proxy(program: &Path, folder: &Path) -> Result<(), StockError> {
    let (from, to) = (program.with_file_name(PROXY), folder.join(PROXY));
    let bytes = fs::read(&from).map_err(failed(&from))?;
    put(&to, &bytes, 0o755)
}

/// Puts the wallet of one folder into another, which may be missing. One that is there already has to be the same.
///
/// # Errors
/// There is none to give, there is another one, or a file cannot be read or written.
pub fn give_wallet(from: &Path, to: &Path) -> Result<(), StockError> {
    let (given, there) = (from.join(WALLET), to.join(WALLET));
    let wallet = fs::read(&given).map_err(failed(&given))?;
    if wallet.is_empty() {
        return Err(StockError::NoWallet(given));
    }
    match fs::read(&there) {
        Ok(found) if found == wallet => return Ok(()),
        Ok(_) => return Err(StockError::OtherWallet { there, given }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(&there)(error)),
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed(to))?;
    put(&there, &wallet, 0o600)
}

/// A whole file or none, whatever happens in the middle: half a wallet would be another one for ever.
fn put(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StockError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn a_wallet_is_given_once_and_no_other_takes_its_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let (secret, volume) = (folder.path().join("secret"), folder.path().join("data/main/wallet"));
        fs::create_dir(&secret).expect("made");
        let there = volume.join(WALLET);
        assert!(matches!(give_wallet(&secret, &volume), Err(StockError::File { .. })), "no wallet");
        fs::write(secret.join(WALLET), "").expect("written");
        assert!(matches!(give_wallet(&secret, &volume), Err(StockError::NoWallet(_))));
        assert!(!there.exists(), "the node would take anything for a wallet");

        fs::write(secret.join(WALLET), "seed").expect("written");
        give_wallet(&secret, &volume).expect("given");
        assert_eq!((fs::read(&there).expect("read"), mode(&there), mode(&volume)), (b"seed".to_vec(), 0o600, 0o700));
        // The node has written beside it; the pod starts again.
        fs::write(volume.join("incoming_randomness.dat"), "x").expect("written");
        give_wallet(&secret, &volume).expect("the same");

        fs::write(secret.join(WALLET), "another seed").expect("written");
        assert!(matches!(give_wallet(&secret, &volume), Err(StockError::OtherWallet { .. })));
        assert_eq!(fs::read(&there).expect("read"), b"seed", "money is in it");
    }

    #[test]
    fn the_proxy_can_be_run_where_it_was_put() {
        let folder = tempfile::tempdir().expect("a folder");
        let (bin, tools) = (folder.path().join("bin"), folder.path().join("tools"));
        for path in [&bin, &tools] {
            fs::create_dir(path).expect("made");
        }
        assert!(give_proxy(&bin.join("prover-pod"), &tools).is_err());
        fs::write(bin.join(PROXY), "program").expect("written");
        for _ in 0..2 {
            give_proxy(&bin.join("prover-pod"), &tools).expect("given");
        }
        assert_eq!(mode(&tools.join(PROXY)), 0o755);
        assert_eq!(fs::read_dir(&tools).expect("read").count(), 1, "something was left beside it");
    }
}
