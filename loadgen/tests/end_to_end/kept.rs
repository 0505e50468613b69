//! What the server of these tests keeps of its users' streams, and how a viewer gets it again.

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::server::{Fault, Server, Stream};

type Socket = WebSocket<Box<dyn Stream>>;

impl Server {
    /// Numbers and keeps an event; returns its envelope.
    pub fn keep(&self, user: &str, event: &Value) -> String {
        let mut streams = self.streams.lock().unwrap();
        let kept = streams.entry(user.to_owned()).or_default();
        let envelope = json!({"event_type": event["event_type"], "seq": kept.len() + 1,
                              "session_id": event["session_id"], "data": event["data"]});
        kept.push(envelope.to_string());
        envelope.to_string()
    }

    /// Greets a viewer, and gives it what it has missed where it comes with a cursor.
    /// Errors: it has gone, or the fault is to end it.
    pub fn greet(&self, socket: &mut Socket, user: &str, query: &str) -> tungstenite::Result<()> {
        let kept = self.streams.lock().unwrap().get(user).cloned();
        let kept = kept.unwrap_or_default();
        let cursor = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resume="));
        let outcome = match cursor {
            None => "fresh",
            Some(_) if self.fault == Fault::Resets => "reset",
            Some(_) => "resumed",
        };
        let row = json!({"stream": "user", "outcome": outcome, "to": kept.len()});
        let data = json!({"epoch": "0000abcd", "resume": [row]});
        say(
            socket,
            &json!({"event_type": "connection_established", "data": data}),
        )?;
        if outcome == "resumed" {
            let after: usize = cursor.unwrap().parse().unwrap();
            self.replay(socket, &kept[after..])?;
        }
        Ok(())
    }

    fn replay(&self, socket: &mut Socket, missed: &[String]) -> tungstenite::Result<()> {
        let complete = json!({"event_type": "replay_complete",
                              "data": {"stream": "user", "seq": missed.len()}});
        let mut held = None;
        for (index, text) in missed.iter().enumerate() {
            let is_tenth = index % 10 == 9;
            let copies = match self.fault {
                Fault::Closes if is_tenth => return Err(tungstenite::Error::ConnectionClosed),
                Fault::CompletesEarly if index + 1 == missed.len() => {
                    say(socket, &complete)?;
                    1
                }
                Fault::Duplicates if is_tenth => 2,
                Fault::Loses if is_tenth => 0,
                Fault::Reorders if index % 10 == 8 => {
                    held = Some(text);
                    0
                }
                _ => 1,
            };
            let texts = std::iter::repeat_n(text, copies).chain(held.take_if(|_| is_tenth));
            for text in texts {
                socket.send(Message::text(text.as_str()))?;
            }
        }
        say(socket, &complete)
    }
}

fn say(socket: &mut Socket, message: &Value) -> tungstenite::Result<()> {
    socket.send(Message::text(message.to_string()))
}
