use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use super::{can_mount, data_in, named_events, post};
use crate::harness::Server;

/// Runs a command of the binary where the folder `log` cannot be written, whoever runs it.
fn run_read_only(folder: &Path, arguments: &[&str]) -> Output {
    let script = r#"mount --bind log log && mount -o remount,bind,ro log && exec "$0" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(env!("CARGO_BIN_EXE_sightline"));
    command.args(arguments).current_dir(folder);
    command.output().unwrap()
}

#[test]
fn a_log_that_cannot_be_written_is_read_and_not_served() {
    if !can_mount() {
        return eprintln!("skipped: nothing can be mounted here");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(&data_in(folder.path()));
    assert_eq!(post(&server, "/v1/events", &named_events(5)).status, 200);
    server.signal("TERM");
    server.wait();
    let config = "auth.jwt_secret = 'a secret of these tests, which is long enough'";
    std::fs::write(folder.path().join("sightline.toml"), config).unwrap();
    let run = |arguments: &[&str]| {
        let output = run_read_only(folder.path(), arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let history = |command: &str| {
        let (code, out, err) = run(&["history", command, "--data-dir", "log"]);
        assert_eq!(code, Some(0), "{command}: {err}");
        out
    };
    let exported = history("export");
    let lines = exported
        .lines()
        .map(serde_json::from_str::<serde_json::Value>);
    // They are in two streams, and each core brings its own to the log.
    let ids: BTreeSet<_> = lines
        .map(|line| line.unwrap()["event_id"].to_string())
        .collect();
    assert_eq!(
        ids,
        BTreeSet::from(["id-0", "id-1", "id-2", "id-3", "id-4"].map(|id| json!(id).to_string()))
    );
    assert_eq!(exported.lines().count(), 5);
    assert!(history("verify").contains("damaged: 0"));
    history("stats");
    for arguments in [
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", "log"][..],
        &["history", "erase", "--user", "7", "--data-dir", "log"],
    ] {
        let (code, _, err) = run(arguments);
        assert_eq!(code, Some(1), "{err}");
        assert_eq!(err.trim_end().lines().count(), 1, "{err}");
        assert!(err.contains("Read-only file system"), "{err}");
    }
    assert_eq!(history("export"), exported);
}
