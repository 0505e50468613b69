//! Where settings are written: a file, the environment, flags. Brings all three to one form,
//! (place, key, value); what a key takes is not known here.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    thread,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    ConfigError, ConfigErrors, Loaded, Place, Secret,
    draft::{Draft, TokenSettings},
    keys::{self, TIERS},
    value::Value,
};

/// All that a configuration is made from. Nothing is read behind its back but the key files that
/// it names.
#[derive(Default)]
pub struct Sources {
    /// The configuration file: its path and its text.
    pub file: Option<(PathBuf, String)>,
    /// All environment variables; those that do not begin with `SIGHTLINE_` are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags: (as typed, key, value), the last one of a key wins.
    pub flags: Vec<(String, String, String)>,
    /// What `serve --dev` brings.
    pub dev: Option<Dev>,
    /// Cores that this process may use; at least 1.
    pub cores_available: usize,
}

/// What `serve --dev` brings: its own key instead of all of `auth.*`, a data folder unless a flag
/// names one, loopback origins, and the rule that every listener is on loopback.
pub struct Dev {
    /// The fresh secret.
    pub secret: Secret,
    /// A temporary folder.
    pub data_dir: PathBuf,
}

impl Sources {
    /// What this process was given: the file at `path` (else `./sightline.toml` where it exists),
    /// the environment, the cores.
    /// Errors: `FileUnreadable`.
    pub fn of_process(path: Option<&Path>) -> Result<Self, ConfigErrors> {
        Ok(Self {
            file: read_file(path)?,
            environment: std::env::vars_os().collect(),
            cores_available: thread::available_parallelism().map_or(1, Into::into),
            ..Self::default()
        })
    }

    /// Applies file, environment, flags in this order, checks how the settings fit together, and
    /// reads the key file. Errors: every one that was found, in this order.
    pub fn load(mut self) -> Result<Loaded, ConfigErrors> {
        let dev = self.dev.take();
        self.draft().finish(dev)
    }

    /// What a command needs that mints tokens; a missing key is no error here.
    /// Errors: as [`Self::load`], but for how settings of the server fit together.
    pub fn token_settings(self) -> Result<TokenSettings, ConfigErrors> {
        self.draft().token_settings()
    }

    /// Where the event log lives; a missing key is no error here.
    /// Errors: as [`Self::load`], but for how settings of the server fit together.
    pub fn data_dir(self) -> Result<PathBuf, ConfigErrors> {
        self.draft().data_dir()
    }

    fn draft(self) -> Draft {
        let mut draft = Draft::new(self.cores_available.max(1));
        if let Some((path, text)) = &self.file {
            apply_file(&mut draft, path, text);
        }
        for (name, value) in &self.environment {
            apply_variable(&mut draft, name, value);
        }
        for (flag, key, value) in self.flags {
            draft.apply(Place::Flag(flag), &key, &Value::Word(value));
        }
        draft
    }
}

fn read_file(path: Option<&Path>) -> Result<Option<(PathBuf, String)>, ConfigErrors> {
    let is_named = path.is_some();
    let path = path.unwrap_or(Path::new("sightline.toml"));
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some((path.into(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => Ok(None),
        Err(source) => Err(ConfigError::FileUnreadable {
            path: path.into(),
            source,
        }
        .into()),
    }
}

/// A file under its path, with the text that spans point into.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        Place::File {
            path: self.path.into(),
            line: 1 + memchr::memchr_iter(b'\n', before).count(),
        }
    }
}

fn apply_file(draft: &mut Draft, path: &Path, text: &str) {
    let file = File { path, text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        apply_table(draft, &file, "", table.get_ref());
    }
    for error in errors {
        // Its `Display` quotes the line, which may hold a secret; its message does not.
        draft.report(ConfigError::Syntax {
            place: file.place(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', "; "),
        });
    }
}

/// Applies the entries of a table in the order in which they are written.
fn apply_table(draft: &mut Draft, file: &File<'_>, prefix: &str, table: &DeTable<'_>) {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        apply_entry(draft, file, prefix, name, value);
    }
}

fn apply_entry(
    draft: &mut Draft,
    file: &File<'_>,
    prefix: &str,
    name: &Spanned<impl AsRef<str>>,
    value: &Spanned<DeValue<'_>>,
) {
    let place = file.place(name.span().start);
    let name = name.get_ref().as_ref();
    let full = format!("{prefix}{name}");
    let is_table = prefix.is_empty() && keys::tables().any(|table| table == name);
    match value.get_ref() {
        DeValue::Table(entries) if is_table => {
            apply_table(draft, file, &format!("{full}."), entries);
        }
        other if is_table => draft.report(ConfigError::Wrong {
            place,
            key: full,
            expected: "a table".into(),
            found: Value::from_toml(other).describe(),
            example: "",
        }),
        // Quotes would let one name stand for a key in a table; only a tier may be called so.
        _ if name.contains('.') && prefix != TIERS => draft.report_unknown(place, &full),
        other => draft.apply(place, &full, &Value::from_toml(other)),
    }
}

/// Prefix of the variables that are ours.
pub(super) const VARIABLE_PREFIX: &str = "SIGHTLINE_";

/// Variables that begin as ours do and belong to other parts.
const OTHER_VARIABLES: &[&str] = &[
    "SIGHTLINE_LOG",
    "SIGHTLINE_SIM_SEED",
    "SIGHTLINE_SIM_SEEDS",
    "SIGHTLINE_SIM_STEPS",
    "SIGHTLINE_TOKEN",
];

fn apply_variable(draft: &mut Draft, name: &OsString, value: &OsString) {
    let name = name.to_string_lossy();
    if !name.starts_with(VARIABLE_PREFIX) || is_foreign(&name) {
        return;
    }
    let Some(key) = key_of_variable(&name) else {
        return draft.report_unknown_variable(&name);
    };
    let place = Place::Variable(name.escape_debug().to_string());
    match value.to_str() {
        Some(text) => draft.apply(place, &key, &Value::Word(text.into())),
        None => draft.report(ConfigError::Wrong {
            place,
            key: key.escape_debug().to_string(),
            expected: "text in UTF-8".into(),
            found: "other bytes".into(),
            example: "",
        }),
    }
}

/// `SIGHTLINE_LIMITS__CONNECTIONS_MAX` is `limits.connections_max`; `None` where no key is meant.
fn key_of_variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix(VARIABLE_PREFIX)?;
    let key = rest.to_ascii_lowercase().replace("__", ".");
    let is_tier = key.len() > TIERS.len() && key.starts_with(TIERS);
    let is_known = is_tier || keys::find(&key).is_some();
    (is_known && rest == rest.to_ascii_uppercase()).then_some(key)
}

/// The variable that sets a key.
pub(super) fn variable_of_key(key: &str) -> String {
    let name = key.replace('.', "__").to_ascii_uppercase();
    format!("{VARIABLE_PREFIX}{name}")
}

/// Whether a variable is another part's, or is put into every container of a Kubernetes
/// namespace that has a service named `sightline` or `sightline-…` (`SIGHTLINE_SERVICE_HOST`,
/// `SIGHTLINE_PORT_4040_TCP_ADDR`). No key of ours has such a name.
fn is_foreign(name: &str) -> bool {
    OTHER_VARIABLES.contains(&name)
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || name
            .split_once("_PORT_")
            .is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_variable_that_leads_back_to_it() {
        for key in keys::KEYS {
            let name = variable_of_key(key.name);
            assert_eq!(key_of_variable(&name).as_deref(), Some(key.name));
            assert!(!is_foreign(&name), "{name}");
        }
    }

    #[test]
    fn variables_of_others_are_passed_over() {
        for name in [
            "SIGHTLINE_LOG",
            "SIGHTLINE_PORT",
            "SIGHTLINE_PORT_4040_TCP",
            "SIGHTLINE_PORT_4040_TCP_ADDR",
            "SIGHTLINE_SERVICE_HOST",
            "SIGHTLINE_SERVICE_PORT_HTTP",
            "SIGHTLINE_OPS_SERVICE_HOST",
        ] {
            assert!(is_foreign(name), "{name}");
        }
        for name in ["SIGHTLINE_LISTEN", "SIGHTLINE_PORT_X", "SIGHTLINE_LOGS"] {
            assert!(!is_foreign(name), "{name}");
        }
    }
}
