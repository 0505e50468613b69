//! The administrator's paths: which there are, what their bodies say, how their answers read.

use compact_str::CompactString;
use serde_json::{Value, json};

use crate::auth::{Revocation, RevokeRequest};
use crate::hub::mail::{Answer, Ask, Target};
use crate::limits::TOKEN_ID_BYTES_MAX;
use crate::wire::close::Refusal;
use crate::wire::{Method, Refused};

/// An administrator's request, by method and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Connections,
    Disconnect,
    Erase,
    Revoke,
    Unrevoke,
}

impl Route {
    /// The route of a path below `/v1/admin/`, or the refusal.
    pub fn of(method: Method, path: &str) -> Result<Self, Refused> {
        match (path, method) {
            ("connections", Method::Get) => Ok(Self::Connections),
            ("disconnect", Method::Post) => Ok(Self::Disconnect),
            ("erase", Method::Post) => Ok(Self::Erase),
            ("revoke", Method::Post) => Ok(Self::Revoke),
            ("revoke", Method::Delete) => Ok(Self::Unrevoke),
            ("connections" | "disconnect" | "erase" | "revoke", _) => Err(Refused::new(
                Refusal::MethodNotAllowed,
                "this path does not take this method",
            )),
            _ => Err(Refused::new(Refusal::NotFound, "no such path")),
        }
    }

    /// What the request asks of every core.
    pub fn ask(self, body: &[u8], now_s: u64) -> Result<Ask, Refused> {
        match self {
            Self::Connections => Ok(Ask::Connections),
            Self::Disconnect => target(body).map(Ask::Disconnect),
            Self::Erase => user(body).map(Ask::Erase),
            Self::Revoke => revocation(body, now_s).map(Ask::Revoke),
            Self::Unrevoke => revocation(body, now_s).map(Ask::Unrevoke),
        }
    }
}

/// The answer to an administrator: status and body.
pub(super) fn answer(route: Route, answer: &Answer) -> (u16, String) {
    match answer {
        Answer::Count(count) if route == Route::Unrevoke => {
            (200, json!({"removed": count}).to_string())
        }
        Answer::Count(count) if route == Route::Erase => {
            (200, json!({"erased": count}).to_string())
        }
        Answer::Count(count) => (200, json!({"closed": count}).to_string()),
        Answer::Full => {
            let message = "too many revocations are in force: undo some, or let some run out";
            (
                507,
                json!({"error": {"code": "REVOCATIONS_FULL", "message": message}}).to_string(),
            )
        }
        Answer::Rows(rows) => (200, json!({"connections": rows}).to_string()),
    }
}

fn revocation(body: &[u8], now_s: u64) -> Result<Revocation, Refused> {
    let request = RevokeRequest::parse(body).and_then(|request| request.into_revocation(now_s));
    request.map_err(|error| Refused::new(Refusal::BadRequest, error.to_string()))
}

// Whose events are to go: `{"userId": "…"}`, a string of 1 to 128 bytes, or an integer.
fn user(body: &[u8]) -> Result<CompactString, Refused> {
    let expected = "the body is an object with userId alone, a string or an integer";
    let user = match serde_json::from_slice(body) {
        Ok(Value::Object(object)) if object.len() == 1 => object.get("userId").and_then(text_of),
        _ => None,
    };
    let user = user.filter(|user| (1..=TOKEN_ID_BYTES_MAX).contains(&user.len()));
    user.ok_or_else(|| Refused::new(Refusal::BadRequest, expected))
}

fn text_of(value: &Value) -> Option<CompactString> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) if number.is_i64() || number.is_u64() => {
            Some(number.to_string().into())
        }
        _ => None,
    }
}

fn target(body: &[u8]) -> Result<Target, Refused> {
    let expected = "the body is an object with either userId or connectionId, a string";
    let bad = || Refused::new(Refusal::BadRequest, expected);
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
        return Err(bad());
    };
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    match (object.len(), text("userId"), text("connectionId")) {
        (1, Some(user), None) => Ok(Target::User(user.into())),
        (1, None, Some(connection)) => Ok(Target::Connection(connection.into())),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Option<&Target>) {
        assert_eq!(target(body.as_bytes()).ok().as_ref(), expected, "{body}");
    }

    #[test]
    fn an_erasure_names_one_user() {
        let check = |body: &str, expected: Option<&str>| {
            assert_eq!(user(body.as_bytes()).ok().as_deref(), expected, "{body}");
        };
        check(r#"{"userId":"a"}"#, Some("a"));
        check(r#"{"userId":7}"#, Some("7"));
        check(r#"{"userId":7.5}"#, None);
        check(r#"{"userId":""}"#, None);
        check(&json!({"userId": "a".repeat(129)}).to_string(), None);
        check(r#"{"userId":"a","all":true}"#, None);
        check("{}", None);
        check("[", None);
    }

    #[test]
    fn a_disconnect_names_one_user_or_one_connection() {
        check(r#"{"userId":"a"}"#, Some(&Target::User("a".into())));
        check(
            r#"{"connectionId":"0f"}"#,
            Some(&Target::Connection("0f".into())),
        );
        check(r#"{"userId":"a","connectionId":"0f"}"#, None);
        check(r#"{"userId":7}"#, None);
        check("{}", None);
        check("[", None);
    }
}
