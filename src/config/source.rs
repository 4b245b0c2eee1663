//! Merges the layers of the configuration and gives typed access to single keys.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use ::config::{Config as Layers, Environment, File, FileFormat, Map, Source as _, Value, ValueKind};

use super::{ConfigError, FILE, SecretFile, invalid};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The merged layers. The source remembers which keys were read, because all other keys are unknown.
pub(super) struct Source {
    layers: Layers,
    /// The layers without the defaults: what somebody has set.
    set: Layers,
    read: RefCell<BTreeSet<&'static str>>,
}

impl Source {
    /// Merges the defaults, the file and the `WINDFALL__…` variables of the environment. Without `file`, reads
    /// `windfall.toml` if it exists.
    pub(super) fn new(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        // Values stay text: a secret that consists of digits must keep its leading zeros.
        let environment = environment.prefix("WINDFALL").separator("__").try_parsing(false);
        // Each layer is collected by itself, so that an error can name the layer.
        environment.collect().map_err(|_| ConfigError::Environment)?;
        let path = file.unwrap_or(Path::new(FILE));
        let toml = match std::fs::read_to_string(path) {
            Ok(toml) => toml,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::File { path: path.into(), reason: error.to_string() }),
        };
        // The message of the parser is dropped: it quotes the line, which may contain a secret.
        let toml = File::from_str(&toml, FileFormat::Toml);
        toml.collect()
            .map_err(|_| ConfigError::File { path: path.into(), reason: "it is not valid TOML".to_owned() })?;

        let set = Layers::builder().add_source(toml).add_source(environment);
        let set = set.build().map_err(|_| ConfigError::Environment)?;
        let layers = Layers::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).add_source(set.clone());
        let layers = layers.build().map_err(|_| ConfigError::Environment)?;
        Ok(Self { layers, set, read: RefCell::default() })
    }

    /// Only the defaults: neither a file nor the environment is read.
    pub(super) fn defaults() -> Result<Self, ConfigError> {
        let defaults = File::from_str(DEFAULTS, FileFormat::Toml);
        let layers = Layers::builder().add_source(defaults).build().map_err(|_| ConfigError::Environment)?;
        Ok(Self { layers, set: Layers::default(), read: RefCell::default() })
    }

    /// Returns the text of a key, or `None` if the text is empty.
    pub(super) fn optional_text(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        self.read.borrow_mut().insert(key);
        let text = self.layers.get_string(key).map_err(|_| invalid(key, "a single value"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Returns the text of a key that must not be empty.
    pub(super) fn text(&self, key: &'static str) -> Result<String, ConfigError> {
        self.optional_text(key)?.ok_or_else(|| invalid(key, "not empty"))
    }

    /// Returns the text of a key that may be given in a file: `file_key` names the file. Returns `None` if both are empty, and the
    /// file as well if the text came from it. Both must not be set.
    pub(super) fn text_or_file(
        &self,
        key: &'static str,
        file_key: &'static str,
    ) -> Result<(Option<String>, Option<SecretFile>), ConfigError> {
        let text = self.optional_text(key)?;
        let Some(path) = self.optional_text(file_key)? else { return Ok((text, None)) };
        // The default of a key does not count as set.
        if self.set.get_string(key).is_ok_and(|text| !text.is_empty()) {
            return Err(ConfigError::Both { key, file_key });
        }
        let file = SecretFile { key: file_key, path: path.into() };
        Ok((Some(file.read()?.expose().to_owned()), Some(file)))
    }

    /// Parses the value of a key. `allowed` completes the error message "must be …".
    pub(super) fn parse<T: FromStr>(&self, key: &'static str, allowed: &str) -> Result<T, ConfigError> {
        self.optional_text(key)?.and_then(|text| text.parse().ok()).ok_or_else(|| invalid(key, allowed))
    }

    pub(super) fn boolean(&self, key: &'static str) -> Result<bool, ConfigError> {
        self.parse(key, "true or false")
    }

    /// Returns a whole number from `least` to `most`, both included.
    pub(super) fn number<T: TryFrom<u64>>(&self, key: &'static str, least: u64, most: u64) -> Result<T, ConfigError> {
        let allowed = format!("a whole number from {least} to {most}");
        let number: u64 = self.parse(key, &allowed)?;
        if number < least || number > most {
            return Err(invalid(key, &allowed));
        }
        T::try_from(number).map_err(|_| invalid(key, "smaller on this machine"))
    }

    /// Returns an error if any layer has a key that was not read. Call this method after all sections have been read.
    pub(super) fn refuse_unread_keys(&self) -> Result<(), ConfigError> {
        let read = self.read.borrow();
        match self.keys().into_iter().find(|key| !read.contains(key.as_str())) {
            None => Ok(()),
            Some(key) => Err(ConfigError::UnknownKey { key }),
        }
    }

    /// The keys of all layers, in the form `section.key`.
    fn keys(&self) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        collect_keys("", &self.layers.collect().unwrap_or_default(), &mut keys);
        keys
    }
}

fn collect_keys(prefix: &str, table: &Map<String, Value>, keys: &mut BTreeSet<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &value.kind {
            ValueKind::Table(table) if !table.is_empty() => collect_keys(&key, table, keys),
            _ => {
                keys.insert(key);
            }
        }
    }
}
