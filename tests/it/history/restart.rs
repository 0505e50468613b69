use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{data_in, named_events, post};
use crate::harness::{Refused, Server, Token, Viewer, eventually, kind, run, text};

/// What the server says of the log that it opened.
fn opening(server: &Server) -> Value {
    server.wait_for_log("the event log is open", 0)
}

fn counts(answer: &crate::harness::Answer) -> (u64, u64) {
    let body = answer.json();
    let count = |name: &str| body[name].as_u64().unwrap();
    (count("accepted"), count("duplicates"))
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    for durability in ["fsync", "write"] {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "{}\nhistory.durability = {durability:?}",
            data_in(folder.path())
        );
        let mut server = Server::start(&settings);
        let mut token = Token::of("7", &["7"]);
        token.0.jti = Some("stolen".into());
        let stolen = server.mint(&token);
        let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &stolen);
        let epoch = text(&viewer.greeting()["epoch"]).to_string();
        assert_eq!(
            counts(&post(&server, "/v1/events", &named_events(40))),
            (40, 0)
        );
        let last = |viewer: &mut Viewer, skipped: usize| {
            (0..=skipped)
                .map(|_| viewer.skip_to("step")["seq"].as_u64().unwrap())
                .max()
                .unwrap()
        };
        let before = last(&mut viewer, 39);
        let admin = server.admin_token();
        let body = json!({"jti": "stolen"}).to_string();
        assert_eq!(
            server.ask("POST", "/v1/admin/revoke", &admin, &body).status,
            200
        );
        server.signal("KILL");
        server.wait();

        let server = Server::start(&settings);
        assert_eq!(opening(&server)["is_clean"], json!(false));
        let authorization = format!("Bearer {stolen}");
        let refused = Viewer::try_open(&server, "/keen", &[("authorization", &authorization)]);
        let revoked = Refused {
            status: 401,
            code: "TOKEN_REVOKED".into(),
        };
        assert_eq!(refused.map(drop), Err(revoked));
        let token = server.viewer_token("7", &["7"]);
        let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
        assert_eq!(text(&viewer.greeting()["epoch"]), epoch);
        assert_eq!(
            counts(&post(&server, "/v1/events", &named_events(41))),
            (1, 40)
        );
        let after = last(&mut viewer, 0);
        assert!(after > before, "{after} after {before}");
    }
}

#[test]
fn without_durability_a_stop_keeps_all_and_a_kill_costs_no_epoch_and_no_seq() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("{}\nhistory.durability = 'none'", data_in(folder.path()));
    let mut server = Server::start(&settings);
    let token = server.viewer_token("7", &["7"]);
    let target = "/observatory?subscribe=all&resume=user%3D0,project/7%3D0";
    let seqs = |server: &Server| {
        let mut viewer = Viewer::open(server, target, &token);
        let epoch = text(&viewer.greeting()["epoch"]).to_string();
        let mut seqs = Vec::new();
        let mut left = 2;
        while left > 0 {
            let message = viewer.next();
            left -= usize::from(kind(&message) == "replay_complete");
            let stream = message["stream"].as_str().map(str::to_string);
            seqs.extend(stream.zip(message["seq"].as_u64()));
        }
        (epoch, seqs)
    };
    let answer = post(&server, "/v1/events", &named_events(40));
    assert_eq!(counts(&answer), (40, 0));
    let before = seqs(&server);
    assert_eq!(before.1.len(), 40);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    let mut server = Server::start(&settings);
    assert_eq!(opening(&server)["is_clean"], json!(true));
    assert_eq!(seqs(&server), before);
    // What comes now may be gone or not, and is brought again.
    let answer = post(&server, "/v1/events", &named_events(50));
    assert_eq!(counts(&answer), (10, 40));
    let given = seqs(&server).1;
    server.signal("KILL");
    server.wait();

    let server = Server::start(&settings);
    assert_eq!(opening(&server)["is_clean"], json!(false));
    let (accepted, duplicates) = counts(&post(&server, "/v1/events", &named_events(50)));
    assert!(accepted <= 10 && accepted + duplicates == 50);
    let (epoch, after) = seqs(&server);
    assert_eq!((&epoch, after.len()), (&before.0, 50));
    let fresh: Vec<_> = after
        .iter()
        .filter(|place| !given.contains(place))
        .collect();
    assert_eq!(fresh.len() as u64, accepted, "no seq is given twice");
}

#[test]
fn a_stop_leaves_a_closed_log_and_an_acknowledgement_as_received_is_kept_by_then() {
    let folder = tempfile::tempdir().unwrap();
    let settings = data_in(folder.path());
    let mut server = Server::start(&settings);
    let answer = post(&server, "/v1/events?ack=received", &named_events(5));
    assert_eq!(counts(&answer), (5, 0));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let server = Server::start(&settings);
    let opening = opening(&server);
    assert_eq!(opening["is_clean"], json!(true));
    assert_eq!(opening["ids"], json!(5));
    assert_eq!(
        counts(&post(&server, "/v1/events", &named_events(5))),
        (0, 5)
    );
}

#[test]
fn a_second_signal_closes_the_log_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("{}\nshutdown.drain_ms = 60000", data_in(folder.path()));
    let mut server = Server::start(&settings);
    // It does not answer the goodbye, so that the drain goes on.
    let viewer = Viewer::open(&server, "/keen", &server.viewer_token("a", &[]));
    post(&server, "/v1/events", &named_events(5));
    server.signal("TERM");
    server.wait_for_log("draining", 0);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1));
    drop(viewer);
    assert_eq!(opening(&Server::start(&settings))["is_clean"], json!(true));
}

#[test]
fn with_durable_delivery_a_viewer_gets_what_is_kept() {
    let server = Server::start("history.deliver = \"durable\"");
    let token = server.viewer_token("7", &["7"]);
    let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
    post(&server, "/v1/events", &named_events(6));
    let mut seen: Vec<u64> = (0..6)
        .map(|_| viewer.skip_to("step")["data"]["n"].as_u64().unwrap())
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    let page = server.page("/metrics");
    assert!(crate::harness::sample(&page, "sightline_log_records_kept_total") >= 6.0);
}

#[test]
fn a_log_is_one_processs_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&data_in(folder.path()));
    let config = "auth.jwt_secret = 'a secret of these tests, which is long enough'";
    std::fs::write(folder.path().join("sightline.toml"), config).unwrap();
    let serve = |data_dir: &str| {
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--set", data_dir];
        let ending = run(folder.path(), &arguments);
        assert_eq!(ending.code, Some(1), "{}", ending.err);
        assert_eq!(ending.err.trim_end().lines().count(), 1, "{}", ending.err);
        ending.err
    };
    let taken = serve("data_dir=log");
    assert!(
        taken.contains("another process has the log open"),
        "{taken}"
    );
    std::fs::write(folder.path().join("file"), "").unwrap();
    let wrong = serve("data_dir=file");
    assert!(
        wrong.contains("file") && wrong.contains("data_dir"),
        "{wrong}"
    );
    drop(server);
}

#[test]
fn a_trial_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = crate::harness::sightline();
    command
        .args(["serve", "--dev", "--listen", "127.0.0.1:0"])
        .env("TMPDIR", temporary.path())
        .current_dir(temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let names = || std::fs::read_dir(temporary.path()).unwrap().count();
    eventually("its folder is there", || (names() == 1).then_some(()));
    // Signals are heard from before the log is opened.
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.unwrap().success());
    eventually("it ends", || child.try_wait().unwrap());
    assert_eq!(names(), 0);
}
