//! `git_operation` events: the keen document's fields, and a few of git's own beside them.
//!
//! In the user's trees a repository is an agent and each of its branches one below it: what happens
//! to a branch is its own session's, what is checked out the repository's. A branch is announced by
//! an `agent_spawned`; one that is deleted is complete, and an agent that is complete stays so: a
//! branch that is created again is another agent, for the run that has seen both. A later run knows of
//! one life alone.
//!
//! `files_changed` is the list of paths, as the keen document's trees hold it; of a commit with
//! more than `FILES_MAX` it is the first ones, and `file_change_stats` then carries the true
//! count, which the gateway otherwise derives (contract, section 8). What git does not know,
//! `duration_ms`, is null.

use std::collections::HashMap;
use std::hash::Hasher as _;

use compact_str::{CompactString, format_compact};
use jiff::Timestamp;
use serde::Serialize;
use siphasher::sip::SipHasher13;

use super::super::publish::intake::Item;
use super::super::publish::window::Parcel;
use super::history::Commit;
use super::refs::{Change, Head};

/// Whose events these are.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) user: String,
    pub(crate) project: Option<String>,
    /// The repository's.
    pub(crate) session: String,
    pub(crate) repository: String,
    /// Branches that have been deleted, and what their next life, or their present one, is called.
    pub(crate) lives: HashMap<String, String>,
}

impl Author {
    /// The session of a branch, at most 128 bytes; `HEAD`, which is none, is the repository itself.
    /// A further life is named behind a `~`, which no branch has in its name (git-check-ref-format).
    /// What is too long for all that is cut, and told from others by a hash of all of it.
    fn branch_session(&self, branch: &str) -> String {
        if branch == "HEAD" {
            return self.session.clone();
        }
        let mut session = format!("{}/{branch}", self.session);
        if let Some(life) = self.lives.get(branch) {
            session.extend(["~", life]);
        }
        if session.len() <= SESSION_BYTES_MAX {
            return session;
        }
        let hash = format!("~{:016x}", hash(&session));
        format!("{}{hash}", cut(&session, SESSION_BYTES_MAX - hash.len()))
    }
}

/// The session of a repository of this name; at most 128 bytes.
pub(crate) fn session(repository: &str) -> String {
    cut(&format!("git-{repository}"), SESSION_BYTES_MAX).to_owned()
}

/// A commit or a merge. The same commit always has the same `event_id`.
pub(crate) fn commit(author: &Author, commit: &Commit) -> Item {
    let is_merge = commit.parents.len() > 1;
    let files = shown_files(&commit.files);
    let is_cut = files.len() < commit.files.len();
    let data = Data {
        operation_type: if is_merge { "merge" } else { "commit" },
        commit_message: Some(cut(&commit.message, MESSAGE_BYTES_MAX)),
        files_changed: files,
        lines_added: commit.lines_added,
        lines_deleted: commit.lines_deleted,
        file_change_stats: is_cut.then_some(Stats {
            files: commit.files.len(),
            added: commit.lines_added,
            deleted: commit.lines_deleted,
        }),
        author: Some(&commit.author),
        authored_at: time(commit.authored_at).map(|time| time.to_string()),
        parents: Some(&commit.parents),
        ..Data::new(author, &commit.branch, &commit.hash)
    };
    let label = format_compact!("commit {}", short(&commit.hash));
    // 64 bytes at most, whatever the length of the hash.
    let event_id = format!("git-{}-commit", cut(&commit.hash, 40));
    let timestamp = time(commit.committed_at).map(Timestamp::as_millisecond);
    let session = author.branch_session(&commit.branch);
    operation(author, &session, label, &event_id, timestamp, data)
}

/// A branch that something is about to be told of. The same for each run that begins within the
/// gateway's window for duplicates.
pub(crate) fn announcement(author: &Author, branch: &str) -> Item {
    let session = author.branch_session(branch);
    let event_id = format!("git-{:016x}-branch", hash(&session));
    let data = Announcement {
        parent_session: &author.session,
        child_session: &session,
        git_branch: branch,
        purpose: format!("branch of {}", author.repository),
        repository: &author.repository,
    };
    let event = Event {
        event_type: "agent_spawned",
        ..Event::new(author, &author.session, &event_id, data)
    };
    event.item(format_compact!("branch {branch}"))
}

/// A branch that is gone is done. `event_id` is the caller's.
pub(crate) fn end(author: &Author, branch: &str, event_id: &str) -> Item {
    let session = author.branch_session(branch);
    let data = End {
        success: true,
        repository: &author.repository,
    };
    let event = Event {
        event_type: "completion",
        ..Event::new(author, &session, event_id, data)
    };
    event.item(format_compact!("end of {branch}"))
}

/// A branch or HEAD that changed. `event_id` is the caller's: the same change can happen twice.
pub(crate) fn change(author: &Author, change: &Change, event_id: &str) -> Item {
    let (operation_type, branch, hash, from) = match change {
        Change::Created { branch, tip } => ("branch_created", branch.as_str(), tip.as_str(), None),
        Change::Moved { branch, from, to } => {
            ("branch_rewound", branch.as_str(), to.as_str(), Some(from))
        }
        Change::Deleted { branch, tip } => ("branch_deleted", branch.as_str(), tip.as_str(), None),
        Change::CheckedOut(Head::Detached(hash)) => ("checkout", "HEAD", hash.as_str(), None),
        // Where the branch is, its own events tell.
        Change::CheckedOut(Head::Branch(branch)) => ("checkout", branch.as_str(), "", None),
    };
    let data = Data {
        operation_type,
        previous_hash: from.map(String::as_str),
        ..Data::new(author, branch, hash)
    };
    let label = format_compact!("{operation_type} {branch}");
    let session = match change {
        Change::CheckedOut(_) => author.session.clone(),
        _ => author.branch_session(branch),
    };
    operation(author, &session, label, event_id, None, data)
}

/// An event as published.
#[derive(Serialize)]
struct Event<'a, D> {
    event_type: &'static str,
    event_id: &'a str,
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'a str>,
    session_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    data: D,
}

impl<'a, D: Serialize> Event<'a, D> {
    /// A git operation, at the time when the gateway gets it.
    fn new(author: &'a Author, session: &'a str, event_id: &'a str, data: D) -> Self {
        Self {
            event_type: "git_operation",
            event_id,
            user_id: &author.user,
            project_id: author.project.as_deref(),
            session_id: session,
            timestamp: None,
            data,
        }
    }

    fn item(&self, label: CompactString) -> Item {
        let text =
            serde_json::to_string(self).expect("maps have string keys and writing is to memory");
        Item::Parcel(Parcel {
            label,
            text: text.into(),
        })
    }
}

#[derive(Serialize)]
struct Announcement<'a> {
    parent_session: &'a str,
    child_session: &'a str,
    git_branch: &'a str,
    purpose: String,
    repository: &'a str,
}

#[derive(Serialize)]
struct End<'a> {
    success: bool,
    repository: &'a str,
}

#[derive(Serialize)]
struct Data<'a> {
    operation_type: &'static str,
    branch: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    commit_hash: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_message: Option<&'a str>,
    files_changed: &'a [String],
    lines_added: u64,
    lines_deleted: u64,
    merge_conflicts: bool,
    success: bool,
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_change_stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authored_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parents: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_hash: Option<&'a str>,
    repository: &'a str,
}

impl<'a> Data<'a> {
    /// What every operation has: nothing changed, and it succeeded, or git would not show it.
    fn new(author: &'a Author, branch: &'a str, hash: &'a str) -> Self {
        Self {
            operation_type: "",
            branch,
            commit_hash: hash,
            commit_message: None,
            files_changed: &[],
            lines_added: 0,
            lines_deleted: 0,
            merge_conflicts: false,
            success: true,
            duration_ms: None,
            file_change_stats: None,
            author: None,
            authored_at: None,
            parents: None,
            previous_hash: None,
            repository: &author.repository,
        }
    }
}

#[derive(Serialize)]
struct Stats {
    files: usize,
    added: u64,
    deleted: u64,
}

fn operation(
    author: &Author,
    session: &str,
    label: CompactString,
    event_id: &str,
    timestamp: Option<i64>,
    data: Data<'_>,
) -> Item {
    let event = Event {
        timestamp,
        ..Event::new(author, session, event_id, data)
    };
    event.item(label)
}

/// As many of the first paths as the bounds allow.
fn shown_files(files: &[String]) -> &[String] {
    let mut bytes = 0;
    let fits = |path: &&String| {
        bytes += path.len();
        bytes <= FILES_BYTES_MAX
    };
    let count = files.iter().take(FILES_MAX).take_while(fits).count();
    &files[..count]
}

/// `None` for what no clock showed: a commit's times are whatever its maker wrote.
fn time(seconds: i64) -> Option<Timestamp> {
    Timestamp::from_second(seconds)
        .ok()
        .filter(|time| *time >= Timestamp::UNIX_EPOCH)
}

/// The same in every run and on every machine.
fn hash(text: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(text.as_bytes());
    hasher.finish()
}

fn short(hash: &str) -> &str {
    cut(hash, 8)
}

/// The longest beginning of `text` within `bytes_max` that ends between characters.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rfind(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

const FILES_MAX: usize = 200;
const FILES_BYTES_MAX: usize = 32 * 1024;
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const SESSION_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::event::Parser;
    use crate::limits::EVENT_BYTES_MAX;
    use bytes::Bytes;
    use serde_json::{Value, json};

    fn author() -> Author {
        Author {
            user: "u".into(),
            project: Some("7".into()),
            session: session("repo"),
            repository: "repo".into(),
            lives: HashMap::new(),
        }
    }

    fn value(item: Item) -> Value {
        let Item::Parcel(parcel) = item else {
            panic!("refused");
        };
        assert!(parcel.text.len() < EVENT_BYTES_MAX);
        let text = Bytes::copy_from_slice(parcel.text.as_bytes());
        Parser::new().parse_strict(&text, 0).unwrap();
        serde_json::from_str(&parcel.text).unwrap()
    }

    #[test]
    fn a_commit_has_the_keen_documents_fields() {
        let told = Commit {
            hash: "0a".repeat(20),
            committed_at: 1_763_805_600,
            authored_at: 1_763_805_599,
            author: "Ann".into(),
            branch: "feature/x".into(),
            message: "one\n\ntwo".into(),
            files: vec!["a".into()],
            lines_added: 3,
            lines_deleted: 1,
            ..Commit::default()
        };
        let hash = &told.hash;
        let event = value(commit(&author(), &told));
        assert_eq!(
            event,
            json!({
                "event_type": "git_operation", "event_id": format!("git-{hash}-commit"),
                "user_id": "u", "project_id": "7", "session_id": "git-repo/feature/x",
                "timestamp": 1_763_805_600_000_i64,
                "data": {
                    "operation_type": "commit", "branch": "feature/x", "commit_hash": hash,
                    "commit_message": "one\n\ntwo", "files_changed": ["a"], "lines_added": 3,
                    "lines_deleted": 1, "merge_conflicts": false, "success": true, "duration_ms": null,
                    "author": "Ann", "authored_at": "2025-11-22T09:59:59Z", "parents": [],
                    "repository": "repo",
                },
            })
        );
    }

    #[test]
    fn a_branch_is_a_session_below_its_repository() {
        let event = value(announcement(&author(), "feature/x"));
        assert_eq!(event["event_type"], "agent_spawned");
        assert_eq!(event["session_id"], "git-repo");
        let data = json!({"parent_session": "git-repo", "child_session": "git-repo/feature/x",
            "git_branch": "feature/x", "purpose": "branch of repo", "repository": "repo"});
        assert_eq!(event["data"], data);
        let event = value(end(&author(), "feature/x", "id"));
        assert_eq!(event["event_type"], "completion");
        assert_eq!(event["session_id"], "git-repo/feature/x");
        let checkout = Change::CheckedOut(Head::Branch("feature/x".into()));
        let event = value(change(&author(), &checkout, "id"));
        assert_eq!(event["session_id"], "git-repo");
    }

    #[test]
    fn branches_of_the_longest_names_are_told_apart() {
        let session = |end: &str| author().branch_session(&format!("{}{end}", "é".repeat(120)));
        let (one, other) = (session("1"), session("2"));
        assert_ne!(one, other);
        assert!(one.len() <= SESSION_BYTES_MAX, "{one}");
        let event = value(announcement(&author(), &"b".repeat(250)));
        assert_eq!(event["event_id"].as_str().unwrap().len(), 27);
    }

    #[test]
    fn a_huge_commit_is_cut_and_its_count_stays_true() {
        let told = Commit {
            hash: "b".repeat(64),
            committed_at: i64::MAX,
            message: "\u{1}é".repeat(100_000),
            files: (0..5000).map(|n| format!("\u{1}{n}")).collect(),
            ..Commit::default()
        };
        let event = value(commit(&author(), &told));
        assert_eq!(event["event_id"].as_str().unwrap().len(), 51);
        assert_eq!(event.get("timestamp"), None);
        assert_eq!(
            event["data"]["files_changed"].as_array().unwrap().len(),
            FILES_MAX
        );
        assert_eq!(event["data"]["file_change_stats"]["files"], 5000);
    }

    #[test]
    fn a_rewound_branch_tells_where_it_was() {
        let moved = Change::Moved {
            branch: "main".into(),
            from: "aa".into(),
            to: "bb".into(),
        };
        let data = &value(change(&author(), &moved, "id"))["data"];
        assert_eq!(data["operation_type"], "branch_rewound");
        assert_eq!(
            (&data["commit_hash"], &data["previous_hash"]),
            (&"bb".into(), &"aa".into())
        );
        let checkout = Change::CheckedOut(Head::Branch("x".into()));
        let data = &value(change(&author(), &checkout, "id"))["data"];
        assert_eq!(
            (&data["operation_type"], &data["branch"]),
            (&"checkout".into(), &"x".into())
        );
    }
}
