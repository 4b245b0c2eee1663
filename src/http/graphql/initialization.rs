//! What `connection_init` says about who connects. Clients have different habits of where the token stands.

use serde_json::{Map, Value};

/// Told to whoever sends something, but nothing that proves who it is. At most 123 bytes: it is a close frame's reason.
pub(super) const EXPECTED: &str =
    "Forbidden: send the token in connection_init: {\"payload\": {\"authorization\": \"Bearer TOKEN\"}}";

/// What a payload proves.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// It is empty.
    None,
    /// What would stand in the header of that name.
    Authorization(String),
    /// It says something, but not who this is.
    Unknown,
}

/// Looks where clients put the token: `authorization`, `headers.authorization`, in any case, and `authToken`.
pub(super) fn credentials(payload: &Map<String, Value>) -> Credentials {
    let headers = payload.get("headers").and_then(Value::as_object);
    if let Some(value) = authorization(payload).or_else(|| headers.and_then(authorization)) {
        // What is no text is refused as an empty one is.
        return Credentials::Authorization(value.as_str().unwrap_or_default().to_owned());
    }
    match payload.get("authToken").unwrap_or(&Value::Null) {
        Value::Null if payload.values().all(Value::is_null) => Credentials::None,
        Value::Null => Credentials::Unknown,
        // Often it is the token alone.
        Value::String(token) if !token.contains(' ') => Credentials::Authorization(format!("Bearer {token}")),
        token => Credentials::Authorization(token.as_str().unwrap_or_default().to_owned()),
    }
}

fn authorization(object: &Map<String, Value>) -> Option<&Value> {
    let named = object.iter().find(|(name, value)| name.eq_ignore_ascii_case("authorization") && !value.is_null());
    named.map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(payload: &Value) -> Credentials {
        credentials(payload.as_object().unwrap())
    }

    #[test]
    fn tokens_are_found_where_clients_put_them() {
        for payload in [
            json!({"authorization": "Bearer t"}),
            json!({"Authorization": "Bearer t", "client": "x"}),
            json!({"headers": {"Authorization": "Bearer t"}}),
            json!({"headers": {"authorization": "Bearer t"}, "Authorization": null}),
            json!({"authToken": "t"}),
            json!({"authToken": "Bearer t"}),
        ] {
            assert_eq!(of(&payload), Credentials::Authorization("Bearer t".to_owned()), "{payload}");
        }
    }

    #[test]
    fn what_proves_nothing_is_not_nobody() {
        for payload in
            [json!({"token": "t"}), json!({"headers": {"cookie": "t"}}), json!({"client": "x", "authorization": null})]
        {
            assert_eq!(of(&payload), Credentials::Unknown, "{payload}");
        }
        for payload in [json!({"authorization": 7}), json!({"authToken": {"value": "t"}})] {
            assert_eq!(of(&payload), Credentials::Authorization(String::new()), "{payload}");
        }
        for payload in [json!({}), json!({"authorization": null}), json!({"authToken": null})] {
            assert_eq!(of(&payload), Credentials::None, "{payload}");
        }
        assert!(EXPECTED.len() <= 123);
    }
}
