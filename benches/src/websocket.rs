//! A client of graphql-transport-ws that follows one subscription. Its buffers are small, because thousands of them run
//! in one process.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// The size of the read buffer of a socket, in bytes. It holds the usual update.
const READ_BUFFER_BYTES: usize = 1024;
/// The longest head of the response to a handshake, in bytes.
const MAX_HEAD_BYTES: usize = 4096;

pub struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// Opens a socket from an address of this machine, and initialises it with a token if there is one.
    pub async fn open(server: SocketAddr, source: Ipv4Addr, token: Option<&str>) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let mut stream = socket.connect(server).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /graphql HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        read_head(&mut stream).await?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let stream = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        let mut socket = Self { stream };
        let payload = token.map(|token| json!({ "authorization": format!("Bearer {token}") }));
        socket.send(&json!({ "type": "connection_init", "payload": payload.unwrap_or(json!({})) })).await?;
        let answer = socket.next().await?;
        ensure!(answer["type"] == "connection_ack", "expected connection_ack, but the server sent {answer}");
        Ok(socket)
    }

    pub async fn subscribe(&mut self, query: &str, variables: Value) -> anyhow::Result<()> {
        let payload = json!({ "query": query, "variables": variables });
        self.send(&json!({ "type": "subscribe", "id": "1", "payload": payload })).await
    }

    /// Returns the data of the next event.
    pub async fn event(&mut self) -> anyhow::Result<Value> {
        loop {
            let mut message = self.next().await?;
            match message["type"].as_str() {
                Some("next") if message["payload"]["errors"].is_null() => return Ok(message["payload"]["data"].take()),
                Some("ping") => self.send(&json!({ "type": "pong" })).await?,
                Some("pong") => {}
                _ => bail!("the server sent {message}"),
            }
        }
    }

    async fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        Ok(self.stream.send(Message::text(message.to_string())).await?)
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            match self.stream.next().await.context("the socket was closed")?? {
                Message::Text(text) => return Ok(serde_json::from_str(&text)?),
                Message::Close(frame) => bail!("the server closed the socket: {frame:?}"),
                _ => {}
            }
        }
    }
}

/// Reads the response to a handshake byte by byte: what follows it belongs to the WebSocket.
async fn read_head(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        ensure!(head.len() < MAX_HEAD_BYTES, "the head of the response does not end");
    }
    let head = String::from_utf8_lossy(&head);
    ensure!(head.starts_with("HTTP/1.1 101"), "the handshake was refused: {head}");
    Ok(())
}
