//! `sightline stats`: what a running gateway is doing, from its page `/v1/stats` (contract,
//! section 9), once or again and again.

pub(super) mod reading;
pub(super) mod table;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;

use super::client::{ClientError, ConnectArgs, PageError, Pages, Stop, say};
use super::screen::{Screen, Size};
use reading::Reading;

/// Print what a running gateway is doing
///
/// Connections, events, deliveries, and how long events took from stage to stage since the start;
/// with --watch also what came each second, drawn in place on a terminal. An address that only its
/// own machine reaches, and that of ops.listen, need no token; any other takes one with permission
/// admin.
#[derive(Args, Clone, Debug)]
pub struct StatsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Again and again, every so many seconds (1 if none are given), until a signal
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = interval
    )]
    watch: Option<Duration>,
    /// The page as it is, one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Prints once, or until a signal or until the reader of standard output is gone. Errors: `Output`,
/// and those of `Pages`; of a gateway that was there once, only those that stay.
pub fn run(args: &StatsArgs) -> Result<(), ClientError> {
    let stop = Stop::on_signals().map_err(ClientError::System)?;
    let mut pages = Pages::new(&args.connect)?;
    let stdout = io::stdout();
    let is_drawing = stdout.is_terminal() && args.watch.is_some() && !args.json;
    let out = BufWriter::new(stdout.lock());
    let screen = if is_drawing {
        Screen::terminal(out)
    } else {
        Screen::page(out)
    };
    let mut watching = Watching {
        screen,
        is_raw: args.json,
        url: pages.url(),
        before: None,
    };
    let shown = watch(args.watch, &stop, &mut pages, &mut watching);
    match shown {
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        shown => shown,
    }
}

fn watch(
    interval: Option<Duration>,
    stop: &Stop,
    pages: &mut Pages,
    watching: &mut Watching<impl Write>,
) -> Result<(), ClientError> {
    watching.show(&pages.read(PATH)?)?;
    let Some(interval) = interval else {
        return Ok(());
    };
    loop {
        let due = Instant::now() + interval;
        while Instant::now() < due {
            if stop.is_asked() {
                return Ok(());
            }
            let left = due.saturating_duration_since(Instant::now());
            pages.wait(left.min(TICK))?;
        }
        match pages.read(PATH) {
            Ok(page) => watching.show(&page)?,
            Err(PageError::Lost(what)) => watching.handle_lost(&what),
            Err(PageError::Refused(error)) => return Err(error),
        }
    }
}

/// One reading after another.
struct Watching<W> {
    screen: Screen<W>,
    /// The page is printed as it came.
    is_raw: bool,
    url: String,
    before: Option<Reading>,
}

impl<W: Write> Watching<W> {
    fn show(&mut self, page: &str) -> Result<(), ClientError> {
        if self.is_raw {
            let line = [page.to_owned()];
            return self.screen.print(&line).map_err(ClientError::Output);
        }
        let reading = Reading::parse(page)?;
        let size = Size::of_stdout();
        let mut lines = table::lines(&self.url, &reading, self.before.as_ref());
        cut(&mut lines, self.screen.room(size));
        self.before = Some(reading);
        self.screen.draw(&lines, size).map_err(ClientError::Output)
    }

    fn handle_lost(&mut self, what: &str) {
        self.screen.leave();
        self.before = None;
        say(what);
    }
}

fn cut(lines: &mut Vec<String>, room: Size) {
    lines.truncate(room.rows);
    for line in lines {
        if let Some((end, _)) = line.char_indices().nth(room.columns) {
            line.truncate(end);
        }
    }
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    let seconds: Option<f64> = text.parse().ok();
    let seconds = seconds.filter(|seconds| (0.1..=3_600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or("a number of seconds from 0.1 to 3600")
}

const PATH: &str = "/v1/stats";
/// The longest wait in which a signal may go unseen.
const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_neither_nothing_nor_for_ever() {
        let check = |text: &str, expected_ms: Option<u128>| {
            let read = interval(text).ok().map(|interval| interval.as_millis());
            assert_eq!(read, expected_ms, "{text}");
        };
        check("1", Some(1_000));
        check("0.5", Some(500));
        check("3600", Some(3_600_000));
        for text in ["0", "0.01", "-1", "1e9", "NaN", "inf", "", "1s"] {
            check(text, None);
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_between_characters() {
        let mut lines = ["→→→", "ab", "c"].map(String::from).to_vec();
        let room = Size {
            columns: 2,
            rows: 2,
        };
        cut(&mut lines, room);
        assert_eq!(lines, ["→→", "ab"]);
    }
}
