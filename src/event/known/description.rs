//! The shapes of the known types a second time: as a table, and judged over serde_json's values, so
//! that it shares nothing with the declarations but the documents.
//!
//! Stands apart from the tests because the fuzz target of events takes it in as well.

use serde_json::Value;

/// One line per type: its fields, nested ones by their path. `!`: it must be there.
const TYPES: &[(&str, &[&str])] = &[
    (
        "agent_spawned",
        &[
            "child_session! text",
            "parent_session text",
            "git_branch text",
            "purpose text",
            "sub_vision text",
            "estimated_duration number",
            "resource_limits object",
            "agent_depth count",
            "spawn_reason text",
            "agent_tree_path texts",
            "estimated_completion text",
            "resource_allocation object",
        ],
    ),
    (
        "phase_transition",
        &[
            "to_phase! text",
            "from_phase text",
            "summary text",
            "confidence number",
            "key_findings texts",
            "next_actions texts",
            "estimated_time_remaining number",
            "progress_percentage number",
        ],
    ),
    (
        "git_operation",
        &[
            "operation_type! text",
            "branch text",
            "commit_hash text",
            "commit_message text",
            "files_changed texts",
            "lines_added count",
            "lines_deleted count",
            "merge_conflicts flag",
            "success flag",
            "duration_ms number",
            "branch_hierarchy texts",
            "commit_summary text",
            "file_change_stats object",
            "file_change_stats.files count",
            "file_change_stats.added count",
            "file_change_stats.deleted count",
        ],
    ),
    (
        "tool_execution",
        &[
            "tool_name! text",
            "execution_time_ms number",
            "success flag",
            "parameters_summary any",
            "result_summary any",
            "files_affected texts",
            "error_message text",
        ],
    ),
    (
        "progress_update",
        &[
            "phase text",
            "phase_progress number",
            "overall_progress number",
            "current_action text",
            "tokens_used count",
            "cost_so_far number",
            "active_agents count",
            "recent_activities list",
            "performance_metrics object",
            "performance_metrics.avg_response_time number",
            "performance_metrics.error_rate number",
            "performance_metrics.throughput number",
        ],
    ),
    ("error", &["code text", "message text", "details any"]),
    ("completion", &["success flag"]),
    (
        "conversation_started",
        &[
            "conversationId! text",
            "sessionId text",
            "projectId id",
            "projectName text",
            "startTime number",
        ],
    ),
    (
        "conversation_ended",
        &[
            "conversationId! text",
            "duration number",
            "messageCount count",
            "toolUsageCount count",
            "endTime number",
        ],
    ),
    (
        "message_added",
        &[
            "conversationId! text",
            "message! object",
            "message.id id",
            "message.type text",
            "message.content any",
            "projectInfo object",
            "projectInfo.id id",
            "projectInfo.name text",
            "isLatest flag",
        ],
    ),
    (
        "project_discovered",
        &[
            "project! object",
            "project.id id",
            "project.name text",
            "conversationCount count",
            "lastActivity number",
        ],
    ),
    (
        "project_updated",
        &["projectId id", "changes object", "newActivity flag"],
    ),
    (
        "analytics_update",
        &["metrics! object", "projectId id", "period text"],
    ),
];

/// One field of a type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// From `data`, `message.id` for example.
    pub path: &'static str,
    pub is_required: bool,
    /// What its value must be.
    pub kind: &'static str,
}

impl Field {
    fn read(line: &'static str) -> Self {
        let (name, kind) = line.split_once(' ').expect("a name and a kind");
        Self {
            path: name.trim_end_matches('!'),
            is_required: name.ends_with('!'),
            kind,
        }
    }

    /// The value of the object that it is in, where there is one, and its name there.
    fn owner<'v>(&self, data: &'v Value) -> Option<(&'v Value, &'static str)> {
        let (owner, name) = match self.path.split_once('.') {
            Some((owner, name)) => (data.get(owner)?, name),
            None => (data, self.path),
        };
        owner.is_object().then_some((owner, name))
    }

    /// Every path at which it is wrong.
    fn faults(&self, data: &Value) -> Vec<String> {
        let Some((owner, name)) = self.owner(data) else {
            return Vec::new();
        };
        let path = format!("data.{}", self.path);
        match owner.get(name) {
            None | Some(Value::Null) if !self.is_required => Vec::new(),
            Some(Value::Array(texts)) if self.kind == "texts" => {
                let wrong = texts.iter().enumerate().filter(|text| !text.1.is_string());
                wrong.map(|(i, _)| format!("{path}[{i}]")).collect()
            }
            Some(value) if is_of_kind(value, self.kind) => Vec::new(),
            _ => vec![path],
        }
    }
}

/// The names of the types.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(name, _)| *name)
}

/// The fields of a type; none where nobody knows it.
pub(super) fn fields(event_type: &str) -> Vec<Field> {
    let found = TYPES.iter().find(|(name, _)| *name == event_type);
    let lines = found.map_or(&[][..], |(_, lines)| lines);
    lines.iter().copied().map(Field::read).collect()
}

/// Every path at which the `data` of an event of a type is not what it must be.
pub(super) fn faults(event_type: &str, data: &Value) -> Vec<String> {
    let fields = fields(event_type);
    if fields.is_empty() || data.is_object() {
        return fields.iter().flat_map(|field| field.faults(data)).collect();
    }
    vec!["data".to_owned()]
}

fn is_of_kind(value: &Value, kind: &str) -> bool {
    match kind {
        "any" => true,
        "count" => is_count(value),
        "flag" => value.is_boolean(),
        "id" => value.is_i64() || value.is_u64() || value.as_str().is_some_and(|id| !id.is_empty()),
        "list" | "texts" => value.is_array(),
        "number" => value.is_number(),
        "object" => value.is_object(),
        "text" => value.is_string(),
        _ => panic!("{kind} is no kind"),
    }
}

fn is_count(value: &Value) -> bool {
    let is_whole =
        |number: f64| number == number.trunc() && (0.0..=9_007_199_254_740_992.0).contains(&number);
    value.is_u64() || (value.is_f64() && value.as_f64().is_some_and(is_whole))
}
