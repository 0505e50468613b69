//! Section 8's trees, from the fleet of `tests/fleet` at work.

#[path = "../fleet/mod.rs"]
mod fleet;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use fastrand::Rng;
use jiff::Timestamp;
use json_patch::Patch;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Publisher, Server, Tail, Viewer, kind, run, samples, text};

/// Trees as one viewer was told of them, by their roots' sessions: the stats and the tree.
#[derive(Default)]
struct Seen {
    trees: BTreeMap<String, (Value, Value)>,
}

impl Seen {
    /// Whether the message told something of a tree.
    fn handle(&mut self, message: &Value) -> bool {
        let data = &message["data"];
        if kind(message) != "agent_tree_update" {
            return false;
        }
        let root = text(&data["tree_root"]).to_owned();
        if data["removed"] == true {
            self.trees.remove(&root);
            return true;
        }
        let stats = data["tree_stats"].clone();
        let tree = match data.get("patch") {
            Some(patch) => {
                let patch: Patch = serde_json::from_value(patch.clone()).unwrap();
                let (_, mut tree) = self.trees.remove(&root).expect("a patch has a base");
                json_patch::patch(&mut tree, &patch).unwrap();
                tree
            }
            None => data["full_tree"].clone(),
        };
        self.trees.insert(root, (stats, tree));
        true
    }

    /// Reads until the viewer was told of these trees, and of no others.
    fn follow(&mut self, viewer: &mut Viewer, trees: &[Value]) {
        let trees: Vec<Value> = trees.iter().map(fleet::normal).collect();
        // Heartbeats come in any case.
        let end = Instant::now() + DEADLINE;
        loop {
            let is_told = self.handle(&viewer.next());
            if is_told && self.trees.len() == trees.len() && self.trees() == trees {
                break;
            }
            if Instant::now() >= end {
                assert_eq!(self.trees(), trees);
            }
        }
        for (stats, tree) in self.trees.values() {
            assert_eq!(fleet::normal(stats), fleet::normal(&fleet::stats(tree)));
        }
    }

    fn trees(&self) -> Vec<Value> {
        let trees = self.trees.values();
        trees.map(|(_, tree)| fleet::normal(tree)).collect()
    }
}

/// Publishes all of it by several publishers at once, in an order that `seed` decides.
fn publish_out_of_order(server: &Server, mut events: Vec<Value>, seed: u64) {
    Rng::with_seed(seed).shuffle(&mut events);
    let token = server.publisher_token();
    thread::scope(|scope| {
        for events in events.chunks(events.len().div_ceil(PUBLISHERS)) {
            let mut publisher = Publisher::open(server, &token);
            scope.spawn(move || {
                let messages = events.chunks(EVENTS_A_MESSAGE);
                let count = messages.len() as u64;
                messages.for_each(|events| publisher.say(&json!(events)));
                assert_eq!(publisher.settle(count), [Value::Null; 0]);
            });
        }
    });
}

const PUBLISHERS: usize = 4;
const EVENTS_A_MESSAGE: usize = 8;

/// The trees that `get_agent_tree` is answered.
fn ask_for_trees(viewer: &mut Viewer, question: &Value) -> Vec<Value> {
    viewer.say(&json!({"type": "get_agent_tree", "data": question}));
    let answer = viewer.skip_to("agent_tree");
    answer["data"]["trees"].as_array().unwrap().clone()
}

/// The node of this session.
fn find<'t>(tree: &'t Value, session: &str) -> Option<&'t Value> {
    let mut left = vec![tree];
    while let Some(node) = left.pop() {
        if node["session_id"] == session {
            return Some(node);
        }
        left.extend(node["children"].as_array().unwrap());
    }
    None
}

/// The only tree of these.
fn only(trees: Vec<Value>) -> Value {
    let [tree] = <[Value; 1]>::try_from(trees).unwrap();
    tree
}

#[test]
fn the_fleet_is_of_a_real_shape() {
    let events = fleet::events("alice");
    assert_eq!(events, fleet::events("alice"));
    let tree = only(fleet::trees(&events));
    assert_eq!(tree["session_id"], fleet::ROOT);
    let by_status = json!({"completed": 143, "failed": 17, "running": 28, "spawning": 12});
    let stats = json!({"total": fleet::AGENTS, "active": 40, "by_status": by_status,
        "max_depth": 3, "tokens_used": 3_159_270, "cost_so_far": 91.296875, "git_commits": 173});
    assert_eq!(fleet::stats(&tree), stats);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &events {
        *counts.entry(text(&event["event_type"])).or_default() += 1;
    }
    assert_eq!(counts.len(), 7, "{counts:?}");
    let ids: BTreeSet<&str> = events
        .iter()
        .map(|event| text(&event["event_id"]))
        .collect();
    assert_eq!(ids.len(), events.len());
    let times = events.iter().map(|event| event["timestamp"].as_i64());
    let times: BTreeSet<_> = times.collect();
    assert!(times.len() < events.len(), "ids decide nothing");
    let is_conflict = |event: &Value| event["data"]["merge_conflicts"] == true;
    assert!(events.iter().any(is_conflict));
}

#[test]
fn the_fleet_makes_one_tree_in_whatever_order_it_is_heard() {
    let server = Server::start("");
    for (seed, user) in (1..).zip(["alice", "bob"]) {
        let events = fleet::events(user);
        let expected = fleet::trees(&events);
        let token = server.viewer_token(user, &[]);
        let open = |target: &str| Viewer::open(&server, target, &token);
        let mut live = [
            "/observatory?tree=patch",
            "/keen?tree=patch",
            "/keen?tree=full",
        ]
        .map(open);
        publish_out_of_order(&server, events, seed);

        for viewer in &mut live {
            Seen::default().follow(viewer, &expected);
        }
        // Those who come later begin with it, or ask for all of it or a part.
        Seen::default().follow(&mut open("/keen?tree=patch"), &expected);
        let mut late = open("/observatory");
        let whole = only(ask_for_trees(&mut late, &json!({})));
        assert_eq!(fleet::normal(&whole), fleet::normal(&expected[0]));
        let lead = "area-3";
        let part = only(ask_for_trees(&mut late, &json!({"sessionId": lead})));
        assert_eq!(
            fleet::normal(&part),
            fleet::normal(find(&expected[0], lead).unwrap())
        );
    }
}

#[test]
fn the_fleets_tree_outlives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = {:?}", folder.path().join("log"));
    let mut server = Server::start(&settings);
    let (first, rest) = {
        let mut events = fleet::events("alice");
        let rest = events.split_off(events.len() / 2);
        (events, rest)
    };
    publish_out_of_order(&server, first.clone(), 3);
    server.signal("KILL");
    server.wait();

    let server = Server::start(&settings);
    let token = server.viewer_token("alice", &[]);
    let mut viewer = Viewer::open(&server, "/keen?tree=patch", &token);
    let mut seen = Seen::default();
    seen.follow(&mut viewer, &fleet::trees(&first));
    publish_out_of_order(&server, rest, 4);
    seen.follow(&mut viewer, &fleet::trees(&fleet::events("alice")));
}

/// The events of a user that the log in `folder` has, with times as they are published.
fn exported(folder: &Path, user: &str) -> Vec<Value> {
    let ending = run(
        folder,
        &["history", "export", "--data-dir", "log", "--user", user],
    );
    assert_eq!(ending.code, Some(0), "{}", ending.err);
    let lines = ending.out.lines().map(|line| {
        let mut event: Value = serde_json::from_str(line).unwrap();
        let time: Timestamp = text(&event["timestamp"]).parse().unwrap();
        event["timestamp"] = json!(time.as_millisecond());
        event
    });
    lines.collect()
}

#[test]
fn after_a_kill_the_trees_are_what_the_log_has() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("data_dir = {:?}", folder.path().join("log"));
    let mut server = Server::start(&settings);
    let mut publisher = Publisher::open(&server, &server.publisher_token());
    let mut events = fleet::events("alice");
    for event in &mut events {
        // So that what they come to is written down now and then.
        event["data"]["pad"] = json!("x".repeat(1_000));
    }
    Rng::with_seed(6).shuffle(&mut events);
    let (first, rest) = events.split_at(events.len() / 2);
    let messages = first.chunks(EVENTS_A_MESSAGE);
    let count = messages.len() as u64;
    messages.for_each(|events| publisher.say(&json!(events)));
    assert_eq!(publisher.settle(count), [Value::Null; 0]);
    let metrics = server.page("/metrics");
    assert!(samples(&metrics, "sightline_state_snapshots_total") > 0.0);
    rest.iter().for_each(|event| publisher.try_say(event));
    server.signal("KILL");
    server.wait();

    let log = exported(folder.path(), "alice");
    assert!(log.len() >= first.len());
    let server = Server::start(&settings);
    let token = server.viewer_token("alice", &[]);
    let trees = ask_for_trees(&mut Viewer::open(&server, "/keen", &token), &json!({}));
    let mut trees: Vec<Value> = trees.iter().map(fleet::normal).collect();
    trees.sort_by_key(|tree| text(&tree["session_id"]).to_owned());
    let folded = fleet::trees(&log);
    assert_eq!(trees, folded.iter().map(fleet::normal).collect::<Vec<_>>());
    let metrics = server.page("/metrics");
    assert_eq!(samples(&metrics, "sightline_state_loads_total"), 1.0);
    let read = samples(&metrics, "sightline_log_events_read_total");
    assert!((read as usize) < log.len(), "all of it was read again");
}

#[test]
fn tail_draws_the_fleet() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let mut tail = Tail::start(&["--url", &server.url(""), "--token", &token, "--tree"]);
    tail.wait_until_it_watches(&server);
    publish_out_of_order(&server, fleet::events("alice"), 5);
    let heading =
        "200 agents · 40 active · 17 failed · depth 3 · 173 commits · 3.2M tokens · $91.30";
    while tail.next_line() != heading {}
    assert!(tail.next_line().starts_with(fleet::ROOT));
    assert!(tail.next_line().starts_with("├─ area-"));
}

#[test]
fn a_watched_repository_is_drawn_with_its_branches_and_commits() {
    let folder = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(folder.path())
            .args(["-c", "user.name=Ann"]);
        command.args([
            "-c",
            "user.email=ann@example.org",
            "-c",
            "commit.gpgSign=false",
        ]);
        command
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        let ending = command.output().unwrap();
        assert!(ending.status.success(), "{ending:?}");
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["commit", "--quiet", "--allow-empty", "-m", "first"]);
    git(&["checkout", "--quiet", "-b", "feature/x"]);
    git(&["commit", "--quiet", "--allow-empty", "-m", "second"]);
    git(&["commit", "--quiet", "--allow-empty", "-m", "third"]);

    let server = Server::start("");
    let token = server.viewer_token("alice", &[]);
    let mut tail = Tail::start(&["--url", &server.url(""), "--token", &token, "--tree"]);
    tail.wait_until_it_watches(&server);
    let (url, publisher) = (server.url(""), server.publisher_token());
    let connect = ["--url", &url, "--token", &publisher];
    let what = ["watch-git", ".", "--user", "alice", "--session", "repo"];
    let ending = run(folder.path(), &[&what[..], &connect].concat());
    assert_eq!(ending.code, Some(0), "{}", ending.err);
    let has = |line: &str, words: &[&str]| words.iter().all(|word| line.contains(word));
    while !has(
        &tail.next_line(),
        &["repo/feature/x", "running", "2 commits"],
    ) {}
    assert!(has(
        &tail.next_line(),
        &["└─ repo/main", "running", "1 commit "]
    ));
}
