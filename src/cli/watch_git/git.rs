//! Runs the `git` program. Its output is asked for in forms that no configuration, locale, file
//! name or message can change, and nothing that a repository's configuration names is executed.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use super::super::client::{ClientError, printable};

/// A repository, found.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// The working tree's top, or the bare repository itself.
    path: PathBuf,
}

impl Repository {
    /// The repository at `path` or around it. Errors: `Repository` where there is none,
    /// `GitProgram`.
    pub(crate) fn open(path: &Path) -> Result<Self, ClientError> {
        let here = Self {
            path: path.to_owned(),
        };
        let found = here.find().map_err(|error| match error {
            ClientError::Git { message, .. } => ClientError::Repository {
                path: path.to_owned(),
                message,
            },
            other => other,
        })?;
        Ok(Self {
            path: path_of(found.strip_suffix(b"\n").unwrap_or(&found)),
        })
    }

    fn find(&self) -> Result<Vec<u8>, ClientError> {
        let inside = self.run("rev-parse", ["--is-inside-work-tree"])?;
        match inside.trim_ascii() {
            b"true" => self.run("rev-parse", ["--show-toplevel"]),
            _ => self.run("rev-parse", ["--absolute-git-dir"]),
        }
    }

    /// The folder's name, without `.git`.
    pub(crate) fn name(&self) -> String {
        let name = match self.path.file_name() {
            Some(name) if name == ".git" => self.path.parent().and_then(Path::file_name),
            name => name,
        };
        let name = name.unwrap_or(OsStr::new("repository")).to_string_lossy();
        name.strip_suffix(".git").unwrap_or(&name).to_owned()
    }

    /// The whole output of `git command args`. Errors: `Git` where it fails.
    pub(crate) fn run<'a>(
        &self,
        command: &'static str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<u8>, ClientError> {
        let output = self.output(command, args)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(failure(command, &output.stderr))
    }

    /// Whether `git command args` says yes (0) or no (1). Errors: `Git` for anything else.
    pub(crate) fn ask<'a>(
        &self,
        command: &'static str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        let output = self.output(command, args)?;
        match output.status.code() {
            Some(0) => Ok(Some(output.stdout)),
            Some(1) => Ok(None),
            _ => Err(failure(command, &output.stderr)),
        }
    }

    /// Starts `git command args` with `input`, to read its output as it comes.
    pub(crate) fn start<'a>(
        &self,
        command: &'static str,
        args: impl IntoIterator<Item = &'a str>,
        input: String,
    ) -> Result<Running, ClientError> {
        let mut child = self
            .command(command)
            .args(args)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(ClientError::GitProgram)?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        // Neither may fill up while the output is read here. A git that stops early does not
        // read all its input; its exit code tells.
        thread::spawn(move || stdin.write_all(input.as_bytes()));
        let complaint = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr
                .by_ref()
                .take(COMPLAINT_BYTES_MAX)
                .read_to_end(&mut text);
            let _ = io::copy(&mut stderr, &mut io::sink());
            text
        });
        Ok(Running {
            child,
            command,
            complaint: Some(complaint),
            output: BufReader::new(stdout),
        })
    }

    fn output<'a>(
        &self,
        command: &'static str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Result<Output, ClientError> {
        self.command(command)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(ClientError::GitProgram)
    }

    fn command(&self, command: &str) -> Command {
        let mut git = Command::new("git");
        git.arg("-C").arg(&self.path);
        git.args(["--no-pager", "--no-optional-locks"]);
        for setting in SETTINGS {
            git.args(["-c", setting]);
        }
        git.arg(command);
        git.env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
        // Set where this is run from a hook, and stronger than the path that was given.
        for variable in REPOSITORY_VARIABLES {
            git.env_remove(variable);
        }
        git.stdout(Stdio::piped()).stderr(Stdio::piped());
        git
    }
}

/// A git command whose output is being read. Dropped, it is ended.
pub(crate) struct Running {
    child: Child,
    command: &'static str,
    complaint: Option<JoinHandle<Vec<u8>>>,
    pub(crate) output: BufReader<ChildStdout>,
}

impl Running {
    /// Call when the output is at its end. Errors: `Git` where the command failed.
    pub(crate) fn finish(mut self) -> Result<(), ClientError> {
        let status = self.child.wait().map_err(ClientError::GitProgram)?;
        if status.success() {
            return Ok(());
        }
        let complaint = self.complaint.take().and_then(|thread| thread.join().ok());
        Err(failure(self.command, &complaint.unwrap_or_default()))
    }

    /// The error of output that does not read as it should.
    pub(crate) fn garbled(&self) -> ClientError {
        failure(self.command, b"its output cannot be read")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first line of what git said, without its own prefix.
fn failure(command: &'static str, complaint: &[u8]) -> ClientError {
    let text = String::from_utf8_lossy(complaint);
    let line = text.lines().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or("failed without a word");
    let message = line.strip_prefix("fatal: ").unwrap_or(line);
    ClientError::Git {
        command,
        message: printable(message).into_owned(),
    }
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
}

/// Over whatever the user's or the repository's configuration says.
const SETTINGS: [&str; 7] = [
    "core.fsmonitor=false",
    "core.quotePath=false",
    "diff.renames=true",
    "i18n.logOutputEncoding=UTF-8",
    "log.mailmap=false",
    "log.showRoot=true",
    "log.showSignature=false",
];
const REPOSITORY_VARIABLES: [&str; 6] = [
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_WORK_TREE",
];
const COMPLAINT_BYTES_MAX: u64 = 8 * 1024;
