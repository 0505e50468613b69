//! What is known of an agent, a cell a column, and numbers as people read them.

use serde_json::Value;

use super::super::super::client::printable;
use super::super::feed::text;
use super::line::{COLUMNS, Cell, Tone};

/// Of the agent that `node` tells of; `lead` stands before its name.
pub(super) fn cells(lead: &str, node: &Value) -> [Cell; COLUMNS] {
    let (metrics, git) = (&node["metrics"], &node["git_info"]);
    let status = text(node, "status");
    let tone = tone(&status);
    let cell = |text: String, tone| Cell {
        text: printable(&text).into_owned(),
        tone,
    };
    let above_zero = |field: &str| metrics[field].as_f64().filter(|value| *value > 0.0);
    let tokens = above_zero("tokens_used").map(|tokens| format!("{} tok", scaled(tokens)));
    let cost = above_zero("cost_so_far").map(|cost| format!("${cost:.2}"));
    [
        cell(format!("{lead}{}", text(node, "session_id")), Tone::Plain),
        cell(status, tone),
        cell(text(node, "current_phase"), Tone::Plain),
        cell(percentage(&node["progress"]), Tone::Plain),
        cell(text(git, "branch"), Tone::Faint),
        cell(commits(git), Tone::Plain),
        cell(tokens.unwrap_or_default(), Tone::Plain),
        cell(cost.unwrap_or_default(), Tone::Plain),
        cell(text(node, "purpose"), Tone::Faint),
    ]
}

fn tone(status: &str) -> Tone {
    match status {
        "completed" => Tone::Faint,
        "failed" => Tone::Bad,
        "running" => Tone::Good,
        "spawning" => Tone::Busy,
        _ => Tone::Plain,
    }
}

/// Producers tell it as a share or in percent: up to 1 it is a share.
fn percentage(progress: &Value) -> String {
    match progress.as_f64() {
        Some(share) if share <= 1.0 => format!("{:.0}%", 100.0 * share),
        Some(percent) => format!("{percent:.0}%"),
        None => String::new(),
    }
}

fn commits(git: &Value) -> String {
    let latest: String = text(git, "latest_commit").chars().take(8).collect();
    match git["commits_count"].as_u64() {
        Some(count) if count > 0 => format!("{} {latest}", counted(count, "commit")),
        _ => latest,
    }
}

/// A count with its noun.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A number, in thousands or millions, where it is as many.
pub(super) fn scaled(value: f64) -> String {
    match value {
        1e6.. => format!("{:.1}M", value / 1e6),
        1e3.. => format!("{:.1}k", value / 1e3),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn progress_is_a_share_or_percent() {
        for (progress, expected) in [
            (json!(0), "0%"),
            (json!(0.355), "36%"),
            (json!(1), "100%"),
            (json!(62.4), "62%"),
            (json!("x"), ""),
        ] {
            assert_eq!(percentage(&progress), expected);
        }
    }
}
