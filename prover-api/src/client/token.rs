//! The bearer token, from a file that may change while the client runs (projected service-account tokens live an hour).

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Where the token comes from. `Debug` never shows it.
pub enum Token {
    /// None is sent.
    None,
    /// Always this one.
    Fixed(String),
    /// Content of a file, without white space around it.
    File(TokenFile),
}

impl Token {
    /// The token from a file, which is read now and whenever it changes.
    ///
    /// # Errors
    /// When the file cannot be read, or is empty.
    pub fn from_file(path: impl Into<PathBuf>) -> io::Result<Self> {
        let file = TokenFile { path: path.into(), cached: Mutex::default() };
        file.reload()?;
        Ok(Self::File(file))
    }

    /// The token to send now.
    pub fn current(&self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Fixed(token) => Some(token.clone()),
            Self::File(file) => file.current(),
        }
    }

    /// Reads again, after a pod refused the token. `true` when there is another one now.
    pub fn renew(&self, refused: Option<&str>) -> bool {
        match self {
            Self::None | Self::Fixed(_) => false,
            Self::File(file) => file.reload().is_ok_and(|token| Some(token.as_str()) != refused),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(_) => f.write_str("Fixed(..)"),
            Self::File(file) => f.debug_tuple("File").field(&file.path).finish(),
        }
    }
}

/// A token file and what stood in it last.
pub struct TokenFile {
    path: PathBuf,
    cached: Mutex<Option<(Option<SystemTime>, String)>>,
}

impl TokenFile {
    fn reload(&self) -> io::Result<String> {
        let modified = modified(&self.path);
        let token = fs::read_to_string(&self.path)?.trim().to_owned();
        if token.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the token file is empty"));
        }
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some((modified, token.clone()));
        Ok(token)
    }

    fn current(&self) -> Option<String> {
        let cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match cached {
            Some((read, token)) if read == modified(&self.path) => Some(token),
            // While the file is being replaced, the old token is the best guess.
            cached => self.reload().ok().or(cached.map(|(_, token)| token)),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        assert!(Token::from_file(&path).is_err(), "missing");
        fs::write(&path, " \n").expect("writes");
        assert!(Token::from_file(&path).is_err(), "empty");
        fs::write(&path, "first\n").expect("writes");
        let token = Token::from_file(&path).expect("reads");
        assert_eq!(token.current().as_deref(), Some("first"));
        assert!(!token.renew(Some("first")));
        fs::write(&path, "second\n").expect("writes");
        // Within one tick of the file system's clock only `renew` is sure to see the change.
        assert!(token.renew(Some("first")));
        assert_eq!(token.current().as_deref(), Some("second"));
        fs::remove_file(&path).expect("removes");
        assert_eq!(token.current().as_deref(), Some("second"), "the last known one, while there is none");
        assert!(!format!("{token:?} {:?}", Token::Fixed("secret".to_owned())).contains("sec"));
    }
}
