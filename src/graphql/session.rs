//! The session of a request. It gives every resolver the application, the viewer and the request's loaders.

use std::sync::Arc;

use async_graphql::Context;
use async_graphql::dataloader::DataLoader;

use super::loaders::Loaders;
use super::reads::Reads;
use crate::app::App;
use crate::app::allowance::Allowance;
use crate::app::error::Error;
use crate::app::origin::Origin;
use crate::app::viewer::{Actor, Viewer};
use crate::engine::time::Instant;

/// Who sends a request, and until when its token is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The role of the token and its subject.
    pub viewer: Viewer,
    /// The request that the caller sends. Over a WebSocket, the handshake.
    pub origin: Origin,
    /// When the token expires. Subscriptions end then.
    pub expires_at: Instant,
    /// Whether the caller asks for `extensions.reads`, which reports where its customers were read.
    pub tells_reads: bool,
}

/// The state of one request, shared by all of its resolvers.
pub(super) struct Session {
    pub(super) app: Arc<App>,
    pub(super) viewer: Viewer,
    pub(super) origin: Origin,
    pub(super) expires_at: Instant,
    /// The allowance that the events of a subscription are charged to. `None` for a query or mutation, which is charged
    /// as a whole.
    pub(super) allowance: Option<Allowance>,
    pub(super) loaders: DataLoader<Loaders>,
    pub(super) reads: Reads,
}

/// Access to the session from a resolver.
pub(super) trait ContextExt {
    /// The application, for anything but the clock.
    fn app(&self) -> &App;
    /// The current time ([`Reads::now`]).
    fn now(&self) -> Instant;
    fn reads(&self) -> &Reads;
    fn viewer(&self) -> &Viewer;
    /// The right of an admin to change something. Fails for everyone else.
    fn actor(&self) -> Result<Actor, Error>;
    fn loaders(&self) -> &DataLoader<Loaders>;
}

impl ContextExt for Context<'_> {
    fn app(&self) -> &App {
        self.reads().note_other();
        &session(self).app
    }

    fn now(&self) -> Instant {
        let Session { app, reads, .. } = session(self);
        reads.now(&app.clock)
    }

    fn reads(&self) -> &Reads {
        &session(self).reads
    }

    fn viewer(&self) -> &Viewer {
        &session(self).viewer
    }

    fn actor(&self) -> Result<Actor, Error> {
        let Session { viewer, origin, .. } = session(self);
        viewer.require_actor(origin)
    }

    fn loaders(&self) -> &DataLoader<Loaders> {
        &session(self).loaders
    }
}

pub(super) fn session<'a>(ctx: &Context<'a>) -> &'a Session {
    ctx.data_unchecked()
}
