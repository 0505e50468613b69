//! Against real repositories, made by the `git` program.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use serde_json::Value;
use tempfile::TempDir;

use super::super::client::Bell;
use super::super::client::test_server::{TestServer, within};
use super::super::publish::intake::{Inbox, Input, Intake, Item, intake};
use super::*;

/// A repository in a folder that goes with it.
struct Repo {
    folder: TempDir,
}

impl Repo {
    fn empty() -> Self {
        let repo = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(repo.path()).unwrap();
        repo.git(["init", "--quiet", "--initial-branch=main"]);
        repo
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("demo")
    }

    fn git<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.git_in(&self.path(), args)
    }

    fn git_in<S: AsRef<OsStr>>(&self, path: &Path, args: impl IntoIterator<Item = S>) -> String {
        let output = Command::new("git")
            .arg("-C")
            .arg(path)
            .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.org"])
            .args([
                "-c",
                "commit.gpgSign=false",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_COMMITTER_DATE", "@1700000000 +0000")
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{complaint}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Replaces the last commit by one of other bytes, such as `git commit` itself would mend.
    fn amend_raw(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let shown = Command::new("git")
            .arg("-C")
            .arg(self.path())
            .args(["cat-file", "commit", "HEAD"])
            .output();
        let mut commit = shown.unwrap().stdout;
        change(&mut commit);
        let file = self.folder.path().join("commit");
        fs::write(&file, commit).unwrap();
        let file = file.to_str().unwrap();
        let hash = self.git(["hash-object", "-t", "commit", "-w", file]);
        self.git(["update-ref", "HEAD", &hash]);
    }

    /// Writes a file and commits it; returns the hash.
    fn commit(&self, file: &str, content: impl AsRef<[u8]>, message: impl AsRef<OsStr>) -> String {
        fs::write(self.path().join(file), content).unwrap();
        self.git(["add", "--all"]);
        let args: [&OsStr; 4] = [
            "commit".as_ref(),
            "--quiet".as_ref(),
            "-m".as_ref(),
            message.as_ref(),
        ];
        self.git(args);
        self.git(["rev-parse", "HEAD"])
    }
}

/// A watch, and what it publishes.
struct Publishing {
    watch: Watch,
    intake: Intake,
    inbox: Inbox,
    _bell: Bell,
}

impl Publishing {
    fn of(path: &Path) -> Self {
        let repository = Repository::open(path).unwrap();
        let author = Author {
            user: "u".into(),
            project: None,
            session: "s".into(),
            repository: repository.name(),
            lives: HashMap::new(),
        };
        let bell = Bell::new().unwrap();
        let (intake, inbox) = intake(bell.waker());
        Self {
            watch: Watch::new(repository, author),
            intake,
            inbox,
            _bell: bell,
        }
    }

    /// The commits of the first look.
    fn last(&mut self, count: u32) -> Vec<Value> {
        let mut events = self.all_of_last(count);
        events.retain(|event| event["data"]["commit_message"].is_string());
        events
    }

    fn all_of_last(&mut self, count: u32) -> Vec<Value> {
        self.watch.publish_last(count, &mut self.intake).unwrap();
        self.events()
    }

    /// The git operations of a further look.
    fn look(&mut self) -> Vec<Value> {
        let mut events = self.all_of_look();
        events.retain(|event| event["event_type"] == "git_operation");
        events
    }

    fn all_of_look(&mut self) -> Vec<Value> {
        self.watch.look(&mut self.intake).unwrap();
        self.events()
    }

    /// What `look` publishes, a word an event: operation, branch, subject.
    fn seen(&mut self) -> Vec<String> {
        self.look().iter().map(summary).collect()
    }

    fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(Input::Batch(items)) = self.inbox.poll() {
            events.extend(items.into_iter().map(|item| match item {
                Item::Parcel(parcel) => serde_json::from_str::<Value>(&parcel.text).unwrap(),
                Item::Refused { label, .. } => panic!("{label} refused"),
            }));
        }
        events
    }
}

fn summary(event: &Value) -> String {
    let text = |field: &str| event["data"][field].as_str().unwrap_or("-").to_owned();
    let subject = text("commit_message");
    let subject = subject.lines().next().unwrap_or_default();
    format!("{} {} {subject}", text("operation_type"), text("branch"))
}

fn changed(event: &Value) -> (Vec<&str>, u64, u64) {
    let data = &event["data"];
    let files = data["files_changed"].as_array().unwrap();
    let files = files.iter().map(|path| path.as_str().unwrap()).collect();
    let number = |field: &str| data[field].as_u64().unwrap();
    (files, number("lines_added"), number("lines_deleted"))
}

#[test]
fn commits_have_gits_numbers() {
    let repo = Repo::empty();
    let root = repo.commit("a b", "1\n2\n3\n", "root\n\nits body\n");
    repo.commit("a b", "1\n2\nthree\nfour\n", "second");
    repo.git(["mv", "a b", "ü\tnew"]);
    repo.commit("data.bin", b"\0\x01\x02", "rename and binary");
    repo.git([
        "commit",
        "--quiet",
        "--allow-empty",
        "--allow-empty-message",
        "-m",
        "",
    ]);
    let events = Publishing::of(&repo.path()).last(20);
    let told: Vec<_> = events.iter().map(summary).collect();
    assert_eq!(
        told,
        [
            "commit main root",
            "commit main second",
            "commit main rename and binary",
            "commit main ",
        ]
    );
    assert_eq!(changed(&events[0]), (vec!["a b"], 3, 0));
    assert_eq!(changed(&events[1]), (vec!["a b"], 2, 1));
    assert_eq!(changed(&events[2]), (vec!["data.bin", "ü\tnew"], 0, 0));
    assert_eq!(changed(&events[3]), (vec![], 0, 0));
    assert_eq!(events[0]["event_id"], format!("git-{root}-commit"));
    assert_eq!(events[0]["timestamp"], 1_700_000_000_000_i64);
    assert_eq!(events[0]["data"]["commit_message"], "root\n\nits body");
    assert_eq!(events[1]["data"]["parents"][0], root.as_str());
    assert_eq!(events[0]["data"]["repository"], "demo");
}

#[test]
fn a_merge_tells_what_it_brought() {
    let repo = Repo::empty();
    repo.commit("a", "1\n", "root");
    repo.git(["checkout", "--quiet", "-b", "feature/x"]);
    repo.commit("b", "1\n2\n", "on the side");
    repo.git(["checkout", "--quiet", "main"]);
    repo.commit("c", "1\n", "on main");
    repo.git(["merge", "--quiet", "--no-edit", "feature/x"]);
    let events = Publishing::of(&repo.path()).last(20);
    let mut told: Vec<_> = events.iter().map(summary).collect();
    assert_eq!(told.pop().unwrap(), "merge main Merge branch 'feature/x'");
    assert!(
        told.contains(&"commit feature/x on the side".to_owned()),
        "{told:?}"
    );
    assert_eq!(changed(&events[3]), (vec!["b"], 2, 0));
    assert_eq!(events[3]["data"]["parents"].as_array().unwrap().len(), 2);
}

#[test]
fn only_the_newest_are_published_oldest_first() {
    let repo = Repo::empty();
    for number in 1..=5 {
        repo.commit("a", format!("{number}\n"), format!("number {number}"));
    }
    let mut publishing = Publishing::of(&repo.path());
    assert_eq!(publishing.last(0), [Value::Null; 0]);
    let told: Vec<_> = publishing.last(2).iter().map(summary).collect();
    assert_eq!(told, ["commit main number 4", "commit main number 5"]);
}

#[cfg(unix)]
#[test]
fn what_is_not_utf8_is_replaced_and_spoils_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    let repo = Repo::empty();
    repo.commit("a", "1\n", "caf\u{1} \x1b[31m\n\nx");
    repo.amend_raw(|commit| {
        commit
            .iter_mut()
            .filter(|b| **b == 1)
            .for_each(|b| *b = 0xe9);
    });
    let name = OsStr::from_bytes(b"f\xff");
    fs::write(repo.path().join(name), "1\n").unwrap();
    repo.commit("b", "1\n", "names");
    let events = Publishing::of(&repo.path()).last(20);
    assert_eq!(
        events[0]["data"]["commit_message"],
        "caf\u{fffd} \u{1b}[31m\n\nx"
    );
    assert_eq!(changed(&events[1]).0, ["b", "f\u{fffd}"]);
}

#[test]
fn follows_what_happens_on_branches() {
    let repo = Repo::empty();
    let mut publishing = Publishing::of(&repo.path());
    assert_eq!(publishing.last(20), [Value::Null; 0]);
    assert_eq!(publishing.seen(), [""; 0]);
    repo.commit("a", "1\n", "first");
    assert_eq!(
        publishing.seen(),
        ["branch_created main -", "commit main first"]
    );
    repo.git(["checkout", "--quiet", "-b", "x"]);
    assert_eq!(publishing.seen(), ["branch_created x -", "checkout x -"]);
    repo.commit("b", "1\n", "two");
    repo.commit("c", "1\n", "three");
    assert_eq!(publishing.seen(), ["commit x two", "commit x three"]);
    repo.git(["commit", "--quiet", "--amend", "-m", "three, better"]);
    assert_eq!(
        publishing.seen(),
        ["branch_rewound x -", "commit x three, better"]
    );
    repo.git(["reset", "--quiet", "--hard", "HEAD~1"]);
    assert_eq!(publishing.seen(), ["branch_rewound x -"]);
    repo.git(["checkout", "--quiet", "main"]);
    assert_eq!(publishing.seen(), ["checkout main -"]);
    repo.git(["merge", "--quiet", "--ff-only", "x"]);
    assert_eq!(
        publishing.seen(),
        [""; 0],
        "the commit was told when it was made"
    );
    repo.git(["branch", "--quiet", "-D", "x"]);
    assert_eq!(publishing.seen(), ["branch_deleted x -"]);
    repo.git(["checkout", "--quiet", "--detach"]);
    assert_eq!(publishing.seen(), ["checkout HEAD -"]);
    repo.commit("d", "1\n", "on no branch");
    assert_eq!(publishing.seen(), ["commit HEAD on no branch"]);
    assert_eq!(publishing.seen(), [""; 0]);
}

/// What an event says, and of which session.
fn told(event: &Value) -> String {
    let about = match &event["data"]["child_session"] {
        Value::String(child) => child,
        _ => event["data"]["operation_type"].as_str().unwrap_or("-"),
    };
    let name = |field: &str| event[field].as_str().unwrap().to_owned();
    format!("{} {} {about}", name("session_id"), name("event_type"))
}

#[test]
fn branches_are_agents_below_the_repository() {
    let repo = Repo::empty();
    repo.commit("a", "1\n", "first");
    repo.git(["branch", "idle"]);
    let mut publishing = Publishing::of(&repo.path());
    let first: Vec<_> = publishing.all_of_last(20).iter().map(told).collect();
    assert_eq!(
        first,
        [
            "s git_operation checkout",
            "s agent_spawned s/idle",
            "s agent_spawned s/main",
            "s/main git_operation commit",
        ]
    );
    repo.git(["checkout", "--quiet", "-b", "feature/x"]);
    repo.commit("b", "1\n", "two");
    repo.git(["branch", "--quiet", "-D", "idle"]);
    let then: Vec<_> = publishing.all_of_look().iter().map(told).collect();
    assert_eq!(
        then,
        [
            "s agent_spawned s/feature/x",
            "s/feature/x git_operation branch_created",
            "s/feature/x git_operation commit",
            "s/idle git_operation branch_deleted",
            "s/idle completion -",
            "s git_operation checkout",
        ]
    );
}

#[test]
fn a_branch_that_is_created_again_is_another_agent() {
    let repo = Repo::empty();
    repo.commit("a", "1\n", "first");
    repo.git(["branch", "x"]);
    let mut publishing = Publishing::of(&repo.path());
    let mut events = publishing.all_of_last(20);
    for subject in ["second", "third"] {
        repo.git(["branch", "--quiet", "-D", "x"]);
        events.extend(publishing.all_of_look());
        repo.git(["checkout", "--quiet", "-b", "x", "main"]);
        repo.commit("b", "1\n", subject);
        events.extend(publishing.all_of_look());
        repo.git(["checkout", "--quiet", "main"]);
        publishing.look();
    }
    let sessions = |is_wanted: fn(&Value) -> bool| {
        let wanted = events.iter().filter(|event| is_wanted(event));
        let sessions = wanted.map(|event| match &event["data"]["child_session"] {
            Value::Null => event["session_id"].as_str().unwrap(),
            child => child.as_str().unwrap(),
        });
        sessions.collect::<Vec<&str>>()
    };
    let lives = sessions(|event| event["data"]["git_branch"] == "x");
    assert_eq!((lives.len(), lives[0]), (3, "s/x"));
    assert_ne!(lives[1], lives[2]);
    // Each ends in its turn, and says nothing after that.
    let ended = sessions(|event| event["event_type"] == "completion");
    assert_eq!(ended, lives[..2]);
    let commits = sessions(|event| event["data"]["commit_message"].is_string());
    assert_eq!(commits[1..], lives[1..]);
    // None is taken for a duplicate.
    let ids: HashSet<_> = events
        .iter()
        .map(|event| event["event_id"].as_str())
        .collect();
    assert_eq!(ids.len(), events.len());
}

#[test]
fn a_commit_goes_out_once_however_often_it_comes_back() {
    let repo = Repo::empty();
    let hash = repo.commit("a", "1\n", "first");
    let mut publishing = Publishing::of(&repo.path());
    publishing.last(20);
    repo.git(["checkout", "--quiet", "--orphan", "other"]);
    repo.commit("b", "1\n", "second");
    repo.git(["branch", "--quiet", "-D", "main"]);
    publishing.look();
    repo.git(["branch", "main", &hash]);
    assert_eq!(publishing.seen(), ["branch_created main -"]);
}

#[test]
fn bare_repositories_worktrees_and_folders_within_serve_too() {
    let repo = Repo::empty();
    repo.commit("a", "1\n", "first");
    let folder = repo.folder.path();
    repo.git_in(folder, ["clone", "--quiet", "--bare", "demo", "copy.git"]);
    repo.git(["worktree", "add", "--quiet", "-b", "side", "../tree"]);
    fs::create_dir(repo.path().join("deep")).unwrap();
    for (path, name) in [
        ("copy.git", "copy"),
        ("tree", "tree"),
        ("demo/deep", "demo"),
        ("demo/.git", "demo"),
    ] {
        let path = folder.join(path);
        assert_eq!(Repository::open(&path).unwrap().name(), name);
        assert_eq!(Publishing::of(&path).last(20).len(), 1, "{name}");
    }
    let mut tree = Publishing::of(&folder.join("tree"));
    assert_eq!(
        tree.last(20).iter().map(summary).collect::<Vec<_>>(),
        ["commit side first"]
    );
}

#[test]
fn a_submodule_is_one_file() {
    let repo = Repo::empty();
    repo.commit("a", "1\n", "first");
    repo.git(["submodule", "--quiet", "add", "../demo", "inner"]);
    repo.commit("b", "1\n", "with a submodule");
    let events = Publishing::of(&repo.path()).last(1);
    assert_eq!(
        changed(&events[0]),
        (vec![".gitmodules", "b", "inner"], 5, 0)
    );
}

#[test]
fn no_configuration_changes_what_is_read() {
    let repo = Repo::empty();
    for (key, value) in [
        ("log.showRoot", "false"),
        ("log.diffMerges", "off"),
        ("log.showSignature", "true"),
        ("color.ui", "always"),
        ("diff.external", "false"),
        ("diff.renames", "false"),
        ("format.pretty", "oneline"),
        ("core.quotePath", "true"),
    ] {
        repo.git(["config", key, value]);
    }
    repo.commit("ü", "1\n", "root");
    repo.git(["mv", "ü", "ö"]);
    repo.git(["commit", "--quiet", "-m", "renamed"]);
    let events = Publishing::of(&repo.path()).last(20);
    assert_eq!(changed(&events[0]), (vec!["ü"], 1, 0));
    assert_eq!(changed(&events[1]), (vec!["ö"], 0, 0));
}

#[test]
fn what_is_no_repository_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("absent")] {
        let error = Repository::open(&path).unwrap_err();
        assert!(matches!(error, ClientError::Repository { .. }), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

fn args(repo: &Repo, url: String, follow: bool) -> WatchGitArgs {
    WatchGitArgs {
        path: repo.path(),
        connect: ConnectArgs::for_test(url),
        user: "u".into(),
        project: Some("7".into()),
        session: None,
        last: 20,
        follow,
    }
}

#[test]
fn the_command_publishes_until_all_is_acknowledged() {
    let repo = Repo::empty();
    repo.commit("a", "1\n", "first");
    let (url, server) = TestServer::start(|server| {
        let mut peer = server.accept();
        let events = [peer.read(), peer.read(), peer.read()];
        peer.send(&serde_json::json!({"type": "ack", "data": {"through": 3}}));
        events
    });
    let args = args(&repo, url, false);
    within(move || watch(&args, Stop::default())).unwrap();
    let events = within(move || server.join().unwrap());
    let sessions = events.each_ref().map(|event| event["session_id"].clone());
    assert_eq!(sessions, ["git-demo", "git-demo", "git-demo/main"]);
    for event in events {
        assert_eq!(event["user_id"], "u");
        assert_eq!(event["project_id"], "7");
    }
}

#[test]
fn the_command_follows_until_a_signal() {
    let repo = Repo::empty();
    repo.commit("a", "1\n", "first");
    let stop = Stop::default();
    let signal = stop.clone();
    let (ready, is_ready) = mpsc::channel();
    let (url, server) = TestServer::start(move |server| {
        let mut peer = server.accept();
        let mut told = Vec::new();
        for number in 1..=4 {
            told.push(summary(&peer.read()));
            peer.send(&serde_json::json!({"type": "ack", "data": {"through": number}}));
            ready.send(()).unwrap();
        }
        signal.ask();
        told
    });
    let args = args(&repo, url, true);
    let command = std::thread::spawn(move || watch(&args, stop));
    // Kept, so that the script's later words have a listener.
    let _is_ready = within(move || {
        // What is checked out, its branch, and the first commit.
        (0..3).for_each(|_| is_ready.recv().unwrap());
        is_ready
    });
    repo.commit("b", "1\n", "second");
    let told = within(move || server.join().unwrap());
    let told: Vec<_> = told
        .iter()
        .filter(|told| told.starts_with("commit"))
        .collect();
    assert_eq!(told, ["commit main first", "commit main second"]);
    within(move || command.join().unwrap()).unwrap();
}
