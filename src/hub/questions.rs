//! What viewers ask of conversations and projects. The viewer's core asks the owner cores of the
//! streams concerned and puts their answers together; an owner core answers from the states of its
//! streams (`folds`), once they are live, and of what these do not know has the event log count
//! (`counting`). Nothing waits for it: answers name their question. Both cores give up a question
//! that is not answered in time. Source: contract section 6.

mod counting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use compact_str::CompactString;

use crate::agents::StreamState;
use crate::agents::activity::{Tally, TimeRange};
use crate::agents::conversations::Conversation;
use crate::auth::{self, Claims};
use crate::dialect::{
    ActiveConversations, ActivityQuestion, ConversationsQuestion, MessageId, ProjectActivity,
    ServerMessage,
};
use crate::event::{Stream, StreamKind};
use crate::limits::{QUESTION_TIMEOUT_MS, QUESTIONS_OPEN_MAX, QUESTIONS_PER_VIEWER_MAX};

use super::keyed::{Key, Keyed};
use super::mail::{Mail, Question, Told};
use super::streams::StreamSlot;
use super::{Hub, Now};

use counting::Counting;

/// The questions of one core: those of its viewers, and those about its streams.
#[derive(Debug, Default)]
pub(super) struct Questions {
    asked: Keyed<Asked>,
    open: Keyed<Open>,
    // When each of both is given up, in milliseconds of the monotonic clock; some are answered.
    deadlines: VecDeque<(u64, Place)>,
    // Those for which the log is to count, in turns.
    counting: VecDeque<Key>,
}

/// Where a question is among those of a core.
#[derive(Clone, Copy, Debug)]
enum Place {
    Asked(Key),
    Open(Key),
}

/// A question of a viewer here.
#[derive(Debug)]
struct Asked {
    viewer: Key,
    id: Option<MessageId>,
    // Cores that have not answered.
    outstanding: usize,
    about: About,
}

#[derive(Debug)]
enum About {
    Activity {
        project: CompactString,
        told: Option<(Box<Tally>, Option<i64>)>,
    },
    Conversations {
        limit: usize,
        found: Vec<(StreamKind, Conversation)>,
    },
}

/// A question about streams that this core owns.
#[derive(Debug)]
struct Open {
    // Who asks, and by what name.
    from: usize,
    id: Key,
    // The streams whose state is not live.
    awaited: BTreeSet<StreamSlot>,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    Activity {
        range: TimeRange,
        counting: Option<Counting>,
    },
    Conversations {
        project: Option<CompactString>,
        limit: usize,
        found: Vec<(StreamKind, Conversation)>,
    },
}

impl Hub {
    /// A viewer wants to know what was done in a project.
    pub(super) fn ask_activity(
        &mut self,
        now: Now,
        key: Key,
        id: Option<MessageId>,
        question: ActivityQuestion,
    ) {
        let ActivityQuestion { project, range } = question;
        if !self.shows_project(key, &project) {
            return self.refuse_project(now, key, id.as_ref());
        }
        let range = range.unwrap_or_else(|| TimeRange::last_hour(now.wall_ms));
        let owner = self.partition().core_of(StreamKind::Project, &project);
        let about = About::Activity {
            project: project.clone(),
            told: None,
        };
        let question = Question::Activity { project, range };
        self.ask(now, key, id, about, [(owner, question)].into());
    }

    /// A viewer wants to know which conversations go on.
    pub(super) fn ask_conversations(
        &mut self,
        now: Now,
        key: Key,
        id: Option<MessageId>,
        question: &ConversationsQuestion,
    ) {
        let ConversationsQuestion { project, limit } = question;
        let is_shown = |project: &CompactString| self.shows_project(key, project);
        if !project.as_ref().is_none_or(is_shown) {
            return self.refuse_project(now, key, id.as_ref());
        }
        let mut questions = BTreeMap::new();
        for (owner, streams) in self.streams_by_owner(key, project.as_ref()) {
            let question = Question::Conversations {
                streams,
                project: project.clone(),
                limit: *limit,
            };
            questions.insert(owner, question);
        }
        let about = About::Conversations {
            limit: *limit,
            found: Vec::new(),
        };
        self.ask(now, key, id, about, questions);
    }

    /// What an owner core says to a question.
    pub(super) fn handle_told(&mut self, now: Now, id: Key, told: Told) {
        let Some(asked) = self.questions.asked.find_mut(id) else {
            return;
        };
        match (&mut asked.about, told) {
            (About::Activity { told, .. }, Told::Activity { tally, last_ms }) => {
                *told = Some((tally, last_ms));
            }
            (About::Conversations { found, .. }, Told::Conversations(more)) => found.extend(more),
            _ => return self.give_up_question(now, id),
        }
        asked.outstanding -= 1;
        if asked.outstanding == 0 {
            self.answer_question(now, id);
        }
    }

    /// A question about streams of this core.
    pub(super) fn handle_question(&mut self, now: Now, from: usize, id: Key, question: Question) {
        if self.questions.open.len() >= QUESTIONS_OPEN_MAX {
            return self.tell(now, from, id, Told::Unavailable);
        }
        let (streams, wanted) = Wanted::of(question);
        let key = self.questions.open.insert(Open {
            from,
            id,
            awaited: BTreeSet::new(),
            wanted,
        });
        self.questions.note_begun(now, Place::Open(key));
        // All that are not live are awaited before the first is looked at: it may be the last.
        let mut live = Vec::new();
        for stream in streams {
            let slot = self.streams.find_or_insert(stream.kind, &stream.id);
            if self.hold_fold(slot) {
                live.push(slot);
            }
            if let Some(open) = self.questions.open.find_mut(key) {
                open.awaited.insert(slot);
            }
        }
        for slot in live {
            self.look_at_state(now, key, slot);
        }
    }

    /// States have become live: whoever asked for them goes on.
    pub(super) fn answer_open_questions(&mut self, now: Now) {
        for slot in self.folds.arrived().to_vec() {
            let awaits = |(_, open): &(Key, &Open)| open.awaited.contains(&slot);
            let waiting = self.questions.open.iter().filter(awaits);
            let waiting: Vec<Key> = waiting.map(|(key, _)| key).collect();
            for key in waiting {
                self.look_at_state(now, key, slot);
            }
        }
    }

    /// Gives up questions that were not answered in time.
    pub(super) fn expire_questions(&mut self, now: Now) {
        while let Some((deadline_ms, place)) = self.questions.deadlines.front().copied() {
            if deadline_ms > now.ms() && self.questions.is_unanswered(place) {
                return;
            }
            self.questions.deadlines.pop_front();
            match place {
                Place::Asked(id) => self.give_up_question(now, id),
                Place::Open(key) => self.forget_question(key),
            }
        }
    }

    /// When the next one is given up, in milliseconds of the monotonic clock.
    pub(super) fn question_ends_ms(&self) -> Option<u64> {
        self.questions.deadlines.front().map(|(at_ms, _)| *at_ms)
    }

    fn ask(
        &mut self,
        now: Now,
        key: Key,
        id: Option<MessageId>,
        about: About,
        questions: BTreeMap<usize, Question>,
    ) {
        let Some(viewer) = self.peers.viewer_mut(key) else {
            return;
        };
        if viewer.questions >= QUESTIONS_PER_VIEWER_MAX {
            let message = "too many questions wait for their answers: wait for one";
            return self.send_busy(now, key, id.as_ref(), "RATE_LIMIT_EXCEEDED", message);
        }
        viewer.questions += 1;
        let asked = self.questions.asked.insert(Asked {
            viewer: key,
            id,
            outstanding: questions.len(),
            about,
        });
        self.questions.note_begun(now, Place::Asked(asked));
        for (owner, question) in questions {
            if owner == self.options.core {
                self.handle_question(now, owner, asked, question);
            } else {
                let id = asked;
                self.send(owner, Mail::Question { id, question });
            }
        }
    }

    // The streams that a viewer's token shows, or those that may hold events of one project.
    fn streams_by_owner(
        &self,
        key: Key,
        project: Option<&CompactString>,
    ) -> BTreeMap<usize, Vec<Stream>> {
        let Some(claims) = self.claims(key) else {
            return BTreeMap::new();
        };
        let own = [Stream::user(&claims.sub)];
        let is_wanted = |id: &&CompactString| project.is_none_or(|project| project == *id);
        let projects = claims.projects.iter().filter(is_wanted);
        let projects = projects.map(|id| Stream::project(id));
        let mut streams: BTreeMap<usize, Vec<Stream>> = BTreeMap::new();
        for stream in own.into_iter().chain(projects) {
            let owner = self.partition().core_of(stream.kind, &stream.id);
            streams.entry(owner).or_default().push(stream);
        }
        streams
    }

    fn claims(&self, key: Key) -> Option<&Rc<Claims>> {
        Some(&self.peers.find(key)?.details.claims)
    }

    fn shows_project(&self, key: Key, project: &str) -> bool {
        let claims = self.claims(key);
        claims.is_some_and(|claims| auth::may_see_project(claims, project))
    }

    fn refuse_project(&mut self, now: Now, key: Key, id: Option<&MessageId>) {
        let message = "this token does not show the project";
        self.send_error(now, key, id, "FORBIDDEN", message.into(), None);
    }

    fn send_busy(
        &mut self,
        now: Now,
        key: Key,
        id: Option<&MessageId>,
        code: &'static str,
        message: &str,
    ) {
        self.send_error(now, key, id, code, message.into(), Some(RETRY_AFTER_MS));
    }

    fn take_question(&mut self, id: Key) -> Option<Asked> {
        let asked = self.questions.asked.remove(id)?;
        if let Some(viewer) = self.peers.viewer_mut(asked.viewer) {
            viewer.questions = viewer.questions.saturating_sub(1);
        }
        Some(asked)
    }

    fn give_up_question(&mut self, now: Now, id: Key) {
        if let Some(asked) = self.take_question(id) {
            let message = "the answer cannot be had at present: ask again";
            let id = asked.id.as_ref();
            self.send_busy(now, asked.viewer, id, "OVERLOADED", message);
        }
    }

    fn answer_question(&mut self, now: Now, id: Key) {
        let Some(asked) = self.take_question(id) else {
            return;
        };
        let (viewer, id) = (asked.viewer, asked.id.as_ref());
        // What the token shows may have changed meanwhile.
        match asked.about {
            About::Activity { project, told } => {
                let is_shown = self.shows_project(viewer, &project);
                let Some((tally, last_ms)) = told.filter(|_| is_shown) else {
                    return self.refuse_project(now, viewer, id);
                };
                let answer = ServerMessage::ProjectActivity(ProjectActivity {
                    id,
                    project: &project,
                    tally: &tally,
                    last_ms,
                });
                self.peers.push_message(now, viewer, &answer);
            }
            About::Conversations { limit, mut found } => {
                found.retain(|(kind, conversation)| {
                    let project = conversation.project().unwrap_or_default();
                    *kind == StreamKind::User || self.shows_project(viewer, project)
                });
                let conversations = newest(each_once(found), limit);
                let answer = ServerMessage::ActiveConversations(ActiveConversations {
                    id,
                    conversations: &conversations,
                });
                self.peers.push_message(now, viewer, &answer);
            }
        }
    }

    fn tell(&mut self, now: Now, to: usize, id: Key, told: Told) {
        if to == self.options.core {
            self.handle_told(now, id, told);
        } else {
            self.send(to, Mail::Told { id, told });
        }
    }

    // A state that a question waits for is live.
    fn look_at_state(&mut self, now: Now, key: Key, slot: StreamSlot) {
        let Some(open) = self.questions.open.find_mut(key) else {
            return;
        };
        if !open.awaited.remove(&slot) {
            return;
        }
        let kind = self.streams.state(slot).map(|state| state.name.kind);
        if let Some((kind, state)) = kind.zip(self.folds.live(slot)) {
            let silent_before_ms = now.wall_ms - self.options.conversation_silence_ms;
            open.wanted.look_at(state, kind, slot, silent_before_ms);
        }
        self.release_fold(slot);
        self.go_on_with_question(now, key);
    }

    // Whoever asked about streams of this core has given it up by now.
    fn forget_question(&mut self, key: Key) {
        if let Some(open) = self.questions.open.remove(key) {
            self.questions.counting.retain(|other| *other != key);
            for slot in open.awaited {
                self.release_fold(slot);
            }
        }
    }

    // Answers a question about streams of this core, or has the log count for it.
    fn go_on_with_question(&mut self, now: Now, key: Key) {
        let Some(open) = self.questions.open.find(key) else {
            return;
        };
        if !open.awaited.is_empty() {
            return;
        }
        if let Wanted::Activity {
            counting: Some(counting),
            ..
        } = &open.wanted
            && !counting.is_done()
        {
            self.questions.counting.push_back(key);
            return self.count_on();
        }
        if let Some(Open {
            from, id, wanted, ..
        }) = self.questions.open.remove(key)
        {
            self.tell(now, from, id, wanted.into_told());
        }
    }
}

impl Questions {
    fn note_begun(&mut self, now: Now, place: Place) {
        let deadline_ms = now.ms() + QUESTION_TIMEOUT_MS;
        self.deadlines.push_back((deadline_ms, place));
    }

    fn is_unanswered(&self, place: Place) -> bool {
        match place {
            Place::Asked(id) => self.asked.find(id).is_some(),
            Place::Open(key) => self.open.find(key).is_some(),
        }
    }
}

impl Wanted {
    // What is wanted, and of which streams.
    fn of(question: Question) -> (Vec<Stream>, Self) {
        match question {
            Question::Activity { project, range } => {
                let (streams, counting) = (vec![Stream::project(&project)], None);
                (streams, Self::Activity { range, counting })
            }
            Question::Conversations {
                streams,
                project,
                limit,
            } => {
                let wanted = Self::Conversations {
                    project,
                    limit,
                    found: Vec::new(),
                };
                (streams, wanted)
            }
        }
    }

    // Takes what is wanted of the state of one stream.
    fn look_at(
        &mut self,
        state: &StreamState,
        kind: StreamKind,
        slot: StreamSlot,
        silent_before_ms: i64,
    ) {
        match self {
            Self::Activity { range, counting } => {
                let Some(activity) = state.activity() else {
                    return;
                };
                let last_ms = activity.last_ms();
                *counting = Some(match activity.knows(*range) {
                    true => Counting::done(activity.tally(*range), last_ms),
                    false => Counting::new(slot, *range, last_ms),
                });
            }
            Self::Conversations {
                project,
                limit,
                found,
            } => {
                let is_wanted = |conversation: &&Conversation| {
                    let is_about = |id: &CompactString| conversation.project() == Some(id);
                    let is_silent = conversation.is_silent_since(silent_before_ms);
                    !is_silent && project.as_ref().is_none_or(is_about)
                };
                let active = state.conversations().active().filter(is_wanted);
                found.extend(active.map(|conversation| (kind, conversation.clone())));
                found.sort_by_cached_key(|(_, conversation)| conversation.newness());
                found.truncate(*limit);
            }
        }
    }

    fn into_told(self) -> Told {
        match self {
            Self::Activity { counting, .. } => counting.map_or(Told::Unavailable, |counting| {
                let (tally, last_ms) = counting.into_parts();
                Told::Activity { tally, last_ms }
            }),
            Self::Conversations { found, .. } => Told::Conversations(found),
        }
    }
}

/// Of a conversation that was found in two streams, the one in which more was heard.
fn each_once(found: Vec<(StreamKind, Conversation)>) -> Vec<Conversation> {
    let mut each: BTreeMap<(CompactString, Option<CompactString>), Conversation> = BTreeMap::new();
    for (_, conversation) in found {
        let project = conversation.project().map(CompactString::from);
        let name = (conversation.id().into(), project);
        let heard = |c: &Conversation| (c.message_count(), c.tool_usage_count(), c.last_ms());
        let is_more = |known: &Conversation| heard(known) < heard(&conversation);
        if each.get(&name).is_none_or(is_more) {
            each.insert(name, conversation);
        }
    }
    each.into_values().collect()
}

fn newest(mut conversations: Vec<Conversation>, limit: usize) -> Vec<Conversation> {
    conversations.sort_by_cached_key(Conversation::newness);
    conversations.truncate(limit);
    conversations
}

/// Milliseconds after which a question that was not answered may be asked again.
const RETRY_AFTER_MS: u64 = 1_000;

#[cfg(test)]
mod tests;
