//! What `connection_init` says about who connects. Clients have different habits of where the token stands.

use serde_json::{Map, Value};

/// Told to whoever sends something, but nothing that proves who it is. At most 123 bytes: it is a close frame's reason.
pub(super) const EXPECTED: &str =
    "Forbidden: send the token in connection_init: {\"payload\": {\"authorization\": \"Bearer TOKEN\"}}";

/// Looks where clients put the token: `authorization`, `headers.authorization`, in any case, and `authToken`. What would stand in the
/// header of that name; none: the payload does not say who this is.
pub(super) fn credentials(payload: &Map<String, Value>) -> Option<String> {
    let headers = payload.get("headers").and_then(Value::as_object);
    if let Some(value) = authorization(payload).or_else(|| headers.and_then(authorization)) {
        // What is no text is refused as an empty one is.
        return Some(value.as_str().unwrap_or_default().to_owned());
    }
    match payload.get("authToken").unwrap_or(&Value::Null) {
        Value::Null => None,
        // Often it is the token alone.
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
