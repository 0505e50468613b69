//! WebSocket clients on tungstenite: a viewer and a publisher.

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::http::header::{HeaderName, HeaderValue};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use super::{Server, Stream, check_secrecy};

/// A viewer. Reads answer pings on the way, as a browser does.
pub struct Viewer {
    socket: WebSocket<Stream>,
    /// Its first message.
    pub established: Value,
    /// The answer to its upgrade.
    pub response: Response,
}

/// An upgrade that was refused by HTTP.
#[derive(Debug, PartialEq)]
pub struct Refused {
    pub status: u16,
    pub code: String,
}

impl Viewer {
    /// One whose token is in a header. It is established.
    pub fn open(server: &Server, target: &str, token: &str) -> Self {
        let authorization = format!("Bearer {token}");
        Self::try_open(server, target, &[("authorization", &authorization)]).unwrap()
    }

    /// One whose upgrade has these headers besides the necessary ones.
    pub fn try_open(
        server: &Server,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let (socket, response) = connect(server, target, headers)?;
        Ok(Self::established(socket, response))
    }

    /// One over this connection, whose token is in a header.
    pub fn over(stream: Stream, target: &str, token: &str) -> Self {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let (socket, response) = connect_over(stream, target, &headers).unwrap();
        Self::established(socket, response)
    }

    fn established(socket: WebSocket<Stream>, response: Response) -> Self {
        let mut viewer = Self {
            socket,
            established: Value::Null,
            response,
        };
        viewer.established = viewer.next();
        viewer
    }

    /// Upgrades and no more; the connection ends with the answer.
    pub fn try_upgrade(
        server: &Server,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response, Refused> {
        connect(server, target, headers).map(|(_, response)| response)
    }

    /// Its dialect, by the shape of what it was told.
    pub fn dialect(&self) -> &'static str {
        match self.established.get("event_type") {
            Some(_) => "keen",
            None => "observatory",
        }
    }

    /// Its first message's `data`.
    pub fn greeting(&self) -> &Value {
        &self.established["data"]
    }

    /// The next text message, as it is on the wire.
    pub fn next_text(&mut self) -> String {
        match self.try_next() {
            Ok(text) => text,
            Err(code) => panic!("closed with {code}"),
        }
    }

    /// The next message.
    pub fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text()).unwrap()
    }

    /// The next message, or the code of the close that came instead.
    pub fn try_next(&mut self) -> Result<String, u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    check_secrecy("a message", &text);
                    return Ok(text.to_string());
                }
                Ok(Message::Close(frame)) => {
                    // The answer to it, for which the server waits.
                    let _ = self.socket.flush();
                    return Err(frame.map_or(1005, |frame| frame.code.into()));
                }
                Ok(_) => {}
                Err(error) => panic!("neither a message nor a close: {error}"),
            }
        }
    }

    /// All messages up to the first of this kind, which is the last of them.
    pub fn until(&mut self, name: &str) -> Vec<Value> {
        let mut messages = vec![self.next()];
        while kind(messages.last().unwrap()) != name {
            messages.push(self.next());
        }
        messages
    }

    /// The first message of this kind; those before it are dropped.
    pub fn skip_to(&mut self, name: &str) -> Value {
        self.until(name).pop().unwrap()
    }

    /// All messages up to the close, and its code.
    pub fn until_close(&mut self) -> (Vec<Value>, u16) {
        let mut messages = Vec::new();
        loop {
            match self.try_next() {
                Ok(text) => messages.push(serde_json::from_str(&text).unwrap()),
                Err(code) => return (messages, code),
            }
        }
    }

    /// Sends a message.
    pub fn say(&mut self, message: &Value) {
        self.say_text(&message.to_string());
    }

    /// Sends a text message, JSON or not.
    pub fn say_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Sends a message and reads the answer.
    pub fn ask(&mut self, message: &Value) -> Value {
        self.say(message);
        self.next()
    }

    /// Subscribes to what `filters` say.
    pub fn subscribe(&mut self, filters: &Value) -> Value {
        let answer = self.ask(&json!({"type": "subscribe", "data": {"filters": filters}}));
        assert_eq!(kind(&answer), "subscription_confirmed", "{answer}");
        answer
    }

    /// All messages that are on their way: up to the answer to a ping, which is left out.
    pub fn drain(&mut self) -> Vec<Value> {
        self.say(&json!({"type": "ping", "id": "drain"}));
        let mut messages = self.until("pong");
        messages.pop();
        messages
    }

    /// Closes from this side, and waits for the answer.
    pub fn close(mut self) {
        self.socket.close(None).unwrap();
        while self.socket.read().is_ok() {}
    }
}

/// A publisher over WebSocket.
pub struct Publisher {
    socket: WebSocket<Stream>,
}

impl Publisher {
    /// One with this token.
    pub fn open(server: &Server, token: &str) -> Self {
        Self::try_open(server, "/v1/publish", token).unwrap()
    }

    /// One that may ask for more in its query.
    pub fn try_open(server: &Server, target: &str, token: &str) -> Result<Self, Refused> {
        let authorization = format!("Bearer {token}");
        let headers = [("authorization", authorization.as_str())];
        let (socket, _) = connect(server, target, &headers)?;
        Ok(Self { socket })
    }

    /// Sends an event, or an array of them.
    pub fn say(&mut self, events: &Value) {
        self.say_text(events.to_string());
    }

    /// Sends an event to a server that may be going away.
    pub fn try_say(&mut self, event: &Value) {
        let _ = self.socket.send(Message::text(event.to_string()));
    }

    /// Sends a text message.
    pub fn say_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The next answer, or the code of a close.
    pub fn next(&mut self) -> Result<Value, u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(frame)) => {
                    // The answer to it, for which the server waits.
                    let _ = self.socket.flush();
                    return Err(frame.map_or(1005, |frame| frame.code.into()));
                }
                Ok(_) => {}
                Err(error) => panic!("neither an answer nor a close: {error}"),
            }
        }
    }

    /// Waits until messages 1 to `count` are settled; returns the nacks on the way.
    pub fn settle(&mut self, count: u64) -> Vec<Value> {
        let mut nacks = Vec::new();
        loop {
            let answer = self.next().unwrap();
            let through = &answer["data"]["through"];
            match kind(&answer) {
                "nack" => nacks.push(answer["data"].clone()),
                "ack" if through.as_u64().unwrap() >= count => return nacks,
                "ack" => {}
                other => panic!("a publisher was told {other}"),
            }
        }
    }
}

fn connect(
    server: &Server,
    target: &str,
    headers: &[(&str, &str)],
) -> Result<(WebSocket<Stream>, Response), Refused> {
    connect_over(server.stream(), target, headers)
}

fn connect_over(
    stream: Stream,
    target: &str,
    headers: &[(&str, &str)],
) -> Result<(WebSocket<Stream>, Response), Refused> {
    let mut request = format!("ws://gateway.test{target}")
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request
            .headers_mut()
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    match tungstenite::client(request, stream) {
        Ok(connected) => Ok(connected),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let body = response.body().clone().unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            Err(Refused {
                status: response.status().as_u16(),
                code: body["error"]["code"].as_str().unwrap_or_default().into(),
            })
        }
        Err(error) => panic!("no handshake: {error}"),
    }
}

/// A message's name, in either dialect.
pub fn kind(message: &Value) -> &str {
    let name = message.get("event_type").or_else(|| message.get("type"));
    name.and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no type: {message}"))
}

/// The names of messages.
pub fn kinds(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(kind).collect()
}
