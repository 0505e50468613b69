//! The gateway itself, as a child of the test.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::server::SECRET;

/// A running gateway, which ends with this value.
pub struct Gateway {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Its configuration and data; goes with it.
    folder: TempDir,
}

impl Gateway {
    /// One on one core, with these settings (lines of TOML, keys in full).
    pub fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sightline.toml");
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\ncores = 1\nauth.jwt_secret = {SECRET:?}\n{settings}\n"
        );
        std::fs::write(&file, config).unwrap();
        let (child, address) = spawn(folder.path());
        Self {
            child,
            address,
            folder,
        }
    }

    /// Kills it and starts it anew on what it has left, on another port.
    pub fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.child, self.address) = spawn(self.folder.path());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// Starts one in `folder`; returns its address too.
fn spawn(folder: &Path) -> (Child, String) {
    let mut child = Command::new(binary())
        .args(["serve", "--config", "sightline.toml"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = lines.by_ref().find_map(|line| address(&line.unwrap()));
    // What it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address.expect("it listens"))
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The address in the line that says where it listens.
fn address(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let is_it = line["message"].as_str()?.starts_with("listening");
    is_it.then(|| line["address"].as_str().map(str::to_owned))?
}

/// Beside the generator's own binary; built where only the generator was asked for.
fn binary() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_loadgen")).with_file_name("sightline");
    if !binary.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--package", "sightline", "--bin", "sightline"])
            .status();
        assert!(built.unwrap().success());
    }
    binary
}
