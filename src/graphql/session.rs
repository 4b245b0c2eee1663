//! What every resolver of a request can ask for: the application, who asks, and the request's loaders.

use std::sync::Arc;

use async_graphql::Context;
use async_graphql::dataloader::DataLoader;

use super::loaders::Loaders;
use crate::app::App;
use crate::app::allowance::Allowance;
use crate::app::viewer::Viewer;
use crate::engine::time::Instant;

/// Who asks, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What the token allows.
    pub viewer: Viewer,
    /// When the token expires.
    pub expires_at: Instant,
    /// Whether it asks to be told where its customers were read.
    pub tells_reads: bool,
}

/// What every resolver of a request can ask for.
pub(super) struct Session {
    pub(super) app: Arc<App>,
    pub(super) viewer: Viewer,
    pub(super) expires_at: Instant,
    /// What a subscription's events are charged to; none: the request is charged as a whole.
    pub(super) allowance: Option<Allowance>,
    pub(super) loaders: DataLoader<Loaders>,
}

/// How resolvers ask for it.
pub(super) trait ContextExt {
    fn app(&self) -> &App;
    fn viewer(&self) -> &Viewer;
    fn loaders(&self) -> &DataLoader<Loaders>;
}

impl ContextExt for Context<'_> {
    fn app(&self) -> &App {
        &session(self).app
    }

    fn viewer(&self) -> &Viewer {
        &session(self).viewer
    }

    fn loaders(&self) -> &DataLoader<Loaders> {
        &session(self).loaders
    }
}

/// The request's session.
pub(super) fn session<'a>(ctx: &Context<'a>) -> &'a Session {
    ctx.data_unchecked()
}
