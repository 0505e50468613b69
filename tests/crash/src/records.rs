//! What the clients and the driver write down: one JSON value a line, a file each, so that the checker
//! needs nothing else. Owns the shapes and the files; knows nothing of what they mean.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cast::{Cursor, EventFacts, ViewerPlan};

/// What a run was, in `plan.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// From which all choices follow, but for the timing of threads.
    pub seed: u64,
    /// How often the gateway was to be killed.
    pub cycles: u32,
    /// `history.deliver`.
    pub deliver: String,
    /// The viewers; each has a record by its name.
    pub viewers: Vec<ViewerPlan>,
    /// The names of the publishers' records.
    pub publishers: Vec<String>,
}

/// What the driver saw of the gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayLine {
    /// It listens.
    Started {
        /// Milliseconds since it was called.
        ready_ms: u64,
    },
    /// It got SIGKILL, or its machine lost power.
    Killed,
    /// What it should not have done: ended by itself, panicked, logged an error, exited with
    /// another code than 0.
    Misbehaved {
        /// In words.
        what: String,
    },
}

/// What a publisher did and was told. Messages are numbered from 1 on each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublisherLine {
    /// An event, before it is sent for the first time.
    Made(EventFacts),
    /// A message, before it is sent.
    Sent {
        /// From 1.
        connection: u32,
        /// From 1.
        message: u64,
        /// Its events.
        event_ids: Vec<String>,
    },
    /// An `ack`.
    Acked {
        /// From 1.
        connection: u32,
        /// All messages up to it are settled.
        through: u64,
    },
    /// A `nack`.
    Nacked {
        /// From 1.
        connection: u32,
        /// From 1.
        message: u64,
        /// Which of its events.
        index: usize,
        /// The code word.
        code: String,
    },
    /// What a publisher is not told: an upgrade refused, an unknown message.
    Told {
        /// In words.
        what: String,
    },
}

/// What a viewer did and was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ViewerLine {
    /// It connects.
    Opened {
        /// How often the gateway had been killed.
        cycle: u32,
        /// From where it resumes.
        cursor: Option<Cursor>,
    },
    /// Where its streams begin: of `connection_established` (with the epoch) or
    /// `subscription_confirmed`.
    Rows {
        /// The life of the log.
        epoch: Option<String>,
        /// One for each stream.
        rows: Vec<Row>,
    },
    /// An event.
    Event {
        /// As the viewer calls it.
        stream: String,
        /// Its number there.
        seq: u64,
        /// As it was published.
        event_id: Option<String>,
        /// The fingerprint of the bytes of `data`.
        data: String,
    },
    /// `replay_complete`.
    Complete {
        /// As the viewer calls it.
        stream: String,
        /// The last seq that was looked at.
        seq: u64,
    },
    /// `cursor`.
    Cursor(Cursor),
    /// An upgrade that was refused, and by what status.
    Refused {
        /// Of HTTP.
        status: u16,
    },
    /// What a viewer here is not told: an `error`, an unreadable message.
    Told {
        /// The message.
        what: String,
    },
    /// The connection ended: by a close with this code, or without a word.
    Closed {
        /// Of RFC 6455, section 7.4.
        code: Option<u16>,
    },
}

/// A row of `resume`, as it is on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// As the viewer calls it.
    pub stream: String,
    /// `fresh`, `resumed`, `truncated`, `reset`, `pending`.
    pub outcome: String,
    /// The viewer's cursor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The stream's head: live begins after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// What retention took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Range>,
    /// What the viewer saw and an unclean stop took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<Range>,
}

/// Seqs, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// A line of `sightline history export`, as far as it is looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct ExportLine<'l> {
    /// By its full name.
    pub stream: String,
    /// Its number there.
    pub seq: u64,
    /// As it was published.
    pub event_id: Option<String>,
    /// As it was published.
    pub event_type: String,
    /// Its audience.
    pub user_id: Option<String>,
    /// Its audience.
    pub project_id: Option<String>,
    /// Its session.
    pub session_id: Option<String>,
    /// Its bytes.
    #[serde(borrow)]
    pub data: &'l serde_json::value::RawValue,
}

/// The file of a record.
pub fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.ndjson"))
}

/// Where one client writes down what it sees.
pub struct Recorder {
    file: BufWriter<File>,
    path: PathBuf,
}

impl Recorder {
    /// An empty record. Errors: of the file, in words.
    pub fn create(folder: &Path, name: &str) -> Result<Self, String> {
        let path = path_of(folder, name);
        let file = File::create(&path).map_err(|error| of_file(&path, &error))?;
        let file = BufWriter::new(file);
        Ok(Self { file, path })
    }

    /// Appends a line. Errors: of the file, in words.
    pub fn write(&mut self, line: &impl Serialize) -> Result<(), String> {
        let written = serde_json::to_writer(&mut self.file, line).map_err(io::Error::from);
        let written = written.and_then(|()| self.file.write_all(b"\n"));
        written.map_err(|error| of_file(&self.path, &error))
    }

    /// Writes what is still held. Errors: of the file, in words.
    pub fn finish(mut self) -> Result<(), String> {
        let flushed = self.file.flush();
        flushed.map_err(|error| of_file(&self.path, &error))
    }
}

/// Calls `each` with every line of a record, in order. Errors: of the file or of a line, in words.
pub fn read<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
    mut each: impl FnMut(T),
) -> Result<(), String> {
    read_text(folder, name, |line| {
        serde_json::from_str(line).map(&mut each)
    })
}

/// The same with lines as they are.
pub fn read_text(
    folder: &Path,
    name: &str,
    mut each: impl FnMut(&str) -> serde_json::Result<()>,
) -> Result<(), String> {
    let path = path_of(folder, name);
    let file = File::open(&path).map_err(|error| of_file(&path, &error))?;
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| of_file(&path, &error))?;
        each(&line).map_err(|error| format!("{}:{}: {error}", path.display(), at + 1))?;
    }
    Ok(())
}

/// What is wrong with a file, in words.
pub fn of_file(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// A short stand-in for bytes: FNV-1a, 64 bits, in hex. Against accidents, not against malice.
pub fn fingerprint(bytes: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let lines = vec![
            ViewerLine::Opened {
                cycle: 3,
                cursor: None,
            },
            ViewerLine::Rows {
                epoch: Some("0badcafe".into()),
                rows: vec![Row {
                    stream: "user".into(),
                    outcome: "resumed".into(),
                    lost: Some(Range { from: 4, to: 5 }),
                    ..Row::default()
                }],
            },
            ViewerLine::Closed { code: Some(1001) },
        ];
        let mut recorder = Recorder::create(folder.path(), "viewer").unwrap();
        for line in &lines {
            recorder.write(line).unwrap();
        }
        recorder.finish().unwrap();
        let mut found: Vec<ViewerLine> = Vec::new();
        read(folder.path(), "viewer", |line| found.push(line)).unwrap();
        assert_eq!(found, lines);
    }

    #[test]
    fn a_line_that_is_cut_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            path_of(folder.path(), "viewer"),
            "{\"closed\":{\"code\":1}}\n{\"cl",
        )
        .unwrap();
        let problem = read(folder.path(), "viewer", |_: ViewerLine| ()).unwrap_err();
        assert!(problem.contains("viewer.ndjson:2: "), "{problem}");
    }

    #[test]
    fn fingerprints_are_those_of_the_published_vectors() {
        assert_eq!(fingerprint(b""), "cbf29ce484222325");
        assert_eq!(fingerprint(b"foobar"), "85944171f73967e8");
    }
}
