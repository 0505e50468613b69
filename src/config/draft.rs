//! Settings on their way to a [`Config`]: applies one after the other, remembers where each came
//! from, collects what is wrong, and at the end checks how they fit together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::engine::listener::ListenAddress;

use super::{
    Auth, Config, ConfigError, ConfigErrors, Dev, KeySource, OriginRule, Place, Secret, Tls,
    keys::{self, AuthSettings, KEYS, Settings, TIER_EXAMPLE, TIERS},
    nearest::nearest,
    sources::{VARIABLE_PREFIX, variable_of_key},
    value::{Mismatch, Value},
};

/// A configuration, with what its operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What holds but may surprise, one line each.
    pub warnings: Vec<String>,
    /// Every setting as a line of TOML; secrets are not shown.
    pub effective: Vec<String>,
}

/// What tokens are minted with, where a command does not say otherwise.
#[derive(Debug)]
pub struct TokenSettings {
    /// The shared secret; `None` where another key source is set, or none.
    pub secret: Option<Secret>,
    /// `auth.issuer`.
    pub issuer: Option<String>,
    /// `auth.audience`.
    pub audience: Option<String>,
}

/// Settings on their way.
pub(super) struct Draft {
    pub(super) settings: Settings,
    /// Who set what last.
    places: BTreeMap<String, Place>,
    pub(super) errors: Vec<ConfigError>,
    cores_available: usize,
}

impl Draft {
    /// The defaults.
    pub(super) fn new(cores_available: usize) -> Self {
        Self {
            settings: Settings::new(cores_available),
            places: BTreeMap::new(),
            errors: Vec::new(),
            cores_available,
        }
    }

    /// Sets one key, over what set it before.
    pub(super) fn apply(&mut self, place: Place, key: &str, value: &Value) {
        let tier = key.strip_prefix(TIERS).filter(|name| !name.is_empty());
        let (outcome, example) = match (tier, keys::find(key)) {
            (Some(name), _) => (self.settings.set_tier(name, value), TIER_EXAMPLE),
            (None, Some(row)) => ((row.set)(&mut self.settings, value), row.example),
            (None, None) => return self.report_unknown(place, key),
        };
        match outcome {
            Ok(()) => {
                self.places.insert(key.into(), place);
            }
            Err(mismatch) => self.report_wrong(place, key, mismatch, example),
        }
    }

    /// Takes note of an error.
    pub(super) fn report(&mut self, error: ConfigError) {
        self.errors.push(error);
    }

    fn report_wrong(&mut self, place: Place, key: &str, wrong: Mismatch, example: &'static str) {
        self.report(ConfigError::Wrong {
            place,
            // A tier may have any name, and an error has one line.
            key: key.escape_debug().to_string(),
            expected: wrong.expected,
            found: wrong.found,
            example,
        });
    }

    /// Takes note of a key that does not exist.
    pub(super) fn report_unknown(&mut self, place: Place, key: &str) {
        let hint = hint(key);
        let key = key.into();
        self.report(ConfigError::UnknownKey { place, key, hint });
    }

    /// Takes note of a variable that names no key.
    pub(super) fn report_unknown_variable(&mut self, name: &str) {
        let rest = name.strip_prefix(VARIABLE_PREFIX).unwrap_or(name);
        let key = rest.to_ascii_lowercase().replace("__", ".");
        let hint = match nearest(&key, KEYS.iter().map(|row| row.name)) {
            Some(near) => format!("did you mean {}?", variable_of_key(near)),
            None => "write SIGHTLINE_TABLE__KEY, for example SIGHTLINE_LIMITS__CONNECTIONS_MAX, \
                     or unset it"
                .into(),
        };
        let name = name.escape_debug().to_string();
        self.report(ConfigError::UnknownVariable { name, hint });
    }

    /// Checks how the settings fit together and reads the key file.
    pub(super) fn finish(mut self, dev: Option<Dev>) -> Result<Loaded, ConfigErrors> {
        let is_dev = dev.is_some();
        if let Some(dev) = dev {
            self.apply_dev(dev);
        }
        if self.errors.is_empty() {
            self.check_listeners(is_dev);
            self.check_relations();
        }
        let tls = self.tls();
        let keys = self.key_source();
        let warnings = self.warnings();
        let effective = self.settings.lines();
        match keys {
            Some(keys) if self.errors.is_empty() => Ok(Loaded {
                config: into_config(self.settings, keys, tls),
                warnings,
                effective,
            }),
            _ => Err(ConfigErrors(self.errors)),
        }
    }

    /// What tokens are minted with. A key may be missing.
    pub(super) fn token_settings(mut self) -> Result<TokenSettings, ConfigErrors> {
        let secret = match self.key_source() {
            Some(KeySource::Secret(secret)) => Some(secret),
            _ => None,
        };
        let is_missing = |error: &ConfigError| matches!(error, ConfigError::NoKeySource);
        self.errors.retain(|error| !is_missing(error));
        match self.errors.is_empty() {
            true => Ok(TokenSettings {
                secret,
                issuer: self.settings.auth.issuer,
                audience: self.settings.auth.audience,
            }),
            false => Err(ConfigErrors(self.errors)),
        }
    }

    /// Where the event log lives.
    pub(super) fn data_dir(self) -> Result<PathBuf, ConfigErrors> {
        match self.errors.is_empty() {
            true => Ok(self.settings.data_dir),
            false => Err(ConfigErrors(self.errors)),
        }
    }

    /// What `--dev` puts in place of what was written.
    fn apply_dev(&mut self, dev: Dev) {
        self.settings.auth = AuthSettings {
            jwt_secret: Some(dev.secret),
            ..AuthSettings::default()
        };
        if !matches!(self.places.get("data_dir"), Some(Place::Flag(_))) {
            self.settings.data_dir = dev.data_dir;
        }
        self.settings.origins.push(OriginRule::Loopback);
    }

    fn check_listeners(&mut self, is_dev: bool) {
        let listen = self.settings.listen.clone();
        if listen.is_empty() {
            self.refuse("listen", "at least one address", "none");
        }
        if let Some(twice) = first_repeated(&listen, |address| !has_port_zero(address)) {
            self.refuse("listen", "each address once", twice.to_string());
        }
        let ops = self.settings.ops.listen.clone();
        if let Some(address) = ops.filter(|ops| !has_port_zero(ops) && listen.contains(ops)) {
            self.refuse(
                "ops.listen",
                "an address that is not in listen",
                address.to_string(),
            );
        }
        if is_dev {
            self.check_loopback("listen", &listen);
            let ops: Vec<_> = self.settings.ops.listen.iter().cloned().collect();
            self.check_loopback("ops.listen", &ops);
        }
    }

    fn check_loopback(&mut self, key: &'static str, addresses: &[ListenAddress]) {
        for address in addresses.iter().filter(|address| !address.is_loopback()) {
            self.refuse(key, "a loopback address under --dev", address.to_string());
        }
    }

    /// Values against each other. Not called where some were wrong by themselves and defaults
    /// stand in for them.
    fn check_relations(&mut self) {
        let (limits, heartbeat) = (&self.settings.limits, &self.settings.heartbeat);
        let pairs = [
            (
                ("heartbeat.grace_ms", heartbeat.grace_ms),
                ("heartbeat.interval_ms", heartbeat.interval_ms),
            ),
            (
                ("limits.outbox_bytes_max", limits.outbox_bytes_max as u64),
                (
                    "limits.outbox_bytes_total",
                    limits.outbox_bytes_total as u64,
                ),
            ),
        ];
        for (low, high) in pairs {
            self.check_at_most(low, high);
        }
        if self.settings.cores > self.cores_available {
            let expected = format!("at most {}, the cores available", self.cores_available);
            self.refuse("cores", expected, self.settings.cores.to_string());
        }
        let phases = self.settings.agents.phases.clone();
        if phases.is_empty() || first_repeated(&phases, |_| true).is_some() {
            self.refuse(
                "agents.phases",
                "at least one name, each once",
                phases.join(", "),
            );
        }
    }

    fn check_at_most(&mut self, low: (&'static str, u64), high: (&'static str, u64)) {
        let ((key, found), (bound, bound_value)) = (low, high);
        if found <= bound_value {
            return;
        }
        let wrong = Mismatch {
            expected: format!("at most {bound}, {bound_value}"),
            found: found.to_string(),
        };
        let set = [key, bound]
            .into_iter()
            .find_map(|name| self.places.get(name));
        let place = set.cloned().unwrap_or(Place::Default);
        self.report_wrong(place, key, wrong, "");
    }

    /// Takes note of a setting that does not fit with others.
    pub(super) fn refuse(
        &mut self,
        key: &'static str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        let wrong = Mismatch {
            expected: expected.into(),
            found: found.into(),
        };
        self.report_wrong(self.place(key), key, wrong, "");
    }

    /// Who set a key last.
    pub(super) fn place(&self, key: &str) -> Place {
        self.places.get(key).cloned().unwrap_or(Place::Default)
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.settings.origins.contains(&OriginRule::Any) {
            let place = self.place("origins");
            warnings.push(format!(
                "origins ({place}): \"*\" lets every web page connect"
            ));
        }
        warnings
    }
}

fn into_config(settings: Settings, keys: KeySource, tls: Option<Tls>) -> Config {
    Config {
        listen: settings.listen,
        cores: settings.cores,
        data_dir: settings.data_dir,
        default_dialect: settings.default_dialect,
        has_echo: false,
        auth: Auth {
            keys,
            issuer: settings.auth.issuer,
            audience: settings.auth.audience,
        },
        origins: settings.origins,
        trusted_proxies: settings.trusted_proxies,
        tls,
        limits: settings.limits,
        tiers: settings.tiers,
        heartbeat: settings.heartbeat,
        compression: settings.compression,
        history: settings.history,
        agents: settings.agents,
        shutdown: settings.shutdown,
        ops: settings.ops,
    }
}

/// What to write instead of a key that does not exist: the same name in its table, a near one in
/// this table or, where there is no such table, anywhere; else all that there are.
fn hint(key: &str) -> String {
    let (table, last) = key.rsplit_once('.').unwrap_or(("", key));
    let by_last = |name: &str| KEYS.iter().find(|row| last_part(row.name) == name);
    let in_table = || {
        let prefix = format!("{table}.");
        let near = nearest(
            last,
            KEYS.iter().filter_map(|row| row.name.strip_prefix(&prefix)),
        )?;
        keys::find(&format!("{prefix}{near}"))
    };
    let anywhere = || nearest(key, KEYS.iter().map(|row| row.name).chain(keys::tables()));
    let near = match by_last(last).or_else(in_table) {
        Some(row) => Some(row.name),
        None if keys::tables().any(|name| name == table) => None,
        None => anywhere(),
    };
    match near {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("known are {}", siblings(table).join(", ")),
    }
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// The keys of a table, or the top level where there is no such table.
fn siblings(table: &str) -> Vec<&'static str> {
    let prefix = format!("{table}.");
    let inside: Vec<_> = KEYS
        .iter()
        .filter_map(|row| row.name.strip_prefix(&prefix))
        .collect();
    if !inside.is_empty() {
        return inside;
    }
    let top = KEYS
        .iter()
        .map(|row| row.name)
        .filter(|name| !name.contains('.'));
    top.chain(keys::tables()).collect()
}

fn has_port_zero(address: &ListenAddress) -> bool {
    matches!(address, ListenAddress::Tcp(address) if address.port() == 0)
}

fn first_repeated<T: PartialEq>(items: &[T], counts: fn(&T) -> bool) -> Option<&T> {
    let is_repeated = |(at, item): &(usize, &T)| counts(item) && items[..*at].contains(item);
    items
        .iter()
        .enumerate()
        .find(is_repeated)
        .map(|(_, item)| item)
}
