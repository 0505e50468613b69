//! A mixture of events as agents publish them: which types, how often, how large.
//!
//! Types and fields are those of the two documents that the contract names; shares follow the story
//! that `tests/fleet` tells (each phase a few tools, a report on progress, now and then a commit),
//! with a conversation beside it; sizes are those of its events and, for what tools and people say,
//! of a screen of text. Which row an event is depends on its marker alone.

use crate::dice::{Dice, GOLDEN};
use crate::payload::Marker;

/// One kind of event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The name on the wire.
    pub(crate) event_type: &'static str,
    /// How many of a thousand events are of it.
    share: usize,
    /// What its `data` holds beside marker and filling: JSON members with a comma behind each.
    pub(crate) fields: &'static str,
    /// Bytes of the filling, at least and less than.
    pad_bytes: (usize, usize),
}

/// The row of the event with `marker`, and the bytes of its filling.
pub(crate) fn row_of(marker: &Marker) -> (&'static Row, usize) {
    let mut dice = dice_of(marker);
    let mut at = dice.below(1000);
    let row = ROWS.iter().find(|row| {
        let is_it = at < row.share;
        at = at.saturating_sub(row.share);
        is_it
    });
    let row = row.unwrap_or(&ROWS[0]);
    let (least, beyond) = row.pad_bytes;
    (row, least + dice.below(beyond - least))
}

/// Which of a user's agents the event with `marker` is of; below [`AGENTS`].
pub(crate) fn agent_of(marker: &Marker) -> u32 {
    marker.n % AGENTS
}

/// Agents of each user, below one that speaks for none of them.
pub(crate) const AGENTS: u32 = 8;

fn dice_of(marker: &Marker) -> Dice {
    let seed = u64::from(marker.user) << 32 ^ u64::from(marker.n);
    Dice::new(seed.wrapping_mul(GOLDEN) ^ u64::from(marker.run))
}

const ROWS: [Row; 8] = [
    Row {
        event_type: "tool_execution",
        share: 430,
        fields: r#""tool_name":"Bash","execution_time_ms":120,"success":true,"parameters_summary":{"command":"cargo test","files":2},"result_summary":"ok","files_affected":["src/new.rs","tests/new.rs"],"#,
        pad_bytes: (100, 2400),
    },
    Row {
        event_type: "progress_update",
        share: 240,
        fields: r#""phase":"EXECUTE","phase_progress":37.5,"overall_progress":50.125,"current_action":"edits src/part_0.rs","tokens_used":48210,"cost_so_far":1.171875,"active_agents":3,"performance_metrics":{"avg_response_time":820,"error_rate":0.015625,"throughput":12},"#,
        pad_bytes: (0, 60),
    },
    Row {
        event_type: "message_added",
        share: 120,
        fields: r#""conversationId":"c-17","message":{"id":"m-4","type":"assistant","content":[{"type":"text","text":"The tests pass now."}]},"isLatest":true,"#,
        pad_bytes: (200, 8000),
    },
    Row {
        event_type: "phase_transition",
        share: 90,
        fields: r#""from_phase":"PLAN","to_phase":"EXECUTE","summary":"PLAN is done","confidence":0.5,"key_findings":["one module","two tests"],"next_actions":["write it"],"#,
        pad_bytes: (0, 300),
    },
    Row {
        event_type: "git_operation",
        share: 70,
        fields: r#""operation_type":"commit","branch":"agent/area-1/task-2","commit_hash":"00c0ffee00c0ffee","commit_message":"part: work on task-2\n\nAs the task says.","files_changed":["src/part_0.rs","src/part_1.rs"],"lines_added":20,"lines_deleted":2,"merge_conflicts":false,"success":true,"duration_ms":35,"#,
        pad_bytes: (0, 200),
    },
    Row {
        event_type: "agent_spawned",
        share: 20,
        fields: r#""git_branch":"agent/area-1","purpose":"work on area-1","sub_vision":"work on area-1, and nothing else","estimated_duration":60000,"resource_limits":{"tokens":50000},"agent_depth":1,"spawn_reason":"the work falls apart well","#,
        pad_bytes: (0, 200),
    },
    Row {
        event_type: "completion",
        share: 20,
        fields: r#""success":true,"#,
        pad_bytes: (0, 200),
    },
    Row {
        event_type: "error",
        share: 10,
        fields: r#""code":"TIMEOUT","message":"the tool took too long","#,
        pad_bytes: (0, 600),
    },
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn marker(n: u32) -> Marker {
        Marker {
            run: 1,
            user: 2,
            n,
            intended_ns: 0,
            slip_ns: 0,
        }
    }

    #[test]
    fn shares_make_up_the_whole_and_are_kept() {
        assert_eq!(ROWS.iter().map(|row| row.share).sum::<usize>(), 1000);
        let mut counts = [0_usize; ROWS.len()];
        for n in 0..100_000 {
            let (row, pad) = row_of(&marker(n));
            assert!((row.pad_bytes.0..row.pad_bytes.1).contains(&pad));
            let at = ROWS.iter().position(|other| other == row).unwrap();
            counts[at] += 1;
        }
        for (row, count) in ROWS.iter().zip(counts) {
            let expected = row.share * 100;
            let off = count.abs_diff(expected);
            assert!(off < 100 + expected / 20, "{}: {count}", row.event_type);
        }
    }

    #[test]
    fn event_is_the_same_at_each_look() {
        assert_eq!(row_of(&marker(5)), row_of(&marker(5)));
    }

    #[test]
    fn fields_are_json() {
        for row in &ROWS {
            let text = format!("{{{}\"end\":0}}", row.fields);
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
}
