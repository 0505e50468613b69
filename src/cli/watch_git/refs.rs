//! The local branches and HEAD at one moment, and what changed between two moments.

use std::collections::BTreeMap;

use super::super::client::ClientError;
use super::git::Repository;

/// Where everything points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refs {
    /// Branch name (without `refs/heads/`) to hash.
    pub(crate) branches: BTreeMap<String, String>,
    /// `None` in an empty repository.
    pub(crate) head: Option<Head>,
}

/// What is checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// A branch.
    Branch(String),
    /// A commit that is checked out without a branch.
    Detached(String),
}

/// One thing that happened to a branch or to HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A branch that was not there before.
    Created { branch: String, tip: String },
    /// A branch points elsewhere.
    Moved {
        branch: String,
        from: String,
        to: String,
    },
    /// A branch is gone.
    Deleted { branch: String, tip: String },
    /// Another branch, or none, is checked out.
    CheckedOut(Head),
}

impl Refs {
    /// Asks git.
    pub(crate) fn read(repository: &Repository) -> Result<Self, ClientError> {
        let format = "--format=%(HEAD)%(objectname)%00%(refname)";
        let listed = repository.run("for-each-ref", [format, "refs/heads"])?;
        let mut refs = Self::parse(&listed);
        if refs.head.is_none() {
            let args = ["--verify", "--quiet", "HEAD^{commit}"];
            let detached = repository.ask("rev-parse", args)?;
            refs.head = detached.map(|hash| Head::Detached(lossy(hash.trim_ascii())));
        }
        Ok(refs)
    }

    /// A line a branch; its first byte tells whether it is checked out here. Names have neither
    /// line breaks nor NUL (git-check-ref-format).
    fn parse(listed: &[u8]) -> Self {
        let mut refs = Self::default();
        for line in lossy(listed).lines() {
            let Some((hash, name)) = line.split_once('\0') else {
                continue;
            };
            let branch = name.strip_prefix("refs/heads/").unwrap_or(name).to_owned();
            let (mark, hash) = hash.split_at_checked(1).unwrap_or_default();
            if mark == "*" {
                refs.head = Some(Head::Branch(branch.clone()));
            }
            refs.branches.insert(branch, hash.to_owned());
        }
        refs
    }

    /// What leads from `self` to `new`: created, moved, deleted, checked out, in this order.
    pub(crate) fn changes(&self, new: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (branch, to) in &new.branches {
            match self.branches.get(branch) {
                None => changes.push(Change::Created {
                    branch: branch.clone(),
                    tip: to.clone(),
                }),
                Some(from) if from != to => changes.push(Change::Moved {
                    branch: branch.clone(),
                    from: from.clone(),
                    to: to.clone(),
                }),
                Some(_) => {}
            }
        }
        // Stable: creations first, each group by name.
        changes.sort_by_key(|change| matches!(change, Change::Moved { .. }));
        let gone = |(branch, _): &(&String, &String)| !new.branches.contains_key(*branch);
        for (branch, tip) in self.branches.iter().filter(gone) {
            changes.push(Change::Deleted {
                branch: branch.clone(),
                tip: tip.clone(),
            });
        }
        changes.extend(self.checkout(new));
        changes
    }

    /// A detached HEAD that moves was not switched to: its commits speak for themselves.
    fn checkout(&self, new: &Self) -> Option<Change> {
        let is_detached = |head: &Option<Head>| matches!(head, Some(Head::Detached(_)));
        if self.head == new.head || (is_detached(&self.head) && is_detached(&new.head)) {
            return None;
        }
        // The first commit of an empty repository creates the branch; nobody switched to it.
        self.head.as_ref()?;
        new.head.clone().map(Change::CheckedOut)
    }

    /// Every commit that something points to, as arguments of `git rev-list`.
    pub(crate) fn tips(&self) -> impl Iterator<Item = &str> {
        let detached = match &self.head {
            Some(Head::Detached(hash)) => Some(hash.as_str()),
            _ => None,
        };
        self.branches.values().map(String::as_str).chain(detached)
    }

    /// Every branch, and HEAD where it is on none, by name: so git tells by which of them it
    /// came to a commit. What is checked out comes first, for commits that are on several.
    pub(crate) fn names(&self) -> Vec<String> {
        let head = match &self.head {
            Some(Head::Branch(branch)) => Some(format!("refs/heads/{branch}")),
            Some(Head::Detached(_)) => Some("HEAD".to_owned()),
            None => None,
        };
        let branches = self
            .branches
            .keys()
            .map(|branch| format!("refs/heads/{branch}"));
        head.into_iter().chain(branches).collect()
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::{CheckedOut, Created, Deleted, Moved};

    fn refs(head: Option<Head>, branches: &[(&str, &str)]) -> Refs {
        let owned = |(name, hash): &(&str, &str)| ((*name).to_owned(), (*hash).to_owned());
        Refs {
            branches: branches.iter().map(owned).collect(),
            head,
        }
    }

    fn on(branch: &str) -> Option<Head> {
        Some(Head::Branch(branch.to_owned()))
    }

    fn detached(hash: &str) -> Option<Head> {
        Some(Head::Detached(hash.to_owned()))
    }

    #[test]
    fn reads_branches_and_the_one_checked_out() {
        let listed = b" aa\0refs/heads/a/b\n*bb\0refs/heads/main\n";
        let expected = refs(on("main"), &[("a/b", "aa"), ("main", "bb")]);
        assert_eq!(Refs::parse(listed), expected);
        assert_eq!(Refs::parse(b""), Refs::default());
    }

    #[test]
    fn tells_what_changed() {
        let base = || refs(on("main"), &[("main", "a")]);
        let created = Created {
            branch: "x".into(),
            tip: "a".into(),
        };
        let moved = Moved {
            branch: "main".into(),
            from: "a".into(),
            to: "b".into(),
        };
        let cases = [
            (base(), base(), vec![]),
            (
                base(),
                refs(on("main"), &[("main", "b")]),
                vec![moved.clone()],
            ),
            (
                base(),
                refs(on("main"), &[("main", "b"), ("x", "a")]),
                vec![created.clone(), moved],
            ),
            (
                base(),
                refs(on("x"), &[("x", "a")]),
                vec![
                    created.clone(),
                    Deleted {
                        branch: "main".into(),
                        tip: "a".into(),
                    },
                    CheckedOut(Head::Branch("x".into())),
                ],
            ),
            (
                base(),
                refs(detached("a"), &[("main", "a")]),
                vec![CheckedOut(Head::Detached("a".into()))],
            ),
            (refs(detached("a"), &[]), refs(detached("b"), &[]), vec![]),
            (Refs::default(), refs(on("x"), &[("x", "a")]), vec![created]),
        ];
        for (old, new, expected) in cases {
            assert_eq!(old.changes(&new), expected, "{old:?} to {new:?}");
        }
    }
}
