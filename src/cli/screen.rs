//! Where something is shown that changes: in place on a terminal, one drawing below the other
//! elsewhere. What others print (standard error, above all) stays where it is: `leave` is called
//! before it.

use std::io::{self, Write};

use rustix::termios::tcgetwinsize;

/// Characters that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Size {
    /// Of what is not cut.
    pub(super) const UNBOUNDED: Self = Self {
        columns: usize::MAX,
        rows: usize::MAX,
    };

    /// Of the terminal that standard output is, as it is now.
    pub(super) fn of_stdout() -> Self {
        let (columns, rows) = match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
            _ => (80, 24),
        };
        Self {
            columns: columns.into(),
            rows: rows.into(),
        }
    }
}

/// The output.
pub(super) struct Screen<W> {
    out: W,
    kind: Kind,
}

enum Kind {
    Page,
    Terminal {
        /// The drawing above the cursor, if it is the last thing there: its lines, and the size
        /// that it was made for.
        drawn: Option<(usize, Size)>,
    },
}

impl<W: Write> Screen<W> {
    /// A file or a pipe.
    pub(super) fn page(out: W) -> Self {
        let kind = Kind::Page;
        Self { out, kind }
    }

    /// A terminal.
    pub(super) fn terminal(out: W) -> Self {
        let kind = Kind::Terminal { drawn: None };
        Self { out, kind }
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.kind, Kind::Terminal { .. })
    }

    /// What a drawing may take of this size.
    pub(super) fn room(&self, size: Size) -> Size {
        match self.kind {
            Kind::Page => Size::UNBOUNDED,
            Kind::Terminal { .. } => inner(size),
        }
    }

    /// Draws lines that keep to `room(size)`; on a terminal of this size, over those drawn before.
    pub(super) fn draw(&mut self, lines: &[String], size: Size) -> io::Result<()> {
        match &mut self.kind {
            Kind::Page => write_page(&mut self.out, lines)?,
            Kind::Terminal { drawn } => {
                write_over(&mut self.out, lines, *drawn, size)?;
                *drawn = Some((lines.len(), size));
            }
        }
        self.out.flush()
    }

    /// Writes lines below one another, whatever the output is.
    pub(super) fn print(&mut self, lines: &[String]) -> io::Result<()> {
        for line in lines {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }

    /// What was drawn stays; the next drawing begins below whatever is said now.
    pub(super) fn leave(&mut self) {
        if let Kind::Terminal { drawn } = &mut self.kind {
            *drawn = None;
        }
    }
}

fn write_page(out: &mut impl Write, lines: &[String]) -> io::Result<()> {
    for line in lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out)
}

/// From the first line of the old drawing on. What a change of size made of that is anybody's
/// guess, so everything is cleared then.
fn write_over(
    out: &mut impl Write,
    lines: &[String],
    drawn: Option<(usize, Size)>,
    size: Size,
) -> io::Result<()> {
    match drawn {
        Some((_, old)) if old != size => out.write_all(CLEAR)?,
        Some((count, _)) if count > 0 => write!(out, "\r\x1b[{count}A")?,
        _ => out.write_all(b"\r")?,
    }
    for line in lines {
        write!(out, "{line}{CLEAR_LINE_REST}\r\n")?;
    }
    out.write_all(CLEAR_REST)
}

/// The last row is the cursor's; in the last column some terminals clear what was written there.
fn inner(size: Size) -> Size {
    Size {
        columns: size.columns.saturating_sub(1).max(1),
        rows: size.rows.saturating_sub(1).max(1),
    }
}

const CLEAR: &[u8] = b"\x1b[2J\x1b[H";
const CLEAR_LINE_REST: &str = "\x1b[K";
const CLEAR_REST: &[u8] = b"\x1b[J";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::num::NonZeroU16;

    use super::*;

    const SMALL: Size = Size {
        columns: 40,
        rows: 6,
    };

    fn lines(count: usize) -> Vec<String> {
        (0..count)
            .map(|at| format!("line {at} of {count}"))
            .collect()
    }

    /// What a terminal of this size shows after these bytes, without empty lines at its end.
    fn shown(bytes: &[u8], size: Size) -> Vec<String> {
        let count = |count: usize| NonZeroU16::new(count as u16).unwrap();
        let mut terminal = vt100::Parser::new(count(size.rows), count(size.columns), 0);
        terminal.process(bytes);
        let shown = terminal.screen().contents();
        shown
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn a_drawing_takes_the_place_of_the_one_before() {
        let mut screen = Screen::terminal(Vec::new());
        for count in [1, 4, 2] {
            screen.draw(&lines(count), SMALL).unwrap();
        }
        assert_eq!(shown(&screen.out, SMALL), lines(2));
    }

    #[test]
    fn what_is_said_in_between_stays() {
        let mut screen = Screen::terminal(Vec::new());
        screen.draw(&lines(1), SMALL).unwrap();
        screen.leave();
        screen.out.extend_from_slice(b"sightline: connected\r\n");
        screen.draw(&lines(1), SMALL).unwrap();
        let said = vec!["sightline: connected".to_owned()];
        assert_eq!(
            shown(&screen.out, SMALL),
            [lines(1), said, lines(1)].concat()
        );
    }

    #[test]
    fn a_change_of_size_draws_all_anew() {
        let mut screen = Screen::terminal(Vec::new());
        screen.draw(&lines(3), SMALL).unwrap();
        let other = Size {
            columns: 20,
            rows: 4,
        };
        assert_eq!(screen.room(other).columns, 19);
        screen.draw(&lines(2), other).unwrap();
        assert_eq!(shown(&screen.out, other), lines(2));
    }

    #[test]
    fn elsewhere_nothing_is_cut_or_drawn_over() {
        let mut screen = Screen::page(Vec::new());
        for count in [2, 1] {
            screen.draw(&lines(count), SMALL).unwrap();
        }
        assert_eq!(screen.room(SMALL), Size::UNBOUNDED);
        let expected = "line 0 of 2\nline 1 of 2\n\nline 0 of 1\n\n";
        assert_eq!(String::from_utf8(screen.out).unwrap(), expected);
    }
}
