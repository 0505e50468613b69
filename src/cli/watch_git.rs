//! `sightline watch-git`: a repository's own commits, merges and branch changes as
//! `git_operation` events, with git's numbers. All of it is asked of the `git` program.

mod event;
mod git;
mod history;
mod refs;
mod watch;

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;

use super::client::{ClientError, ConnectArgs, Stop};
use super::publish::delivery::deliver;
use event::Author;
use git::Repository;
use watch::Watch;

/// Publish a git repository's commits and branch changes as git_operation events
///
/// The newest commits first go out, the oldest of them first; with --follow, then everything that
/// happens on the local branches. In the trees of agents the repository is one, and each branch one
/// below it. A commit has the same event_id whenever it is published, so a
/// second run within ten minutes brings no duplicates.
#[derive(Args, Clone, Debug)]
pub struct WatchGitArgs {
    /// The repository: its folder, any folder in it, or a bare repository
    path: PathBuf,
    #[command(flatten)]
    connect: ConnectArgs,
    /// The user whose activity this is
    #[arg(long, value_name = "ID")]
    user: String,
    /// The project that it belongs to
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// The session that it is shown under, its branches below it as ID/BRANCH; by default git-NAME,
    /// after the repository. A branch that is deleted and created again while this follows is
    /// ID/BRANCH~LIFE
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// How many of the newest commits to publish first
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: u32,
    /// Go on with what happens in the repository
    #[arg(long)]
    follow: bool,
}

/// Publishes what the flags ask for, and is done when all of it is acknowledged; with `--follow`
/// on a signal. Errors: `Git`, `GitProgram`, `Incomplete`, and those of `Client`.
pub fn run(args: &WatchGitArgs) -> Result<(), ClientError> {
    let stop = Stop::on_signals().map_err(ClientError::System)?;
    watch(args, stop)
}

fn watch(args: &WatchGitArgs, stop: Stop) -> Result<(), ClientError> {
    let repository = Repository::open(&args.path)?;
    let name = repository.name();
    let author = Author {
        user: args.user.clone(),
        project: args.project.clone(),
        session: args
            .session
            .clone()
            .unwrap_or_else(|| event::session(&name)),
        repository: name,
        lives: HashMap::new(),
    };
    let (last, follow) = (args.last, args.follow);
    deliver(&args.connect, stop, move |intake| {
        let mut watch = Watch::new(repository, author);
        watch.publish_last(last, intake)?;
        if follow {
            watch.follow(intake)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
