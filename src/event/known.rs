//! The known types: what the `data` of their events holds, and whether it does.
//!
//! The shapes are declared once, in `keen` and `observatory`, by the document that describes them;
//! both the check of a publisher's event and the reading of a kept one come from there. A field that
//! nobody declared is the producer's own and may be anything. Of a repeated name the last counts, as
//! in JavaScript. Source: contract section 8, and the two documents that it names.

mod keen;
mod observatory;
mod shape;

use std::borrow::Cow;

use super::tape::{Document, ROOT};
use shape::{Fault, Shape};

pub use keen::{
    AgentError, AgentSpawned, Completion, FileChangeStats, GitOperation, PerformanceMetrics,
    PhaseTransition, ProgressUpdate, ToolExecution,
};
pub use observatory::{
    AnalyticsUpdate, ConversationEnded, ConversationStarted, Message, MessageAdded, Project,
    ProjectDiscovered, ProjectUpdated,
};
pub use shape::{Id, Json, List, Object, Texts};

/// One line per type: variant, name on the wire, shape of its `data`. The line is its doc as well.
macro_rules! known_types {
    ($( $variant:ident = $name:literal: $shape:ty, $doc:literal; )*) => {
        /// A type of events whose `data` has a shape.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum KnownType {
            $( #[doc = $doc] $variant, )*
        }

        impl KnownType {
            /// All, in the order of their indices.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The type that goes by `name`, where it is known.
            pub fn find(name: &str) -> Option<Self> {
                Some(match name {
                    $( $name => Self::$variant, )*
                    _ => return None,
                })
            }

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $name, )*
                }
            }

            fn check_shape<'t>(self, document: Document<'t>, data: usize) -> Result<(), Fault> {
                match self {
                    $( Self::$variant => <$shape as Shape<'t>>::check(document, data), )*
                }
            }

            /// What the `data` at `data` holds; `None` where it is no object.
            pub(super) fn read<'t>(self, document: Document<'t>, data: usize) -> Option<Known<'t>> {
                Some(match self {
                    $( Self::$variant => {
                        Known::$variant(<$shape as Shape<'t>>::read(document, data)?)
                    } )*
                })
            }
        }

        /// The `data` of an event of a known type. A field is `None` where it is absent, null or not
        /// of its type: a slip in one hides no other.
        #[derive(Clone, Debug)]
        pub enum Known<'t> {
            $( #[doc = $doc] $variant($shape), )*
        }

        impl Known<'_> {
            /// Of which type the event is.
            pub fn known_type(&self) -> KnownType {
                match self {
                    $( Self::$variant(_) => KnownType::$variant, )*
                }
            }
        }
    };
}

known_types! {
    AgentError = "error": AgentError<'t>, "Something went wrong for an agent.";
    AgentSpawned = "agent_spawned": AgentSpawned<'t>, "An agent began another one.";
    AnalyticsUpdate = "analytics_update": AnalyticsUpdate<'t>, "A project's figures were worked out anew.";
    Completion = "completion": Completion, "An agent is done.";
    ConversationEnded = "conversation_ended": ConversationEnded<'t>, "A conversation is over.";
    ConversationStarted = "conversation_started": ConversationStarted<'t>, "A conversation began.";
    GitOperation = "git_operation": GitOperation<'t>, "A repository changed.";
    MessageAdded = "message_added": MessageAdded<'t>, "Somebody said something in a conversation.";
    PhaseTransition = "phase_transition": PhaseTransition<'t>, "An agent goes on with another phase.";
    ProgressUpdate = "progress_update": ProgressUpdate<'t>, "An agent says how far it is.";
    ProjectDiscovered = "project_discovered": ProjectDiscovered<'t>, "A project is there that nobody knew of.";
    ProjectUpdated = "project_updated": ProjectUpdated<'t>, "A project changed.";
    ToolExecution = "tool_execution": ToolExecution<'t>, "An agent has used a tool.";
}

impl KnownType {
    /// Position in tables that have one place for each known type.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the `data` at `data` (`None`: absent) has this type's shape.
    /// Errors: the first field that is not what was declared, in the order of the declarations.
    pub(super) fn check(
        self,
        document: Document<'_>,
        data: Option<usize>,
    ) -> Result<(), ShapeError> {
        let checked = match data {
            Some(data) => self.check_shape(document, data),
            None => self.check_shape(Document::EMPTY_OBJECT, ROOT),
        };
        checked.map_err(|fault| ShapeError {
            event_type: self,
            path: fault.path_from("data"),
            found: fault.found,
            wanted: fault.wanted,
        })
    }
}

/// A field of a known type's event is not what the type says. The publisher's slip: the event is
/// carried all the same, unless the publisher asked to be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is {found}; in {} it must be {wanted}", event_type.as_str())]
pub struct ShapeError {
    /// The event's type.
    pub event_type: KnownType,
    /// Where, for example `data.files_changed[2]`.
    pub path: String,
    /// What is there, for people.
    pub found: Cow<'static, str>,
    /// What must be there, for people.
    pub wanted: &'static str,
}

#[cfg(test)]
mod description;
#[cfg(test)]
mod tests;
