//! What can be wrong with a configuration, who wrote it where, and what to write instead.
//! Every error is the operator's and ends the command with exit code 78. No error repeats a secret.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nobody wrote it.
    Default,
    /// A line, from 1, of the configuration file.
    File {
        /// As given to `--config`.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A flag, as typed: `--listen`.
    Flag(String),
    /// An environment variable: `SIGHTLINE_LISTEN`.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Flag(name) => f.write_str(name),
            Self::Variable(name) => write!(f, "environment {name}"),
        }
    }
}

/// One thing to put right.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("{path}: cannot read the configuration: {source}", path = .path.display())]
    FileUnreadable {
        /// As given to `--config`.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that a key names cannot be read.
    #[error("{place}: {key}: cannot read {path:?}: {source}")]
    KeyFileUnreadable {
        /// Where the key was set.
        place: Place,
        /// The key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No key to verify tokens with.
    #[error(
        "no key to verify tokens with: set one of auth.jwt_secret, auth.jwt_secret_file, \
         auth.public_key_file, auth.jwks_file; to try it out, start with: sightline serve --dev"
    )]
    NoKeySource,
    /// Not TOML.
    #[error("{place}: not valid TOML: {message}")]
    Syntax {
        /// The line where reading stopped.
        place: Place,
        /// What the TOML reader said.
        message: String,
    },
    /// More than one key to verify tokens with.
    #[error("more than one key source: {}: keep exactly one", listed(.set))]
    TwoKeySources {
        /// Each key with its place.
        set: Vec<(&'static str, Place)>,
    },
    /// A key that does not exist.
    #[error("{place}: unknown key {key:?}: {hint}")]
    UnknownKey {
        /// Where it stands.
        place: Place,
        /// Its full name, tables included.
        key: String,
        /// What to write instead.
        hint: String,
    },
    /// An environment variable `SIGHTLINE_*` that names no key.
    #[error("environment {name}: no such setting: {hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// A value of a wrong type or out of range.
    #[error("{place}: {key}: expected {expected}, found {found}{}", for_example(.place, .key, .example))]
    Wrong {
        /// Where it stands.
        place: Place,
        /// Its full name, tables included.
        key: String,
        /// What the key takes.
        expected: String,
        /// What was written instead, shortened; never a secret.
        found: String,
        /// A value that would do, in TOML; empty where none helps.
        example: &'static str,
    },
}

/// All that is wrong, one line each.
#[derive(Debug, Error)]
#[error("{}", lines(.0))]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

fn lines(errors: &[ConfigError]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn listed(set: &[(&'static str, Place)]) -> String {
    let items: Vec<String> = set
        .iter()
        .map(|(key, at)| format!("{key} ({at})"))
        .collect();
    items.join(", ")
}

/// The example in the spelling of the place: a line under its table header, a variable, a flag.
fn for_example(place: &Place, key: &str, value: &str) -> String {
    if value.is_empty() {
        return String::new();
    }
    // A variable and a flag take a list without brackets and quotes.
    let word = value.replace(['[', ']', '"'], "").replace(", ", ",");
    match place {
        Place::Default | Place::File { .. } => {
            let name = key.rsplit('.').next().unwrap_or(key);
            format!("; for example: {name} = {value}")
        }
        Place::Flag(flag) if flag == "--set" => format!("; for example: --set '{key}={word}'"),
        Place::Flag(flag) => format!("; for example: {flag} '{word}'"),
        Place::Variable(name) => format!("; for example: {name}='{word}'"),
    }
}
