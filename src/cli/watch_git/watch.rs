//! Turns a repository into events: first its newest commits, then what happens to its refs.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use super::super::client::{ClientError, say};
use super::super::publish::intake::Intake;
use super::super::publish::run_id;
use super::event::{self, Author};
use super::git::Repository;
use super::history::{Commit, each_commit};
use super::refs::{Change, Refs};

/// A repository and what was published of it.
pub(crate) struct Watch {
    /// Branches that have been announced, and are still there.
    announced: HashSet<String>,
    author: Author,
    /// Numbers this run's branch changes, for their event ids.
    changes: u64,
    /// Commits that went out, so that one which comes back (a branch restored, a name that moved
    /// while git was listing) does not go out again. Bounded: past `PUBLISHED_MAX` it is
    /// forgotten, and the gateway's own window is what is left against duplicates.
    published: HashSet<String>,
    /// As of the last look.
    refs: Refs,
    repository: Repository,
    /// Tells this run's event ids from another's.
    run: u64,
}

impl Watch {
    /// Has looked at nothing yet.
    pub(crate) fn new(repository: Repository, author: Author) -> Self {
        Self {
            announced: HashSet::new(),
            author,
            changes: 0,
            published: HashSet::new(),
            refs: Refs::default(),
            repository,
            run: run_id(),
        }
    }

    /// What is checked out and which branches there are, then the newest `last` commits of all
    /// these, oldest first.
    pub(crate) fn publish_last(
        &mut self,
        last: u32,
        intake: &mut Intake,
    ) -> Result<(), ClientError> {
        // Refs before commits: one that is made in between is seen by the next look.
        self.refs = Refs::read(&self.repository)?;
        let names = self.refs.names();
        if names.is_empty() || last == 0 {
            return Ok(());
        }
        self.publish_refs(intake);
        self.publish_commits(&names, &Refs::default(), Some(last), intake)
    }

    /// Looks again and again until told to stop. A look that fails (git at work, a file system
    /// that is gone for a moment) is repeated; `FAILURES_MAX` in a row are an error.
    pub(crate) fn follow(&mut self, intake: &mut Intake) -> Result<(), ClientError> {
        let mut failures = 0;
        while !intake.is_stopped() {
            match self.look(intake) {
                Ok(()) => failures = 0,
                Err(error) if failures >= FAILURES_MAX => return Err(error),
                Err(error) => {
                    if failures == 0 {
                        say(&format!("{error}; looking again"));
                    }
                    failures += 1;
                }
            }
            wait(intake);
        }
        Ok(())
    }

    /// Publishes what changed since the last look.
    pub(crate) fn look(&mut self, intake: &mut Intake) -> Result<(), ClientError> {
        let new = Refs::read(&self.repository)?;
        if new == self.refs {
            return Ok(());
        }
        let changes = self.refs.changes(&new);
        let is_before =
            |change: &Change| matches!(change, Change::Created { .. } | Change::Moved { .. });
        let (before, after): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_before);
        for change in before {
            if self.is_noteworthy(&change) {
                self.publish_change(&change, intake);
            }
        }
        self.publish_commits(&new.names(), &self.refs.clone(), None, intake)?;
        for change in after {
            self.publish_change(&change, intake);
        }
        self.refs = new;
        intake.flush();
        Ok(())
    }

    /// How it stands at the beginning. Of very many branches those that stir are announced later.
    fn publish_refs(&mut self, intake: &mut Intake) {
        let refs = self.refs.clone();
        if let Some(head) = refs.head {
            self.publish_change(&Change::CheckedOut(head), intake);
        }
        for branch in refs.branches.keys().take(BRANCHES_MAX) {
            self.announce(branch, intake);
        }
    }

    /// A branch that moved forward is told by its commits; one that did not was rewound, also
    /// where the old commit is already gone.
    fn is_noteworthy(&self, change: &Change) -> bool {
        let Change::Moved { from, to, .. } = change else {
            return true;
        };
        let args = ["--is-ancestor", from, to];
        !matches!(self.repository.ask("merge-base", args), Ok(Some(_)))
    }

    /// The commits that `names` reach and nothing in `old` did.
    fn publish_commits(
        &mut self,
        names: &[String],
        old: &Refs,
        limit: Option<u32>,
        intake: &mut Intake,
    ) -> Result<(), ClientError> {
        let mut revisions = names.join("\n");
        for tip in old.tips() {
            revisions.push_str("\n^");
            revisions.push_str(tip);
        }
        revisions.push('\n');
        let repository = self.repository.clone();
        each_commit(&repository, revisions, limit, |commit| {
            self.publish_commit(&commit, intake);
            !intake.is_stopped()
        })?;
        intake.flush();
        Ok(())
    }

    fn publish_commit(&mut self, commit: &Commit, intake: &mut Intake) {
        if self.published.len() >= PUBLISHED_MAX {
            self.published.clear();
        }
        if self.published.insert(commit.hash.clone()) {
            self.announce(&commit.branch, intake);
            intake.put(event::commit(&self.author, commit));
        }
    }

    fn publish_change(&mut self, change: &Change, intake: &mut Intake) {
        if let Change::Created { branch, .. } | Change::Moved { branch, .. } = change {
            self.announce(branch, intake);
        }
        let event_id = self.next_event_id();
        intake.put(event::change(&self.author, change, &event_id));
        if let Change::Deleted { branch, .. } = change {
            let event_id = self.next_event_id();
            intake.put(event::end(&self.author, branch, &event_id));
            self.announced.remove(branch);
            self.note_end(branch);
        }
    }

    /// A branch of this name will be another agent: one that this run alone knows of.
    fn note_end(&mut self, branch: &str) {
        let lives = &mut self.author.lives;
        if lives.len() >= LIVES_MAX {
            lives.retain(|branch, _| self.announced.contains(branch));
        }
        let life = format!("{:08x}-{}", self.run as u32, self.changes);
        lives.insert(branch.to_owned(), life);
    }

    fn announce(&mut self, branch: &str, intake: &mut Intake) {
        if branch != "HEAD" && self.announced.insert(branch.to_owned()) {
            intake.put(event::announcement(&self.author, branch));
        }
    }

    fn next_event_id(&mut self) -> String {
        self.changes += 1;
        format!("git-{:016x}-{}", self.run, self.changes)
    }
}

/// Sleeps until the next look, and looks at the stop flag meanwhile.
fn wait(intake: &Intake) {
    let until = Instant::now() + LOOK_EVERY;
    while Instant::now() < until && !intake.is_stopped() {
        thread::sleep(STOP_CHECK_EVERY);
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(500);
const STOP_CHECK_EVERY: Duration = Duration::from_millis(50);
const FAILURES_MAX: u32 = 20;
const PUBLISHED_MAX: usize = 200_000;
/// Branches of which it is remembered that they were deleted; past it of those alone that are back.
const LIVES_MAX: usize = 10_000;
/// Announced at the beginning: nobody looks through more.
const BRANCHES_MAX: usize = 200;
