//! `sightline history export`: events as a producer might have published them, with where they are
//! in their stream and when they arrived.

use std::{io::Write, process::ExitCode};

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Outcome;
use crate::{
    event::{
        Epoch, StreamKind,
        record::{EventView, RecordView},
        time::{MS_MAX, MS_MIN, parse_rfc3339_ms, write_rfc3339_ms},
    },
    history::{inspect::Inspection, storage::Storage},
};

/// The arguments of `history export`.
#[derive(Args, Debug, Default)]
pub struct ExportArgs {
    /// Only events of this user; one that is of a project too is in both streams
    #[arg(long, value_name = "ID")]
    user: Option<String>,
    /// Only events of this project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// Only events of this session
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Only events that arrived at this time or later: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Only events that arrived before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
}

/// One line.
#[derive(Serialize)]
struct Line<'e> {
    stream: String,
    epoch: String,
    seq: u64,
    received: String,
    event_type: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'e str>,
    timestamp: String,
    data: &'e RawValue,
}

impl ExportArgs {
    fn takes(&self, event: &EventView<'_>) -> bool {
        let fits = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == found
        };
        fits(&self.user, event.user())
            && fits(&self.project, event.project())
            && fits(&self.session, event.session())
            && self.from.is_none_or(|from| from <= event.received_ms)
            && self.to.is_none_or(|to| event.received_ms < to)
    }
}

/// Writes the events that are asked for. Errors: of the log and of `out`.
pub fn run<S: Storage>(
    args: &ExportArgs,
    inspection: &Inspection<S>,
    out: &mut impl Write,
) -> Outcome {
    let received_ms = args.from.unwrap_or(i64::MIN)..args.to.unwrap_or(i64::MAX);
    inspection.each_record(received_ms, |header, view| match view {
        RecordView::Event(event) if args.takes(&event) => {
            write_line(header.identity.epoch, &event, out)
        }
        _ => Ok(()),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write_line(epoch: Epoch, event: &EventView<'_>, out: &mut impl Write) -> std::io::Result<()> {
    let kind = match event.kind {
        StreamKind::Project => "project",
        StreamKind::User => "user",
    };
    // Whatever was published was JSON.
    let data = serde_json::from_slice(event.data).unwrap_or(RawValue::NULL);
    let line = Line {
        stream: format!("{kind}/{}", event.stream_id()),
        epoch: epoch.to_string(),
        seq: event.seq.0,
        received: text(event.received_ms),
        event_type: event.event_type(),
        user_id: event.user(),
        project_id: event.project(),
        session_id: event.session(),
        event_id: event.event_id(),
        timestamp: text(event.timestamp_ms),
        data,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn text(ms: i64) -> String {
    let mut out = Vec::new();
    write_rfc3339_ms(&mut out, ms);
    String::from_utf8(out).unwrap_or_default()
}

fn time(text: &str) -> Result<i64, &'static str> {
    let ms = text.parse().ok().or_else(|| parse_rfc3339_ms(text));
    let ms = ms.filter(|ms| (MS_MIN..=MS_MAX).contains(ms));
    ms.ok_or("write it like 2026-11-22T10:00:00Z, or as milliseconds since 1970")
}
