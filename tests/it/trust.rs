//! Section 10's clients under `wss://`: what they say arrives, and the token goes to nobody who
//! has not proved to be the gateway.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{
    Authority, Ending, NO_TOKEN, Server, Setup, Tail, Viewer, kind, run, run_with, sightline,
};

fn server() -> Server {
    Server::with(&Setup {
        tls: true,
        ..Setup::default()
    })
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Publishes one event to `url` and waits for the end.
fn publish(url: &str, ca_file: &Path, token: &str) -> Ending {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["publish", "--url", url, "--ca-file", path(ca_file)];
    let arguments = [&arguments[..], &["--token", token]].concat();
    let event = json!({"event_type": "x", "user_id": "alice", "data": {"by": "publish"}});
    run_with(folder.path(), &arguments, &event.to_string())
}

#[test]
fn what_publish_reads_arrives_in_tail_over_tls() {
    let server = server();
    let (url, ca) = (server.url(""), server.ca_file());
    let token = server.viewer_token("alice", &[]);
    let arguments = ["--url", &url, "--ca-file", path(&ca), "--token", &token];
    let mut tail = Tail::start(&arguments);
    tail.wait_until_it_watches(&server);
    let ending = publish(&url, &ca, &server.publisher_token());
    assert_eq!(ending.code, Some(0), "{}", ending.err);
    assert_eq!(tail.next()["data"], json!({"by": "publish"}));
}

#[test]
fn the_systems_store_is_trusted_where_no_file_is_named() {
    let server = server();
    let (url, token) = (server.url(""), server.viewer_token("alice", &[]));
    let mut command = sightline();
    command.args(["tail", "--url", &url, "--token", &token]);
    let mut tail = Tail::run(command.env("SSL_CERT_FILE", server.ca_file()));
    tail.wait_until_it_watches(&server);
    server.publish(&json!({"event_type": "x", "user_id": "alice"}));
    assert_eq!(kind(&tail.next()), "x");
}

#[test]
fn a_system_that_trusts_nobody_is_told_to_name_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let mut command = sightline();
    command.args(["tail", "--url", "wss://127.0.0.1:9", "--token", NO_TOKEN]);
    command.env("SSL_CERT_FILE", &empty);
    let output = command.env("SSL_CERT_DIR", folder.path()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("--ca-file"), "{told}");
}

#[test]
fn a_repositorys_commits_arrive_over_tls() {
    let server = server();
    let mut viewer = Viewer::open(&server, "/keen", &server.viewer_token("alice", &[]));
    let folder = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b"]);
        git.args(arguments).current_dir(folder.path());
        assert!(git.status().unwrap().success());
    };
    git(&["init", "--quiet"]);
    git(&[
        "commit",
        "--quiet",
        "--allow-empty",
        "--message",
        "over TLS",
    ]);
    let (url, ca, token) = (server.url(""), server.ca_file(), server.publisher_token());
    let arguments = ["watch-git", ".", "--user", "alice", "--url", &url];
    let trust = ["--ca-file", path(&ca), "--token", &token];
    let ending = run(folder.path(), &[&arguments[..], &trust].concat());
    assert_eq!(ending.code, Some(0), "{}", ending.err);
    // What is checked out comes first. The viewer waits no longer than its deadline.
    while !viewer.skip_to("git_operation")["data"]
        .to_string()
        .contains("over TLS")
    {}
}

/// Expects that nobody publishes to `url`, and that what is said about it holds these words.
fn check_refused(url: &str, ca_file: &Path, words: &[&str]) {
    let ending = publish(url, ca_file, NO_TOKEN);
    assert_eq!(ending.code, Some(1), "{}", ending.err);
    for word in words {
        assert!(ending.err.contains(word), "{word}: {}", ending.err);
    }
}

#[test]
fn a_gateway_that_does_not_prove_itself_is_refused_with_what_to_do() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    Authority::new().install(folder.path());
    let strangers = folder.path().join("ca.pem");
    check_refused(&server.url(""), &strangers, &["--ca-file"]);

    let there = Server::with(&Setup {
        listen: &["127.0.0.2:0"],
        tls: true,
        ..Setup::default()
    });
    check_refused(
        &there.url(""),
        &there.ca_file(),
        &["not valid for name", "--url"],
    );

    let plain = Server::start("");
    let url = plain.url("").replace("ws:", "wss:");
    check_refused(&url, &server.ca_file(), &["ws://"]);
    let missing = folder.path().join("missing.pem");
    check_refused(&server.url(""), &missing, &["--ca-file", "missing.pem"]);
}

#[test]
fn an_expired_certificate_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.install(folder.path());
    let file = |name: &str| folder.path().join(name);
    let (certificate, key) = authority.issue_expired();
    fs::write(file("cert.pem"), certificate).unwrap();
    fs::write(file("key.pem"), key).unwrap();
    let server = Server::start(&format!(
        "tls.cert = {:?}\ntls.key = {:?}",
        file("cert.pem"),
        file("key.pem")
    ));
    let url = format!("wss://{}", server.address());
    check_refused(&url, &file("ca.pem"), &["expired", "renew"]);
}

#[test]
fn a_client_without_tls_is_told_that_the_gateway_has_it() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    let url = server.url("").replace("wss:", "ws:");
    let arguments = ["publish", "--url", &url, "--token", NO_TOKEN];
    let ending = run_with(folder.path(), &arguments, "{}\n");
    assert_eq!(ending.code, Some(1), "{}", ending.err);
    assert!(ending.err.contains("wss://"), "{}", ending.err);
}
