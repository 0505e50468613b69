//! A line of a drawing: cells below those of the lines around it, cut where the terminal ends.

use unicode_width::UnicodeWidthStr;

/// How lines are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// By ANSI's colours.
    Color,
    /// Not at all.
    Plain,
}

/// What one line says.
pub(super) enum Line {
    /// What is known of an agent, a cell a column.
    Agent(Box<[Cell; COLUMNS]>),
    /// Words that keep to no column.
    Text(String, Tone),
}

/// What stands in one column, printable.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// What a text is to the eye.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Bad,
    Busy,
    Faint,
    Good,
    Plain,
    Strong,
}

/// The lines as text, at most so many columns wide.
pub(super) fn painted(lines: &[Line], columns: usize, style: Style) -> Vec<String> {
    let widths = widths(lines);
    let painted = lines.iter().map(|line| match line {
        Line::Agent(cells) => painted_cells(&cells[..], &widths, columns, style),
        Line::Text(text, tone) => marked(&fitted(text, columns), *tone, style),
    });
    painted.collect()
}

/// Of each column, so that cells stand below each other.
fn widths(lines: &[Line]) -> [usize; COLUMNS] {
    let mut widths = [0; COLUMNS];
    for line in lines {
        let Line::Agent(cells) = line else {
            continue;
        };
        for ((width, cell), most) in widths.iter_mut().zip(cells.iter()).zip(WIDTHS_MAX) {
            *width = cell.text.width().min(most).max(*width);
        }
    }
    widths
}

/// A column in which nothing stands on any line takes no room.
fn painted_cells(cells: &[Cell], widths: &[usize], columns: usize, style: Style) -> String {
    let (mut painted, mut used) = (String::new(), 0);
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let gap = if used == 0 { 0 } else { GAP };
        if *width == 0 || used + gap >= columns {
            continue;
        }
        let width = *width.min(&(columns - used - gap));
        let shown = fitted(&cell.text, width);
        let padding = width - shown.width();
        let (before, after) = if ENDS_ALIGNED[at] {
            (gap + padding, 0)
        } else {
            (gap, padding)
        };
        let shown = marked(&shown, cell.tone, style);
        painted.extend([" ".repeat(before), shown, " ".repeat(after)]);
        used += gap + width;
    }
    painted.truncate(painted.trim_end().len());
    painted
}

/// As much of the beginning as these columns hold.
fn fitted(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    // Some characters have no column of their own; where they are many, less is shown than could be.
    let mut shown: String = text.chars().take(columns).collect();
    while shown.width() >= columns && shown.pop().is_some() {}
    shown.push('…');
    shown
}

fn marked(text: &str, tone: Tone, style: Style) -> String {
    let begin = match tone {
        Tone::Bad => "\x1b[31m",
        Tone::Busy => "\x1b[33m",
        Tone::Faint => "\x1b[2m",
        Tone::Good => "\x1b[32m",
        Tone::Plain => return text.to_owned(),
        Tone::Strong => "\x1b[1m",
    };
    match style {
        Style::Color if !text.is_empty() => format!("{begin}{text}\x1b[0m"),
        _ => text.to_owned(),
    }
}

/// Name, status, phase, progress, branch, commits, tokens, cost, purpose.
pub(super) const COLUMNS: usize = 9;
/// What a column takes at most; the last one, what is left.
const WIDTHS_MAX: [usize; COLUMNS] = [48, 10, 12, 5, 28, 22, 12, 9, usize::MAX];
/// Whether a column's cells end below each other.
const ENDS_ALIGNED: [bool; COLUMNS] = [false, false, false, true, false, false, true, true, false];
/// Spaces between two columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_its_columns_end() {
        let cases = [
            ("agents", 6, "agents"),
            ("agents", 5, "agen…"),
            ("漢字漢字", 5, "漢字…"),
            ("漢字漢字", 4, "漢…"),
            ("e\u{301}tude", 3, "e\u{301}t…"),
            ("☺\u{fe0f}☺\u{fe0f}", 3, "☺\u{fe0f}…"),
            ("ab", 1, "…"),
        ];
        for (text, columns, expected) in cases {
            assert_eq!(fitted(text, columns), expected, "{text:?} in {columns}");
            assert!(fitted(text, columns).width() <= columns);
        }
    }
}
