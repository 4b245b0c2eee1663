//! A client of HTTP/1.1 that costs little: one connection, one request at a time, buffers that are kept. It understands
//! only responses with a `Content-Length`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const BUFFER_BYTES: usize = 16 * 1024;
/// A server that responds with more than this is faulty.
const MAX_RESPONSE_BYTES: usize = 16 * 1024 * 1024;
/// How long a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    Connect,
    Lost,
    Timeout,
    Malformed,
}

impl Fault {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "not connected",
            Self::Lost => "connection lost",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed response",
        }
    }
}

pub struct Response<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// A connection. After a fault it must be replaced.
pub struct Connection {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address).await.map_err(|_| Fault::Connect)?;
        stream.set_nodelay(true).map_err(|_| Fault::Connect)?;
        Ok(Self { stream, output: Vec::with_capacity(BUFFER_BYTES), input: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// Sends a request and reads the response. `head` ends with the name `Content-Length: `.
    pub async fn exchange(&mut self, head: &[u8], body: &[u8]) -> Result<Response<'_>, Fault> {
        self.output.clear();
        self.output.extend_from_slice(head);
        self.output.extend_from_slice(body.len().to_string().as_bytes());
        self.output.extend_from_slice(b"\r\n\r\n");
        self.output.extend_from_slice(body);
        self.input.clear();
        match tokio::time::timeout(REQUEST_TIMEOUT, send_and_receive(self)).await {
            Ok(received) => {
                let Head { status, end, length } = received?;
                Ok(Response { status, body: &self.input[end..end + length] })
            }
            Err(_) => Err(Fault::Timeout),
        }
    }
}

struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    length: usize,
}

async fn send_and_receive(connection: &mut Connection) -> Result<Head, Fault> {
    let Connection { stream, output, input } = connection;
    stream.write_all(output).await.map_err(|_| Fault::Lost)?;
    let mut head: Option<Head> = None;
    loop {
        let read = stream.read_buf(input).await.map_err(|_| Fault::Lost)?;
        if read == 0 {
            return Err(Fault::Lost);
        }
        if head.is_none() {
            head = parse(input)?;
        }
        if let Some(found) = head.take_if(|head| input.len() >= head.end + head.length) {
            return Ok(found);
        }
        if input.len() > MAX_RESPONSE_BYTES {
            return Err(Fault::Malformed);
        }
    }
}

/// Reads the head of a response. Returns `None` if it is not complete.
fn parse(input: &[u8]) -> Result<Option<Head>, Fault> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&input[..end]).map_err(|_| Fault::Malformed)?;
    let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or(Fault::Malformed)?;
    let length = text.split("\r\n").find_map(content_length).ok_or(Fault::Malformed)?;
    Ok(Some(Head { status, end: end + 4, length }))
}

fn content_length(line: &str) -> Option<usize> {
    const NAME: &str = "content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME).then(|| value.trim().parse().ok())?
}

/// Returns everything of a `POST /graphql` up to the value of `Content-Length`.
pub fn head(address: SocketAddr, token: Option<&str>) -> Vec<u8> {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "POST /graphql HTTP/1.1\r\nHost: {address}\r\n{authorization}Accept: application/json\r\n\
         Content-Type: application/json\r\nContent-Length: "
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Type: text\r\ncontent-LENGTH: 12\r\n\r\nbody";
        let head = parse(text).expect("well formed").expect("complete");
        assert_eq!((head.status, head.end, head.length), (200, text.len() - 4, 12));
        assert!(parse(&text[..40]).expect("well formed so far").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }
}
