//! Trees as lines: a heading with what all agents of a tree come to, then a line an agent. Pure.
//!
//! What does not fit is left out in this order: agents that are done with all below them, then
//! the lines at the end; of a line always its end. Text of producers is made printable.

use serde_json::Value;

use super::super::super::screen::Size;
use super::cells::{cells, counted, scaled};
use super::line::{Line, Style, Tone, painted};
use super::trees::{Stats, Tree, Trees};

/// The lines of a drawing of at most this size; at least one.
pub(super) fn lines(trees: &Trees, size: Size, style: Style) -> Vec<String> {
    let mut lines = all_lines(trees, Detail::All);
    if lines.len() > size.rows {
        lines = all_lines(trees, Detail::AtWork);
    }
    if lines.len() > size.rows {
        let shown = size.rows.saturating_sub(1);
        let more = lines.len() - shown;
        lines.truncate(shown);
        lines.push(Line::Text(format!("… {more} more lines"), Tone::Faint));
    }
    painted(&lines, size.columns, style)
}

/// Which agents have a line.
#[derive(Clone, Copy, PartialEq)]
enum Detail {
    All,
    /// Those that are not done, and all above them.
    AtWork,
}

fn all_lines(trees: &Trees, detail: Detail) -> Vec<Line> {
    let mut lines = Vec::new();
    for tree in trees.iter() {
        if !lines.is_empty() {
            lines.push(Line::Text(String::new(), Tone::Plain));
        }
        add_tree(&mut lines, tree, detail);
    }
    if lines.is_empty() {
        lines.push(Line::Text("no agents yet".to_owned(), Tone::Faint));
    }
    lines
}

fn add_tree(lines: &mut Vec<Line>, tree: &Tree, detail: Detail) {
    lines.push(Line::Text(heading(&tree.stats), Tone::Strong));
    let agents = agents(&tree.root);
    let mut left = vec![Place::root()];
    while let Some(place) = left.pop() {
        let lead = &place.lead;
        match &place.what {
            What::Note(note) => lines.push(Line::Text(format!("{lead}{note}"), Tone::Faint)),
            What::Agent(at) => {
                lines.push(Line::Agent(Box::new(cells(lead, agents[*at].node))));
                left.extend(below(&agents, *at, detail, &place.below).into_iter().rev());
            }
        }
    }
}

/// A line to come, and the guides that lead to it.
struct Place {
    what: What,
    /// What stands before it.
    lead: String,
    /// What stands before all below it.
    below: String,
}

enum What {
    Agent(usize),
    Note(String),
}

impl Place {
    fn root() -> Self {
        Self {
            what: What::Agent(0),
            lead: String::new(),
            below: String::new(),
        }
    }
}

/// An agent of a tree in which parents come before their children.
struct Agent<'t> {
    node: &'t Value,
    children: Vec<usize>,
    /// Whether it, or one below it, is not done.
    is_at_work: bool,
}

impl<'t> Agent<'t> {
    fn new(node: &'t Value) -> Self {
        let is_at_work = matches!(node["status"].as_str(), Some("running" | "spawning"));
        Self {
            node,
            children: Vec::new(),
            is_at_work,
        }
    }
}

fn agents(root: &Value) -> Vec<Agent<'_>> {
    let mut agents = vec![Agent::new(root)];
    let mut at = 0;
    while at < agents.len() {
        for child in agents[at].node["children"].as_array().into_iter().flatten() {
            let index = agents.len();
            agents[at].children.push(index);
            agents.push(Agent::new(child));
        }
        at += 1;
    }
    for at in (0..agents.len()).rev() {
        let is_above_work = agents[at]
            .children
            .iter()
            .any(|child| agents[*child].is_at_work);
        agents[at].is_at_work |= is_above_work;
    }
    agents
}

/// What stands directly below an agent, in order; `guides` lead there.
fn below(agents: &[Agent<'_>], at: usize, detail: Detail, guides: &str) -> Vec<Place> {
    let agent = &agents[at];
    let has_line = |child: &&usize| detail == Detail::All || agents[**child].is_at_work;
    let mut all: Vec<What> = agent
        .children
        .iter()
        .filter(has_line)
        .map(|child| What::Agent(*child))
        .collect();
    let done = agent.children.len() - all.len();
    if done > 0 {
        all.push(What::Note(format!("… {done} done")));
    }
    if let Some(more) = agent.node["children_omitted"].as_u64() {
        all.push(What::Note(format!("… {more} more")));
    }
    let last = all.len().saturating_sub(1);
    let place = |(at, what)| {
        let (lead, below) = if at == last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        let (lead, below) = (format!("{guides}{lead}"), format!("{guides}{below}"));
        Place { what, lead, below }
    };
    all.into_iter().enumerate().map(place).collect()
}

fn heading(stats: &Stats) -> String {
    let count = |status: &str| stats.by_status.get(status).copied().unwrap_or(0);
    let mut parts = vec![
        counted(stats.total, "agent"),
        format!("{} active", stats.active),
    ];
    let failed = count("failed");
    if failed > 0 {
        parts.push(format!("{failed} failed"));
    }
    parts.push(format!("depth {}", stats.max_depth));
    parts.push(counted(stats.git_commits, "commit"));
    parts.push(format!("{} tokens", scaled(stats.tokens_used)));
    parts.push(format!("${:.2}", stats.cost_so_far));
    parts.join(" · ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use unicode_width::UnicodeWidthStr;

    fn agent(name: &str, status: &str, children: &[Value]) -> Value {
        json!({
            "session_id": name, "parent_session": null, "git_branch": "main", "status": status,
            "current_phase": "PLAN", "purpose": "to see", "progress": 0.25,
            "metrics": {"start_time": 0, "tokens_used": 12_345, "cost_so_far": 0.5,
                "files_created": 0, "files_modified": 0, "git_commits": 2},
            "git_info": {"branch": "main", "latest_commit": "0a1b2c3d4e", "commits_count": 2,
                "files_changed": []},
            "children": children,
        })
    }

    fn trees(roots: &[Value]) -> Trees {
        let mut trees = Trees::default();
        for root in roots {
            let update = json!({"tree_root": root["session_id"], "at_seq": 1, "full_tree": root,
                "tree_stats": {"total": 3, "active": 1, "by_status": {"failed": 1, "running": 1},
                    "max_depth": 1, "tokens_used": 1_234_567, "cost_so_far": 1.5, "git_commits": 1}});
            trees
                .apply(serde_json::from_value(update).unwrap())
                .unwrap();
        }
        trees
    }

    fn check(roots: &[Value], size: Size, expected: &[&str]) {
        assert_eq!(lines(&trees(roots), size, Style::Plain), expected);
    }

    fn family() -> Value {
        let below = [agent("bb", "completed", &[])];
        let mut cut = agent("c", "failed", &[]);
        cut.as_object_mut().unwrap().remove("children");
        cut["children_omitted"] = 7.into();
        agent(
            "root",
            "running",
            &[
                agent("a", "completed", &below),
                cut,
                agent("d", "spawning", &[]),
            ],
        )
    }

    const HEADING: &str =
        "3 agents · 1 active · 1 failed · depth 1 · 1 commit · 1.2M tokens · $1.50";

    #[test]
    fn draws_a_line_an_agent_with_guides() {
        let rest = "PLAN  25%  main  2 commits 0a1b2c3d  12.3k tok  $0.50  to see";
        let line = |name: &str, status: &str| format!("{name:<8}  {status:<9}  {rest}");
        let expected = [
            HEADING.to_owned(),
            line("root", "running"),
            line("├─ a", "completed"),
            line("│  └─ bb", "completed"),
            line("├─ c", "failed"),
            "│  └─ … 7 more".to_owned(),
            line("└─ d", "spawning"),
        ];
        let drawn = lines(&trees(&[family()]), Size::UNBOUNDED, Style::Plain);
        assert_eq!(drawn, expected);
    }

    #[test]
    fn no_tree_and_several() {
        check(&[], Size::UNBOUNDED, &["no agents yet"]);
        let bare = |name: &str| json!({"session_id": name});
        check(
            &[bare("b"), bare("a")],
            Size::UNBOUNDED,
            &[HEADING, "a", "", HEADING, "b"],
        );
    }

    #[test]
    fn what_is_done_goes_first_where_there_is_no_room() {
        let size = |rows| Size { columns: 10, rows };
        check(
            &[family()],
            size(6),
            &["3 agents …", "root  run…", "├─ d  spa…", "└─ … 2 do…"],
        );
        check(&[family()], size(2), &["3 agents …", "… 3 more …"]);
    }

    #[test]
    fn marks_what_goes_well_and_what_does_not() {
        let drawn = lines(&trees(&[family()]), Size::UNBOUNDED, Style::Color).join("\n");
        for marked in [
            "\x1b[32mrunning\x1b[0m",
            "\x1b[31mfailed\x1b[0m",
            "\x1b[1m3 agents",
        ] {
            assert!(drawn.contains(marked), "{drawn:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal_or_moves_its_cursor(
            name in ".{0,40}", purpose in any::<String>(), columns in 1..200_usize, rows in 1..9_usize,
        ) {
            let mut root = family();
            root["session_id"] = name.into();
            root["purpose"] = purpose.into();
            let drawn = lines(&trees(&[root]), Size { columns, rows }, Style::Plain);
            prop_assert!(drawn.len() <= rows);
            for line in drawn {
                prop_assert!(line.width() <= columns, "{line:?}");
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
