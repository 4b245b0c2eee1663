//! Downloads of exports: `GET /exports/<id of the job>`, which `Job.resultUrl` names. Only admins may download.

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::Response;
use futures_util::stream::try_unfold;
use tracing::Instrument as _;

use super::graphql::{Endpoint, failed};
use super::{request_id, trace};
use crate::app::export;

/// Answers with the result of the job, which is read while it is sent. If it is replaced or deleted meanwhile, the response breaks
/// off without its end.
pub async fn answer(State(endpoint): State<Arc<Endpoint>>, Path(job): Path<String>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let span = trace::span(&head);
    let answered = download(&endpoint, &job, &head).instrument(span);
    answered.await.unwrap_or_else(|refused| refused)
}

async fn download(endpoint: &Endpoint, job: &str, head: &Parts) -> Result<Response, Response> {
    let (admin, place) = endpoint.admit_admin(head).await?;
    let app = Arc::clone(endpoint.app());
    // No job has the id 0.
    let opened = export::open(&app, &admin, job.parse().unwrap_or_default()).await;
    let download = opened.map_err(|error| failed(head, error))?;
    let request_id = request_id::of(head);
    let parts = try_unfold((download, place), move |(mut download, place)| {
        let (app, request_id) = (Arc::clone(&app), request_id.clone());
        async move {
            match download.next(&app).await {
                Ok(part) => Ok(part.map(|part| (Bytes::from(part), (download, place)))),
                Err(error) => {
                    tracing::warn!(request_id = request_id.as_str(), error = %error, "a download broke off");
                    Err(io::Error::other("the export cannot be read to its end"))
                }
            }
        }
    });
    let mut response = Response::new(Body::from_stream(parts));
    for (name, value) in [
        (CONTENT_TYPE, "application/x-ndjson"),
        (CONTENT_DISPOSITION, "attachment; filename=\"export.ndjson\""),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
