//! `sightline tail` as a child.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{DEADLINE, Server, check_secrecy, eventually, sightline};

/// A `tail` that runs until it is dropped.
pub struct Tail {
    lines: Receiver<String>,
    _child: Watched,
}

/// A command that is ended with the test, and says no token on standard error until then.
pub struct Watched {
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Tail {
    /// One with these arguments.
    pub fn start(arguments: &[&str]) -> Self {
        Self::run(sightline().arg("tail").args(arguments))
    }

    /// The same, when the command is already whole.
    pub fn run(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        Self {
            lines,
            _child: Watched::new(child),
        }
    }

    /// Waits until it is the one connection of `server`.
    pub fn wait_until_it_watches(&self, server: &Server) {
        eventually("it watches", || {
            (server.connections().len() == 1).then_some(())
        });
    }

    /// The next envelope that it prints.
    pub fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_line()).unwrap()
    }

    /// The next line that it prints.
    pub fn next_line(&mut self) -> String {
        let line = self.lines.recv_timeout(DEADLINE);
        line.expect("tail prints something in time")
    }
}

impl Watched {
    /// Takes over a child whose standard error is a pipe.
    pub fn new(mut child: Child) -> Self {
        let stderr = child.stderr.take().unwrap();
        let said = thread::spawn(|| io::read_to_string(stderr).unwrap());
        let said = Some(said);
        Self { child, said }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let said = self.said.take().map(|said| said.join().unwrap());
        if !thread::panicking() {
            check_secrecy("standard error", &said.unwrap_or_default());
        }
    }
}
