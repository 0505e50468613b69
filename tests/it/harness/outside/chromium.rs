//! A page in headless chromium, served from here, which tells by requests what it hears.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::{DEADLINE, Dial, OutsideClient, is_here};

/// Opens a page that connects as `dial` says.
pub fn dial(dial: &Dial<'_>) -> Option<OutsideClient> {
    if !is_here(PROGRAM, "SIGHTLINE_IT_NO_CHROMIUM") {
        return None;
    }
    let html = include_str!("../../chromium/page.html");
    let html = html.replace("DIAL", &dial.to_json().to_string());
    let (page, heard, say) = Page::serve(html);
    let mut command = Command::new(PROGRAM);
    // Root has no sandbox; the rest keeps it from looking for hosts of its maker's.
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]);
    let profile = page.profile.path();
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.env("TMPDIR", profile);
    if let Some(server) = dial.trusted {
        let pin = server.key_pin();
        command.arg(format!("--ignore-certificate-errors-spki-list={pin}"));
    }
    command.arg(format!("http://{}/", page.address));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    Some(OutsideClient {
        child,
        heard,
        say,
        _page: Some(page),
    })
}

const PROGRAM: &str = "chromium";

/// A page that is being served.
pub struct Page {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    profile: TempDir,
}

/// Both ends of a page's talk.
#[derive(Clone)]
struct Talk {
    html: Arc<str>,
    heard: Sender<Value>,
    said: Arc<Mutex<Receiver<String>>>,
}

impl Page {
    fn serve(html: String) -> (Self, Receiver<Value>, Sender<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (tell, heard) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let talk = Talk {
            html: html.into(),
            heard: tell,
            said: Arc::new(Mutex::new(said)),
        };
        let page = Self {
            address: listener.local_addr().unwrap(),
            is_over: Arc::default(),
            profile: tempfile::tempdir().unwrap(),
        };
        let is_over = Arc::clone(&page.is_over);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let talk = talk.clone();
                thread::spawn(move || talk.answer(&stream));
            }
        });
        (page, heard, say)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        // The browser's last helpers outlive it a little, and write.
        let end = Instant::now() + DEADLINE;
        while Instant::now() < end && fs::remove_dir_all(self.profile.path()).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Talk {
    /// One request, one answer. What goes wrong goes wrong for the page too.
    fn answer(&self, stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut length = 0;
        let mut header = String::from("-");
        while !header.trim().is_empty() {
            header.clear();
            reader.read_line(&mut header).ok()?;
            let (name, value) = header.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (status, answer) = self.answer_to(line.split(' ').nth(1)?, &body);
        let length = answer.len();
        let mut writer = stream;
        write!(
            writer,
            "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
        )
        .ok()
    }

    fn answer_to(&self, path: &str, body: &[u8]) -> (&str, String) {
        match path {
            "/" => ("200 OK", self.html.to_string()),
            "/heard" => {
                let heard = serde_json::from_slice(body).expect("a page tells JSON");
                let _ = self.heard.send(heard);
                ("204 No Content", String::new())
            }
            "/say" => match self.said.lock().unwrap().recv() {
                Ok(said) => ("200 OK", said),
                Err(_) => ("204 No Content", String::new()),
            },
            _ => ("404 Not Found", String::new()),
        }
    }
}
