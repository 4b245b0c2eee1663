//! Opaque texts for clients: ids and cursors. The encoding keeps clients from depending on the content; it hides nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Encodes a text for clients. [`decode`] reverses this.
pub fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// Decodes what [`encode`] returned. Returns `None` for any other text.
pub fn decode(opaque: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(opaque).ok()?).ok()
}
