//! WebSocket clients that are not ours: a page in chromium, node's `ws`, Python's `websockets`.
//! Each is a child that tells what it hears, one JSON object at a time.

mod chromium;
mod node;
mod python;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{DEADLINE, Server};

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    Chromium,
    Node,
    Python,
}

/// How it connects.
#[derive(Clone, Copy)]
pub struct Dial<'a> {
    pub url: &'a str,
    pub protocols: &'a [&'a str],
    /// A page cannot send any.
    pub headers: &'a [(&'a str, &'a str)],
    /// Whose certificate it trusts under `wss://`, by its authority or its key.
    pub trusted: Option<&'a Server>,
    /// Whether it offers permessage-deflate, and deflates all that it says. A page always does.
    pub deflate: bool,
}

/// A client that runs.
pub struct OutsideClient {
    child: Child,
    heard: Receiver<Value>,
    say: Sender<String>,
    /// What a page was served from.
    _page: Option<chromium::Page>,
}

/// What a client was told.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// Upgraded: the subprotocol that the server chose, and its extensions.
    Open(String, String),
    /// A text message.
    Message(Value),
    /// A refused upgrade: its status. A page hears `Closed(1006)`.
    Refused(u64),
    /// Closed: the code.
    Closed(u64),
    /// No connection, and why.
    Failed(String),
}

impl Default for Dial<'_> {
    fn default() -> Self {
        Self {
            url: "",
            protocols: &[],
            headers: &[],
            trusted: None,
            deflate: true,
        }
    }
}

impl Dial<'_> {
    /// As the clients read it.
    fn to_json(self) -> Value {
        let headers: serde_json::Map<_, _> = self
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        json!({
            "url": self.url,
            "protocols": self.protocols,
            "headers": headers,
            "ca": self.trusted.map(Server::ca_file),
            "deflate": self.deflate,
        })
    }
}

impl Outside {
    pub const ALL: [Self; 3] = [Self::Chromium, Self::Node, Self::Python];

    /// Connects. `None` where the environment says that this client is not here.
    pub fn dial(self, dial: &Dial<'_>) -> Option<OutsideClient> {
        match self {
            Self::Chromium => chromium::dial(dial),
            Self::Node => Some(OutsideClient::script(node::command()?, dial)),
            Self::Python => Some(OutsideClient::script(python::command()?, dial)),
        }
    }
}

impl OutsideClient {
    /// Runs `command` with `dial` as its last argument. It tells on its standard output and sends
    /// what comes on its standard input.
    fn script(mut command: Command, dial: &Dial<'_>) -> Self {
        command.arg(dial.to_json().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, heard) = mpsc::channel();
        let (say, said) = mpsc::channel::<String>();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("a client tells JSON");
                let _ = tell.send(line);
            }
        });
        thread::spawn(move || {
            for line in said {
                let _ = writeln!(input, "{line}");
            }
        });
        Self {
            child,
            heard,
            say,
            _page: None,
        }
    }

    /// What it hears next.
    pub fn next(&self) -> Heard {
        let heard = self.heard.recv_timeout(DEADLINE);
        let heard = heard.expect("a client hears something in time");
        let number = |name: &str| heard[name].as_u64().unwrap();
        let text = |name: &str| heard[name].as_str().unwrap().to_owned();
        match text("heard").as_str() {
            "closed" => Heard::Closed(number("code")),
            "failed" => Heard::Failed(text("why")),
            "message" => Heard::Message(serde_json::from_str(&text("text")).unwrap()),
            "open" => Heard::Open(text("protocol"), text("extensions")),
            "refused" => Heard::Refused(number("status")),
            other => panic!("a client heard {other}: {heard}"),
        }
    }

    /// The next message.
    pub fn message(&self) -> Value {
        match self.next() {
            Heard::Message(message) => message,
            other => panic!("not a message: {other:?}"),
        }
    }

    /// Sends a message.
    pub fn say(&self, message: &Value) {
        self.say.send(message.to_string()).unwrap();
    }
}

impl Drop for OutsideClient {
    /// A browser is many processes: asked to, it ends them all, and then its folder can go.
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `program` is here. Panics where it is not, unless the environment admits it by
/// `variable`: what is not tested is a decision.
pub fn is_here(program: &str, variable: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    if found.is_ok_and(|found| found.status.success()) {
        return true;
    }
    let may_skip = std::env::var_os(variable).is_some_and(|value| value == "1");
    assert!(
        may_skip,
        "{program} is needed for a client that is not ours: install it (.ci/run does), or set \
         {variable}=1 to go without"
    );
    eprintln!("SKIPPED: what {program} would show ({variable}=1)");
    false
}

/// Runs an installer to its end.
fn install(what: &str, command: &mut Command) {
    let done = command.output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "cannot install {what}:\n{told}");
}
