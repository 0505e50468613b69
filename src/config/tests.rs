//! What an operator may write, and what is said about it.
#![allow(clippy::unwrap_used)]

use std::{ffi::OsString, fs};

use proptest::prelude::*;

use super::{
    keys::{self, KEYS, Settings, TIERS},
    *,
};
use crate::limits;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Sources with a good secret in a variable, so that a test shows only what it is about.
fn sources(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
    let secret = [("SIGHTLINE_AUTH__JWT_SECRET", SECRET)];
    Sources {
        file: Some(("s.toml".into(), file.into())),
        environment: secret
            .iter()
            .chain(variables)
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect(),
        flags: flags
            .iter()
            .map(|(key, value)| ("--set".into(), (*key).into(), (*value).into()))
            .collect(),
        dev: None,
        cores_available: 2,
    }
}

fn message(sources: Sources) -> String {
    match sources.load() {
        Ok(loaded) => panic!("accepted: {:?}", loaded.config),
        Err(errors) => errors.to_string(),
    }
}

fn dev() -> Option<Dev> {
    Some(Dev {
        secret: Secret::new(SECRET).unwrap(),
        data_dir: "/tmp/fresh".into(),
    })
}

#[test]
fn wrong_files_are_told_line_key_and_what_to_write() {
    let check = |file: &str, expected: &str| {
        assert_eq!(message(sources(file, &[], &[])), expected, "{file}");
    };
    check(
        "[limits]\n\nconections_max = 5",
        "s.toml:3: unknown key \"limits.conections_max\": did you mean \"limits.connections_max\"?",
    );
    check(
        "connections_max = 5",
        "s.toml:1: unknown key \"connections_max\": did you mean \"limits.connections_max\"?",
    );
    check(
        "[limitz]\nconnections_max = 5",
        "s.toml:1: unknown key \"limitz\": did you mean \"limits\"?",
    );
    check(
        "port = 4040",
        "s.toml:1: unknown key \"port\": known are listen, cores, data_dir, default_dialect, \
         origins, trusted_proxies, auth, tls, limits, heartbeat, compression, history, agents, \
         shutdown, ops, tiers",
    );
    check(
        "[heartbeat]\nwhatever = 1",
        "s.toml:2: unknown key \"heartbeat.whatever\": known are interval_ms, grace_ms",
    );
    check(
        "[ops]\nlistn = 1",
        "s.toml:2: unknown key \"ops.listn\": did you mean \"ops.listen\"?",
    );
    check(
        "\"limits.connections_max\" = 5",
        "s.toml:1: unknown key \"limits.connections_max\": did you mean \"limits.connections_max\"?",
    );
    check(
        "# c\n[limits]\nconnections_max = \"many\"",
        "s.toml:3: limits.connections_max: expected an integer from 1 to 10000000, \
         found \"many\"; for example: connections_max = 10000",
    );
    check(
        "limits.outbox_bytes_max = \"4 MiB\"",
        &format!(
            "s.toml:1: limits.outbox_bytes_max: expected an integer from {} to 1073741824, \
             found \"4 MiB\"; for example: outbox_bytes_max = 4194304",
            limits::OUTBOX_BYTES_MIN
        ),
    );
    check(
        "compression.enabled = 1",
        "s.toml:1: compression.enabled: expected true or false, found 1; \
         for example: enabled = true",
    );
    check(
        "shutdown.drain_ms = 99999999999999999999",
        "s.toml:1: shutdown.drain_ms: expected an integer from 0 to 86400000, \
         found an integer beyond 64 bits; for example: drain_ms = 5000",
    );
    check(
        "heartbeat.interval_ms = -1",
        "s.toml:1: heartbeat.interval_ms: expected an integer from 10 to 86400000, found -1; \
         for example: interval_ms = 30000",
    );
    check(
        "default_dialect = 'kean'",
        "s.toml:1: default_dialect: expected \"keen\" or \"observatory\", found \"kean\"; \
         for example: default_dialect = \"observatory\"",
    );
    check(
        "listen = '127.0.0.1:4040'",
        "s.toml:1: listen: expected a list, each item an address like 127.0.0.1:4040, \
         [::1]:4040 or unix:/run/sightline.sock, found \"127.0.0.1:4040\"; \
         for example: listen = [\"127.0.0.1:4040\"]",
    );
    check(
        "listen = ['127.0.0.1']",
        "s.toml:1: listen: expected an address like 127.0.0.1:4040, \
         [::1]:4040 or unix:/run/sightline.sock, found \"127.0.0.1\"; \
         for example: listen = [\"127.0.0.1:4040\"]",
    );
    check(
        "listen = []",
        "s.toml:1: listen: expected at least one address, found none",
    );
    check(
        "listen = ['127.0.0.1:1', '127.0.0.1:1']",
        "s.toml:1: listen: expected each address once, found 127.0.0.1:1",
    );
    check(
        "ops.listen = '127.0.0.1:4040'",
        "s.toml:1: ops.listen: expected an address that is not in listen, found 127.0.0.1:4040",
    );
    check(
        "origins = ['https://a.example/']",
        "s.toml:1: origins: expected an origin like https://app.example.com \
         (no path, no wildcard), or *, found \"https://a.example/\"; \
         for example: origins = [\"https://app.example.com\"]",
    );
    check(
        "data_dir = ''",
        "s.toml:1: data_dir: expected a path, found nothing; \
         for example: data_dir = \"./sightline-data\"",
    );
    check(
        "[tiers]\ngold = 0",
        "s.toml:2: tiers.gold: expected an integer from 1 to 1000000, found 0; \
         for example: gold = 10",
    );
    check("limits = 5", "s.toml:1: limits: expected a table, found 5");
    check(
        "[[limits]]",
        "s.toml:1: limits: expected a table, found a list",
    );
    check(
        "cores = 3",
        "s.toml:1: cores: expected at most 2, the cores available, found 3",
    );
    check(
        "limits.outbox_bytes_max = 1073741824",
        "s.toml:1: limits.outbox_bytes_max: expected at most limits.outbox_bytes_total, \
         536870912, found 1073741824",
    );
    check(
        "\nheartbeat.interval_ms = 1000",
        "s.toml:2: heartbeat.grace_ms: expected at most heartbeat.interval_ms, 1000, found 5000",
    );
    check(
        "agents.phases = ['A', 'A']",
        "s.toml:1: agents.phases: expected at least one name, each once, found A, A",
    );
    check(
        "tls.cert = 'c.pem'",
        "s.toml:1: tls.cert: expected tls.key with it, found tls.cert alone",
    );
    check(
        "cores = 1\ncores = 1",
        "s.toml:2: not valid TOML: duplicate key",
    );
    check(
        "cores = many",
        "s.toml:1: not valid TOML: string values must be quoted, expected literal string",
    );
}

#[test]
fn a_name_that_cannot_be_printed_is_escaped() {
    assert_eq!(
        message(sources("[tiers]\n\"a\\nb\" = 0", &[], &[])),
        "s.toml:2: tiers.a\\nb: expected an integer from 1 to 1000000, found 0; \
         for example: a\\nb = 10",
    );
    assert_eq!(
        message(sources("", &[("SIGHTLINE_TIERS__A\u{1b}", "0")], &[])),
        "environment SIGHTLINE_TIERS__A\\u{1b}: tiers.a\\u{1b}: expected an integer from 1 to \
         1000000, found \"0\"; for example: SIGHTLINE_TIERS__A\\u{1b}='10'",
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let told = message(sources(
        "coers = 1\n[limits]\nconnections_max = 0",
        &[],
        &[("x", "1")],
    ));
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    assert!(lines[0].starts_with("s.toml:1: unknown key \"coers\""));
    assert!(lines[1].starts_with("s.toml:3: limits.connections_max: "));
    assert!(lines[2].starts_with("--set: unknown key \"x\""));
}

#[test]
fn wrong_variables_and_flags_are_told_by_name() {
    let check = |variable: (&str, &str), flags: &[(&str, &str)], expected: &str| {
        assert_eq!(message(sources("", &[variable], flags)), expected);
    };
    check(
        ("SIGHTLINE_LIMITS_CONNECTIONS_MAX", "1"),
        &[],
        "environment SIGHTLINE_LIMITS_CONNECTIONS_MAX: no such setting: \
         did you mean SIGHTLINE_LIMITS__CONNECTIONS_MAX?",
    );
    check(
        ("SIGHTLINE_COLOUR", "1"),
        &[],
        "environment SIGHTLINE_COLOUR: no such setting: write SIGHTLINE_TABLE__KEY, \
         for example SIGHTLINE_LIMITS__CONNECTIONS_MAX, or unset it",
    );
    check(
        ("SIGHTLINE_CORES", "two"),
        &[],
        "environment SIGHTLINE_CORES: cores: expected an integer from 1 to 4096, found \"two\"; \
         for example: SIGHTLINE_CORES='1'",
    );
    check(
        ("SIGHTLINE_LISTEN", "[1"),
        &[],
        "environment SIGHTLINE_LISTEN: listen: expected an address like 127.0.0.1:4040, \
         [::1]:4040 or unix:/run/sightline.sock, found \"[1\"; \
         for example: SIGHTLINE_LISTEN='127.0.0.1:4040'",
    );
    check(
        ("HOME", "/"),
        &[("history.durability", "disk")],
        "--set: history.durability: expected \"fsync\" or \"none\" or \"write\", found \"disk\"; \
         for example: --set 'history.durability=fsync'",
    );
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "[limits]\nconnections_max = 1\nsubscriptions_max = 1\nconnections_per_ip = 1";
    let variables = [
        ("SIGHTLINE_LIMITS__CONNECTIONS_MAX", "2"),
        ("SIGHTLINE_LIMITS__SUBSCRIPTIONS_MAX", "2"),
        ("UNRELATED", "x"),
        ("SIGHTLINE_LOG", "debug"),
    ];
    let flags = [
        ("limits.connections_max", "4"),
        ("limits.connections_max", "3"),
    ];
    let limits = sources(file, &variables, &flags)
        .load()
        .unwrap()
        .config
        .limits;
    assert_eq!(limits.connections_max, 3);
    assert_eq!(limits.subscriptions_max, 2);
    assert_eq!(limits.connections_per_ip, 1);
    assert_eq!(limits.messages_per_minute, 100);
}

#[test]
fn lists_of_the_environment_are_split_at_commas_or_read_as_toml() {
    let check = |text: &str, expected: &[&str]| {
        let loaded = sources("", &[("SIGHTLINE_LISTEN", text)], &[])
            .load()
            .unwrap();
        let listen: Vec<String> = loaded.config.listen.iter().map(|a| a.to_string()).collect();
        assert_eq!(listen, expected, "{text}");
    };
    check("127.0.0.1:1", &["127.0.0.1:1"]);
    check("[::1]:2", &["[::1]:2"]);
    check("[::1]:2,127.0.0.1:1", &["[::1]:2", "127.0.0.1:1"]);
    check("127.0.0.1:1, [::1]:2,", &["127.0.0.1:1", "[::1]:2"]);
    check(
        " [\"127.0.0.1:1\", 'unix:/a,b']",
        &["127.0.0.1:1", "unix:/a,b"],
    );
    let origins = sources("origins = ['*']", &[("SIGHTLINE_ORIGINS", "")], &[]);
    assert!(origins.load().unwrap().config.origins.is_empty());
}

#[test]
fn tiers_are_free_names_beside_the_four() {
    let loaded = sources(
        "[tiers]\nfree = 1\n\"very.big\" = 5000",
        &[("SIGHTLINE_TIERS__TEAM_PLUS", "70")],
        &[("tiers.gold", "7")],
    )
    .load()
    .unwrap();
    let tiers: Vec<(&str, u32)> = loaded
        .config
        .tiers
        .iter()
        .map(|(n, m)| (n.as_str(), *m))
        .collect();
    assert_eq!(
        tiers,
        [
            ("enterprise", 1000),
            ("free", 1),
            ("gold", 7),
            ("individual", 10),
            ("team", 50),
            ("team_plus", 70),
            ("very.big", 5000),
        ]
    );
    assert!(
        loaded
            .effective
            .contains(&"tiers.\"very.big\" = 5000".to_string())
    );
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let settings = Settings::new(1);
    for key in KEYS {
        let default = (key.show)(&settings);
        let has_none = key.name.starts_with("auth.") || key.name.starts_with("tls.");
        match key.name {
            "origins" | "trusted_proxies" => assert_eq!(default.as_deref(), Some("[]")),
            "ops.listen" => assert_eq!(default, None),
            _ if has_none => assert_eq!(default, None),
            name => assert_eq!(default.as_deref(), Some(key.example), "{name}"),
        }
    }
}

#[test]
fn every_example_is_accepted_and_shown_as_it_was_written() {
    for key in KEYS.iter().filter(|key| !key.example.is_empty()) {
        let mut draft = draft::Draft::new(1);
        let text = format!("{} = {}", key.name, key.example);
        let table = toml::de::DeTable::parse(&text).unwrap();
        let mut value = table.get_ref().iter().next().unwrap().1.get_ref();
        while let Some((_, inner)) = value.as_table().and_then(|table| table.iter().next()) {
            value = inner.get_ref();
        }
        draft.apply(Place::Default, key.name, &value::Value::from_toml(value));
        assert!(draft.errors.is_empty(), "{}: {:?}", key.name, draft.errors);
        assert_eq!((key.show)(&draft.settings).as_deref(), Some(key.example));
    }
}

#[test]
fn names_in_the_table_are_unique() {
    for (at, key) in KEYS.iter().enumerate() {
        assert!(KEYS[..at].iter().all(|other| other.name != key.name));
        assert!(!key.name.starts_with(TIERS));
    }
    assert_eq!(keys::tables().count(), 10);
}

#[test]
fn what_check_config_prints_loads_again_to_the_same() {
    let file = "origins = ['https://a.example']\ndata_dir = \"two\\nlines \\\\ \\\"\\u007f\"\n\
                [ops]\nlisten = 'unix:/o.sock'\n[tiers]\n'a b' = 3\n\"a\\nb\" = 4";
    let first = sources(file, &[], &[]).load().unwrap().effective;
    assert!(first.iter().all(|line| !line.contains(char::is_control)));
    let text: Vec<&str> = first
        .iter()
        .map(String::as_str)
        .filter(|line| !line.contains("jwt_secret ="))
        .collect();
    let second = sources(&text.join("\n"), &[], &[])
        .load()
        .unwrap()
        .effective;
    assert_eq!(first, second);
}

#[test]
fn a_setting_that_lets_everybody_in_is_told() {
    assert!(
        sources("cores = 1", &[], &[])
            .load()
            .unwrap()
            .warnings
            .is_empty()
    );
    let open = sources("origins = ['*']", &[], &[])
        .load()
        .unwrap()
        .warnings;
    assert_eq!(
        open,
        ["origins (s.toml:1): \"*\" lets every web page connect"]
    );
}

#[test]
fn exactly_one_key_source_is_wanted() {
    let mut none = sources("", &[], &[]);
    none.environment.clear();
    assert!(message(none).starts_with("no key to verify tokens with: set one of auth.jwt_secret,"));
    assert_eq!(
        message(sources("\nauth.jwks_file = 'k.json'", &[], &[])),
        "more than one key source: auth.jwt_secret (environment SIGHTLINE_AUTH__JWT_SECRET), \
         auth.jwks_file (s.toml:2): keep exactly one"
    );
}

#[test]
fn tokens_can_be_minted_without_a_key_in_the_configuration() {
    let flags = [("auth.issuer", "me"), ("listen", "")];
    let settings = sources("", &[], &flags).token_settings().unwrap();
    assert_eq!(settings.secret, Secret::new(SECRET));
    assert_eq!(settings.issuer.as_deref(), Some("me"));
    let mut none = sources("", &[], &[]);
    none.environment.clear();
    assert_eq!(none.token_settings().unwrap().secret, None);
    assert!(sources("cors = 1", &[], &[]).token_settings().is_err());
}

#[test]
fn a_short_secret_is_refused_and_never_repeated() {
    let told = message(sources("", &[], &[("auth.jwt_secret", "hunter2")]));
    assert_eq!(
        told,
        "--set: auth.jwt_secret: expected text of at least 32 bytes, found 7 bytes"
    );
    let mut broken = sources("auth.jwt_secret = \"hunter2 and more", &[], &[]);
    broken.environment.clear();
    assert!(!message(broken).contains("hunter2"));
    let loaded = sources("", &[], &[]).load().unwrap();
    assert!(!format!("{loaded:?}").contains(SECRET));
    let shown = "auth.jwt_secret = \"(not shown)\"".to_string();
    assert!(loaded.effective.contains(&shown));
}

#[test]
fn key_files_are_read_and_named_when_they_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("secret"), format!("{SECRET}\r\n")).unwrap();
    fs::write(path("short"), "short\n").unwrap();
    fs::write(path("public.pem"), "-----BEGIN PUBLIC KEY-----\n").unwrap();
    fs::write(path("private.pem"), "-----BEGIN RSA PRIVATE KEY-----\n").unwrap();
    fs::write(path("jwks.json"), "{\"keys\":[]}").unwrap();
    fs::write(path("binary"), [0xff; 40]).unwrap();
    fs::write(path("huge"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
    let keys = |key: &str, name: &str| {
        let mut sources = sources("", &[], &[(key, &path(name))]);
        sources.environment.clear();
        let loaded = sources.load().map_err(|errors| errors.to_string());
        loaded.map(|loaded| loaded.config.auth.keys)
    };
    let secret = KeySource::Secret(Secret::new(SECRET).unwrap());
    assert_eq!(keys("auth.jwt_secret_file", "secret"), Ok(secret));
    assert_eq!(
        keys("auth.public_key_file", "public.pem"),
        Ok(KeySource::PublicKeyPem(
            "-----BEGIN PUBLIC KEY-----\n".into()
        ))
    );
    assert_eq!(
        keys("auth.jwks_file", "jwks.json"),
        Ok(KeySource::Jwks("{\"keys\":[]}".into()))
    );
    let refused = |key: &str, name: &str, expected: &str| {
        let told = keys(key, name).unwrap_err();
        assert!(told.starts_with(&format!("--set: {key}: ")), "{told}");
        assert!(told.contains(expected), "{told}");
    };
    refused(
        "auth.jwt_secret_file",
        "short",
        "at least 32 bytes, found 5 bytes",
    );
    refused(
        "auth.jwt_secret_file",
        "absent",
        "absent\": No such file or directory",
    );
    refused("auth.jwt_secret_file", "huge", "larger than 1 MiB");
    refused("auth.public_key_file", "private.pem", "found a private key");
    refused("auth.public_key_file", "secret", "found no PEM");
    refused(
        "auth.jwks_file",
        "binary",
        "expected a file of text in UTF-8",
    );
}

#[test]
fn tls_files_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let cert = folder.path().join("cert.pem");
    fs::write(&cert, "x").unwrap();
    let cert = cert.display().to_string();
    let flags = [("tls.cert", cert.as_str()), ("tls.key", cert.as_str())];
    let config = sources("", &[], &flags).load().unwrap().config;
    assert_eq!(config.tls.unwrap().cert.display().to_string(), cert);
    let told = message(sources(
        "",
        &[],
        &[("tls.cert", &cert), ("tls.key", "/absent")],
    ));
    assert!(
        told.starts_with("--set: tls.key: cannot read \"/absent\""),
        "{told}"
    );
}

#[test]
fn dev_brings_its_own_key_and_stays_on_loopback() {
    let mut own = sources(
        "data_dir = '/var/lib/sightline'\norigins = ['https://a.example']",
        &[],
        &[],
    );
    own.dev = dev();
    own.environment
        .push(("SIGHTLINE_AUTH__ISSUER".into(), "x".into()));
    let loaded = own.load().unwrap();
    assert_eq!(loaded.config.auth.issuer, None);
    assert_eq!(loaded.config.data_dir, PathBuf::from("/tmp/fresh"));
    let origins = [
        OriginRule::Exact("https://a.example".into()),
        OriginRule::Loopback,
    ];
    assert_eq!(loaded.config.origins, origins);
    assert!(loaded.warnings.is_empty());

    let mut kept = sources("", &[], &[("data_dir", "/tmp/kept")]);
    kept.dev = dev();
    assert_eq!(
        kept.load().unwrap().config.data_dir,
        PathBuf::from("/tmp/kept")
    );

    let mut open = sources("listen = ['0.0.0.0:1', '127.0.0.1:2']", &[], &[]);
    open.dev = dev();
    assert_eq!(
        message(open),
        "s.toml:1: listen: expected a loopback address under --dev, found 0.0.0.0:1"
    );
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let told = Sources::of_process(Some("/absent/s.toml".as_ref()))
        .map(|_| ())
        .unwrap_err();
    let expected = "/absent/s.toml: cannot read the configuration: No such file or directory";
    assert!(told.to_string().starts_with(expected));
}

/// Text in which the names of keys, and TOML's own signs, are frequent.
fn toml_like() -> impl Strategy<Value = String> {
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    let word = prop_oneof![
        prop::sample::select(names).prop_map(String::from),
        prop::sample::select(vec![
            " = ",
            "\n",
            "[",
            "]",
            "[[",
            "]]",
            "{",
            "}",
            "\"",
            "'''",
            ",",
            ".",
            "#",
            "tiers.",
            "-1",
            "0x1f",
            "1e9",
            "true",
            "1979-05-27",
            "127.0.0.1:1",
            "\\u0000",
            "limits",
        ])
        .prop_map(String::from),
        any::<i64>().prop_map(|number| number.to_string()),
        "\\PC{0,8}",
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(text in toml_like()) {
        let _ = sources(&text, &[], &[]).load();
    }

    #[test]
    fn no_value_makes_it_panic(at in 0..KEYS.len(), text in "\\PC{0,80}") {
        let name = KEYS[at].name;
        // A path may name anything on this machine; what is read from there is not of this test.
        prop_assume!(!name.ends_with("_file") && !name.starts_with("tls."));
        let told = sources("", &[], &[(name, &text)]).load();
        if let Err(errors) = told {
            prop_assert!(errors.0.len() == 1 && !errors.to_string().contains('\n'));
        }
    }
}
