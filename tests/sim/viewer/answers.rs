//! What a viewer is answered: whether it is what it asked for, and what it is subscribed to then.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value, json};
use sightline::event::{Filter, Stream};

use super::{Command, Doomed, Told, Viewer, expect, rows, seqs, text};
use crate::check::{Mark, Wanted};
use crate::events::{FilterSpec, name_of};

#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub key: String,
    pub filter: FilterSpec,
    pub is_own_only: bool,
}

impl Viewer {
    pub(super) fn handle_refusal(&mut self, data: &Value) -> Told {
        if data["id"].is_null() {
            self.garbage = self
                .garbage
                .checked_sub(1)
                .ok_or("an error that nothing asked for")?;
            return expect(data["code"] == "INVALID_MESSAGE", "another code");
        }
        let expected = match self.answered(data)? {
            Command::Refused(code) => Some(code),
            // Its token may have been revoked on the way.
            Command::Refresh { .. } if self.closable.contains(&4002) => Some("TOKEN_REVOKED"),
            Command::Subscribe { filters, .. } => self.refusal_of(&filters),
            _ => None,
        };
        if expected.is_none_or(|code| data["code"] != code) {
            return Err(format!("refused, expected {expected:?}"));
        }
        Ok(())
    }

    pub(super) fn handle_confirmed(&mut self, data: &Value) -> Told {
        let Command::Subscribe {
            filters,
            is_list,
            cursors,
        } = self.answered(data)?
        else {
            return Err("confirms what is no subscribe".into());
        };
        if let Some(code) = self.refusal_of(&filters) {
            return Err(format!("confirmed, expected {code}"));
        }
        let added: Vec<Subscription> = filters.iter().map(Subscription::allowed).collect();
        let (keys, shown): (Vec<Value>, Vec<Value>) = added
            .iter()
            .map(|one| (json!(one.key), one.filter.to_value()))
            .unzip();
        let is_shown = if is_list {
            data["subscriptionKeys"] == json!(keys) && data["filters"] == json!(shown)
        } else {
            data["subscriptionKey"] == keys[0] && data["filters"] == shown[0]
        };
        expect(is_shown, "other subscriptions")?;
        let asked: Vec<String> = cursors.keys().cloned().collect();
        self.cursors.extend(cursors);
        for one in &added {
            if self.subscriptions.iter().all(|known| known.key != one.key) {
                self.subscriptions.push(one.clone());
            }
        }
        let mut rows = match &data["resume"] {
            Value::Null => BTreeMap::new(),
            present => rows(present)?,
        };
        let at = seqs(&data["at"])?;
        let reached = self.plan(&added);
        let named: BTreeSet<String> = reached.keys().map(name_of).collect();
        expect(
            at.keys().eq(&named),
            "`at` is not of the streams that this reaches",
        )?;
        for (stream, wanted) in self.plan(&self.subscriptions) {
            let is_told = reached.contains_key(&stream);
            if is_told && self.live.contains_key(&stream) {
                let at = at[&name_of(&stream)];
                self.live.insert(stream.clone(), Rc::clone(&wanted));
                let mark = match self.resumed.contains(&stream) {
                    true => Mark::Add { at, wanted },
                    false => Mark::Change {
                        after: Some(at),
                        wanted,
                    },
                };
                self.mark(stream, mark);
            } else if is_told {
                expect(
                    rows.get(&name_of(&stream))
                        .is_some_and(|row| row["to"] == at[&name_of(&stream)]),
                    "`to` is not `at`",
                )?;
            }
        }
        self.begin(&mut rows)?;
        self.check_unreached(&mut rows, &asked)?;
        expect(rows.is_empty(), "rows that nothing asked for")
    }

    pub(super) fn handle_unsubscribed(&mut self, data: &Value) -> Told {
        let Command::Unsubscribe(doomed) = self.answered(data)? else {
            return Err("answers what is no unsubscribe".into());
        };
        let is_doomed = |one: &mut Subscription| match &doomed {
            Doomed::All => true,
            Doomed::Filter(filter) => one.filter == *filter,
            Doomed::Key(key) => one.key == *key,
        };
        let gone: Vec<String> = self
            .subscriptions
            .extract_if(.., is_doomed)
            .map(|one| one.key)
            .collect();
        expect(data["subscriptionKeys"] == json!(gone), "other keys")?;
        self.lessen();
        Ok(())
    }

    pub(super) fn handle_refreshed(&mut self, data: &Value) -> Told {
        let Command::Refresh { projects } = self.answered(data)? else {
            return Err("answers what is no refresh_token".into());
        };
        self.projects = projects;
        let mut gone = Vec::new();
        self.subscriptions.retain_mut(|one| {
            let had = one.filter.projects.len();
            one.filter.projects.retain(|id| self.projects.contains(id));
            let is_kept = had == 0 || !one.filter.projects.is_empty();
            if !is_kept {
                gone.push(one.key.clone());
            }
            is_kept
        });
        expect(
            data["removedSubscriptions"] == json!(gone),
            "other subscriptions removed",
        )?;
        let removed: BTreeSet<String> = self.lessen().iter().map(name_of).collect();
        let told: BTreeSet<String> = data["removed"]
            .as_array()
            .ok_or("no removed")?
            .iter()
            .map(text)
            .collect::<Result<_, _>>()?;
        expect(told == removed, "other streams removed")?;
        let mut rows = rows(&data["added"])?;
        self.begin(&mut rows)?;
        expect(
            rows.is_empty(),
            "streams added that the token does not give",
        )
    }

    // Streams that the subscriptions newly reach begin where their rows say.
    pub(super) fn begin(&mut self, rows: &mut BTreeMap<String, Value>) -> Told {
        for (stream, wanted) in self.plan(&self.subscriptions) {
            if self.live.contains_key(&stream) {
                continue;
            }
            let name = name_of(&stream);
            let row = rows
                .remove(&name)
                .ok_or_else(|| format!("no row for {name}"))?;
            let from = self.cursors.remove(&name);
            let to = row["to"].as_u64().ok_or("a row without `to`")?;
            expect(row["from"].as_u64() == from, "another cursor")?;
            // Those at the very beginning may not have been there when they were judged.
            let may_reset = from.is_some_and(|from| from > to || (1..3).contains(&from));
            let outcome = text(&row["outcome"])?;
            let after = match (outcome.as_str(), from) {
                ("fresh", None) => to,
                ("reset", Some(_)) if may_reset => to,
                ("resumed", Some(from)) if from <= to => {
                    self.resumed.insert(stream.clone());
                    self.replayed_to.insert(stream.clone(), to);
                    from
                }
                _ => return Err(format!("another outcome: {row}")),
            };
            // What is live waits there for trees that come before, like for what was missed.
            if stream == Stream::user(self.user) && self.begins_with_trees() {
                self.resumed.insert(stream.clone());
            }
            self.live.insert(stream.clone(), Rc::clone(&wanted));
            self.mark(stream, Mark::Begin { after, wanted });
        }
        Ok(())
    }

    // The rows of what was named and nothing reaches; what is live has nothing left to start.
    pub(super) fn check_unreached(
        &mut self,
        rows: &mut BTreeMap<String, Value>,
        named: &[String],
    ) -> Told {
        for stream in self.live.keys().map(name_of).filter(|_| !named.is_empty()) {
            self.cursors.remove(&stream);
        }
        for name in named {
            let Some(from) = self.cursors.get(name) else {
                continue;
            };
            let row = rows
                .remove(name)
                .ok_or_else(|| format!("no row for {name}"))?;
            let project = name.strip_prefix("project/");
            let is_allowed = name == "user"
                || project.is_some_and(|id| self.projects.iter().any(|own| own == id));
            let expected = match is_allowed {
                true => json!({"stream": name, "outcome": "pending", "from": from}),
                false => json!({"stream": name, "outcome": "reset"}),
            };
            expect(row == expected, "another row for what nothing reaches yet")?;
        }
        Ok(())
    }

    // Less is wanted than before; returns the streams that are not reached any more.
    fn lessen(&mut self) -> Vec<Stream> {
        let plan = self.plan(&self.subscriptions);
        let live = std::mem::take(&mut self.live);
        let mut gone = Vec::new();
        for (stream, before) in live {
            match plan.get(&stream) {
                None => {
                    self.mark(stream.clone(), Mark::End);
                    self.resumed.remove(&stream);
                    self.replayed_to.remove(&stream);
                    gone.push(stream);
                }
                Some(wanted) => {
                    if *wanted != before {
                        self.mark(
                            stream.clone(),
                            Mark::Change {
                                after: None,
                                wanted: Rc::clone(wanted),
                            },
                        );
                    }
                    self.live.insert(stream, Rc::clone(wanted));
                }
            }
        }
        gone
    }

    // The streams that subscriptions reach, and what is wanted of each.
    fn plan(&self, subscriptions: &[Subscription]) -> BTreeMap<Stream, Wanted> {
        let mut plan = BTreeMap::new();
        let mut add = |stream, reaches: &dyn Fn(&Subscription) -> bool| {
            let wanted: Wanted = subscriptions
                .iter()
                .filter(|one| reaches(one))
                .map(|one| one.filter.clone())
                .collect();
            if !wanted.is_empty() {
                plan.insert(stream, wanted);
            }
        };
        add(Stream::user(self.user), &|_| true);
        for id in &self.projects {
            add(Stream::project(id), &|one| {
                !one.is_own_only && one.filter.reaches_project(id)
            });
        }
        plan
    }

    fn refusal_of(&self, filters: &[FilterSpec]) -> Option<&'static str> {
        let mut named = filters.iter().flat_map(|filter| &filter.projects);
        if named.any(|id| !self.projects.contains(id)) {
            return Some("INVALID_FILTERS");
        }
        let mut keys: BTreeSet<String> = self.keys().into_iter().collect();
        keys.extend(
            filters
                .iter()
                .map(|filter| Subscription::allowed(filter).key),
        );
        (keys.len() > self.subscriptions_max).then_some("TOO_MANY_SUBSCRIPTIONS")
    }

    pub(super) fn answered(&mut self, data: &Value) -> Result<Command, String> {
        let id = data["id"].as_u64().ok_or("an answer without id")?;
        self.pending
            .remove(&id)
            .ok_or_else(|| format!("a second answer to {id}"))
    }
}

impl Subscription {
    fn allowed(filter: &FilterSpec) -> Self {
        let key = Filter::from_json(&filter.to_value())
            .expect("a canonical filter")
            .key();
        Self {
            key: key.to_string(),
            filter: filter.clone(),
            is_own_only: false,
        }
    }
}
