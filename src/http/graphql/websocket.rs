//! The protocol graphql-transport-ws, which the library `graphql-ws` specifies: many operations over one WebSocket.
//!
//! Each socket is one task, which reads messages, polls the operations and writes their events, one message at a time. So
//! a client that does not read blocks only its own operations, until the write timeout closes the connection. The size of
//! a message, the time that a message may take, the number of operations and the time until `connection_init` are
//! bounded.
//!
//! Most sockets are idle most of the time. So the futures of everything that a socket seldom does are boxed: they take memory
//! only while they run.
//!
//! Every socket needs a token. When the token expires, each subscription sends an error with its last cursor, and then
//! the server closes the socket. When the server stops, it completes queries and mutations and closes the socket without
//! completing the subscriptions. Clients then reconnect and resubscribe by themselves.

use std::sync::Arc;
use std::time::Duration;

use async_graphql::ServerError;
use axum::body::Bytes;
use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant as Monotonic;
use tokio_stream::StreamMap;

use super::accept::Format;
use super::initialization::{EXPECTED, credentials};
use super::{Endpoint, Event, Events, Reply, malformed, request, too_many_sockets, unauthenticated};
use crate::app::viewer::Viewer;
use crate::graphql::session::Caller;
use crate::http::input::{Input, Refused};
use crate::http::peer::{self, Peer};

/// The only supported subprotocol. Its predecessor, whose name is `graphql-ws`, is not supported.
const PROTOCOL: &str = "graphql-transport-ws";
/// How long a client may take to send `connection_init`.
const INIT_TIMEOUT: Duration = Duration::from_secs(3);
/// The server sends a ping this often, or up to a request timeout later.
const PING_PERIOD: Duration = Duration::from_secs(30);
/// After this many pings without any message from the client, the connection is considered dead.
const MAX_UNANSWERED: u32 = 2;
/// The largest message of a client, in bytes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// The most unfinished bytes before a token is accepted. A `connection_init` with the longest token fits.
const MAX_INIT_BYTES: usize = 12 * 1024;
/// The size of the head of a client's control frame, in bytes.
const CONTROL_HEAD_BYTES: usize = 6;
/// The size of the read buffer of each socket, in bytes. It is small, because most sockets receive two short messages and then
/// nothing. A larger message is read in several steps.
const READ_BUFFER_BYTES: usize = 256;
/// The largest number of operations of one socket at a time.
const MAX_OPERATIONS: usize = 50;
/// The longest id of an operation, in bytes. Every message about the operation repeats its id.
const MAX_ID_BYTES: usize = 200;
/// The longest reason of a close frame, in bytes (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 123;
/// How long the operations of a socket may take to end when the token expires or the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the closing handshake may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Upgrades the connection of a handshake request to a WebSocket and serves it in a tracked task.
pub(super) async fn upgrade(endpoint: Arc<Endpoint>, mut head: Parts, format: Format) -> Response {
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut head, &()).await {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            let status = rejection.into_response().status();
            return malformed(format, status, "the request is not a supported WebSocket handshake".to_owned());
        }
    };
    // Clients that can set headers may send the token in the handshake instead of `connection_init`.
    let handshake = match endpoint.caller(&head).await {
        Ok(caller) => caller,
        Err(error) => return unauthenticated(format, &error),
    };
    let peer = Peer::of(&head);
    let address = peer::client(&endpoint.trusted_proxies, peer.address, &head.headers);
    let Some(place) = endpoint.open_sockets.from_address(peer::subscriber(address)) else {
        return too_many_sockets();
    };
    let (sockets, input) = (endpoint.sockets.clone(), peer.input);
    input.limit(MAX_INIT_BYTES);
    upgrade
        .protocols([PROTOCOL])
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        // Each message is sent immediately.
        .write_buffer_size(0)
        .on_upgrade(move |socket| {
            sockets.track_future(async move {
                // Boxed, because each future around it would have room for it.
                let connection = Box::new(Socket { endpoint, socket, input, operations: StreamMap::with_capacity(1) });
                serve(connection, handshake).await;
                drop(place);
            })
        })
}

/// The code and the reason with which the server closes a socket. The codes 44xx are those of the protocol.
struct Close {
    code: u16,
    reason: String,
}

impl Close {
    fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    fn bad_message() -> Self {
        Self::new(4400, "Invalid message received")
    }

    fn going_away() -> Self {
        Self::new(1001, "Going away: the server is stopping")
    }
}

/// How a socket ends: the connection is lost or closed by the client, or the server closes it.
enum End {
    Gone,
    Close(Close),
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

async fn serve(mut connection: Box<Socket>, handshake: Caller) {
    let end = match connection.socket.protocol() {
        Some(_) => connection.run(handshake).await.unwrap_or_else(|end| end),
        None => Close::new(4406, "Subprotocol not acceptable").into(),
    };
    let goodbye = async {
        if let End::Close(Close { code, mut reason }) = end {
            while reason.len() > MAX_REASON_BYTES {
                reason.pop();
            }
            let frame = CloseFrame { code, reason: reason.into() };
            let _ = connection.socket.send(Message::Close(Some(frame))).await;
        }
        // The input is read to its end for two reasons: the library responds to the client's close frame only while it
        // reads, and a connection that is dropped with unread input is reset, so that the client might not receive the
        // close frame.
        while let Some(Ok(_)) = connection.socket.recv().await {}
    };
    // A timeout is ignored: the connection ends in any case.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, Box::pin(goodbye)).await;
}

struct Socket {
    endpoint: Arc<Endpoint>,
    socket: WebSocket,
    /// Counts the unfinished bytes of the underlying connection.
    input: Input,
    operations: StreamMap<String, Events>,
}

/// A message from the client to the server.
#[derive(Deserialize)]
struct Incoming {
    #[serde(rename = "type")]
    kind: String,
    id: Option<Value>,
    payload: Option<Box<RawValue>>,
}

/// A message from the server to the client.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Outgoing<'a> {
    ConnectionAck,
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a RawValue>,
    },
    Next {
        id: &'a str,
        payload: &'a Reply,
    },
    Error {
        id: &'a str,
        payload: &'a [ServerError],
    },
    Complete {
        id: &'a str,
    },
}

/// Receives a frame and returns its message, or `None` for a ping or pong frame.
async fn receive(socket: &mut WebSocket, input: &Input) -> Result<Option<Incoming>, End> {
    let received = socket.recv().await;
    match &received {
        // Control frames may arrive between the frames of an unfinished message, so only their own bytes are released.
        Some(Ok(Message::Ping(payload) | Message::Pong(payload))) => input.let_go(payload.len() + CONTROL_HEAD_BYTES),
        _ => input.finished(),
    }
    read(received)
}

/// Parses a frame as a message of the protocol. Returns `None` for a ping or pong frame.
fn read(received: Option<Result<Message, axum::Error>>) -> Result<Option<Incoming>, End> {
    match received {
        Some(Ok(Message::Text(text))) if request::has_too_many_parts(text.as_bytes(), MAX_MESSAGE_BYTES) => {
            Err(Close::new(1009, "Message too big: too many objects, lists and items").into())
        }
        Some(Ok(Message::Text(text))) => request::object(&text).map(Some).ok_or(Close::bad_message().into()),
        Some(Ok(Message::Binary(_))) => Err(Close::bad_message().into()),
        // The library responds to ping frames.
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        None | Some(Ok(Message::Close(_))) => Err(End::Gone),
        Some(Err(error)) => Err(match error.into_inner().downcast_ref() {
            Some(tungstenite::Error::Capacity(_)) => Close::new(1009, "Message too big").into(),
            Some(tungstenite::Error::Protocol(_)) => Close::new(1002, "Protocol error").into(),
            Some(tungstenite::Error::Utf8(_)) => Close::new(1007, "Not UTF-8").into(),
            Some(tungstenite::Error::Io(error)) => match error.get_ref().and_then(|error| error.downcast_ref()) {
                Some(Refused::TooLarge) => Close::new(1009, "Message too big before a token is accepted").into(),
                Some(Refused::NoRoom) => Close::new(1013, "Try again later: too many unfinished messages").into(),
                None => End::Gone,
            },
            _ => End::Gone,
        }),
    }
}

impl Incoming {
    /// Returns the payload of a message type whose payload is an object or absent.
    fn optional_object(&self) -> Result<Option<&RawValue>, Close> {
        match &self.payload {
            Some(payload) if !request::is_object(payload.get()) => Err(Close::bad_message()),
            payload => Ok(payload.as_deref()),
        }
    }

    fn id(&self) -> Result<String, Close> {
        match &self.id {
            Some(Value::String(id)) if (1..=MAX_ID_BYTES).contains(&id.len()) => Ok(id.clone()),
            _ => Err(Close::bad_message()),
        }
    }
}

impl Socket {
    /// Serves the socket until the client closes it or the server must close it.
    async fn run(&mut self, handshake: Caller) -> Result<End, End> {
        let app = Arc::clone(&self.endpoint.app);
        let caller = tokio::select! {
            caller = tokio::time::timeout(INIT_TIMEOUT, Box::pin(self.initialize(handshake))) => {
                caller.map_err(|_| Close::new(4408, "Connection initialisation timeout"))??
            }
            () = app.stopping.cancelled() => return Ok(Close::going_away().into()),
        };
        let Some(_place) = self.endpoint.open_sockets.of_subject(caller.viewer.who()) else {
            return Ok(Close::new(1013, "Try again later: this token's subject has too many sockets open").into());
        };
        self.input.limit(usize::MAX);
        self.send(&Outgoing::ConnectionAck).await?;
        let mut expired = std::pin::pin!(app.clock.sleep_until(caller.expires_at));
        let message_timeout = self.endpoint.timeout;
        // One timer for both, to save memory.
        let began = Monotonic::now();
        let mut ticks = tokio::time::interval_at(began, message_timeout.min(PING_PERIOD));
        let mut ping_at = began + PING_PERIOD;
        let mut unanswered = 0;
        loop {
            tokio::select! {
                received = receive(&mut self.socket, &self.input) => {
                    unanswered = 0;
                    if let Some(message) = received? {
                        Box::pin(self.take(&caller, message)).await?;
                    }
                }
                Some((id, event)) = self.operations.next(), if !self.operations.is_empty() => {
                    Box::pin(self.tell(&id, event)).await?;
                }
                now = ticks.tick() => {
                    if self.input.is_overdue(message_timeout) {
                        return Ok(Close::new(4408, "Request timeout: the message took too long to arrive").into());
                    }
                    if now < ping_at {
                        continue;
                    }
                    if unanswered == MAX_UNANSWERED {
                        return Ok(End::Gone);
                    }
                    unanswered += 1;
                    ping_at = now + PING_PERIOD;
                    self.socket.send(Message::Ping(Bytes::new())).await.map_err(|_| End::Gone)?;
                }
                // The subscriptions end by themselves when the token expires, each with an error that contains its
                // cursor.
                () = expired.as_mut() => {
                    Box::pin(self.drain()).await?;
                    return Ok(Close::new(4403, "Forbidden: the token has expired").into());
                }
                () = app.stopping.cancelled() => {
                    Box::pin(self.drain()).await?;
                    return Ok(Close::going_away().into());
                }
            }
        }
    }

    /// Waits for `connection_init` and returns the caller that its token identifies.
    async fn initialize(&mut self, handshake: Caller) -> Result<Caller, End> {
        let credentials = loop {
            let Some(message) = receive(&mut self.socket, &self.input).await? else { continue };
            match message.kind.as_str() {
                "connection_init" => {
                    let payload = message.optional_object()?.map_or("{}", RawValue::get);
                    break credentials(&request::object(payload).ok_or_else(Close::bad_message)?);
                }
                "subscribe" => return Err(Close::new(4401, "Unauthorized").into()),
                _ => self.keep_alive(&message).await?,
            }
        };
        match credentials {
            Some(authorization) => {
                let caller = self.endpoint.caller_of(&authorization, handshake.origin).await;
                Ok(caller.map_err(|error| Close::new(4403, format!("Forbidden: {error}")))?)
            }
            None if handshake.viewer == Viewer::Anonymous => Err(Close::new(4403, EXPECTED).into()),
            // The token of the handshake is sufficient.
            None => Ok(handshake),
        }
    }

    async fn take(&mut self, caller: &Caller, message: Incoming) -> Result<(), End> {
        match message.kind.as_str() {
            "subscribe" => self.subscribe(caller, message).await,
            "complete" => {
                // An unknown id is not an error: the operation may have completed already.
                self.operations.remove(&message.id()?);
                Ok(())
            }
            "connection_init" => Err(Close::new(4429, "Too many initialisation requests").into()),
            _ => self.keep_alive(&message).await,
        }
    }

    async fn keep_alive(&mut self, message: &Incoming) -> Result<(), End> {
        match message.kind.as_str() {
            "ping" => {
                let payload = message.optional_object()?;
                self.send(&Outgoing::Pong { payload }).await
            }
            "pong" => Ok(message.optional_object().map(|_| ())?),
            _ => Err(Close::bad_message().into()),
        }
    }

    async fn subscribe(&mut self, caller: &Caller, message: Incoming) -> Result<(), End> {
        let id = message.id()?;
        let Some(payload) = message.payload else { return Err(Close::bad_message().into()) };
        let request = request::from_json(payload.get()).map_err(|_| Close::bad_message())?;
        if self.operations.contains_key(&id) {
            return Err(Close::new(4409, format!("Subscriber for {id} already exists")).into());
        }
        let events = if self.operations.len() < MAX_OPERATIONS {
            let admitted = self.endpoint.admit(caller, request);
            admitted.and_then(|admitted| self.endpoint.stream(caller.clone(), admitted))
        } else {
            Err(super::overloaded())
        };
        match events {
            Ok(events) => {
                self.operations.insert(id, events);
                Ok(())
            }
            Err(refused) => self.send(&Outgoing::Error { id: &id, payload: refused.errors() }).await,
        }
    }

    async fn tell(&mut self, id: &str, event: Event) -> Result<(), End> {
        match event {
            Event::Next(reply) => self.send(&Outgoing::Next { id, payload: &reply }).await,
            Event::Complete => {
                // The map would remove the operation only at its next poll. The client may reuse the id as soon as it
                // receives this message.
                self.operations.remove(id);
                self.send(&Outgoing::Complete { id }).await
            }
        }
    }

    /// Sends the remaining events of all operations, until they have ended or the time is up.
    async fn drain(&mut self) -> Result<(), End> {
        let ended = async {
            while let Some((id, event)) = self.operations.next().await {
                self.tell(&id, event).await?;
            }
            Ok(())
        };
        tokio::time::timeout(DRAIN_TIMEOUT, ended).await.unwrap_or(Ok(()))
    }

    async fn send(&mut self, message: &Outgoing<'_>) -> Result<(), End> {
        let text = serde_json::to_string(message).map_err(|_| End::Gone)?;
        self.socket.send(Message::text(text)).await.map_err(|_| End::Gone)
    }
}
