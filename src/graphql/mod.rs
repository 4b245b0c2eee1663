//! The GraphQL API that clients see. Each file holds one noun: its type, queries and mutations.
//!
//! A resolver reads its arguments, calls one use case and wraps the result. It contains no SQL and knows nothing of
//! HTTP. Nested fields are loaded for all parents together ([`loaders`]). Before a request is executed here, the gate
//! has checked its cost, its validity and its right to introspection, and has merged fields with the same response key.

pub mod adjustment;
mod apart;
pub mod award;
pub mod campaign;
pub mod customer;
pub mod dead_letter;
pub mod error;
mod id;
pub mod job;
pub mod ledger;
pub mod loaders;
pub mod money;
mod node;
pub mod page;
pub mod points_update;
pub mod progress;
pub mod purchase;
pub mod purchase_revision;
pub mod reads;
pub mod recorded;
pub mod redemption;
pub mod refund;
pub mod reward;
pub mod scalar;
pub mod session;
mod subject;
pub mod trail;
pub mod window;

use std::future::poll_fn;
use std::sync::Arc;

use async_graphql::parser::types::{ExecutableDocument, OperationType};
use async_graphql::{MergedObject, MergedSubscription, Response, SDLExportOptions, ValidationMode, Variables};
use futures_util::{Stream, StreamExt};

use self::apart::Apart;
use self::loaders::{Loaders, Turns};
use self::reads::{Reads, Source};
use crate::app::App;
use crate::app::allowance::Allowance;
use crate::app::origin::RequestId;
use crate::graphql::session::{Caller, Session};

/// Reads. Every field requires a token; without one the error is `UNAUTHENTICATED`. For the token of a customer, the
/// data of other customers does not exist.
#[derive(Default, MergedObject)]
pub struct Query(customer::CustomerQuery, Apart<RareQuery>);

/// Writes. Faults in the input are returned in `userErrors`, and the refused write changes nothing. A request whose
/// response was lost can be sent again unchanged: the server recognises a purchase, refund or adjustment that it has
/// recorded, the mutations of redemptions recognise what was done, and `createCampaign`, `cloneCampaign` and
/// `createReward` recognise their `idempotencyKey` if one was given. `cancelJob` changes nothing the second time, nor does
/// `exportCustomer` while its job waits or runs. Any other mutation is refused if it has already taken effect.
#[derive(Default, MergedObject)]
pub struct Mutation(purchase::mutation::PurchaseMutation, Apart<RareMutation>);

/// The part of [`Query`] that is asked for less often.
#[derive(Default, MergedObject)]
pub struct RareQuery(
    purchase::PurchaseQuery,
    campaign::CampaignQuery,
    reward::RewardQuery,
    trail::TrailQuery,
    job::JobQuery,
    dead_letter::DeadLetterQuery,
    node::NodeQuery,
);

/// The part of [`Mutation`] that is used less often.
#[derive(Default, MergedObject)]
pub struct RareMutation(
    refund::mutation::RefundMutation,
    campaign::mutation::CampaignMutation,
    adjustment::AdjustmentMutation,
    reward::RewardMutation,
    redemption::RedemptionMutation,
    job::JobMutation,
    dead_letter::DeadLetterMutation,
);

/// Live updates, over WebSocket (`graphql-transport-ws`) or server-sent events. A subscription ends with its first
/// error.
#[derive(Default, MergedSubscription)]
pub struct Subscription(points_update::PointsSubscription, campaign::stats::CampaignStatsSubscription);

type Executor = async_graphql::Schema<Query, Mutation, Subscription>;

/// An operation in the form that the executor runs: parsed once and run often. The gate prints only text that the parser accepts.
/// Any other text stays text, for which the executor reports the syntax error.
pub struct Document(Result<ExecutableDocument, String>);

impl Document {
    /// Parses the text of one operation, as the gate prints it.
    pub fn parse(text: String) -> Self {
        Self(async_graphql::parser::parse_query(&text).map_err(|_| text))
    }

    fn is_query(&self) -> bool {
        let is_query = |parsed: &ExecutableDocument| {
            parsed.operations.iter().all(|(_, operation)| operation.node.ty == OperationType::Query)
        };
        self.0.as_ref().is_ok_and(is_query)
    }
}

/// An executable schema and the application that it reads and writes.
pub struct Schema {
    executor: Executor,
    app: Arc<App>,
}

/// Builds the schema for this application.
pub fn schema(app: Arc<App>) -> Schema {
    Schema { executor: executor(), app }
}

/// Returns the schema in SDL. `schema.graphql` holds this text, and the gate is built from it.
pub fn sdl() -> String {
    executor().sdl_with_options(SDLExportOptions::new().include_specified_by())
}

fn executor() -> Executor {
    // The gate has already validated each document, so the executor applies only the rules that it cannot do without.
    Executor::build(Query::default(), Mutation::default(), Subscription::default())
        .validation_mode(ValidationMode::Fast)
        .disable_suggestions()
        .finish()
}

impl Schema {
    /// Executes a query or mutation that the gate has admitted. Also returns the source of the response if it has only one.
    pub async fn execute(
        &self,
        caller: Caller,
        document: &Document,
        variables: Variables,
    ) -> (Response, Option<Source>) {
        let (turns, reads) = (Turns::default(), if document.is_query() { Reads::default() } else { Reads::going_on() });
        let (tells_reads, request_id) = (caller.tells_reads, caller.origin.request_id.clone());
        let request = self.request(caller, None, document, variables, turns.clone(), reads.clone());
        let mut response = std::pin::pin!(self.executor.execute(request));
        let response = poll_fn(|cx| {
            let polled = response.as_mut().poll(cx);
            turns.end();
            polled
        });
        let mut response = finish(response.await, &request_id);
        if tells_reads {
            response.extensions.insert("reads".to_owned(), reads.tell());
        }
        let source = if response.is_ok() { reads.source(&self.app.clock) } else { None };
        (response, source)
    }

    /// Executes a subscription that the gate has admitted. Returns one response for each event. The stream ends with an
    /// error if the caller's allowance is in debt.
    pub fn subscribe(
        &self,
        caller: Caller,
        allowance: Allowance,
        document: &Document,
        variables: Variables,
    ) -> impl Stream<Item = Response> + Send + use<> {
        let (turns, request_id) = (Turns::default(), caller.origin.request_id.clone());
        let request = self.request(caller, Some(allowance), document, variables, turns.clone(), Reads::going_on());
        let mut responses = Box::pin(self.executor.execute_stream(request));
        let responses = futures_util::stream::poll_fn(move |cx| {
            let polled = responses.as_mut().poll_next(cx);
            turns.end();
            polled
        });
        responses.map(move |response| finish(response, &request_id))
    }

    fn request(
        &self,
        caller: Caller,
        allowance: Option<Allowance>,
        document: &Document,
        variables: Variables,
        turns: Turns,
        reads: Reads,
    ) -> async_graphql::Request {
        let Caller { viewer, origin, expires_at, .. } = caller;
        let loaders = Loaders::start(Arc::clone(&self.app), viewer.clone(), turns, reads.clone());
        let session = Session { app: Arc::clone(&self.app), viewer, origin, expires_at, allowance, loaders, reads };
        match &document.0 {
            Ok(parsed) => {
                let mut request = async_graphql::Request::new("").variables(variables).data(session);
                request.set_parsed_query(parsed.clone());
                request
            }
            Err(text) => async_graphql::Request::new(text),
        }
    }
}

fn finish(mut response: Response, request_id: &RequestId) -> Response {
    for error in &mut response.errors {
        error::log(error, request_id);
        error::finish(error);
    }
    response.errors.truncate(error::MAX_ERRORS);
    response
}
