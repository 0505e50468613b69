//! Section 10, as far as it meets the server: starting, refusing to start, and tokens that work.

use std::net::TcpListener;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Server, Tail, Viewer, Watched, kind, run, run_with, sightline};

const KEY: &str = "auth.jwt_secret = \"a secret that has more than 32 bytes in it\"\n";

/// Runs `serve` with this configuration, which must not come to serving.
fn check(config: &str, code: i32, named: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sightline.toml"), config).unwrap();
    let ending = run(folder.path(), &["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(ending.code, Some(code), "{config}\n{}", ending.err);
    for name in named {
        assert!(
            ending.err.contains(name),
            "{config}: no {name} in\n{}",
            ending.err
        );
    }
    assert!(!ending.err.contains("panicked") && !ending.err.contains("backtrace"));
    assert_eq!(ending.out, "");
}

#[test]
fn a_wrong_configuration_is_told_with_file_line_and_key() {
    check("", 78, &["auth"]);
    check(
        &format!("{KEY}cores = 0"),
        78,
        &["sightline.toml", "2", "cores"],
    );
    check(
        &format!("{KEY}coers = 1"),
        78,
        &["sightline.toml", "2", "coers", "cores"],
    );
    check(
        &format!("{KEY}limits.connections_max = \"many\""),
        78,
        &["2", "connections_max"],
    );
    check(&format!("{KEY}listen = "), 78, &["sightline.toml", "2"]);
    check(
        "auth.jwt_secret = \"short\"",
        78,
        &["1", "jwt_secret", "32"],
    );
    check(
        "auth.jwt_secret_file = \"nowhere\"",
        78,
        &["jwt_secret_file", "nowhere"],
    );
    check(&format!("{KEY}auth.jwks_file = \"x\""), 78, &["auth"]);
    check(
        &format!("{KEY}origins = [\"example.com\"]"),
        78,
        &["origins"],
    );
}

#[test]
fn an_address_in_use_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("sightline.toml"), KEY).unwrap();
    let ending = run(folder.path(), &["serve", "--listen", &address]);
    assert_eq!(ending.code, Some(1), "{}", ending.err);
    assert_eq!(ending.err.trim_end().lines().count(), 1, "{}", ending.err);
    assert!(
        ending.err.starts_with("error: ") && ending.err.contains(&address),
        "{}",
        ending.err
    );

    // Nor does a second server share the first one's.
    let server = Server::start("");
    let ending = run(folder.path(), &["serve", "--listen", server.address()]);
    assert_eq!(ending.code, Some(1), "{}", ending.err);
}

#[test]
fn what_serve_would_refuse_check_config_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sightline.toml");
    std::fs::write(&file, KEY).unwrap();
    let good = run(folder.path(), &["check-config"]);
    assert_eq!(good.code, Some(0), "{}", good.err);
    assert!(
        good.out.contains("limits.connections_max = 10000"),
        "{}",
        good.out
    );
    assert!(!good.out.contains("a secret that"), "{}", good.out);
    std::fs::write(&file, format!("{KEY}cores = \"x\"")).unwrap();
    let bad = run(folder.path(), &["check-config"]);
    assert_eq!(bad.code, Some(78));
    assert!(bad.err.contains("cores"), "{}", bad.err);
}

#[test]
fn a_minted_token_is_taken_by_the_server() {
    let server = Server::start("");
    let arguments = [
        "token",
        "--sub",
        "alice",
        "--projects",
        "p,q",
        "--tier",
        "team",
        "--ttl",
        "1h",
    ];
    let ending = run(server.folder.path(), &arguments);
    assert_eq!(ending.code, Some(0), "{}", ending.err);
    let token = ending.out.trim();
    server.watch_for(token);
    let viewer = Viewer::open(&server, "/keen?subscribe=all", token);
    assert_eq!(viewer.greeting()["resume"].as_array().unwrap().len(), 3);
    let refused = server.ask("POST", "/v1/events", token, "{}");
    assert_eq!(refused.refusal(), (403, "FORBIDDEN".into()));
}

#[test]
fn what_publish_reads_arrives_in_tail() {
    let server = Server::start("");
    let viewer = server.viewer_token("alice", &["p"]);
    let url = server.url("");
    let mut tail = Tail::start(&["--all", "--url", &url, "--token", &viewer]);
    tail.wait_until_it_watches(&server);
    let lines = (0..50).map(|n| json!({"event_type": "x", "project_id": "p", "data": n}));
    let mut input: String = lines.map(|line| format!("{line}\n")).collect();
    input += "not an event\n";
    let token = server.publisher_token();
    let arguments = ["publish", "--url", &url, "--token", &token];
    let ending = run_with(server.folder.path(), &arguments, &input);
    assert_eq!(ending.code, Some(1), "{}", ending.err);
    assert!(
        ending.err.contains("INVALID_JSON") && ending.err.contains("51"),
        "{}",
        ending.err
    );
    for n in 0..50 {
        let event = tail.next();
        assert_eq!(
            (&event["data"], &event["stream"]),
            (&json!(n), &json!("project/p"))
        );
    }
}

#[test]
fn what_serve_dev_prints_works_when_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = sightline();
    dev.args(["serve", "--dev", "--listen", "127.0.0.1:0"])
        .current_dir(folder.path());
    let mut dev = dev
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(dev.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let _dev = Watched::new(dev);
    // The commands come in this order; the last is that of node in the other dialect.
    let commands: Vec<String> = lines
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .skip(2)
        .take(6)
        .collect();
    let binary = env!("CARGO_BIN_EXE_sightline");
    let of = |name: &str| {
        commands
            .iter()
            .find(|line| line.starts_with(name))
            .unwrap()
            .clone()
    };
    let words: Vec<String> = of(binary).split(' ').skip(1).map(str::to_string).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(words[0], "tail");
    let (url, token) = (words[3], words[5]);
    let mut tail = Tail::start(&words[1..]);
    let address = url.strip_prefix("ws://").unwrap();
    let rows = || {
        let mut http = crate::harness::Http::connect(address);
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        http.send(&crate::harness::request(
            "GET",
            "/v1/admin/connections",
            &headers,
            b"",
        ));
        http.receive().json()["connections"]
            .as_array()
            .unwrap()
            .len()
    };
    crate::harness::eventually("it watches", || (rows() == 1).then_some(()));
    let post = of("curl");
    let body = post
        .split_once("-d '")
        .unwrap()
        .1
        .trim_end_matches('\'')
        .to_string();
    let mut http = crate::harness::Http::connect(address);
    let bearer = format!("Bearer {token}");
    // A page of this machine may do it.
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Origin", "http://localhost:3000"),
    ];
    http.send(&crate::harness::request(
        "POST",
        "/v1/events",
        &headers,
        body.as_bytes(),
    ));
    assert_eq!(http.receive().json()["accepted"], 1);
    let published: Value = serde_json::from_str(&body).unwrap();
    let event = tail.next();
    assert_eq!(
        (kind(&event), &event["data"]),
        (kind(&published), &published["data"])
    );
}
