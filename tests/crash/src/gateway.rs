//! The gateway as a process: started with a configuration file, killed, stopped, asked for tokens and
//! for its log.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;
use sightline_crash::records::of_file;

/// The binary, and the folder with its configuration, data and log.
pub struct Installation {
    binary: PathBuf,
    folder: PathBuf,
}

/// A gateway that listens. Dropping it kills it.
pub struct Gateway {
    child: Child,
    reader: Option<JoinHandle<Vec<String>>>,
    /// Where it listens.
    pub address: SocketAddr,
    /// How long it took from the call to that.
    pub ready: Duration,
}

/// A line of its log, as far as it is looked at.
#[derive(Deserialize)]
struct LogLine {
    #[serde(default)]
    level: String,
    message: String,
    address: Option<String>,
}

impl Installation {
    /// Writes the configuration: two cores on a port that the system chooses, frequent heartbeats
    /// for their cursors. Errors: of the files, in words.
    pub fn create(
        binary: &Path,
        folder: &Path,
        deliver: &str,
        secret: &str,
    ) -> Result<Self, String> {
        let installation = Self {
            binary: binary.to_owned(),
            folder: folder.to_owned(),
        };
        let data = folder.join("data");
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\ncores = 2\ndata_dir = {data:?}\n\
             auth.jwt_secret = {secret:?}\nheartbeat.interval_ms = 120\n\
             heartbeat.grace_ms = 120\n\
             history.deliver = {deliver:?}\n"
        );
        let path = installation.config();
        std::fs::write(&path, config).map_err(|error| of_file(&path, &error))?;
        Ok(installation)
    }

    /// A token. Errors: what the binary says.
    pub fn token(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self.command("token");
        command.args(["--ttl", "1d"]).args(arguments);
        let output = command.output();
        let output = output.map_err(|error| of_file(&self.binary, &error))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Writes the event log to a file. Errors: what the binary says.
    pub fn export(&self, to: &Path) -> Result<(), String> {
        let file = File::create(to).map_err(|error| of_file(to, &error))?;
        let mut command = self.command("history");
        let status = command.arg("export").stdout(file).status();
        let status = status.map_err(|error| of_file(&self.binary, &error))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("history export ended with {status}"))
        }
    }

    /// Whether every byte of the event log is as it was written. Errors: what the binary says.
    pub fn verify(&self) -> Result<(), String> {
        let output = self.command("history").arg("verify").output();
        let output = output.map_err(|error| of_file(&self.binary, &error))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        Err(format!("history verify: {}", said.trim()))
    }

    /// Starts it and waits until it listens. Errors: it does not, in words.
    pub fn start(&self) -> Result<Gateway, String> {
        let begun = Instant::now();
        let mut command = self.command("serve");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn();
        let mut child = child.map_err(|error| of_file(&self.binary, &error))?;
        let (heard, address) = mpsc::channel();
        let stderr = child.stderr.take();
        let log = self.folder.join("server.log");
        let reader = std::thread::spawn(move || {
            let kept = stderr.map(|stderr| keep(stderr, &log, &heard));
            kept.unwrap_or_default()
        });
        let mut gateway = Gateway {
            child,
            reader: Some(reader),
            address: ([127, 0, 0, 1], 0).into(),
            ready: Duration::ZERO,
        };
        gateway.address = wait_for(&address)?;
        gateway.ready = begun.elapsed();
        Ok(gateway)
    }

    fn config(&self) -> PathBuf {
        self.folder.join("sightline.toml")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(name).arg("--config").arg(self.config());
        // What whoever runs this has set is no configuration of the gateway's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SIGHTLINE_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null());
        command
    }
}

impl Gateway {
    /// Kills it as `kill -9` does. Returns what it should not have done before.
    pub fn kill(mut self) -> Vec<String> {
        let ended = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut complaints = self.complaints();
        complaints.extend(ended.map(|status| format!("it ended by itself: {status}")));
        complaints
    }

    /// Asks it to stop and waits until it has. Returns what it should not have done.
    pub fn stop(mut self) -> Vec<String> {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let status = self.wait();
        let mut complaints = self.complaints();
        match status {
            Some(status) if status.success() => {}
            Some(status) => complaints.push(format!("SIGTERM ended it with {status}")),
            None => complaints.push("SIGTERM did not end it".into()),
        }
        complaints
    }

    fn wait(&mut self) -> Option<ExitStatus> {
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }

    fn complaints(&mut self) -> Vec<String> {
        let reader = self.reader.take();
        let lines = reader.and_then(|reader| reader.join().ok());
        lines.unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Keeps what the gateway logs, and returns the lines that should not be there.
fn keep(stderr: ChildStderr, path: &Path, heard: &Sender<SocketAddr>) -> Vec<String> {
    let log = OpenOptions::new().create(true).append(true).open(path);
    let mut log = log.ok();
    let mut complaints = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some(log) = &mut log {
            let _ = writeln!(log, "{line}");
        }
        let parsed: Option<LogLine> = serde_json::from_str(&line).ok();
        let is_error = parsed.as_ref().is_none_or(|line| line.level == "error");
        if is_error || line.contains("panic") {
            complaints.push(line.clone());
        }
        let listening = parsed.filter(|line| line.message == "listening");
        let address = listening.and_then(|line| line.address?.parse().ok());
        if let Some(address) = address {
            let _ = heard.send(address);
        }
    }
    complaints
}

fn wait_for(address: &Receiver<SocketAddr>) -> Result<SocketAddr, String> {
    let heard = address.recv_timeout(DEADLINE);
    heard.map_err(|_| "the gateway does not listen: see server.log".to_owned())
}

/// How long a start or a stop may take.
const DEADLINE: Duration = Duration::from_secs(30);
