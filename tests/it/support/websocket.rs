//! A client of graphql-transport-ws that can misbehave. It does the handshake by hand, so that a test sees whatever the
//! server responds, and it sends whatever it is given.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

pub(crate) use tokio_tungstenite::tungstenite::Message;

/// How long tests wait for anything. They fail if it takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The headers of a correct handshake, except the sub-protocol.
pub(crate) const HANDSHAKE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
pub(crate) const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "graphql-transport-ws");

pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
}

/// What the server sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Message(Value),
    Closed {
        code: u16,
        reason: String,
    },
    /// The connection ended without a closing frame.
    Lost,
}

/// The response to a handshake that was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Socket {
    /// An open socket that is not initialised.
    pub(crate) async fn connect(address: &str) -> Self {
        Self::connect_with(address, &[PROTOCOL]).await.expect("a WebSocket")
    }

    /// Connects with these headers in addition to those of [`HANDSHAKE`].
    pub(crate) async fn connect_with(address: &str, headers: &[(&str, &str)]) -> Result<Self, Refused> {
        let stream = TcpStream::connect(host(address)).await.expect("a server that listens");
        Self::handshake(stream, host(address), &[&HANDSHAKE, headers].concat()).await
    }

    /// Connects with a small receive buffer, which fills up soon if the client does not read.
    pub(crate) async fn connect_small(address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 * 1024).unwrap();
        let stream = socket.connect(host(address).parse().unwrap()).await.expect("a server that listens");
        Self::handshake(stream, host(address), &[&HANDSHAKE[..], &[PROTOCOL]].concat()).await.expect("a WebSocket")
    }

    /// Connects from this address of the machine.
    pub(crate) async fn connect_from(
        source: [u8; 4],
        address: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(host(address).parse().unwrap()).await.expect("a server that listens");
        Self::handshake(stream, host(address), &[&HANDSHAKE[..], &[PROTOCOL], headers].concat()).await
    }

    /// Does the handshake with only these headers.
    pub(crate) async fn handshake(
        mut stream: TcpStream,
        host: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Refused> {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET /graphql HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut stream).await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        if status != 101 {
            // A proxy may write the names of headers in capitals.
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            return Err(Refused { status, body: serde_json::from_slice(&body).expect("a JSON body") });
        }
        Ok(Self { stream: WebSocketStream::from_raw_socket(stream, Role::Client, None).await })
    }

    /// An open socket that is initialised with a token.
    pub(crate) async fn open(address: &str, token: &str) -> Self {
        Self::connect(address).await.initialized(token).await
    }

    pub(crate) async fn initialized(mut self, token: &str) -> Self {
        let authorization = format!("Bearer {token}");
        self.send(json!({ "type": "connection_init", "payload": { "authorization": authorization } })).await;
        assert_eq!(self.next().await, Heard::Message(json!({ "type": "connection_ack" })));
        self
    }

    pub(crate) async fn subscribe(&mut self, id: &str, query: &str, variables: Value) {
        let payload = json!({ "query": query, "variables": variables });
        self.send(json!({ "type": "subscribe", "id": id, "payload": payload })).await;
    }

    pub(crate) async fn send(&mut self, message: Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    /// Sends a message and ignores errors, because the server may have closed the socket already. What the server sends
    /// back shows whether the message arrived.
    pub(crate) async fn send_raw(&mut self, message: Message) {
        let _ = self.stream.send(message).await;
    }

    /// The next message of the protocol, or the end of the socket.
    pub(crate) async fn next(&mut self) -> Heard {
        self.heard_within(PATIENCE).await.expect("a message in time")
    }

    /// Like [`next`](Self::next), but returns `None` if nothing came within the time.
    pub(crate) async fn heard_within(&mut self, time: Duration) -> Option<Heard> {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => return Heard::Message(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return Heard::Closed { code: frame.code.into(), reason: frame.reason.to_string() };
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(other)) => panic!("the server sends {other:?}"),
                    None | Some(Err(_)) => return Heard::Lost,
                }
            }
        };
        tokio::time::timeout(time, next).await.ok()
    }

    /// The next message of the protocol. Panics if the socket ends.
    pub(crate) async fn message(&mut self) -> Value {
        match self.next().await {
            Heard::Message(message) => message,
            end => panic!("expected a message, not {end:?}"),
        }
    }

    /// Whether the socket is still open. If so, the server has read all that was sent before. Messages that come
    /// meanwhile are discarded.
    pub(crate) async fn is_open(&mut self) -> bool {
        self.send_raw(Message::Ping("open?".into())).await;
        let answered = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Pong(payload))) if payload == "open?" => return true,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                    Some(Ok(_)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("a message in time")
    }

    /// Waits until the server closes the socket, and returns the code. The next event must be the closing frame.
    pub(crate) async fn closed(&mut self) -> u16 {
        match self.next().await {
            Heard::Closed { code, reason } => {
                assert!(!reason.is_empty() && reason.len() <= 123, "{code}: {reason}");
                assert_eq!(self.next().await, Heard::Lost, "after the closing frame");
                code
            }
            other => panic!("expected a closing frame, not {other:?}"),
        }
    }

    /// Closes the socket with a closing frame.
    pub(crate) async fn close(mut self) {
        let _ = self.stream.close(None).await;
    }
}

pub(crate) fn host(address: &str) -> &str {
    address.strip_prefix("http://").expect("an address that begins with http://")
}

/// Reads the head of a response up to the empty line. What follows stays unread.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("an answer").expect("an answer"));
    }
    String::from_utf8(head).unwrap()
}
