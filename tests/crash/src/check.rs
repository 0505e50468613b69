//! The offline checker: from the records of a run alone, everything in it that breaks a promise. Here
//! the account of publishers and log; what each viewer went through is in `walk`. Pure but for
//! reading the files. Source: the contract, sections 2, 3 and 5.

mod walk;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use crate::cast::EventFacts;
use crate::records::{
    ExportLine, GatewayLine, Plan, PublisherLine, ViewerLine, fingerprint, of_file, read, read_text,
};

pub use walk::Walk;

/// What a run showed.
#[derive(Debug, Default)]
pub struct Verdict {
    /// From which its choices followed.
    pub seed: u64,
    /// `history.deliver`.
    pub deliver: String,
    /// How often what happened.
    pub counts: Counts,
    /// What must not have happened, in the order of finding.
    pub violations: Vec<Violation>,
}

/// How often what happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Ends of the gateway without warning.
    pub kills: u64,
    /// Milliseconds from call to listening: the longest.
    pub ready_ms_max: u64,
    /// Events made.
    pub published: u64,
    /// Events sent once more.
    pub repeated: u64,
    /// Events acknowledged.
    pub acknowledged: u64,
    /// Nacks.
    pub nacked: u64,
    /// Events in the log; those of two audiences twice.
    pub logged: u64,
    /// Connections of viewers.
    pub connections: u64,
    /// Events that viewers got.
    pub delivered: u64,
    /// Rows by outcome.
    pub rows: BTreeMap<String, u64>,
    /// Rows that stated something `lost`.
    pub lost_stated: u64,
    /// Deliveries that these took back.
    pub lost_deliveries: u64,
}

/// Something that must not have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Of which kind.
    pub kind: Kind,
    /// Where, and what.
    pub text: String,
}

/// What can be violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An acknowledged event is not in the log, in one of its streams.
    AckLost,
    /// At the end a viewer has not got what is for it.
    Behind,
    /// `data`, or what an event says of itself, is not what was published.
    Changed,
    /// A connection was closed for a reason that nobody here gave.
    Closed,
    /// An `event_id` twice to a viewer, the first of them not taken back.
    DeliveredTwice,
    /// Not everybody was told the same epoch.
    EpochChanged,
    /// A viewer got what is not for it.
    Foreign,
    /// A stream began anew for a viewer that gave a cursor.
    Forgotten,
    /// A viewer was led past an event that is for it and in the log.
    Gap,
    /// A live event before `replay_complete`.
    LiveBeforeComplete,
    /// `lost`, although delivery waits for the disk.
    LostUnderDurable,
    /// The gateway ended, panicked, logged an error, or did not come to an end.
    Misbehaved,
    /// Somebody was refused what was allowed, or told what makes no sense.
    Refused,
    /// A cursor was reset, though the log is the same.
    Reset,
    /// `missing` or `lost` covers what is in the log.
    StatedButHeld,
    /// An event is twice in a stream of the log.
    StoredTwice,
    /// A seq of a stream names two events.
    TwoEvents,
    /// Something of a stream before a row said where it begins.
    Unattached,
    /// What nobody published, or a row that makes no sense.
    Unknown,
    /// A viewer saw what is not in the log, and was not told that it is lost.
    Unkept,
    /// An acknowledgement of what was not sent, or that goes back.
    WrongAck,
    /// Seqs that do not rise.
    WrongOrder,
}

/// Takes the records in, in this order: publishers, log, viewers.
pub struct Checker {
    verdict: Verdict,
    events: HashMap<String, EventFacts>,
    /// Each publisher's account of its messages.
    accounts: HashMap<String, Account>,
    acknowledged: HashSet<String>,
    /// The log: each stream's events by seq.
    log: HashMap<String, BTreeMap<u64, String>>,
    /// Where in the log each event is.
    places: HashMap<String, Vec<(String, u64)>>,
    /// What viewers saw that is not in the log.
    unkept: HashMap<(String, u64), String>,
    epoch: Option<String>,
}

#[derive(Default)]
struct Account {
    sent: HashSet<String>,
    /// Events by connection and message.
    messages: HashMap<(u32, u64), Vec<String>>,
    nacked: HashSet<(u32, u64, usize)>,
    /// By connection.
    through: HashMap<u32, u64>,
}

/// Judges the run whose records are in a folder. Errors: of the files, in words.
pub fn check_folder(folder: &Path) -> Result<Verdict, String> {
    let folder = folder.join("records");
    let path = folder.join("plan.json");
    let text = std::fs::read(&path).map_err(|error| of_file(&path, &error))?;
    let plan: Plan =
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut checker = Checker::new(&plan);
    read(&folder, "gateway", |line| checker.handle_gateway(line))?;
    for name in &plan.publishers {
        read(&folder, name, |line| checker.handle_publisher(name, line))?;
    }
    read_text(&folder, "export", |line| {
        serde_json::from_str(line).map(|line| checker.handle_logged(&line))
    })?;
    checker.check_acknowledged();
    for viewer in &plan.viewers {
        let mut walk = Walk::new(&mut checker, viewer);
        read(&folder, &viewer.name, |line: ViewerLine| walk.handle(line))?;
        walk.finish();
    }
    Ok(checker.finish())
}

impl Checker {
    /// One that knows nothing yet.
    pub fn new(plan: &Plan) -> Self {
        Self {
            verdict: Verdict {
                seed: plan.seed,
                deliver: plan.deliver.clone(),
                ..Verdict::default()
            },
            events: HashMap::new(),
            accounts: HashMap::new(),
            acknowledged: HashSet::new(),
            log: HashMap::new(),
            places: HashMap::new(),
            unkept: HashMap::new(),
            epoch: None,
        }
    }

    /// Takes what the driver saw of the gateway.
    pub fn handle_gateway(&mut self, line: GatewayLine) {
        let counts = &mut self.verdict.counts;
        match line {
            GatewayLine::Started { ready_ms } => {
                counts.ready_ms_max = counts.ready_ms_max.max(ready_ms);
            }
            GatewayLine::Killed => counts.kills += 1,
            GatewayLine::Misbehaved { what } => self.fail(Kind::Misbehaved, what),
        }
    }

    /// Takes what a publisher did and was told.
    pub fn handle_publisher(&mut self, name: &str, line: PublisherLine) {
        match line {
            PublisherLine::Made(event) => {
                self.verdict.counts.published += 1;
                self.events.insert(event.event_id.clone(), event);
            }
            PublisherLine::Sent {
                connection,
                message,
                event_ids,
            } => {
                let account = self.account(name);
                let repeated = event_ids
                    .iter()
                    .filter(|id| !account.sent.insert((*id).clone()))
                    .count();
                account.messages.insert((connection, message), event_ids);
                self.verdict.counts.repeated += repeated as u64;
            }
            PublisherLine::Acked {
                connection,
                through,
            } => self.handle_ack(name, connection, through),
            PublisherLine::Nacked {
                connection,
                message,
                index,
                code,
            } => {
                self.verdict.counts.nacked += 1;
                let place = (connection, message, index);
                self.account(name).nacked.insert(place);
                if !TEMPORARY.contains(&code.as_str()) {
                    let text = format!("{name}: message {message}, event {index}: {code}");
                    self.fail(Kind::Refused, text);
                }
            }
            PublisherLine::Told { what } => self.fail(Kind::Refused, format!("{name}: {what}")),
        }
    }

    /// Takes an event of the log.
    pub fn handle_logged(&mut self, line: &ExportLine<'_>) {
        self.verdict.counts.logged += 1;
        let (stream, seq) = (&line.stream, line.seq);
        let event_id = line.event_id.clone().unwrap_or_default();
        match self.events.get(&event_id) {
            None => self.fail(
                Kind::Unknown,
                format!("the log: {stream} {seq}: nobody published {event_id:?}"),
            ),
            Some(event) if !event.streams().contains(stream) => self.fail(
                Kind::Foreign,
                format!("the log: {stream} {seq}: {event_id} is not of this stream"),
            ),
            Some(event) if !is_as_published(event, line) => self.fail(
                Kind::Changed,
                format!("the log: {stream} {seq}: {event_id} is not as it was published"),
            ),
            Some(_) => {}
        }
        self.check_place(stream, seq, &event_id);
        let places = self.places.entry(event_id.clone()).or_default();
        places.push((stream.clone(), seq));
        let kept = self.log.entry(stream.clone()).or_default();
        kept.entry(seq).or_insert(event_id);
    }

    /// Looks for what was acknowledged in the log, which is complete by now.
    pub fn check_acknowledged(&mut self) {
        self.verdict.counts.acknowledged = self.acknowledged.len() as u64;
        let mut acknowledged: Vec<_> = self.acknowledged.drain().collect();
        acknowledged.sort();
        for event_id in acknowledged {
            let streams = self.events.get(&event_id).map(EventFacts::streams);
            let places = self.places.get(&event_id);
            let is_kept = |stream: &String| {
                places.is_some_and(|places| places.iter().any(|(place, _)| place == stream))
            };
            let mut lost = streams.unwrap_or_default();
            lost.retain(|stream| !is_kept(stream));
            for stream in lost {
                let text = format!("{event_id} is acknowledged and not in {stream}");
                self.fail(Kind::AckLost, text);
            }
        }
    }

    /// What came of it all.
    pub fn finish(self) -> Verdict {
        self.verdict
    }

    fn check_place(&mut self, stream: &str, seq: u64, event_id: &str) {
        let kept = self.log.get(stream);
        let last = kept.and_then(|kept| kept.last_key_value());
        match last {
            Some((last, other)) if *last == seq => {
                let text = format!("the log: {stream} {seq} is {other} and {event_id}");
                self.fail(Kind::TwoEvents, text);
            }
            Some((last, _)) if *last > seq => {
                let text = format!("the log: {stream} {seq} comes after {last}");
                self.fail(Kind::WrongOrder, text);
            }
            _ => {}
        }
        let places = self.places.get(event_id).into_iter().flatten();
        let mut earlier = places.filter(|(place, _)| place == stream);
        if let Some((_, earlier)) = earlier.next() {
            let text = format!("the log: {event_id} is {stream} {earlier} and {seq}");
            self.fail(Kind::StoredTwice, text);
        }
    }

    fn handle_ack(&mut self, name: &str, connection: u32, through: u64) {
        let account = self.account(name);
        let before = account.through.insert(connection, through).unwrap_or(0);
        let mut settled = Vec::new();
        let mut is_right = through >= before;
        for message in before + 1..=through {
            let Some(event_ids) = account.messages.get(&(connection, message)) else {
                is_right = false;
                break;
            };
            let taken = event_ids.iter().enumerate().filter(|(index, _)| {
                let place = (connection, message, *index);
                !account.nacked.contains(&place)
            });
            settled.extend(taken.map(|(_, event_id)| event_id.clone()));
        }
        self.acknowledged.extend(settled);
        if !is_right {
            let text = format!("{name}: connection {connection}: {before}, then {through}");
            self.fail(Kind::WrongAck, text);
        }
    }

    fn account(&mut self, name: &str) -> &mut Account {
        self.accounts.entry(name.to_owned()).or_default()
    }

    fn fail(&mut self, kind: Kind, text: String) {
        self.verdict.violations.push(Violation { kind, text });
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

fn is_as_published(event: &EventFacts, line: &ExportLine<'_>) -> bool {
    event.event_type == line.event_type
        && event.user == line.user_id
        && event.project == line.project_id
        && event.session == line.session_id
        && event.data == fingerprint(line.data.get().as_bytes())
}

/// Codes after which the same event may be taken.
const TEMPORARY: [&str; 4] = ["DRAINING", "OVERLOADED", "RATE_LIMITED", "STORAGE_FULL"];
