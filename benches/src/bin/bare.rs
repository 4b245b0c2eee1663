//! A server that reads the body of any `POST /graphql` and responds with the bytes of a file: what HTTP alone costs with
//! axum, without any work.

use std::fs;
use std::io::{Write as _, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use clap::Parser;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Arguments {
    /// The address to serve on. Port 0 picks a free port. The address is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The file to respond with.
    body: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let bytes = fs::read(&arguments.body).with_context(|| arguments.body.display().to_string())?;
    let response = Bytes::from(bytes);
    let respond = async move |_: Bytes| ([(CONTENT_TYPE, "application/json")], response.clone());
    let listener = TcpListener::bind(arguments.listen).await?;
    writeln!(stdout().lock(), "listening on http://{}", listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        // A failure does not matter: the socket works without the option too.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, Router::new().route("/graphql", post(respond))).await?;
    Ok(())
}
