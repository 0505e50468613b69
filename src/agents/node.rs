//! One agent, as its events and the spawns of it describe it. Where it stands is `forest`'s business.
//!
//! Each field is what the latest event says that has it; counts are over all events. So the order in
//! which events arrive makes no difference. Source: contract section 8; the defaults are those of the
//! keen document.

mod files;

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use files::Files;

use super::stamp::text_heap_bytes;
use super::stats::{Share, cost_nanos};
use super::{Stamp, Stamped};
use crate::event::Known;
use crate::event::known::{AgentSpawned, GitOperation, ProgressUpdate, ToolExecution};
use crate::limits::{AGENT_PURPOSE_BYTES_MAX, AGENT_TEXT_BYTES_MAX, SESSION_ID_BYTES_MAX};

/// One agent. Texts are cut at `AGENT_TEXT_BYTES_MAX`, the purpose at `AGENT_PURPOSE_BYTES_MAX`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    session: CompactString,
    // The earliest time of an event that names it, and of one of its own.
    named_ms: i64,
    spoke_ms: Option<i64>,

    // What spawns say of it.
    spawned: Stamped<()>,
    purpose: Stamped<CompactString>,
    branch_given: Stamped<CompactString>,

    // What its own events say.
    is_success: Stamped<bool>,
    phase: Stamped<CompactString>,
    progress: Stamped<f64>,
    tokens_used: Stamped<u64>,
    cost_so_far: Stamped<f64>,
    branch_used: Stamped<CompactString>,
    latest_commit: Stamped<CompactString>,
    files_changed: Stamped<Files>,
    files_created: u64,
    files_modified: u64,
    git_commits: u64,
}

impl Node {
    /// Without anything known of it but that an event at `stamp` names it.
    pub(super) fn new(session: &str, stamp: &Stamp) -> Self {
        Self {
            session: session.into(),
            named_ms: stamp.timestamp_ms,
            spoke_ms: None,
            spawned: Stamped::default(),
            purpose: Stamped::default(),
            branch_given: Stamped::default(),
            is_success: Stamped::default(),
            phase: Stamped::default(),
            progress: Stamped::default(),
            tokens_used: Stamped::default(),
            cost_so_far: Stamped::default(),
            branch_used: Stamped::default(),
            latest_commit: Stamped::default(),
            files_changed: Stamped::default(),
            files_created: 0,
            files_modified: 0,
            git_commits: 0,
        }
    }

    /// Whether a kept one can be shown: what `new` and events make always can.
    pub(super) fn is_sound(&self) -> bool {
        let numbers = [self.progress.value(), self.cost_so_far.value()];
        let is_session = (1..=SESSION_ID_BYTES_MAX).contains(&self.session.len());
        is_session && numbers.into_iter().flatten().all(|n| n.is_finite())
    }

    /// An event at `stamp` names it. Returns whether something that is shown of it has changed, as do
    /// all that follow.
    pub(super) fn mention(&mut self, stamp: &Stamp) -> bool {
        let before = self.start_ms();
        self.named_ms = self.named_ms.min(stamp.timestamp_ms);
        self.start_ms() != before
    }

    /// Another agent, or nobody, says that it began this one.
    pub(super) fn apply_spawn(&mut self, spawn: &AgentSpawned<'_>, stamp: &Stamp) -> bool {
        let start_ms = self.start_ms();
        self.spawned.say(stamp, ());
        let purpose = spawn
            .purpose
            .map(|text| cut(text, AGENT_PURPOSE_BYTES_MAX).into());
        (self.start_ms() != start_ms)
            | say(&mut self.purpose, stamp, purpose)
            | say(&mut self.branch_given, stamp, spawn.git_branch.map(text))
    }

    /// It says something itself.
    pub(super) fn apply_own(&mut self, known: &Known<'_>, stamp: &Stamp) -> bool {
        let (status, start_ms) = (self.status(), self.start_ms());
        let earliest = self
            .spoke_ms
            .map_or(stamp.timestamp_ms, |known| known.min(stamp.timestamp_ms));
        self.spoke_ms = Some(earliest);
        let is_changed = match known {
            Known::Completion(completion) => {
                self.is_success
                    .say(stamp, completion.success.unwrap_or(true));
                false
            }
            Known::GitOperation(operation) => self.apply_git(operation, stamp),
            Known::PhaseTransition(transition) => self.apply_phase(transition.to_phase, stamp),
            Known::ProgressUpdate(update) => self.apply_progress(update, stamp),
            Known::ToolExecution(execution) => self.apply_tool(execution),
            _ => false,
        };
        is_changed || self.status() != status || self.start_ms() != start_ms
    }

    fn apply_phase(&mut self, phase: Option<&str>, stamp: &Stamp) -> bool {
        say(&mut self.phase, stamp, phase.map(text))
    }

    fn apply_progress(&mut self, update: &ProgressUpdate<'_>, stamp: &Stamp) -> bool {
        let finite = |number: Option<f64>| number.filter(|number| number.is_finite());
        let progress = finite(update.overall_progress);
        let cost = finite(update.cost_so_far);
        self.apply_phase(update.phase, stamp)
            | say(&mut self.progress, stamp, progress)
            | say(&mut self.tokens_used, stamp, update.tokens_used)
            | say(&mut self.cost_so_far, stamp, cost)
    }

    fn apply_git(&mut self, operation: &GitOperation<'_>, stamp: &Stamp) -> bool {
        let mut is_changed = say(&mut self.branch_used, stamp, operation.branch.map(text));
        let files = operation.files_changed.as_ref();
        let files = files.and_then(|files| Files::new(files.iter()));
        is_changed |= say(&mut self.files_changed, stamp, files);
        let is_commit = operation.operation_type == Some("commit");
        if is_commit && operation.success != Some(false) {
            self.git_commits = self.git_commits.saturating_add(1);
            let hash = operation.commit_hash.map(text);
            say(&mut self.latest_commit, stamp, hash);
            is_changed = true;
        }
        is_changed
    }

    fn apply_tool(&mut self, execution: &ToolExecution<'_>) -> bool {
        let files = execution.files_affected.as_ref();
        let count = files.map_or(0, |files| files.iter().count() as u64);
        if count == 0 || execution.success == Some(false) {
            return false;
        }
        let sum = match execution.tool_name {
            Some("Write") => &mut self.files_created,
            _ => &mut self.files_modified,
        };
        *sum = sum.saturating_add(count);
        true
    }

    /// Its session: its name within the user, 1 to 128 bytes.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// What it is doing.
    pub fn status(&self) -> Status {
        match self.is_success.value() {
            Some(true) => Status::Completed,
            Some(false) => Status::Failed,
            None if self.spoke_ms.is_some() => Status::Running,
            None => Status::Spawning,
        }
    }

    /// What it is for, as its spawn says.
    pub(super) fn purpose(&self) -> Option<&str> {
        self.purpose.value().map(CompactString::as_str)
    }

    /// The phase it is in, as it says.
    pub(super) fn phase(&self) -> Option<&str> {
        self.phase.value().map(CompactString::as_str)
    }

    /// How far it is, as it says; 0 until then. Finite.
    pub fn progress(&self) -> f64 {
        self.progress.value().copied().unwrap_or(0.0)
    }

    /// The branch it was given, else the one it works on, else `main`.
    pub fn branch(&self) -> &str {
        first_branch(&self.branch_given, &self.branch_used)
    }

    /// When it began, in milliseconds since the Unix epoch: when it was spawned, else the earliest
    /// time of its own events, else of those that name it.
    pub fn start_ms(&self) -> i64 {
        let spawned = self.spawned.stamp().map(|stamp| stamp.timestamp_ms);
        spawned.or(self.spoke_ms).unwrap_or(self.named_ms)
    }

    /// Tokens, as it says; 0 until then.
    pub fn tokens_used(&self) -> u64 {
        self.tokens_used.value().copied().unwrap_or(0)
    }

    /// Money, as it says; 0 until then. Finite.
    pub fn cost_so_far(&self) -> f64 {
        self.cost_so_far.value().copied().unwrap_or(0.0)
    }

    /// Files that it wrote with the tool `Write`, each time counted.
    pub fn files_created(&self) -> u64 {
        self.files_created
    }

    /// Files that its other tools touched, each time counted.
    pub fn files_modified(&self) -> u64 {
        self.files_modified
    }

    /// Commits that it made.
    pub fn git_commits(&self) -> u64 {
        self.git_commits
    }

    /// The branch it works on, else the one it was given, else `main`.
    pub fn git_branch(&self) -> &str {
        first_branch(&self.branch_used, &self.branch_given)
    }

    /// The hash of the last commit that it made and told the hash of.
    pub fn latest_commit(&self) -> Option<&str> {
        self.latest_commit.value().map(CompactString::as_str)
    }

    /// The files of its last git operation that names any: the first `AGENT_FILES_MAX`, and of those
    /// as many as fit into `AGENT_FILES_BYTES_MAX`.
    pub fn files_changed(&self) -> impl Iterator<Item = &str> {
        self.files_changed.value().into_iter().flat_map(Files::iter)
    }

    /// What it adds to the roll-up of its tree.
    pub(super) fn share(&self) -> Share {
        Share {
            status: self.status(),
            tokens_used: self.tokens_used(),
            cost_nanos: cost_nanos(self.cost_so_far()),
            git_commits: self.git_commits,
        }
    }

    /// Bytes of memory that its texts take beside its own place, the ids of events included.
    pub(super) fn heap_bytes(&self) -> usize {
        let stamps = [
            self.spawned.stamp_heap_bytes(),
            self.purpose.stamp_heap_bytes(),
            self.branch_given.stamp_heap_bytes(),
            self.is_success.stamp_heap_bytes(),
            self.phase.stamp_heap_bytes(),
            self.progress.stamp_heap_bytes(),
            self.tokens_used.stamp_heap_bytes(),
            self.cost_so_far.stamp_heap_bytes(),
            self.branch_used.stamp_heap_bytes(),
            self.latest_commit.stamp_heap_bytes(),
            self.files_changed.stamp_heap_bytes(),
        ];
        let texts = [
            Some(&self.session),
            self.purpose.value(),
            self.branch_given.value(),
            self.phase.value(),
            self.branch_used.value(),
            self.latest_commit.value(),
        ];
        let texts = texts.into_iter().flatten().map(text_heap_bytes);
        let files = self.files_changed.value().map_or(0, Files::heap_bytes);
        texts.sum::<usize>() + files + stamps.iter().sum::<usize>()
    }
}

/// What an agent is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// It was announced, and has said nothing yet.
    Spawning,
    /// It has said something.
    Running,
    /// It is done.
    Completed,
    /// It is done, without success.
    Failed,
    /// It was called off. No event of the contract says so.
    Cancelled,
}

impl Status {
    /// All, in the order of their indices.
    pub const ALL: [Self; 5] = [
        Self::Spawning,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Position in tables that have one place for each status.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spawning => "spawning",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the agent is not done.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Spawning | Self::Running)
    }
}

/// Takes `value`, where there is one. Returns whether the field has changed.
fn say<T: PartialEq>(field: &mut Stamped<T>, stamp: &Stamp, value: Option<T>) -> bool {
    value.is_some_and(|value| field.say(stamp, value))
}

fn first_branch<'n>(
    first: &'n Stamped<CompactString>,
    second: &'n Stamped<CompactString>,
) -> &'n str {
    let known = first.value().or(second.value());
    known.map_or("main", CompactString::as_str)
}

fn text(text: &str) -> CompactString {
    cut(text, AGENT_TEXT_BYTES_MAX).into()
}

/// The beginning of `text`, whole characters of at most `bytes_max`.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
