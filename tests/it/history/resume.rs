use serde_json::{Value, json};

use super::{data_in, post};
use crate::harness::{Server, Viewer, kind, text};

const PATHS: [&str; 2] = ["/observatory", "/keen"];

fn events(count: usize, audience: &Value) -> Value {
    let event = |n: usize| {
        let mut event = json!({"event_type": "step", "data": {"n": n, "pad": "x".repeat(n % 700)}});
        for (name, value) in audience.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    };
    (0..count).map(event).collect()
}

// The texts of the next events, and what stands between them.
fn read(viewer: &mut Viewer, count: usize) -> (Vec<String>, Vec<Value>) {
    let (mut texts, mut others) = (Vec::new(), Vec::new());
    while texts.len() < count {
        let said = viewer.next_text();
        let message: Value = serde_json::from_str(&said).unwrap();
        match kind(&message) {
            "step" => texts.push(said),
            _ => others.push(message),
        }
    }
    (texts, others)
}

fn seq(said: &str) -> u64 {
    let message: Value = serde_json::from_str(said).unwrap();
    message["seq"].as_u64().unwrap()
}

fn seqs(texts: &[String]) -> Vec<u64> {
    texts.iter().map(|said| seq(said)).collect()
}

#[test]
fn what_was_missed_comes_in_the_very_bytes_from_memory_and_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let settings = data_in(folder.path());
    let mut server = Server::start(&settings);
    let token = server.viewer_token("ada", &["7"]);
    let mut viewers =
        PATHS.map(|path| Viewer::open(&server, &format!("{path}?subscribe=all"), &token));
    let epoch = text(&viewers[0].greeting()["epoch"]).to_owned();
    for audience in [json!({"user_id": "ada"}), json!({"project_id": 7})] {
        let answer = post(&server, "/v1/events", &events(1_000, &audience));
        assert_eq!(answer.status, 200);
    }
    let live = viewers.each_mut().map(|viewer| read(viewer, 2_000).0);
    viewers.into_iter().for_each(Viewer::close);
    check_resumed(&server, &token, &epoch, &live);
    let stats: Value = serde_json::from_str(&server.page("/v1/stats")).unwrap();
    let count = |name: &str| stats["total"]["missed"][name].as_u64().unwrap();
    assert_eq!(
        (
            count("ringHits") + count("ringMisses"),
            count("eventsReplayed")
        ),
        (4, 1_600)
    );
    assert!(count("ringHits") >= 2 && count("ringBytes") > 0, "{stats}");
    server.signal("KILL");
    server.wait();
    let server = Server::start(&settings);
    check_resumed(&server, &token, &epoch, &live);
    // And then it is live, above all that was given before.
    let resume = format!("/keen?subscribe=all&epoch={epoch}&resume=1000");
    let mut viewer = Viewer::open(&server, &resume, &token);
    assert_eq!(kind(&viewer.next()), "replay_complete");
    post(
        &server,
        "/v1/events",
        &events(1, &json!({"user_id": "ada"})),
    );
    assert!(seq(&viewer.next_text()) > 1_000);
}

// Viewers of both dialects that have seen 300 events of their own and 900 of the project.
fn check_resumed(server: &Server, token: &str, epoch: &str, live: &[Vec<String>; 2]) {
    let is_own = |said: &&String| !said.contains("project/7");
    for (path, live) in PATHS.iter().zip(live) {
        let resume = "user%3D300%2Cproject%2F7%3D900";
        let target = format!("{path}?subscribe=all&epoch={epoch}&resume={resume}");
        let mut viewer = Viewer::open(server, &target, token);
        let rows = viewer.greeting()["resume"].clone();
        for (row, from) in rows.as_array().unwrap().iter().zip([300, 900]) {
            let told = [&row["outcome"], &row["from"], &row["earliest"]];
            assert_eq!(told, [&json!("resumed"), &json!(from), &json!(1)]);
        }
        let (found, mut others) = read(&mut viewer, 800);
        let (own, project): (Vec<_>, Vec<_>) = found.iter().partition(is_own);
        let (live_own, live_project): (Vec<_>, Vec<_>) = live.iter().partition(is_own);
        assert_eq!(own, live_own[300..]);
        assert_eq!(project, live_project[900..]);
        while others.len() < 2 {
            others.push(viewer.next());
        }
        let ends = others.iter().all(|other| kind(other) == "replay_complete");
        assert!(ends, "{others:?}");
        viewer.close();
    }
}

#[test]
fn events_are_sent_again_from_disk_on_replay() {
    let folder = tempfile::tempdir().unwrap();
    let settings = data_in(folder.path());
    let mut server = Server::start(&settings);
    post(
        &server,
        "/v1/events",
        &events(50, &json!({"user_id": "ada"})),
    );
    server.signal("TERM");
    assert!(server.wait().success());
    let server = Server::start(&settings);
    let token = server.viewer_token("ada", &[]);
    let mut viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
    viewer.say(&json!({"type": "replay", "id": 5, "data": {"from": 11, "limit": 30}}));
    let (found, _) = read(&mut viewer, 30);
    assert_eq!(seqs(&found), (11..=40).collect::<Vec<u64>>());
    assert!(found.iter().all(|said| said.contains(r#""replay":true"#)));
    let end = viewer.next();
    assert_eq!(kind(&end), "replay_complete");
    let expected = json!({"stream": "user", "seq": 40, "more": true, "id": 5});
    assert_eq!(end["data"], expected);
}
