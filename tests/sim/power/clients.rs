//! The publishers and viewers of the crash test, on simulated connections. What they do and write
//! down is `sightline_crash`'s; here is when.

use form_urlencoded::parse;
use sightline::auth::Permission;
use sightline::dialect::ConnectQuery;
use sightline::event::{BodyKind, Dialect, StreamKind};
use sightline::hub::ViewerRequest;
use sightline::hub::frames::Variant;
use sightline::hub::keyed::Key;
use sightline::hub::mail::Ack;
use sightline::hub::peers::Arrival as Newcomer;
use sightline::hub::publisher::Outcome;
use sightline::wire::frame::{Control, Data, OpCode};
use sightline_crash::cast::ViewerPlan;
use sightline_crash::publishing::Publishing;
use sightline_crash::records::{PublisherLine, ViewerLine};
use sightline_crash::viewing::Viewing;

use super::gateway::Gateway;
use crate::core::Arrival;
use crate::dice::Dice;
use crate::network::{Frame, FrameReader, LinkId, Links};
use crate::viewer::{RESPONSE, send_frame};

/// When a step is.
#[derive(Clone, Copy)]
pub struct Moment {
    pub now_ms: u64,
    /// How often the gateway has ended.
    pub cycle: u32,
    /// This gateway is to settle.
    pub is_last: bool,
}

/// A WebSocket of a client.
struct Connection {
    link: LinkId,
    reader: FrameReader,
    closed_by: Option<u16>,
    leave_ms: u64,
    is_leaving: bool,
}

impl Connection {
    fn new(link: LinkId, takes_deflated: bool, leave_ms: u64) -> Self {
        Self {
            link,
            reader: FrameReader::new(RESPONSE, takes_deflated),
            closed_by: None,
            leave_ms,
            is_leaving: false,
        }
    }

    // Reads at most so many bytes. Returns the messages that are whole.
    fn hear(&mut self, links: &mut Links, bytes_max: usize) -> Result<Vec<String>, String> {
        let link = links.get(self.link);
        self.reader.feed(&link.receive(bytes_max))?;
        let mut texts = Vec::new();
        while let Some(frame) = self.reader.next()? {
            match frame {
                Frame::Close(code) => self.closed_by = Some(code),
                Frame::Ping(payload) => {
                    send_frame(link, OpCode::Control(Control::Pong), &payload);
                }
                Frame::Pong => {}
                Frame::Text(text) => {
                    texts.push(String::from_utf8(text).map_err(|error| error.to_string())?);
                }
            }
        }
        Ok(texts)
    }

    fn say(&self, links: &mut Links, text: &str) {
        let link = links.get(self.link);
        send_frame(link, OpCode::Data(Data::Text), text.as_bytes());
    }

    // Leaves when it is time: with a goodbye, after which it still listens, or without.
    fn leave(&mut self, links: &mut Links, now_ms: u64, dice: &mut Dice) {
        if now_ms < self.leave_ms || self.is_leaving {
            return;
        }
        self.is_leaving = true;
        let link = links.get(self.link);
        link.is_client_gone = dice.chance(50);
        let code = 1000_u16.to_be_bytes();
        send_frame(link, OpCode::Control(Control::Close), &code);
    }

    fn is_over(&self, links: &mut Links) -> bool {
        let link = links.get(self.link);
        let is_over = link.is_client_gone
            || self.closed_by.is_some()
            || (link.is_server_gone && !link.has_received());
        link.is_client_gone |= is_over;
        is_over
    }
}

/// One publisher through all lives of the gateway.
pub struct Publisher {
    pub lines: Vec<PublisherLine>,
    name: String,
    publishing: Publishing,
    place: Place,
    next_ms: u64,
}

enum Place {
    Away,
    Connected(Connection),
    Posting(LinkId, Ack),
}

impl Publisher {
    pub fn new(name: &str, dice: fastrand::Rng) -> Self {
        Self {
            lines: Vec::new(),
            name: name.to_owned(),
            publishing: Publishing::new(name, dice),
            place: Place::Away,
            next_ms: 0,
        }
    }

    /// Errors: what a gateway never sends it.
    pub fn step(
        &mut self,
        gateway: &mut Gateway,
        moment: Moment,
        dice: &mut Dice,
    ) -> Result<(), String> {
        match &self.place {
            Place::Away if moment.is_last && self.publishing.is_done() => {}
            Place::Away => self.come(gateway, moment, dice),
            Place::Connected(_) => self.go_on(gateway, moment, dice)?,
            Place::Posting(..) => {}
        }
        self.write_down();
        Ok(())
    }

    /// The power is gone; some of what was on its way still arrives.
    pub fn handle_cut(&mut self, links: &mut Links, dice: &mut Dice) -> Result<(), String> {
        self.hear(links, some_bytes(dice))?;
        self.end();
        self.write_down();
        Ok(())
    }

    /// Takes the answer to a POST, if it is its own.
    pub fn handle_posted(&mut self, link: LinkId, outcome: &Outcome) {
        let ack = match self.place {
            Place::Posting(own, ack) if own == link => ack,
            _ => return,
        };
        for row in &outcome.rejected.rows {
            let (index, code) = (row.index, row.code.as_str());
            self.publishing.handle(&format!(
                r#"{{"type":"nack","data":{{"message":1,"index":{index},"code":"{code}"}}}}"#
            ));
        }
        if ack == Ack::Durable {
            self.publishing
                .handle(r#"{"type":"ack","data":{"through":1}}"#);
        } else {
            self.publishing.let_go();
        }
        self.end();
        self.write_down();
    }

    pub fn has_in_flight(&self) -> bool {
        self.publishing.has_in_flight()
    }

    pub fn is_done(&self) -> bool {
        self.publishing.is_done()
    }

    fn come(&mut self, gateway: &mut Gateway, moment: Moment, dice: &mut Dice) {
        if !dice.chance(30) {
            return;
        }
        let now_ms = moment.now_ms;
        let claims = gateway.claims(&self.name, &[], Permission::PublishAny, now_ms);
        let link = gateway.links.open(1 << 20, dice.chance(50));
        self.publishing
            .begin(if moment.is_last { 5 } else { usize::MAX });
        let arrival = if !moment.is_last && dice.chance(40) {
            let Some(text) = self.publishing.poll_message() else {
                return;
            };
            let ack = dice.pick(&[Ack::Durable, Ack::Received]);
            self.place = Place::Posting(link, ack);
            Arrival::Post {
                link,
                claims,
                body: text.into(),
                kind: BodyKind::Json,
                ack,
            }
        } else {
            let leaves = !moment.is_last && dice.chance(12);
            let leave_ms = if leaves { now_ms + 40 } else { u64::MAX };
            self.place = Place::Connected(Connection::new(link, false, leave_ms));
            Arrival::Publisher(Newcomer {
                connection: Key::from_u64(link),
                claims,
                id: dice.bits(),
                remote: None,
                response: RESPONSE.to_vec(),
            })
        };
        let core = dice.below(gateway.cores.len());
        gateway.cores[core].arrivals.push_back(arrival);
    }

    fn go_on(
        &mut self,
        gateway: &mut Gateway,
        moment: Moment,
        dice: &mut Dice,
    ) -> Result<(), String> {
        let links = &mut gateway.links;
        self.hear(links, usize::MAX)?;
        let Place::Connected(connection) = &mut self.place else {
            return Ok(());
        };
        connection.leave(links, moment.now_ms, dice);
        if connection.is_over(links) {
            self.end();
            return Ok(());
        }
        if moment.now_ms < self.next_ms || connection.is_leaving {
            return Ok(());
        }
        self.next_ms = moment.now_ms + dice.between(0, 30);
        for _ in 0..dice.between(1, 4) {
            if let Some(text) = self.publishing.poll_message() {
                connection.say(links, &text);
            }
        }
        Ok(())
    }

    fn hear(&mut self, links: &mut Links, bytes_max: usize) -> Result<(), String> {
        let Place::Connected(connection) = &mut self.place else {
            return Ok(());
        };
        for text in connection.hear(links, bytes_max)? {
            if let Some(reply) = self.publishing.handle(&text) {
                connection.say(links, reply);
            }
        }
        match connection.closed_by {
            None | Some(1000 | 1001 | 4009) => Ok(()),
            Some(code) => Err(format!("{} was closed with {code}", self.name)),
        }
    }

    fn end(&mut self) {
        self.place = Place::Away;
        self.publishing.end();
    }

    fn write_down(&mut self) {
        while let Some(line) = self.publishing.poll_line() {
            self.lines.push(line);
        }
    }
}

/// One viewer through all lives of the gateway.
pub struct Viewer {
    pub plan: ViewerPlan,
    pub lines: Vec<ViewerLine>,
    viewing: Viewing,
    connection: Option<Connection>,
    // It stays away before.
    back_in_cycle: u32,
}

impl Viewer {
    pub fn new(plan: ViewerPlan) -> Self {
        Self {
            lines: Vec::new(),
            viewing: Viewing::new(&plan),
            connection: None,
            back_in_cycle: 0,
            plan,
        }
    }

    /// Errors: what a gateway never sends.
    pub fn step(
        &mut self,
        gateway: &mut Gateway,
        moment: Moment,
        dice: &mut Dice,
    ) -> Result<(), String> {
        if self.connection.is_none() {
            self.come(gateway, moment, dice);
            return Ok(());
        }
        let links = &mut gateway.links;
        // It is slow now and then, and what is for it waits.
        let bytes_max = dice.pick(&[usize::MAX, usize::MAX, 2_000, 100]);
        self.hear(links, bytes_max)?;
        if let Some(connection) = &mut self.connection {
            connection.leave(links, moment.now_ms, dice);
            if connection.is_over(links) {
                self.end();
                let lives = if dice.chance(10) {
                    dice.between(1, 3)
                } else {
                    0
                };
                self.back_in_cycle = moment.cycle + lives as u32;
            }
        }
        Ok(())
    }

    /// The power is gone; some of what was on its way still arrives.
    pub fn handle_cut(&mut self, links: &mut Links, dice: &mut Dice) -> Result<(), String> {
        self.hear(links, some_bytes(dice))?;
        self.end();
        Ok(())
    }

    pub fn is_caught_up(&self) -> bool {
        self.connection.is_some() && self.viewing.is_caught_up()
    }

    fn come(&mut self, gateway: &mut Gateway, moment: Moment, dice: &mut Dice) {
        let is_away = moment.cycle < self.back_in_cycle && !moment.is_last;
        if is_away || !dice.chance(20) {
            return;
        }
        let (user, now_ms) = (&self.plan.user, moment.now_ms);
        let projects = &self.plan.projects;
        let claims = gateway.claims(user, projects, Permission::Subscribe, now_ms);
        let target = self.viewing.target();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = ConnectQuery::parse(parse(query.as_bytes()));
        let dialect = match path {
            "/keen" => Dialect::Keen,
            _ => Dialect::Observatory,
        };
        let takes_deflated = dice.chance(20);
        let link = gateway
            .links
            .open(dice.pick(&[4_000, 1 << 20]), dice.chance(50));
        let leaves = !moment.is_last && dice.chance(25);
        let leave_ms = if leaves {
            now_ms + dice.between(5, 150)
        } else {
            u64::MAX
        };
        self.lines.push(self.viewing.begin(moment.cycle));
        self.connection = Some(Connection::new(link, takes_deflated, leave_ms));
        let home = gateway.partition.core_of(StreamKind::User, user);
        let request = ViewerRequest {
            arrival: Newcomer {
                connection: Key::from_u64(link),
                claims,
                id: dice.bits(),
                remote: None,
                response: RESPONSE.to_vec(),
            },
            variant: match takes_deflated {
                true => Variant::deflated(dialect),
                false => Variant::plain(dialect),
            },
            query: query.expect("the crash test's viewers ask for what there is"),
        };
        let arrivals = &mut gateway.cores[home].arrivals;
        arrivals.push_back(Arrival::Viewer(request));
    }

    fn hear(&mut self, links: &mut Links, bytes_max: usize) -> Result<(), String> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        for text in connection.hear(links, bytes_max)? {
            let reaction = self.viewing.handle(&text);
            self.lines.extend(reaction.line);
            if let Some(answer) = reaction.answer {
                connection.say(links, &answer);
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            let code = connection.closed_by;
            self.lines.push(ViewerLine::Closed { code });
        }
    }
}

fn some_bytes(dice: &mut Dice) -> usize {
    dice.pick(&[0, 300, 3_000, usize::MAX])
}
