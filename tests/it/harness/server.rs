//! The server as its users start it: the binary, a configuration file, a log on standard error.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::{Value, json};
use sightline::auth::{MintOptions, Permission, SigningKey, mint};
use tempfile::TempDir;

use super::{Answer, Authority, DEADLINE, Http, check_secrecy, eventually, now_s, request, text};

/// The secret that servers here are given.
pub const SECRET: &str = "a secret of these tests, which is long enough";

/// A server that runs. Dropping it ends it and looks through its log: each line is an object of
/// short fields, and no token and no panic may be in there.
pub struct Server {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    tokens: Mutex<Vec<String>>,
    may_panic: bool,
    /// Who signed its certificate, if it has one.
    pub authority: Option<Authority>,
    /// Where it listens, as it says itself; those of operators at the end.
    pub addresses: Vec<String>,
    /// Its folder, which goes with it.
    pub folder: TempDir,
}

/// How to start one.
pub struct Setup<'a> {
    /// Lines of TOML, keys in full (`limits.connections_max = 2`).
    pub settings: &'a str,
    /// Addresses that it listens on.
    pub listen: &'a [&'a str],
    /// Its event loops.
    pub cores: usize,
    /// The line that says by which key tokens are verified; empty: by `SECRET`.
    pub key: &'a str,
    /// Flags of `serve` besides.
    pub flags: &'a [&'a str],
    /// It speaks TLS, with a certificate for this machine.
    pub tls: bool,
    /// What is logged.
    pub log_level: &'a str,
    /// What a shell does before it becomes the server.
    pub before: Option<&'a str>,
    /// A panic in the log is what the test is about.
    pub may_panic: bool,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            settings: "",
            listen: &["127.0.0.1:0"],
            cores: 2,
            key: "",
            flags: &[],
            tls: false,
            log_level: "debug",
            before: None,
            may_panic: false,
        }
    }
}

/// What a token says. Start from a constructor and change what matters.
#[derive(Clone)]
pub struct Token(pub MintOptions, pub u64);

impl Token {
    /// A viewer's, of these projects, issued now for an hour.
    pub fn of(sub: &str, projects: &[&str]) -> Self {
        let options = MintOptions {
            projects: projects.iter().map(|project| (*project).into()).collect(),
            tier: Some("enterprise".into()),
            ..MintOptions::new(sub)
        };
        Self(options, now_s())
    }

    /// The same with these permissions.
    pub fn with(mut self, permissions: &[Permission]) -> Self {
        self.0.permissions = permissions.iter().copied().collect();
        self
    }

    /// The same, whose `exp` is `seconds` from now, or was.
    pub fn expiring_in(mut self, seconds: i64) -> Self {
        self.1 = now_s() - 1_000;
        self.0.ttl_s = (1_000 + seconds).unsigned_abs();
        self
    }
}

impl Server {
    /// One on two cores, with these settings.
    pub fn start(settings: &str) -> Self {
        Self::with(&Setup {
            settings,
            ..Setup::default()
        })
    }

    /// One as `setup` says, once it listens.
    pub fn with(setup: &Setup<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen: Vec<String> = setup.listen.iter().map(|at| format!("{at:?}")).collect();
        let secret = format!("auth.jwt_secret = {SECRET:?}");
        let key = if setup.key.is_empty() {
            &secret
        } else {
            setup.key
        };
        let (listen, cores) = (listen.join(", "), setup.cores);
        let authority = setup.tls.then(Authority::new);
        let mut settings = setup.settings.to_string();
        if let Some(authority) = &authority {
            authority.install(folder.path());
            settings += "\ntls.cert = 'cert.pem'\ntls.key = 'key.pem'";
        }
        let config = format!("listen = [{listen}]\ncores = {cores}\n{key}\n{settings}\n");
        let file = folder.path().join("sightline.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = match setup.before {
            None => clean(Command::new(BINARY)),
            Some(before) => {
                let mut shell = clean(Command::new("sh"));
                shell.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), BINARY]);
                shell
            }
        };
        command
            .args(["serve", "--log-level", setup.log_level, "--config"])
            .arg(&file)
            .args(setup.flags);
        command.current_dir(folder.path()).stdin(Stdio::null());
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        let reader = std::thread::spawn(move || lines.read_from(stderr));
        let mut server = Self {
            child,
            log,
            reader: Some(reader),
            tokens: Mutex::default(),
            may_panic: setup.may_panic,
            authority,
            addresses: Vec::new(),
            folder,
        };
        let has_ops = setup.settings.contains("ops.listen");
        for place in 0..setup.listen.len() + usize::from(has_ops) {
            let line = server.wait_for_log("listening", place);
            server.addresses.push(text(&line["address"]).to_string());
        }
        server
    }

    /// `127.0.0.1:PORT` of the first address.
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// The URL of a WebSocket at its first address.
    pub fn url(&self, target: &str) -> String {
        let scheme = if self.authority.is_some() {
            "wss"
        } else {
            "ws"
        };
        format!("{scheme}://{}{target}", self.address())
    }

    /// The signed token. It will be looked for in the log.
    pub fn mint(&self, token: &Token) -> String {
        let key = SigningKey::from_secret(SECRET.as_bytes()).unwrap();
        let text = mint(&key, &token.0, token.1).unwrap();
        self.watch_for(&text);
        text
    }

    /// Takes note of a further secret that must not appear in the log.
    pub fn watch_for(&self, secret: &str) {
        self.tokens.lock().unwrap().push(secret.to_string());
    }

    /// A token of a viewer.
    pub fn viewer_token(&self, sub: &str, projects: &[&str]) -> String {
        self.mint(&Token::of(sub, projects))
    }

    /// A token that publishes for anybody.
    pub fn publisher_token(&self) -> String {
        self.mint(&Token::of("producer", &[]).with(&[Permission::PublishAny]))
    }

    /// A token that may do everything.
    pub fn admin_token(&self) -> String {
        self.mint(&Token::of("operator", &[]).with(&Permission::ALL))
    }

    /// A connection for requests.
    pub fn http(&self) -> Http {
        Http::over(self.stream())
    }

    /// One request with a token, on a connection of its own.
    pub fn ask(&self, method: &str, target: &str, token: &str, body: &str) -> Answer {
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", authorization.as_str())];
        let mut http = self.http();
        http.send(&request(method, target, &headers, body.as_bytes()));
        http.receive()
    }

    /// Publishes and expects every event to be taken.
    pub fn publish(&self, events: &Value) {
        let count = events.as_array().map_or(1, Vec::len);
        let answer = self.ask(
            "POST",
            "/v1/events",
            &self.publisher_token(),
            &events.to_string(),
        );
        assert_eq!(answer.json()["accepted"], json!(count), "{}", answer.text());
    }

    /// A page for operators.
    pub fn page(&self, path: &str) -> String {
        let answer = self.ask("GET", path, &self.admin_token(), "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    /// The rows of `GET /v1/admin/connections`.
    pub fn connections(&self) -> Vec<Value> {
        let answer = self.ask("GET", "/v1/admin/connections", &self.admin_token(), "");
        answer.json()["connections"].as_array().unwrap().clone()
    }

    /// Users whose home is core 0 and core 1, in this order.
    pub fn users_on_two_cores(&self) -> [String; 2] {
        let open = |at: usize| {
            let name = format!("user-{at}");
            super::Viewer::open(self, "/observatory", &self.viewer_token(&name, &[]))
        };
        // Names are spread at random: that all of so many are on one core does not happen.
        let viewers: Vec<_> = (0..40).map(open).collect();
        let rows = self.connections();
        let on = |core: u64| {
            let row = rows.iter().find(|row| row["core"] == json!(core));
            text(&row.expect("a user on each core")["userId"]).to_string()
        };
        let users = [on(0), on(1)];
        drop(viewers);
        eventually("the connections end", || {
            self.connections().is_empty().then_some(())
        });
        users
    }

    /// The first line of the log with this message, after `skipped` others of it.
    pub fn wait_for_log(&self, message: &str, skipped: usize) -> Value {
        self.log.wait_for(message, skipped)
    }

    /// Sends a signal by its name: `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most bytes of memory that it ever had in RAM.
    pub fn memory_bytes_peak(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        1024 * kibibytes.parse::<u64>().unwrap()
    }

    /// How it ended. Panics where it does not.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the server ends", || self.child.try_wait().unwrap())
    }

    /// Bytes of it in memory.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kibibytes.trim().parse::<u64>().unwrap() * 1_024
    }

    /// What it has logged so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lines.lock().unwrap().found.clone()
    }

    fn check_log(&self) {
        let lines = self.log.lines.lock().unwrap();
        for line in &lines.found {
            check_line(line);
            for token in self.tokens.lock().unwrap().iter() {
                let signature = token.rsplit('.').next().unwrap();
                assert!(!line.contains(signature), "a token was logged: {line}");
            }
            let has_panic = line.contains("panic");
            assert!(self.may_panic || !has_panic, "a panic: {line}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
        if std::thread::panicking() {
            let lines = self.log.lines.lock().unwrap();
            let skipped = lines.found.len().saturating_sub(15);
            eprintln!(
                "the end of the server's log:\n{}",
                lines.found[skipped..].join("\n")
            );
        } else {
            self.check_log();
        }
    }
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    grew: Condvar,
}

#[derive(Default)]
struct Lines {
    found: Vec<String>,
    is_over: bool,
}

impl Log {
    fn read_from(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            self.lines.lock().unwrap().found.push(line);
            self.grew.notify_all();
        }
        self.lines.lock().unwrap().is_over = true;
        self.grew.notify_all();
    }

    fn wait_for(&self, message: &str, skipped: usize) -> Value {
        let end = Instant::now() + DEADLINE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            let mut found = lines.found.iter().filter(|line| has_message(line, message));
            if let Some(line) = found.nth(skipped) {
                return serde_json::from_str(line).unwrap();
            }
            let left = end.saturating_duration_since(Instant::now());
            if lines.is_over || left.is_zero() {
                let all = lines.found.join("\n");
                drop(lines);
                panic!("no line {message:?} in:\n{all}");
            }
            lines = self.grew.wait_timeout(lines, left).unwrap().0;
        }
    }
}

// Whatever a peer sent, a line is one object of short fields, and shows as it is.
fn check_line(line: &str) {
    check_secrecy("the log", line);
    let is_shown_as_it_is = |character: char| !character.is_control() && character != '\u{2028}';
    assert!(line.chars().all(is_shown_as_it_is), "{line:?}");
    let object: Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    for (name, value) in object.as_object().unwrap() {
        let bytes_max = if name == "message" { 2_048 } else { 256 };
        let is_short = value.as_str().is_none_or(|text| text.len() <= bytes_max);
        assert!(is_short, "{line}");
    }
}

fn has_message(line: &str, message: &str) -> bool {
    let line: Value = serde_json::from_str(line).unwrap_or_default();
    line["message"] == message
}

const BINARY: &str = env!("CARGO_BIN_EXE_sightline");

/// The binary, with nothing said yet.
pub fn sightline() -> Command {
    clean(Command::new(BINARY))
}

// Settings of whoever runs the tests, and those of the tests themselves, are not the server's.
fn clean(mut command: Command) -> Command {
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("SIGHTLINE_")) {
        command.env_remove(name);
    }
    command
}

/// How a command ended.
pub struct Ending {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command of the binary to its end, in `folder`.
pub fn run(folder: &Path, arguments: &[&str]) -> Ending {
    run_with(folder, arguments, "")
}

/// The same, with this on its standard input.
pub fn run_with(folder: &Path, arguments: &[&str], input: &str) -> Ending {
    let mut command = sightline();
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || read_all(&mut out));
    let err = std::thread::spawn(move || read_all(&mut err));
    let end = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{arguments:?} did not end:\n{}", err.join().unwrap());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    let ending = Ending {
        code: status.code(),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    };
    check_secrecy("standard error", &ending.err);
    if arguments[0] != "token" {
        check_secrecy("standard output", &ending.out);
    }
    ending
}

fn read_all(stream: &mut impl Read) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
