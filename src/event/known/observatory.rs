//! The types of the observatory document: conversations and projects. Its server events give the
//! fields; `required` are those without which the event says nothing, for the document's own
//! examples leave others out. Times are milliseconds since the Unix epoch.

use super::shape::{Id, Json, Object, objects};

objects! {
    /// `conversation_started`.
    pub struct ConversationStarted<'t> {
        /// Which.
        required conversation_id: &'t str = "conversationId",
        /// The session that it is held in.
        optional session_id: &'t str = "sessionId",
        /// The project that it is about.
        optional project_id: Id<'t> = "projectId",
        /// That project's name.
        optional project_name: &'t str = "projectName",
        /// When it began.
        optional start_time: f64 = "startTime",
    }

    /// `conversation_ended`.
    pub struct ConversationEnded<'t> {
        /// Which.
        required conversation_id: &'t str = "conversationId",
        /// Milliseconds that it took.
        optional duration: f64 = "duration",
        /// Messages in it.
        optional message_count: u64 = "messageCount",
        /// Uses of tools in it.
        optional tool_usage_count: u64 = "toolUsageCount",
        /// When it was over.
        optional end_time: f64 = "endTime",
    }

    /// `message_added`.
    pub struct MessageAdded<'t> {
        /// In which conversation.
        required conversation_id: &'t str = "conversationId",
        /// What was said.
        required message: Message<'t> = "message",
        /// The project that the conversation is about.
        optional project_info: Project<'t> = "projectInfo",
        /// Whether no later message is known.
        optional is_latest: bool = "isLatest",
    }

    /// One message of a conversation.
    pub struct Message<'t> {
        /// The producer's name for it.
        optional id: Id<'t> = "id",
        /// Who speaks: `user`, `assistant`, `system`.
        optional message_type: &'t str = "type",
        /// Text, or blocks.
        optional content: Json<'t> = "content",
    }

    /// A project.
    pub struct Project<'t> {
        /// Which.
        optional id: Id<'t> = "id",
        /// What people call it.
        optional name: &'t str = "name",
    }

    /// `project_discovered`.
    pub struct ProjectDiscovered<'t> {
        /// Which.
        required project: Project<'t> = "project",
        /// Conversations that are known of it.
        optional conversation_count: u64 = "conversationCount",
        /// When something was last done in it.
        optional last_activity: f64 = "lastActivity",
    }

    /// `project_updated`.
    pub struct ProjectUpdated<'t> {
        /// Which; absent: the event's own.
        optional project_id: Id<'t> = "projectId",
        /// What is different, by name.
        optional changes: Object<'t> = "changes",
        /// Whether something was done in it.
        optional new_activity: bool = "newActivity",
    }

    /// `analytics_update`.
    pub struct AnalyticsUpdate<'t> {
        /// Of which project; absent: the event's own.
        optional project_id: Id<'t> = "projectId",
        /// The figures, by name.
        required metrics: Object<'t> = "metrics",
        /// The time that they are of, in the producer's own words.
        optional period: &'t str = "period",
    }
}
