//! Secrets, and the files that contain them.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use super::ConfigError;

/// The largest file with a secret, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// A text that must not appear in logs and messages. Its `Debug` output is a placeholder.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A file that contains a secret, and the key that names it.
#[derive(Clone, Debug)]
pub struct SecretFile {
    pub(super) key: &'static str,
    pub(super) path: PathBuf,
}

impl SecretFile {
    /// The key that names the file.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Reads the secret: the content of the file without a line end at its end.
    pub fn read(&self) -> Result<Secret, ConfigError> {
        let text = String::from_utf8(self.read_bytes()?).map_err(|_| self.fails("is not UTF-8"))?;
        let secret = text.strip_suffix("\r\n").or(text.strip_suffix('\n')).unwrap_or(&text);
        if secret.is_empty() {
            return Err(self.fails("is empty"));
        }
        Ok(Secret(secret.to_owned()))
    }

    /// Reads the whole file.
    pub(super) fn read_bytes(&self) -> Result<Vec<u8>, ConfigError> {
        // The text of the error says what is wrong with the path, but does not contain it.
        let unreadable = |error: std::io::Error| self.fails(&format!("cannot be read: {error}"));
        let mut bytes = Vec::new();
        let file = File::open(&self.path).map_err(unreadable)?;
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > MAX_BYTES {
            return Err(self.fails("is larger than 64 KiB"));
        }
        Ok(bytes)
    }

    fn fails(&self, problem: &str) -> ConfigError {
        ConfigError::SecretFile { key: self.key, problem: problem.to_owned() }
    }
}
