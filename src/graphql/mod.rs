//! What clients see: one noun a file, its type, queries and mutations.
//!
//! A resolver reads its arguments, calls one use case and wraps the result. It knows no SQL and no HTTP. Whatever it
//! nests is loaded for all parents together ([`loaders`]). Requests pass the gate before they come here: it decides on
//! cost, validity and introspection, and selects every response key once.

mod adjustment;
mod award;
mod campaign;
mod customer;
mod error;
mod ledger;
mod loaders;
mod money;
mod node;
mod page;
mod progress;
mod purchase;
mod refund;
mod scalar;
mod window;

use std::sync::Arc;

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, EmptySubscription, MergedObject, ValidationMode, Variables};

use self::loaders::Loaders;
use crate::app::App;
use crate::app::viewer::Viewer;

/// What can be read. Every field needs a token; what belongs to another customer does not exist.
#[derive(Default, MergedObject)]
pub struct Query(customer::CustomerQuery, purchase::PurchaseQuery, campaign::CampaignQuery, node::NodeQuery);

/// What can be changed. Everything is idempotent: a request that was not answered can be sent again as it is.
#[derive(Default, MergedObject)]
pub struct Mutation(
    purchase::PurchaseMutation,
    refund::RefundMutation,
    campaign::CampaignMutation,
    adjustment::AdjustmentMutation,
);

type Executor = async_graphql::Schema<Query, Mutation, EmptySubscription>;

/// The schema over an application.
pub struct Schema {
    executor: Executor,
    app: Arc<App>,
}

/// The schema over this application.
pub fn schema(app: Arc<App>) -> Schema {
    Schema { executor: executor(), app }
}

/// The schema's text: what `schema.graphql` holds and the gate is made of.
pub fn sdl() -> String {
    executor().sdl()
}

fn executor() -> Executor {
    // The gate has validated what comes, so the executor's own rules are left to a minimum.
    Executor::build(Query::default(), Mutation::default(), EmptySubscription)
        .validation_mode(ValidationMode::Fast)
        .disable_suggestions()
        .finish()
}

impl Schema {
    /// Runs what the gate admitted.
    pub async fn execute(&self, viewer: Viewer, document: String, variables: Variables) -> async_graphql::Response {
        let loaders = Loaders::start(Arc::clone(&self.app), viewer.clone());
        let session = Session { app: Arc::clone(&self.app), viewer, loaders };
        let request = async_graphql::Request::new(document).variables(variables).data(session);
        let mut response = self.executor.execute(request).await;
        for error in &mut response.errors {
            error::finish(error);
        }
        response.errors.truncate(error::MAX_ERRORS);
        response
    }
}

/// What every resolver of a request can ask for.
struct Session {
    app: Arc<App>,
    viewer: Viewer,
    loaders: DataLoader<Loaders>,
}

/// How resolvers ask for it.
trait ContextExt {
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

fn session<'a>(ctx: &Context<'a>) -> &'a Session {
    ctx.data_unchecked()
}
