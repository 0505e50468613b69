//! What a viewer is subscribed to, and which streams that reaches. Pure bookkeeping of one viewer;
//! carrying it out is in `attach`.

use std::collections::BTreeSet;
use std::rc::Rc;

use compact_str::CompactString;

use crate::event::{Filter, FilterError, SubscriptionKey};

/// One subscription of one viewer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// By which `unsubscribe` names it. Stays when a lost project is struck out of the filter.
    pub key: SubscriptionKey,
    /// What it asks for; shared by the streams that it reaches.
    pub filter: Rc<Filter>,
    /// Where it looks.
    pub reach: Reach,
}

/// Which streams a subscription looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The own stream, and of the projects that the token allows those that the filter names, or
    /// all where it names none.
    Allowed,
    /// The own stream only: how keen connections begin.
    OwnStream,
}

/// A stream as a viewer's plan names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The viewer's own.
    Own,
    /// A project's.
    Project(CompactString),
    /// A user's under its full name: in cursors only, no plan reaches it.
    User(CompactString),
}

/// Which frames of a stream a viewer takes: what any of these matches; `None`: all. One word, since
/// it stands in the list of each stream's subscribers.
pub type Wanted = Option<Rc<Vec<Rc<Filter>>>>;

impl Subscription {
    /// To whatever matches `filter` in all allowed streams.
    pub fn allowed(filter: impl Into<Rc<Filter>>) -> Self {
        let filter = filter.into();
        Self {
            key: filter.key(),
            filter,
            reach: Reach::Allowed,
        }
    }

    /// To whatever matches `filter` in the own stream.
    pub fn own_stream(filter: impl Into<Rc<Filter>>) -> Self {
        let filter = filter.into();
        // A key of its own: `subscribe` with the same filter reaches more, so it is another one.
        let key = SubscriptionKey::of(&format!("user:{}", filter.canonical_json()));
        Self {
            key,
            filter,
            reach: Reach::OwnStream,
        }
    }

    /// Whether its streams include this project's.
    pub fn reaches_project(&self, project: &CompactString) -> bool {
        let named = self.filter.project_ids();
        self.reach == Reach::Allowed && (named.is_empty() || named.binary_search(project).is_ok())
    }
}

/// The streams that `subscriptions` reach with a token for `projects`, the own stream first, and
/// what is wanted of each.
pub fn plan(subscriptions: &[Subscription], projects: &[CompactString]) -> Vec<(Target, Wanted)> {
    if subscriptions.is_empty() {
        return Vec::new();
    }
    let own = wanted(subscriptions.iter(), Filter::is_everything);
    let mut plan = vec![(Target::Own, own)];
    for project in projects {
        let mut reaching = subscriptions
            .iter()
            .filter(|subscription| subscription.reaches_project(project))
            .peekable();
        if reaching.peek().is_some() {
            // In the project's own stream the project is given; only the rest narrows.
            let wanted = wanted(reaching, Filter::is_everything_of_its_projects);
            plan.push((Target::Project(project.clone()), wanted));
        }
    }
    plan
}

/// Whether `added` may stand beside `known`. Errors: the code and the words of the refusal; the
/// viewer's fault.
pub fn check_added(
    known: &[Subscription],
    added: &[Subscription],
    may_see: impl Fn(&CompactString) -> bool,
    subscriptions_max: usize,
) -> Result<(), (&'static str, String)> {
    let mut named = added.iter().flat_map(|one| one.filter.project_ids());
    if !named.all(may_see) {
        let message = "projectIds names a project that this token does not allow: leave it out, or refresh the token";
        return Err((FilterError::CODE, message.into()));
    }
    let keys: BTreeSet<SubscriptionKey> = known.iter().chain(added).map(|one| one.key).collect();
    let count = keys.len();
    if count > subscriptions_max {
        let message = format!(
            "{count} subscriptions would be more than the {subscriptions_max} that a connection may hold: unsubscribe from some first"
        );
        return Err(("TOO_MANY_SUBSCRIPTIONS", message));
    }
    Ok(())
}

fn wanted<'a>(
    subscriptions: impl Iterator<Item = &'a Subscription>,
    is_everything: impl Fn(&Filter) -> bool,
) -> Wanted {
    let mut filters = Vec::new();
    for Subscription { filter, .. } in subscriptions {
        if is_everything(filter) {
            return None;
        }
        filters.push(Rc::clone(filter));
    }
    Some(filters.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn filter(value: &serde_json::Value) -> Filter {
        Filter::from_json(value).unwrap()
    }

    fn check(
        subscriptions: &[Subscription],
        projects: &[&str],
        expected: &[(&str, Option<usize>)],
    ) {
        let projects: Vec<CompactString> =
            projects.iter().copied().map(CompactString::from).collect();
        let planned: Vec<(String, Option<usize>)> = plan(subscriptions, &projects)
            .into_iter()
            .map(|(target, wanted)| {
                let name = match target {
                    Target::Own => "user".to_owned(),
                    Target::Project(id) | Target::User(id) => id.to_string(),
                };
                (name, wanted.map(|filters| filters.len()))
            })
            .collect();
        let expected: Vec<(String, Option<usize>)> = expected
            .iter()
            .map(|(name, n)| ((*name).to_owned(), *n))
            .collect();
        assert_eq!(planned, expected);
    }

    #[test]
    fn a_plan_follows_reach_projects_and_filters() {
        let everything = Subscription::allowed(filter(&json!({})));
        let own = Subscription::own_stream(filter(&json!({})));
        let project = Subscription::allowed(filter(&json!({"projectIds": [7]})));
        let types = Subscription::allowed(filter(&json!({"eventTypes": ["error"]})));
        check(&[], &["7"], &[]);
        check(std::slice::from_ref(&own), &["7"], &[("user", None)]);
        check(
            std::slice::from_ref(&everything),
            &["7", "8"],
            &[("user", None), ("7", None), ("8", None)],
        );
        check(
            std::slice::from_ref(&project),
            &["7", "8"],
            &[("user", Some(1)), ("7", None)],
        );
        check(
            &[project.clone(), types.clone()],
            &["7", "8"],
            &[("user", Some(2)), ("7", None), ("8", Some(1))],
        );
        check(&[types, own], &["7"], &[("user", None), ("7", Some(1))]);
    }

    #[test]
    fn the_initial_subscription_is_not_the_same_as_one_to_everything() {
        let everything = Filter::default();
        assert_ne!(
            Subscription::own_stream(everything.clone()).key,
            Subscription::allowed(everything).key
        );
    }
}
