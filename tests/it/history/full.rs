use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{can_mount, post};
use crate::harness::{Answer, DEADLINE, Publisher, Server, Setup, Viewer, eventually, sample};

/// A small disk of the server's own, with a file on it that can be taken away to make room. The
/// first segment fits, and little more.
const SMALL_DISK: &str = r#"exec unshare --user --map-root-user --mount sh -c '
    mkdir disk && mount -t tmpfs -o size=160m tmpfs disk || exit 9
    head -c 95000000 /dev/zero > disk/filler
    exec "$0" "$@"' "$0" "$@""#;

#[test]
fn a_full_disk_refuses_serves_on_and_recovers_by_itself() {
    if !can_mount() {
        return eprintln!("skipped: no file system can be mounted here");
    }
    let server = Server::with(&Setup {
        settings: "data_dir = 'disk/log'",
        before: Some(SMALL_DISK),
        ..Setup::default()
    });
    let viewer_token = server.viewer_token("ada", &[]);
    let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &viewer_token);
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    let small = json!({"event_type": "small", "user_id": "ada"});
    publisher.say(&small);
    assert!(publisher.settle(1).is_empty());

    // What comes when the disk is full is refused.
    let (address, token) = (server.address().to_string(), server.publisher_token());
    let filling = std::thread::spawn(move || fill(&address, &token));
    wait_until_full(&server);
    let answer = post(&server, "/v1/events", &small);
    assert_eq!(answer.status, 507, "{}", answer.text());
    assert_eq!(answer.json()["rejected"][0]["code"], json!("STORAGE_FULL"));
    publisher.say(&small);
    publisher.say(&small);
    let nacks = publisher.settle(3);
    assert_eq!(nacks.len(), 2);
    for nack in &nacks {
        assert_eq!(nack["code"], json!("STORAGE_FULL"), "{nack}");
    }
    assert!(sample(&server.page("/metrics"), "sightline_log_refusing") > 0.0);

    // What was under way waits for a while, and is then told so.
    let admin = server.admin_token();
    let order = |path: &str, body: &str| server.ask("POST", path, &admin, body).refusal();
    let full = (507, "STORAGE_FULL".to_string());
    std::thread::scope(|scope| {
        let revoking = scope.spawn(|| order("/v1/admin/revoke", r#"{"jti":"gone"}"#));
        let erasing = scope.spawn(|| order("/v1/admin/erase", r#"{"userId":"nobody"}"#));
        assert_eq!(revoking.join().unwrap(), full);
        assert_eq!(erasing.join().unwrap(), full);
    });
    let (taken, under_way) = filling.join().unwrap();
    assert!(taken >= 8, "most of a segment was taken");
    assert_eq!(under_way.refusal(), full);

    // Viewers are served on.
    let mut late = Viewer::open(&server, "/observatory?subscribe=all", &viewer_token);
    assert!(late.drain().is_empty());
    fs::remove_file(disk_of(&server).join("filler")).unwrap();
    server.wait_for_log("the event log is written again", 0);
    let mut sent = 3;
    eventually("it is acknowledged", || {
        publisher.say_text(r#"{"type":"continue"}"#.into());
        publisher.say(&small);
        sent += 1;
        publisher.settle(sent).is_empty().then_some(())
    });
    for viewer in [&mut viewer, &mut late] {
        viewer.skip_to("small");
    }
    // Whoever sends it again has it kept once.
    let again = post(&server, "/v1/events", &large(taken)).json();
    assert_eq!(
        again["duplicates"].as_u64().map(|count| count > 0),
        Some(true),
        "{again}"
    );
    let answer = server.ask("POST", "/v1/admin/revoke", &admin, r#"{"jti":"gone"}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Some of the machines that run this need their time for a segment.
fn wait_until_full(server: &Server) {
    let end = Instant::now() + 2 * DEADLINE;
    let is_full = |line: &String| line.contains("the event log's disk is full");
    while !server.log_lines().iter().any(is_full) {
        assert!(Instant::now() < end, "the disk did not get full");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// More than a segment takes, less than two.
const POSTS: usize = 12;

/// Seven megabytes.
fn large(post: usize) -> Value {
    let event = |n: usize| {
        json!({"event_type": "large", "event_id": format!("{post}-{n}"), "user_id": "nobody",
               "data": "x".repeat(1_000_000)})
    };
    (0..7).map(event).collect()
}

/// Posts until it is refused; returns how many were taken, and the refusal.
fn fill(address: &str, token: &str) -> (usize, Answer) {
    use crate::harness::{Http, request};
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str())];
    let mut http = Http::connect_for(address, 2 * DEADLINE);
    for taken in 0..POSTS {
        let body = large(taken).to_string();
        http.send(&request("POST", "/v1/events", &headers, body.as_bytes()));
        let answer = http.receive();
        if answer.status != 200 {
            return (taken, answer);
        }
    }
    panic!("the disk took all of it");
}

/// The server's own disk, seen from here.
fn disk_of(server: &Server) -> std::path::PathBuf {
    Path::new("/proc")
        .join(server.pid().to_string())
        .join("cwd/disk")
}
