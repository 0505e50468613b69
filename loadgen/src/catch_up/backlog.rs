//! What viewers have missed and where they stood: enough to come back to it, in another process
//! too.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::returners::{Greeting, Missed, user_of};
use crate::target::Target;

/// The cursors of all viewers, and the events published since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backlog {
    /// The life of the event log.
    epoch: String,
    /// The events since.
    missed: Missed,
    /// The last seq that each viewer has seen, in their order.
    cursors: Vec<u64>,
}

/// Why a file holds no backlog.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(crate) struct BacklogError {
    path: PathBuf,
    source: io::Error,
}

impl Backlog {
    /// The backlog of viewers that were greeted with `greetings` and have `missed` so much since;
    /// `None` where one of them was not, or was not told where its stream stands, or they are not
    /// of one epoch.
    pub(crate) fn new(missed: Missed, greetings: &[Option<Greeting>]) -> Option<Self> {
        let epoch = greetings.first()?.as_ref()?.epoch.clone();
        let cursor = |greeting: &Option<Greeting>| {
            let greeting = greeting.as_ref()?;
            greeting.to.filter(|_| greeting.epoch == epoch)
        };
        let cursors = greetings.iter().map(cursor).collect::<Option<_>>()?;
        Some(Self {
            epoch,
            missed,
            cursors,
        })
    }

    /// Reads one that was written.
    /// Errors: there is no such file, or it is no backlog.
    pub(crate) fn read(path: &Path) -> Result<Self, BacklogError> {
        let read = || {
            let backlog: Self = serde_json::from_str(&fs::read_to_string(path)?)?;
            if backlog.missed.users.is_empty() || backlog.cursors.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "nobody has missed anything",
                ));
            }
            Ok(backlog)
        };
        read().map_err(error(path))
    }

    /// Writes it to `path`.
    pub(crate) fn write(&self, path: &Path) -> Result<(), BacklogError> {
        let write = || fs::write(path, serde_json::to_vec(self)?);
        write().map_err(error(path))
    }

    /// How many viewers.
    pub(crate) fn viewers(&self) -> usize {
        self.cursors.len()
    }

    /// What each viewer has missed.
    pub(crate) fn missed(&self) -> Missed {
        self.missed.clone()
    }

    /// Path and query by which each viewer comes back.
    pub(crate) fn paths(&self, target: &Target) -> Vec<String> {
        let path = |(viewer, cursor): (usize, &u64)| {
            let path = target.subscriber_path(user_of(viewer, &self.missed.users));
            format!("{path}&epoch={}&resume={cursor}", self.epoch)
        };
        self.cursors.iter().enumerate().map(path).collect()
    }

    /// The line for people.
    pub(crate) fn line(&self) -> String {
        let Missed { events, users, .. } = &self.missed;
        let (viewers, users, epoch) = (self.viewers(), users.len(), &self.epoch);
        format!(
            "{viewers} viewers of {users} users have {events} events to catch up, epoch {epoch}"
        )
    }
}

fn error(path: &Path) -> impl Fn(io::Error) -> BacklogError {
    let path = path.to_owned();
    move |source| BacklogError {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::filling::Filling;
    use crate::target::Dialect;
    use crate::token::Minter;
    use std::time::Duration;

    fn greeting(epoch: &str, to: Option<u64>) -> Option<Greeting> {
        Some(Greeting {
            epoch: epoch.to_owned(),
            outcome: "fresh".to_owned(),
            to,
        })
    }

    fn backlog(greetings: &[Option<Greeting>]) -> Option<Backlog> {
        let missed = Missed {
            run: 7,
            filling: Filling::Letters(10),
            events: 1000,
            users: 3..5,
        };
        Backlog::new(missed, greetings)
    }

    #[test]
    fn every_viewer_needs_a_cursor_of_one_epoch() {
        let known = greeting("0000000a", Some(3));
        assert!(backlog(&[]).is_none());
        assert!(backlog(&[known.clone(), None]).is_none());
        assert!(backlog(&[known.clone(), greeting("0000000a", None)]).is_none());
        assert!(backlog(&[known.clone(), greeting("0000000b", Some(3))]).is_none());
        assert!(backlog(&[known.clone(), known]).is_some());
    }

    #[test]
    fn file_brings_the_same_viewers_back() {
        let greetings: Vec<_> = [5, 0, 17].map(|to| greeting("0000000a", Some(to))).to_vec();
        let written = backlog(&greetings).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursors.json");
        written.write(&file).unwrap();
        let read = Backlog::read(&file).unwrap();
        assert_eq!(read, written);
        let minter = Minter::new(b"secret", "enterprise", Duration::from_secs(60));
        let dialect = Dialect::Keen;
        let paths = read.paths(&Target::Sightline { dialect, minter });
        let ends = paths.iter().map(|path| path.split_once('&').unwrap().1);
        assert_eq!(
            ends.collect::<Vec<_>>(),
            [5, 0, 17].map(|seq| format!("epoch=0000000a&resume={seq}"))
        );
    }

    #[test]
    fn file_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cursors.json");
        let refusal = || Backlog::read(&file).unwrap_err().to_string();
        assert!(refusal().contains("cursors.json"));
        let text = serde_json::to_string(&backlog(&[greeting("a", Some(1))]).unwrap()).unwrap();
        for wrong in [
            "{}",
            &text.replace("\"end\":5", "\"end\":3"),
            &text.replace("[1]", "[]"),
        ] {
            fs::write(&file, wrong).unwrap();
            assert!(Backlog::read(&file).is_err(), "{wrong}");
        }
        fs::write(&file, text).unwrap();
        assert!(Backlog::read(&file).is_ok());
    }
}
