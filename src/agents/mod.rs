//! Agents: what a stream's events say of them, as live state.
//!
//! A [`Forest`] is the fold of one user's events into trees of agents; conversations and a project's
//! activity are folds as well. Nothing here knows whose they are, who looks at them, nor what time it
//! is: all of that comes in with the events. Source: contract section 8, and the keen document's
//! `AgentTreeManager`.

pub mod activity;
mod apply;
mod changes;
mod claims;
pub mod conversations;
mod cut;
pub mod enrich;
mod forest;
mod node;
mod patch;
mod render;
mod saved;
mod shown;
mod stamp;
mod state;
mod stats;
mod trees;

pub use apply::{Applied, is_agents};
pub use changes::{Changes, GoneRoot, NodeChange, TreeChanges};
pub use forest::{Bounds, Forest, NodeId};
pub use node::{Node, Status};
pub use patch::Version;
pub use saved::SavedForest;
pub use shown::{Content, Sent, Shown, Update, encode_removed, encode_sessions, encode_trees};
pub use stamp::{Stamp, Stamped};
pub use state::{Folded, StateOptions, StreamState};
pub use stats::TreeStats;

#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;
