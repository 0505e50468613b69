//! Commits, as `git log` tells them.

use std::io::BufRead;

use super::super::client::ClientError;
use super::git::{Repository, Running};

/// One commit, with the numbers of its difference from its first parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Hex digits: 40, or 64 in a SHA-256 repository.
    pub(crate) hash: String,
    /// Hashes; none for a root, several for a merge.
    pub(crate) parents: Vec<String>,
    /// Seconds since the Unix epoch.
    pub(crate) committed_at: i64,
    /// Seconds since the Unix epoch.
    pub(crate) authored_at: i64,
    pub(crate) author: String,
    /// The branch by which git came to it; `HEAD` where that is none.
    pub(crate) branch: String,
    /// All of it; bytes that are not UTF-8 are replaced.
    pub(crate) message: String,
    /// Paths as they are now; a rename is one file.
    pub(crate) files: Vec<String>,
    /// Binary files have no lines.
    pub(crate) lines_added: u64,
    pub(crate) lines_deleted: u64,
}

/// Hands the commits that `revisions` select to `each`, parents before children, and only the
/// newest `limit` of them. `revisions` are `git rev-list` arguments, one a line; the objects that
/// some name may be gone by now. `each` returns whether to go on.
pub(crate) fn each_commit(
    repository: &Repository,
    revisions: String,
    limit: Option<u32>,
    mut each: impl FnMut(Commit) -> bool,
) -> Result<(), ClientError> {
    let limit = limit.map(|count| format!("--max-count={count}"));
    let args = ARGS.iter().copied().chain(limit.as_deref());
    let mut log = repository.start("log", args, revisions)?;
    let mut reader = Reader::default();
    while let Some(commit) = reader.next(&mut log)? {
        if !each(commit) {
            return Ok(());
        }
    }
    log.finish()
}

const ARGS: [&str; 13] = [
    "--stdin",
    "--ignore-missing",
    "--reverse",
    "--date-order",
    "--source",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-notes",
    "--numstat",
    "--diff-merges=first-parent",
    "-z",
    "--format=%H%x00%P%x00%ct%x00%at%x00%an%x00%S%x00%B%x00",
];

/// Reads `git log -z`: everything ends with NUL, which none of it can contain. Seven fields, then
/// the numstat entries (`added TAB deleted TAB path`, with an empty path and two more tokens for a
/// rename), of which none looks like the hash that begins the next commit.
#[derive(Default)]
struct Reader {
    /// The hash of a commit that was come upon while reading the one before it.
    hash: Option<Vec<u8>>,
}

impl Reader {
    fn next(&mut self, log: &mut Running) -> Result<Option<Commit>, ClientError> {
        let hash = match self.hash.take() {
            Some(hash) => Some(hash),
            None => next_filled(log)?,
        };
        let Some(hash) = hash else {
            return Ok(None);
        };
        let mut commit = Commit {
            hash: lossy(&hash),
            parents: lossy(&field(log)?)
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            committed_at: seconds(&field(log)?),
            authored_at: seconds(&field(log)?),
            author: lossy(&field(log)?),
            branch: branch(&field(log)?),
            message: lossy(&field(log)?).trim_end().to_owned(),
            ..Commit::default()
        };
        while let Some(token) = next_filled(log)? {
            if is_hash(&token) {
                self.hash = Some(token);
                break;
            }
            add_file(&mut commit, &token, log)?;
        }
        Ok(Some(commit))
    }
}

fn add_file(commit: &mut Commit, entry: &[u8], log: &mut Running) -> Result<(), ClientError> {
    let mut columns = entry.splitn(3, |byte| *byte == b'\t');
    let (Some(added), Some(deleted), Some(path)) = (columns.next(), columns.next(), columns.next())
    else {
        return Err(log.garbled());
    };
    let path = if path.is_empty() {
        field(log)?; // the old name
        field(log)?
    } else {
        path.to_vec()
    };
    commit.files.push(lossy(&path));
    commit.lines_added += lines(added);
    commit.lines_deleted += lines(deleted);
    Ok(())
}

/// `-` of a binary file is no line.
fn lines(column: &[u8]) -> u64 {
    lossy(column).parse().unwrap_or(0)
}

/// Times that git itself cannot have written become the epoch's.
fn seconds(field: &[u8]) -> i64 {
    lossy(field).parse().unwrap_or(0)
}

fn branch(source: &[u8]) -> String {
    let source = lossy(source);
    source
        .strip_prefix("refs/heads/")
        .unwrap_or(&source)
        .to_owned()
}

fn is_hash(token: &[u8]) -> bool {
    matches!(token.len(), 40 | 64) && token.iter().all(u8::is_ascii_hexdigit)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The next token that is not empty, without the line break that parts numbers from messages.
fn next_filled(log: &mut Running) -> Result<Option<Vec<u8>>, ClientError> {
    while let Some(token) = token(log)? {
        let token = token.strip_prefix(b"\n").unwrap_or(&token);
        if !token.is_empty() {
            return Ok(Some(token.to_vec()));
        }
    }
    Ok(None)
}

/// The next token, which must be there.
fn field(log: &mut Running) -> Result<Vec<u8>, ClientError> {
    token(log)?.ok_or_else(|| log.garbled())
}

fn token(log: &mut Running) -> Result<Option<Vec<u8>>, ClientError> {
    let mut token = Vec::new();
    let read = log.output.read_until(0, &mut token);
    if read.map_err(ClientError::GitProgram)? == 0 {
        return Ok(None);
    }
    token.pop_if(|last| *last == 0);
    Ok(Some(token))
}
