//! What clients see: one noun a file, its type, queries and mutations.
//!
//! A resolver reads its arguments, calls one use case and wraps the result. It knows no SQL and no HTTP. Whatever it
//! nests is loaded for all parents together ([`loaders`]). Requests pass the gate before they come here: it decides on
//! cost, validity and introspection, and selects every response key once.

pub mod adjustment;
pub mod award;
pub mod campaign;
pub mod customer;
pub mod error;
mod id;
pub mod ledger;
pub mod loaders;
pub mod money;
mod node;
pub mod page;
pub mod points_update;
pub mod progress;
pub mod purchase;
pub mod recorded;
pub mod refund;
pub mod scalar;
pub mod session;
pub mod window;

use std::future::poll_fn;
use std::sync::Arc;

use async_graphql::{MergedObject, MergedSubscription, Response, SDLExportOptions, ValidationMode, Variables};
use futures_util::{Stream, StreamExt};

use self::loaders::{Loaders, Reads, Turns};
use crate::app::App;
use crate::app::allowance::Allowance;
use crate::graphql::session::{Caller, Session};

/// What can be read. Every field needs a token; what belongs to another customer does not exist.
#[derive(Default, MergedObject)]
pub struct Query(customer::CustomerQuery, purchase::PurchaseQuery, campaign::CampaignQuery, node::NodeQuery);

/// What can be changed. Everything is idempotent: a request that was not answered can be sent again as it is.
#[derive(Default, MergedObject)]
pub struct Mutation(
    purchase::mutation::PurchaseMutation,
    refund::mutation::RefundMutation,
    campaign::mutation::CampaignMutation,
    adjustment::AdjustmentMutation,
);

/// What can be followed live.
#[derive(Default, MergedSubscription)]
pub struct Subscription(points_update::PointsSubscription, campaign::stats::CampaignStatsSubscription);

type Executor = async_graphql::Schema<Query, Mutation, Subscription>;

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
    executor().sdl_with_options(SDLExportOptions::new().include_specified_by())
}

fn executor() -> Executor {
    // The gate has validated what comes, so the executor's own rules are left to a minimum.
    Executor::build(Query::default(), Mutation::default(), Subscription::default())
        .validation_mode(ValidationMode::Fast)
        .disable_suggestions()
        .finish()
}

impl Schema {
    /// Runs a query or mutation that the gate admitted.
    pub async fn execute(&self, caller: Caller, document: String, variables: Variables) -> Response {
        let (turns, reads) = (Turns::default(), Reads::default());
        let tells_reads = caller.tells_reads;
        let request = self.request(caller, None, document, variables, turns.clone(), reads.clone());
        let mut response = std::pin::pin!(self.executor.execute(request));
        let response = poll_fn(|cx| {
            let polled = response.as_mut().poll(cx);
            turns.end();
            polled
        });
        let mut response = finish(response.await);
        if tells_reads {
            response.extensions.insert("reads".to_owned(), reads.tell());
        }
        response
    }

    /// Runs a subscription that the gate admitted: an answer for each event. It ends when its caller is in debt.
    pub fn subscribe(
        &self,
        caller: Caller,
        allowance: Allowance,
        document: String,
        variables: Variables,
    ) -> impl Stream<Item = Response> + Send + use<> {
        let turns = Turns::default();
        let request = self.request(caller, Some(allowance), document, variables, turns.clone(), Reads::default());
        let mut responses = Box::pin(self.executor.execute_stream(request));
        let responses = futures_util::stream::poll_fn(move |cx| {
            let polled = responses.as_mut().poll_next(cx);
            turns.end();
            polled
        });
        responses.map(finish)
    }

    fn request(
        &self,
        caller: Caller,
        allowance: Option<Allowance>,
        document: String,
        variables: Variables,
        turns: Turns,
        reads: Reads,
    ) -> async_graphql::Request {
        let Caller { viewer, expires_at, .. } = caller;
        let loaders = Loaders::start(Arc::clone(&self.app), viewer.clone(), turns, reads);
        let session = Session { app: Arc::clone(&self.app), viewer, expires_at, allowance, loaders };
        async_graphql::Request::new(document).variables(variables).data(session)
    }
}

fn finish(mut response: Response) -> Response {
    response.errors.truncate(error::MAX_ERRORS);
    for error in &mut response.errors {
        error::finish(error);
    }
    response
}
