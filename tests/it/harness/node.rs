//! The `ws` client of node, as a child that prints what it hears.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

/// A WebSocket of node's `ws`.
pub struct NodeClient {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What a client was told.
#[derive(Debug)]
pub enum Heard {
    /// Upgraded: the subprotocol that the server chose, and its extensions.
    Open(String, String),
    /// A text message.
    Message(Value),
    /// A refused upgrade: its status.
    Refused(u64),
    /// Closed: the code.
    Closed(u64),
}

impl NodeClient {
    /// Connects, as `ws` does unless it is told otherwise: it offers permessage-deflate. `None`
    /// where the environment says that there is no node.
    pub fn open(url: &str, protocols: &[&str], headers: &Value) -> Option<Self> {
        Self::open_with(url, protocols, &json!({"headers": headers}))
    }

    /// The same with these options of `ws`.
    pub fn open_with(url: &str, protocols: &[&str], options: &Value) -> Option<Self> {
        let modules = modules()?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/node/client.cjs");
        let mut child = Command::new("node")
            .args([
                script,
                url,
                &json!(protocols).to_string(),
                &options.to_string(),
            ])
            .env("NODE_PATH", modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Self {
            child,
            input,
            output,
        })
    }

    /// What it hears next. The script itself ends when nothing comes in time.
    pub fn next(&mut self) -> Heard {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).expect("the client says what it hears");
        let number = |name: &str| line[name].as_u64().unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_string();
        match text("heard").as_str() {
            "open" => Heard::Open(text("protocol"), text("extensions")),
            "message" => Heard::Message(serde_json::from_str(&text("text")).unwrap()),
            "refused" => Heard::Refused(number("status")),
            "closed" => Heard::Closed(number("code")),
            other => panic!("the client heard {other}: {line}"),
        }
    }

    /// The next message.
    pub fn message(&mut self) -> Value {
        match self.next() {
            Heard::Message(message) => message,
            other => panic!("not a message: {other:?}"),
        }
    }

    /// Sends a message.
    pub fn say(&mut self, message: &Value) {
        writeln!(self.input, "{message}").unwrap();
    }
}

impl Drop for NodeClient {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// Installs what the lock file names, once, and returns the folder of the modules.
fn modules() -> Option<&'static PathBuf> {
    static MODULES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let is_there = |program: &str| Command::new(program).arg("--version").output().is_ok();
        if is_there("node") && is_there("npm") {
            return Some(install());
        }
        let may_skip = std::env::var_os("SIGHTLINE_IT_NO_NODE").is_some_and(|value| value == "1");
        assert!(
            may_skip,
            "node and npm are needed for a client that is not ours: install them, or set \
             SIGHTLINE_IT_NO_NODE=1 to go without"
        );
        eprintln!("SKIPPED: what node's ws would show (SIGHTLINE_IT_NO_NODE=1)");
        None
    });
    modules.as_ref()
}

fn install() -> PathBuf {
    let source = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/node"));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("it-node");
    let modules = folder.join("node_modules");
    let read = |path: PathBuf| std::fs::read(path).ok();
    let lock = "package-lock.json";
    let is_fresh = modules.join("ws").is_dir();
    if is_fresh && read(source.join(lock)) == read(folder.join(lock)) {
        return modules;
    }
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", lock, ".npmrc"] {
        std::fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts"])
        .current_dir(&folder)
        .output();
    let npm = npm.unwrap();
    assert!(
        npm.status.success(),
        "npm could not install node's ws:\n{}",
        String::from_utf8_lossy(&npm.stderr)
    );
    modules
}
