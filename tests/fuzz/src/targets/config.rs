//! What an operator writes: a file, then variables behind a line `--- env`, then settings of the
//! command line behind a line `--- flags`, both as `NAME=VALUE`.
//!
//! Properties: each error is one line that begins with its place, and the place is one that there
//! is; no secret is told; the effective settings, written into a file, are the same settings.

use std::ffi::OsString;
use std::path::Path;

use sightline::config::{ConfigError, Loaded, Place, Sources};

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "config",
    run,
    tokens: TOKENS,
    bytes_max: 4 * 1024,
};

#[rustfmt::skip]
const TOKENS: &[&str] = &[
    "listen", "cores", "data_dir", "default_dialect", "origins", "trusted_proxies", "auth.",
    "jwt_secret", "jwt_secret_file", "public_key_file", "jwks_file", "issuer", "audience", "tls.",
    "cert", "key", "limits.", "connections_max", "message_bytes_max", "outbox_bytes_max",
    "outbox_bytes_total", "tiers.", "free", "individual", "heartbeat.", "interval_ms", "grace_ms",
    "compression.", "enabled", "threshold_bytes", "level", "history.", "durability", "deliver",
    "agents.", "phases", "shutdown.", "drain_ms", "ops.", "[limits]\n", "[tiers]\n", "[auth]\n",
    " = ", "\"\"\"", "'''", "\"", "'", "[[", "]]", "[]", "{}", "true", "0x10", "1_000", "1e3",
    "1979-05-27", "\n--- env\n", "\n--- flags\n", "SIGHTLINE_", "LIMITS__CONNECTIONS_MAX=",
    "TIERS__", "AUTH__JWT_SECRET=", "127.0.0.1:4040", "[::1]:4040", "unix:/s", "https://a.example",
    "*", "10.0.0.0/8", "keen", "fsync", "\\u000a", "\\n", "\\\"", "\u{1b}", "é", "# ",
    "hunter2-hunter2-hunter2-hunter2-",
];

/// The secret of seeds and tokens.
const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-";
const FILE: &str = "s.toml";

fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (text, flags) = text.split_once("\n--- flags\n").unwrap_or((&text, ""));
    let (file, environment) = text.split_once("\n--- env\n").unwrap_or((text, ""));
    match sources(file, environment, flags).load() {
        Ok(loaded) => check_loaded(&loaded),
        Err(errors) => {
            let told = errors.to_string();
            assert_eq!(
                told.lines().count(),
                errors.0.len(),
                "one line each: {told}"
            );
            assert!(!told.contains(is_unprintable), "{told:?}");
            for error in &errors.0 {
                check_error(error, file, environment);
            }
        }
    }
}

fn sources(file: &str, environment: &str, flags: &str) -> Sources {
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        (name.to_owned(), value.to_owned())
    };
    Sources {
        file: Some((FILE.into(), file.to_owned())),
        environment: environment
            .lines()
            .map(pair)
            .map(|(name, value)| (OsString::from(name), value.into()))
            .collect(),
        flags: flags
            .lines()
            .map(pair)
            .map(|(key, value)| ("--set".to_owned(), key, value))
            .collect(),
        dev: None,
        cores_available: 2,
    }
}

fn is_unprintable(c: char) -> bool {
    c.is_control() && c != '\n'
}

fn check_error(error: &ConfigError, file: &str, environment: &str) {
    let told = error.to_string();
    let place = match error {
        ConfigError::KeyFileUnreadable { place, .. }
        | ConfigError::Syntax { place, .. }
        | ConfigError::UnknownKey { place, .. }
        | ConfigError::Wrong { place, .. } => place,
        ConfigError::UnknownVariable { name, .. } => return assert!(!name.is_empty()),
        ConfigError::NoKeySource => return,
        ConfigError::TwoKeySources { set } => return assert!(set.len() > 1),
        ConfigError::FileUnreadable { .. } => panic!("nobody asked for a file"),
    };
    assert!(told.starts_with(&place.to_string()), "{place}: {told}");
    match place {
        Place::Default => assert!(matches!(error, ConfigError::Wrong { .. })),
        Place::File { path, line } => {
            assert_eq!(path, Path::new(FILE));
            assert!(
                (1..=1 + file.matches('\n').count()).contains(line),
                "{told}"
            );
        }
        Place::Flag(flag) => assert_eq!(flag, "--set"),
        // What cannot be printed is escaped in the name.
        Place::Variable(name) => {
            assert!(name.contains('\\') || environment.contains(name), "{told}");
        }
    }
    let is_of_secret = match error {
        ConfigError::Wrong { key, .. } => key == "auth.jwt_secret",
        ConfigError::Syntax { .. } => true,
        _ => false,
    };
    assert!(!is_of_secret || !told.contains(SECRET), "{told}");
}

fn check_loaded(loaded: &Loaded) {
    let is_secret = |line: &&String| line.starts_with("auth.jwt_secret =");
    for line in &loaded.effective {
        assert!(
            !line.contains('\n') && !line.contains(is_unprintable),
            "{line:?}"
        );
        assert!(!is_secret(&line) || !line.contains(SECRET), "{line:?}");
    }
    let (secrets, rest): (Vec<_>, Vec<_>) = loaded.effective.iter().partition(is_secret);
    let file: String = rest.iter().map(|line| format!("{line}\n")).collect();
    let environment = if secrets.is_empty() {
        String::new()
    } else {
        format!("SIGHTLINE_AUTH__JWT_SECRET={SECRET}")
    };
    let again = sources(&file, &environment, "").load();
    let again = again.unwrap_or_else(|errors| panic!("{errors}\nof\n{file}"));
    assert_eq!(again.effective, loaded.effective);
}
