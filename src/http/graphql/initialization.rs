//! Finds the token in the payload of `connection_init`. Clients put it in different places.

use serde_json::{Map, Value};

/// The close reason for a client that sends no token. The reason of a close frame has at most 123 bytes.
pub(super) const EXPECTED: &str =
    "Forbidden: send the token in connection_init: {\"payload\": {\"authorization\": \"Bearer TOKEN\"}}";

/// Returns the value that the Authorization header would have, or `None` if the payload contains no token. The token may
/// be in `authorization`, in `headers.authorization` (both in any letter case) or in `authToken`.
pub(super) fn credentials(payload: &Map<String, Value>) -> Option<String> {
    let headers = payload.get("headers").and_then(Value::as_object);
    if let Some(value) = authorization(payload).or_else(|| headers.and_then(authorization)) {
        // A value that is not a string is rejected like an empty one.
        return Some(value.as_str().unwrap_or_default().to_owned());
    }
    match payload.get("authToken").unwrap_or(&Value::Null) {
        Value::Null => None,
        // Many clients send only the token here, without the scheme.
        Value::String(token) if !token.contains(' ') => Some(format!("Bearer {token}")),
        token => Some(token.as_str().unwrap_or_default().to_owned()),
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

    fn of(payload: &Value) -> Option<String> {
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
            assert_eq!(of(&payload).as_deref(), Some("Bearer t"), "{payload}");
        }
    }

    #[test]
    fn what_proves_nothing_is_told_apart_from_what_is_wrong() {
        for payload in [
            json!({}),
            json!({"token": "t"}),
            json!({"headers": {"cookie": "t"}}),
            json!({"client": "x", "authorization": null}),
            json!({"authToken": null}),
        ] {
            assert_eq!(of(&payload), None, "{payload}");
        }
        for payload in [json!({"authorization": 7}), json!({"authToken": {"value": "t"}})] {
            assert_eq!(of(&payload).as_deref(), Some(""), "{payload}");
        }
        assert!(EXPECTED.len() <= 123);
    }
}
