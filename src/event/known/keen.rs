//! The types of the keen document: what agents say of themselves. Its streamers give the fields;
//! `required` are those without which the event says nothing, for the document's own examples leave
//! others out. What the server adds where it is absent (contract, section 8) may be the producer's.

use super::shape::{Json, List, Object, Texts, objects};

objects! {
    /// `agent_spawned`: the event's session has begun another one.
    pub struct AgentSpawned<'t> {
        /// The session that began it; absent: the event's own.
        optional parent_session: &'t str = "parent_session",
        /// The session that was begun.
        required child_session: &'t str = "child_session",
        /// The branch that the child works on.
        optional git_branch: &'t str = "git_branch",
        /// What the child is for, in a few words.
        optional purpose: &'t str = "purpose",
        /// What the child is for, at length.
        optional sub_vision: &'t str = "sub_vision",
        /// Milliseconds that it is expected to take.
        optional estimated_duration: f64 = "estimated_duration",
        /// What it may use up.
        optional resource_limits: Object<'t> = "resource_limits",
        /// How many sessions are above it.
        optional agent_depth: u64 = "agent_depth",
        /// Why it was begun.
        optional spawn_reason: &'t str = "spawn_reason",
        /// Added by the server: the sessions from the root to the child.
        optional agent_tree_path: Texts<'t> = "agent_tree_path",
        /// Added by the server: when it should be done, RFC 3339.
        optional estimated_completion: &'t str = "estimated_completion",
        /// Added by the server: a copy of `resource_limits`.
        optional resource_allocation: Object<'t> = "resource_allocation",
    }

    /// `phase_transition`: the session goes on with another phase of its work.
    pub struct PhaseTransition<'t> {
        /// The phase that it leaves.
        optional from_phase: &'t str = "from_phase",
        /// The phase that it enters.
        required to_phase: &'t str = "to_phase",
        /// What came of the phase that it leaves.
        optional summary: &'t str = "summary",
        /// How sure the agent is, from 0 to 1.
        optional confidence: f64 = "confidence",
        /// What it has found.
        optional key_findings: Texts<'t> = "key_findings",
        /// What it will do.
        optional next_actions: Texts<'t> = "next_actions",
        /// Milliseconds that it expects to take yet.
        optional estimated_time_remaining: f64 = "estimated_time_remaining",
        /// Of the whole; added by the server.
        optional progress_percentage: f64 = "progress_percentage",
    }

    /// `git_operation`: something was done in the session's repository.
    pub struct GitOperation<'t> {
        /// What, for example `commit`.
        required operation_type: &'t str = "operation_type",
        /// On which branch.
        optional branch: &'t str = "branch",
        /// The commit that it made, or led to.
        optional commit_hash: &'t str = "commit_hash",
        /// That commit's message.
        optional commit_message: &'t str = "commit_message",
        /// Paths of the files that differ.
        optional files_changed: Texts<'t> = "files_changed",
        /// Lines that are new.
        optional lines_added: u64 = "lines_added",
        /// Lines that are gone.
        optional lines_deleted: u64 = "lines_deleted",
        /// Whether there were conflicts.
        optional merge_conflicts: bool = "merge_conflicts",
        /// Whether it came to its end.
        optional success: bool = "success",
        /// Milliseconds that it took.
        optional duration_ms: f64 = "duration_ms",
        /// Added by the server: the branch's name, cut at each `/`.
        optional branch_hierarchy: Texts<'t> = "branch_hierarchy",
        /// Added by the server: the first line of the message.
        optional commit_summary: &'t str = "commit_summary",
        /// Added by the server: how much changed.
        optional file_change_stats: FileChangeStats = "file_change_stats",
    }

    /// How much a git operation changed.
    pub struct FileChangeStats {
        /// Files.
        optional files: u64 = "files",
        /// Lines that are new.
        optional added: u64 = "added",
        /// Lines that are gone.
        optional deleted: u64 = "deleted",
    }

    /// `tool_execution`: the session has used a tool.
    pub struct ToolExecution<'t> {
        /// Which.
        required tool_name: &'t str = "tool_name",
        /// Milliseconds that it took.
        optional execution_time_ms: f64 = "execution_time_ms",
        /// Whether it did what it should.
        optional success: bool = "success",
        /// What it was given, as the producer sums it up.
        optional parameters_summary: Json<'t> = "parameters_summary",
        /// What came of it, as the producer sums it up.
        optional result_summary: Json<'t> = "result_summary",
        /// Paths of the files that it touched.
        optional files_affected: Texts<'t> = "files_affected",
        /// Why it did not.
        optional error_message: &'t str = "error_message",
    }

    /// `progress_update`: how far the session is.
    pub struct ProgressUpdate<'t> {
        /// The phase that it is in.
        optional phase: &'t str = "phase",
        /// How far that phase is.
        optional phase_progress: f64 = "phase_progress",
        /// How far the whole is.
        optional overall_progress: f64 = "overall_progress",
        /// What it does at present.
        optional current_action: &'t str = "current_action",
        /// Tokens, from the session's beginning.
        optional tokens_used: u64 = "tokens_used",
        /// Money, from the session's beginning.
        optional cost_so_far: f64 = "cost_so_far",
        /// Sessions at work below it.
        optional active_agents: u64 = "active_agents",
        /// What it did last.
        optional recent_activities: List<'t> = "recent_activities",
        /// How it does.
        optional performance_metrics: PerformanceMetrics = "performance_metrics",
    }

    /// How an agent does.
    pub struct PerformanceMetrics {
        /// Milliseconds.
        optional avg_response_time: f64 = "avg_response_time",
        /// Failures in all that was tried.
        optional error_rate: f64 = "error_rate",
        /// In the producer's own unit.
        optional throughput: f64 = "throughput",
    }

    /// `error`: something went wrong for the session. Neither document has a streamer for it; the
    /// fields are those of the observatory document's error.
    pub struct AgentError<'t> {
        /// A word for programs.
        optional code: &'t str = "code",
        /// A sentence for people.
        optional message: &'t str = "message",
        /// What else there is to say.
        optional details: Json<'t> = "details",
    }

    /// `completion`: the session is over.
    pub struct Completion {
        /// Whether it did what it was for.
        optional success: bool = "success",
    }
}
