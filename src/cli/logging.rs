//! Logs on standard error: a readable line on a terminal, a JSON object otherwise. Owns the form of
//! a line. Whatever a peer got into a value, a line stays one line, cannot move a terminal's
//! cursor, and no field is longer than [`FIELD_BYTES_MAX`].

use std::{
    env,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
    panic::{self, PanicHookInfo},
    thread,
};

use jiff::Timestamp;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::CliError;

/// Bytes of one field's value; what is longer is cut and ends with `…`.
pub const FIELD_BYTES_MAX: usize = 256;
/// Bytes of a message.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Starts logging for this process, panics included. `level` is a level or a list of
/// `target=level`; empty is `info`. A second call changes nothing.
/// Errors: usage, where `level` is neither.
pub fn init(level: &str) -> Result<(), CliError> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .event_format(Form::of_stderr())
        .with_writer(io::stderr)
        .finish();
    // Not `try_init`, which brings in the lines of libraries: tungstenite shows whole requests, and
    // with them tokens. A process has one log; that it is there already is what was wanted.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

// Where it happened, and not what was said: that may be what a peer sent, its token among it.
fn log_panic(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or_default();
    let place = info.location().map(ToString::to_string);
    tracing::error!(thread = name, place = place.unwrap_or_default(), "panicked");
}

fn filter(level: &str) -> Result<EnvFilter, CliError> {
    let level = Some(level.trim()).filter(|text| !text.is_empty());
    let level = level.unwrap_or("info");
    // A lone word that is no level would be taken for a target, and nothing else be logged.
    let is_known = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
    let filter = EnvFilter::builder().parse(level).ok();
    filter
        .filter(|_| level.split(',').all(is_known))
        .ok_or_else(|| {
            let expected = "off, error, warn, info, debug, trace, or a list of target=level";
            let message =
                format!("--log-level or SIGHTLINE_LOG: {level:?} is not one of {expected}");
            CliError::new(CliError::USAGE, message)
        })
}

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A JSON object.
    Json,
    /// For eyes.
    Text { color: bool },
}

impl Form {
    fn of_stderr() -> Self {
        match io::stderr().is_terminal() {
            true => Self::Text {
                color: allows_color(),
            },
            false => Self::Json,
        }
    }

    /// One line, without its newline.
    fn line(self, time: Timestamp, level: Level, target: &str, body: &Body) -> String {
        let Body { message, fields } = body;
        match self {
            Self::Json => {
                let level = level.as_str().to_ascii_lowercase();
                format!(
                    r#"{{"time":"{time:.3}","level":"{level}","target":{},"message":{}{fields}}}"#,
                    json(target),
                    json(message),
                )
            }
            Self::Text { color } => {
                let (begin, end) = if color { colors(level) } else { ("", "") };
                let target = target.strip_prefix("sightline::").unwrap_or(target);
                let message = printable(message);
                format!("{time:.3} {begin}{level:>5}{end} {target}: {message}{fields}")
            }
        }
    }
}

/// Whether the user has nothing against colours. Source: no-color.org.
pub(super) fn allows_color() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn colors(level: Level) -> (&'static str, &'static str) {
    let begin = match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    };
    (begin, "\x1b[0m")
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields {
            form: *self,
            body: Body::default(),
        };
        event.record(&mut fields);
        let meta = event.metadata();
        let line = self.line(Timestamp::now(), *meta.level(), meta.target(), &fields.body);
        writeln!(writer, "{line}")
    }
}

/// What an event says.
#[derive(Default)]
struct Body {
    /// As given, cut.
    message: String,
    /// All fields in the form of the line, each with what stands before it.
    fields: String,
}

/// Collects the fields of an event.
struct Fields {
    form: Form,
    body: Body,
}

impl Fields {
    /// A number or a flag: needs no quotes in any form.
    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        self.push(field.name(), &value.to_string());
    }

    fn push(&mut self, name: &str, written: &str) {
        // Writing to a `String` does not fail.
        let _ = match self.form {
            Form::Json => write!(self.body.fields, ",{}:{written}", json(name)),
            Form::Text { .. } => write!(self.body.fields, " {name}={written}"),
        };
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.body.message = cut(value, MESSAGE_BYTES_MAX);
            return;
        }
        let value = cut(value, FIELD_BYTES_MAX);
        let written = match self.form {
            Form::Json => json(&value),
            Form::Text { .. } => word(&value),
        };
        self.push(field.name(), &written);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// At most `bytes_max` bytes of `text`, at the end of a character.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.into();
    }
    let end = (0..=bytes_max - '…'.len_utf8())
        .rev()
        .find(|at| text.is_char_boundary(*at));
    format!("{}…", &text[..end.unwrap_or(0)])
}

/// A value on a line for eyes: quoted where it could be taken for more than one.
fn word(value: &str) -> String {
    let is_quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
    match value.contains([' ', '=', '"']) && !is_quoted || value.is_empty() {
        true => format!("\"{}\"", printable(value).replace('"', "\\\"")),
        false => printable(value),
    }
}

/// A string of JSON in which what is treacherous on a screen is escaped as well.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let mut written = String::with_capacity(quoted.len());
    for character in quoted.chars() {
        match is_treacherous(character) {
            true => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    let _ = write!(written, "\\u{unit:04x}");
                }
            }
            false => written.push(character),
        }
    }
    written
}

/// The text with every treacherous character escaped.
fn printable(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for character in text.chars() {
        match is_treacherous(character) {
            true => written.extend(character.escape_default()),
            false => written.push(character),
        }
    }
    written
}

/// Control characters, and those that break lines, hide, or turn the direction of the text.
fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    /// What is written while `log` runs.
    fn logged(form: Form, log: impl FnOnce()) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Sink(Arc::clone(&written));
        let subscriber = tracing_subscriber::fmt()
            .event_format(form)
            .with_writer(move || sink.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = written.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[derive(Clone)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const TEXT: Form = Form::Text { color: false };

    #[test]
    fn a_line_of_text_has_time_level_place_message_and_fields() {
        let line = logged(TEXT, || {
            tracing::warn!(target: "sightline::engine", core = 1, user = "a b", ok = true, "closed");
        });
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(
            time.parse::<Timestamp>().is_ok() && time.len() == 24,
            "{time}"
        );
        assert_eq!(rest, " WARN engine: closed core=1 user=\"a b\" ok=true\n");
    }

    #[test]
    fn a_line_of_json_keeps_the_types() {
        let line = logged(Form::Json, || {
            tracing::info!(target: "t", bytes = 5_u64, below = -1, user = "ü\"\n", on = false, "go");
        });
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["level"], "info");
        assert_eq!(object["message"], "go");
        assert_eq!(object["bytes"], 5);
        assert_eq!(object["below"], -1);
        assert_eq!(object["user"], "ü\"\n");
        assert_eq!(object["on"], false);
        assert!(
            object["time"]
                .as_str()
                .unwrap()
                .parse::<Timestamp>()
                .is_ok()
        );
    }

    #[test]
    fn what_a_peer_wrote_cannot_leave_its_field() {
        let check = |value: &str, expected: &str| {
            let line = logged(TEXT, || tracing::info!(target: "t", peer = value, ""));
            assert_eq!(line.split_once("peer=").unwrap().1, format!("{expected}\n"));
        };
        check("plain", "plain");
        check("", "\"\"");
        check("x\nERROR all is lost", "\"x\\nERROR all is lost\"");
        check("a\" b=\"c", "\"a\\\" b=\\\"c\"");
        check("\x1b[2J", "\\u{1b}[2J");
        check("\u{202e}abc\u{2028}", "\\u{202e}abc\\u{2028}");
        check(&"x".repeat(300), &format!("{}…", "x".repeat(253)));
    }

    #[test]
    fn colour_is_only_where_it_is_asked_for() {
        let colored = logged(Form::Text { color: true }, || tracing::error!("x"));
        assert!(colored.contains("\x1b[31mERROR\x1b[0m"));
        assert!(!logged(TEXT, || tracing::error!("x")).contains('\x1b'));
    }

    #[test]
    fn a_level_that_is_none_is_a_mistake_in_usage() {
        for level in [
            "",
            "off",
            "DEBUG",
            "info,sightline::engine=trace",
            "sightline=warn",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["loud", "sightline=loud", "info,loud", "a\nb"] {
            let error = filter(level).unwrap_err();
            assert_eq!(error.exit_code, CliError::USAGE);
            assert!(!error.message.contains('\n'));
        }
    }

    proptest! {
        #[test]
        fn a_line_stays_one_line_and_json_stays_json(value in any::<String>()) {
            for form in [Form::Json, TEXT] {
                let line = logged(form, || {
                    tracing::info!(target: "t", shown = %value, debugged = ?value, "said {value}");
                });
                let line = line.strip_suffix('\n').unwrap();
                prop_assert!(!line.chars().any(is_treacherous), "{line:?}");
                if form == Form::Json {
                    let object: serde_json::Value = serde_json::from_str(line).unwrap();
                    prop_assert_eq!(object["shown"].as_str().unwrap(), cut(&value, FIELD_BYTES_MAX));
                }
            }
        }
    }
}
