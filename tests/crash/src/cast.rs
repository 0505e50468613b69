//! Who takes part: the users and projects that events are for, and twenty viewers of both dialects,
//! with what each may see and wants. Pure. Source: the contract, sections 2, 5 and 6.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Users that events are for.
pub const USERS: [&str; 5] = ["ada", "bob", "cyn", "dan", "eve"];

/// Projects that events are for.
pub const PROJECTS: [&str; 3] = ["7", "apollo", "x-1"];

/// Sessions that events belong to.
pub const SESSIONS: [&str; 4] = ["s0", "s1", "s2", "s3"];

/// Types of events; none that the gateway would add anything to.
pub const TYPES: [&str; 3] = ["message_added", "note", "tick"];

/// How many publish at a time.
pub const PUBLISHERS: usize = 4;

/// Which projects each of `USERS` may see.
const PROJECTS_OF: [&[&str]; 5] = [&PROJECTS, &["7"], &["apollo", "x-1"], &[], &["x-1"]];

/// An event as its publisher made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFacts {
    /// Its `event_id`, unlike any other's.
    pub event_id: String,
    /// Its `event_type`.
    pub event_type: String,
    /// Its audience.
    pub user: Option<String>,
    /// Its audience.
    pub project: Option<String>,
    /// Its session.
    pub session: Option<String>,
    /// The fingerprint of the bytes of `data`.
    pub data: String,
}

impl EventFacts {
    /// The streams that it belongs to, by their full names.
    pub fn streams(&self) -> Vec<String> {
        let user = self.user.iter().map(|id| format!("user/{id}"));
        let project = self.project.iter().map(|id| format!("project/{id}"));
        user.chain(project).collect()
    }
}

/// A viewer and what it is entitled to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewerPlan {
    /// Of its record and in violations.
    pub name: String,
    /// The token's `sub`.
    pub user: String,
    /// The token's projects.
    pub projects: Vec<String>,
    /// The path that it connects to.
    pub path: String,
    /// How it comes to its streams.
    pub way: Way,
    /// What it wants of them.
    pub filter: Filter,
    /// It begins with all that is held instead of with what is new.
    pub is_from_start: bool,
}

/// How a viewer comes to its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// From the start, all that it may see: `subscribe=all`, narrowed by `sessions`.
    All,
    /// From the start, the own stream alone: keen without a word.
    Own,
    /// By a `subscribe`, whose cursor was given with the connection.
    Pending,
    /// By a `subscribe` that brings the cursor.
    Subscribe,
}

/// Filters as the contract has them; what is empty does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Filter {
    /// Any of these types.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub event_types: Vec<String>,
    /// Any of these projects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub project_ids: Vec<String>,
    /// Any of these sessions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub session_ids: Vec<String>,
}

impl Filter {
    fn matches(&self, event: &EventFacts) -> bool {
        let fits = |wanted: &[String], found: Option<&String>| {
            wanted.is_empty() || found.is_some_and(|found| wanted.contains(found))
        };
        fits(&self.event_types, Some(&event.event_type))
            && fits(&self.project_ids, event.project.as_ref())
            && fits(&self.session_ids, event.session.as_ref())
    }
}

impl ViewerPlan {
    /// The streams that its subscriptions reach, as it calls them: `user`, `project/ID`.
    pub fn streams(&self) -> Vec<String> {
        let wanted = &self.filter.project_ids;
        let is_reached =
            |id: &&String| self.way != Way::Own && (wanted.is_empty() || wanted.contains(id));
        let projects = self.projects.iter().filter(is_reached);
        let projects = projects.map(|id| format!("project/{id}"));
        std::iter::once("user".to_owned()).chain(projects).collect()
    }

    /// The full name of a stream of its own.
    pub fn full_name(&self, stream: &str) -> String {
        match stream {
            "user" => format!("user/{}", self.user),
            other => other.to_owned(),
        }
    }

    /// Whether it is to get this event on this stream, as it calls it.
    pub fn wants(&self, stream: &str, event: &EventFacts) -> bool {
        let is_own = event.user.as_ref() == Some(&self.user);
        let is_for_it = match stream.strip_prefix("project/") {
            None => is_own,
            // Its own user's events come on the own stream only.
            Some(id) => event.project.as_deref() == Some(id) && !is_own,
        };
        is_for_it && self.streams().iter().any(|it| it == stream) && self.filter.matches(event)
    }
}

/// A cursor, as it is given and as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The life of the log.
    pub epoch: Option<String>,
    /// The last seq of each stream.
    pub streams: BTreeMap<String, u64>,
}

/// The viewers: four of each user.
pub fn viewers() -> Vec<ViewerPlan> {
    let forms = [keen_own, observatory_all, observatory_pending, narrowed];
    let plans = forms.iter().enumerate().flat_map(|(form, plan)| {
        USERS.iter().enumerate().map(move |(index, user)| {
            let mut viewer = plan(index);
            viewer.name = format!("viewer-{user}-{form}");
            viewer.user = (*user).to_owned();
            viewer.projects = owned(PROJECTS_OF[index]);
            viewer.is_from_start = (form + index) % 3 == 0;
            viewer
        })
    });
    plans.collect()
}

fn keen_own(_: usize) -> ViewerPlan {
    plan("/keen", Way::Own, Filter::default())
}

fn observatory_all(_: usize) -> ViewerPlan {
    plan("/observatory", Way::All, Filter::default())
}

fn observatory_pending(index: usize) -> ViewerPlan {
    let filter = if index.is_multiple_of(2) {
        Filter {
            event_types: owned(&TYPES[..2]),
            ..Filter::default()
        }
    } else {
        Filter {
            session_ids: owned(&SESSIONS[1..]),
            ..Filter::default()
        }
    };
    plan("/observatory", Way::Pending, filter)
}

fn narrowed(index: usize) -> ViewerPlan {
    if index.is_multiple_of(2) {
        let project_ids = owned(&PROJECTS_OF[index][..1]);
        let filter = Filter {
            project_ids,
            ..Filter::default()
        };
        return plan("/observatory", Way::Subscribe, filter);
    }
    let session_ids = owned(&SESSIONS[..2]);
    let filter = Filter {
        session_ids,
        ..Filter::default()
    };
    plan("/keen", Way::All, filter)
}

fn plan(path: &str, way: Way, filter: Filter) -> ViewerPlan {
    ViewerPlan {
        name: String::new(),
        user: String::new(),
        projects: Vec::new(),
        path: path.to_owned(),
        way,
        filter,
        is_from_start: false,
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(user: Option<&str>, project: Option<&str>, event_type: &str) -> EventFacts {
        EventFacts {
            event_id: "e".into(),
            event_type: event_type.into(),
            user: user.map(Into::into),
            project: project.map(Into::into),
            session: None,
            data: String::new(),
        }
    }

    fn check(viewer: &str, stream: &str, event: &EventFacts, expected: bool) {
        let viewers = viewers();
        let plan = viewers.iter().find(|plan| plan.name == viewer);
        let wants = plan.is_some_and(|plan| plan.wants(stream, event));
        assert_eq!(wants, expected, "{viewer} {stream} {event:?}");
    }

    #[test]
    fn a_viewer_gets_its_own_and_its_projects_once() {
        let both = event(Some("ada"), Some("7"), "note");
        check("viewer-ada-1", "user", &both, true);
        check("viewer-ada-1", "project/7", &both, false);
        check("viewer-bob-1", "user", &both, false);
        check("viewer-bob-1", "project/7", &both, true);
        check("viewer-bob-0", "project/7", &both, false);
        check("viewer-cyn-1", "project/7", &both, false);
    }

    #[test]
    fn filters_narrow_and_what_lacks_a_field_does_not_match() {
        let check_type = |event_type, expected| {
            let own = event(Some("ada"), None, event_type);
            check("viewer-ada-2", "user", &own, expected);
        };
        check_type("note", true);
        check_type("tick", false);
        check(
            "viewer-ada-3",
            "user",
            &event(Some("ada"), None, "note"),
            false,
        );
        check(
            "viewer-ada-3",
            "user",
            &event(Some("ada"), Some("7"), "note"),
            true,
        );
        check(
            "viewer-bob-3",
            "user",
            &event(Some("bob"), None, "note"),
            false,
        );
    }

    #[test]
    fn there_are_twenty_of_both_dialects_and_all_ways() {
        let viewers = viewers();
        assert_eq!(viewers.len(), 20);
        for way in [Way::All, Way::Own, Way::Pending, Way::Subscribe] {
            for is_from_start in [true, false] {
                let is_one =
                    |plan: &&ViewerPlan| plan.way == way && plan.is_from_start == is_from_start;
                assert!(viewers.iter().any(|plan| is_one(&plan)), "{way:?}");
            }
        }
    }
}
