//! The layers of the configuration, merged, and typed access to single keys.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use ::config::{Config as Layers, Environment, File, FileFormat, Map, Source as _, Value, ValueKind};

use super::{ConfigError, FILE, invalid};

const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The merged layers. It remembers which keys were read: any other key does not exist.
pub(super) struct Source {
    layers: Layers,
    read: RefCell<BTreeSet<&'static str>>,
}

impl Source {
    /// Only the environment's `WINDFALL__…` variables are taken. Without `file`, `windfall.toml` is read if it is there.
    pub(super) fn new(file: Option<&Path>, environment: Environment) -> Result<Self, ConfigError> {
        // Left unparsed: a secret made of digits must keep its leading zeros.
        let environment = environment.prefix("WINDFALL").separator("__").try_parsing(false);
        // Layer by layer, so that an error can name the layer.
        environment.collect().map_err(|_| ConfigError::Environment)?;
        let path = file.unwrap_or(Path::new(FILE));
        let toml = match std::fs::read_to_string(path) {
            Ok(toml) => toml,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::File { path: path.into(), reason: error.to_string() }),
        };
        // The parser's own message quotes the line, which may hold a secret.
        let toml = File::from_str(&toml, FileFormat::Toml);
        toml.collect()
            .map_err(|_| ConfigError::File { path: path.into(), reason: "it is not valid TOML".to_owned() })?;

        let layers = Layers::builder()
            .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
            .add_source(toml)
            .add_source(environment)
            .build()
            .map_err(|_| ConfigError::Environment)?;
        Ok(Self { layers, read: RefCell::default() })
    }

    /// The defaults alone.
    pub(super) fn defaults() -> Result<Self, ConfigError> {
        let defaults = File::from_str(DEFAULTS, FileFormat::Toml);
        let layers = Layers::builder().add_source(defaults).build().map_err(|_| ConfigError::Environment)?;
        Ok(Self { layers, read: RefCell::default() })
    }

    /// A text, or `None` where it is empty.
    pub(super) fn optional_text(&self, key: &'static str) -> Result<Option<String>, ConfigError> {
        self.read.borrow_mut().insert(key);
        let text = self.layers.get_string(key).map_err(|_| invalid(key, "a single value"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A text that is not empty.
    pub(super) fn text(&self, key: &'static str) -> Result<String, ConfigError> {
        self.optional_text(key)?.ok_or_else(|| invalid(key, "not empty"))
    }

    /// A value of a type that can be parsed.
    pub(super) fn parse<T: FromStr>(&self, key: &'static str, allowed: &str) -> Result<T, ConfigError> {
        self.optional_text(key)?.and_then(|text| text.parse().ok()).ok_or_else(|| invalid(key, allowed))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, key: &'static str) -> Result<bool, ConfigError> {
        self.parse(key, "true or false")
    }

    /// A whole number between two bounds, both allowed.
    pub(super) fn number<T: TryFrom<u64>>(&self, key: &'static str, least: u64, most: u64) -> Result<T, ConfigError> {
        let allowed = format!("a whole number from {least} to {most}");
        let number: u64 = self.parse(key, &allowed)?;
        if number < least || number > most {
            return Err(invalid(key, &allowed));
        }
        T::try_from(number).map_err(|_| invalid(key, "smaller on this machine"))
    }

    /// Refuses the keys that nobody asked for. To be called when all areas are read.
    pub(super) fn refuse_unread_keys(&self) -> Result<(), ConfigError> {
        let read = self.read.borrow();
        match self.keys().into_iter().find(|key| !read.contains(key.as_str())) {
            None => Ok(()),
            Some(key) => Err(ConfigError::UnknownKey { key }),
        }
    }

    /// The keys of all layers, dotted.
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
