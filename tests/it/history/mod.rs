//! Sections 3 and 9 over an event log on disk: what an acknowledgement means when the process is
//! killed, when the disk is full, and when somebody's events are to go.

mod erase;
mod full;
mod read_only;
mod restart;
mod resume;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Answer, Server};

/// The setting that keeps the log outside of the server's own folder.
fn data_in(folder: &Path) -> String {
    format!("data_dir = {:?}", folder.join("log"))
}

fn post(server: &Server, target: &str, events: &Value) -> Answer {
    server.ask(
        "POST",
        target,
        &server.publisher_token(),
        &events.to_string(),
    )
}

/// Whether this machine lets a test mount a file system of its own.
fn can_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "mount",
            "-t",
            "tmpfs",
            "tmpfs",
        ])
        .arg(folder.path())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Events with ids, of a user and a project in turn.
fn named_events(count: usize) -> Value {
    let event = |n: usize| {
        let audience = ["user_id", "project_id"][n % 2];
        json!({"event_type": "step", "event_id": format!("id-{n}"), audience: "7", "data": {"n": n}})
    };
    (0..count).map(event).collect()
}
