//! What a publisher over WebSocket is told, `ack` and `nack`, and the one thing that it says beside
//! its events, `continue`. These have no dialect. Source: the contract, section 3.

use super::json::Object;
use super::strict::Strict;

/// One event of a publisher's message that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack<'a> {
    /// The message on this connection, from 1.
    pub message: u64,
    /// The event's place in the message's array, from 0; 0 where it is not an array.
    pub index: usize,
    /// The code word, for example `NO_AUDIENCE`.
    pub code: &'a str,
    /// For people.
    pub reason: &'a str,
    /// Milliseconds after which another try is worth it.
    pub retry_after_ms: Option<u64>,
}

/// Appends `ack`: the messages 1 to `through` of this connection are settled.
pub fn encode_ack(through: u64, out: &mut Vec<u8>) {
    encode("ack", out, |data| data.integer("through", through));
}

/// Appends `nack`.
pub fn encode_nack(nack: &Nack<'_>, out: &mut Vec<u8>) {
    encode("nack", out, |data| {
        data.integer("message", nack.message);
        data.integer("index", nack.index);
        data.string("code", nack.code);
        data.string("reason", nack.reason);
        if let Some(retry_after_ms) = nack.retry_after_ms {
            data.integer("retryAfter", retry_after_ms);
        }
    });
}

/// Whether a publisher's message is `{"type":"continue"}` and not an event. It has no other member:
/// an event of that type needs an audience, and so has one.
pub fn is_continue(message: &[u8]) -> bool {
    // Spares every event a second parse; the rest is room for white space and escapes.
    const BYTES_MAX: usize = 128;
    if message.len() > BYTES_MAX {
        return false;
    }
    Strict::parse(message).is_some_and(|message| {
        let members = message.value.as_object();
        let is_alone = members.is_some_and(|members| members.len() == 1);
        is_alone && !message.has_duplicates && message.value["type"] == "continue"
    })
}

fn encode(name: &str, out: &mut Vec<u8>, push_members: impl FnOnce(&mut Object<'_>)) {
    let mut envelope = Object::open(out);
    envelope.string("type", name);
    let mut data = Object::open(envelope.member("data"));
    push_members(&mut data);
    data.close();
    envelope.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encode: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = Vec::new();
        encode(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn acks_and_nacks_are_written_as_the_contract_has_them() {
        let nack = Nack {
            message: 3,
            index: 0,
            code: "OVERLOADED",
            reason: "no \"room\"",
            retry_after_ms: Some(1_000),
        };
        let last = Nack {
            index: 1,
            code: "NO_AUDIENCE",
            retry_after_ms: None,
            ..nack
        };
        check(
            |out| encode_ack(9, out),
            r#"{"type":"ack","data":{"through":9}}"#,
        );
        check(
            |out| encode_nack(&nack, out),
            r#"{"type":"nack","data":{"message":3,"index":0,"code":"OVERLOADED","reason":"no \"room\"","retryAfter":1000}}"#,
        );
        check(
            |out| encode_nack(&last, out),
            r#"{"type":"nack","data":{"message":3,"index":1,"code":"NO_AUDIENCE","reason":"no \"room\""}}"#,
        );
    }
    #[test]
    fn continue_is_told_from_events() {
        let check =
            |text: &str, expected| assert_eq!(is_continue(text.as_bytes()), expected, "{text}");
        check(r#"{"type":"continue"}"#, true);
        check("\n{ \"type\" : \"continue\" } ", true);
        check(r#"{"type":"continue","user_id":"u"}"#, false);
        check(r#"{"type":"continue","type":"continue"}"#, false);
        check(r#"{"event_type":"continue"}"#, false);
        check(r#"{"type":"continued"}"#, false);
        check(r#"[{"type":"continue"}]"#, false);
        check(r#""continue""#, false);
        check(r#"{"type":"continue""#, false);
        check(
            &format!(r#"{{"type":"continue"{}}}"#, " ".repeat(200)),
            false,
        );
    }
}
