//! The promise of docs/semantics.md, through the real write path on both databases. The reached awards are those of the oracle,
//! whatever the order of arrival, the duplicates, the batches, the concurrency, the moment of activation and the number of
//! purchases that one commit evaluates.

use std::sync::Arc;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use windfall::app::recorder::fact::{Fact, Kept, NewPurchase, NewRefund};
use windfall::config;
use windfall::engine::external_id::ExternalId;
use windfall::engine::time::Instant;

use crate::engine::convert;
use crate::oracle;
use crate::oracle::generate::{Case, case_with_commits};
use crate::support::app::{DAY, ENGINES, Engine, TestApp, cases};

/// The number of clients that record at the same time.
const CLIENTS: usize = 16;
/// The number of purchases that one commit evaluates in a deferred case.
const FEW_PURCHASES: usize = 3;
/// The number of customers. They have the same history, but for the purchases that they hand over to each other.
const CUSTOMERS: usize = 3;

/// The fields of an award that are compared: the reaching purchase, `nth`, ordinal, points, `earnedAt`, both bounds of the
/// window, and the first purchase of the evidence.
type Seen = (String, i32, i64, i64, i64, i64, Option<i64>, String);

/// The purchases that a customer has in the end: its own, and those that another one handed over.
fn purchases(case: &Case, customer: usize) -> Vec<oracle::Purchase> {
    let of_origin = |origin: usize| {
        let now = case.orders.iter().map(oracle::contents::Order::now);
        let its = now.filter(move |(handed, _)| owner(origin, *handed) == customer);
        its.map(move |(_, p)| oracle::Purchase { external_id: own(&p.external_id, origin), ..p })
    };
    (0..CUSTOMERS).flat_map(of_origin).collect()
}

/// The customer of a content of the history of customer `origin`, which names the customer `handed`.
fn owner(origin: usize, handed: usize) -> usize {
    (origin + handed) % CUSTOMERS
}

fn expected(case: &Case, customer: usize) -> Vec<Seen> {
    let purchases = purchases(case, customer);
    let reached = oracle::reached::reached(&case.campaign, &purchases);
    reached
        .into_iter()
        .map(|award| {
            let reached = convert::reached(&case.campaign, &award, &purchases);
            let closes = (reached.window.closes != Instant::FOREVER).then_some(reached.window.closes.0);
            (
                reached.by.external_id,
                reached.nth,
                reached.ordinal,
                reached.points,
                reached.by.at.0,
                reached.window.opens.0,
                closes,
                reached.evidence_from.external_id,
            )
        })
        .collect()
}

/// Returns a customer's own external id for a shared purchase or refund. A suffix makes it unique and keeps the order.
fn own(external_id: &str, customer: usize) -> String {
    format!("{external_id}~{customer}")
}

fn fact(fact: &oracle::generate::Fact, customer: usize) -> Fact {
    match fact {
        oracle::generate::Fact::Purchase { external_id, content } => {
            let customer_external_id = ExternalId::stored(name(owner(customer, content.customer)));
            let (revision, purchase) = (content.revision, convert::content(&own(external_id, customer), content));
            Fact::Purchase(NewPurchase {
                customer_external_id,
                revision,
                purchase,
                ahead: Vec::new(),
                kept: Kept::default(),
            })
        }
        oracle::generate::Fact::Refund { of, refund } => Fact::Refund(NewRefund {
            external_id: ExternalId::stored(own(&refund.external_id, customer)),
            purchase_external_id: ExternalId::stored(own(of, customer)),
            // The purchase may belong to another customer by now.
            customer_external_id: ExternalId::stored(name(customer)),
            refund: convert::refund(refund),
            ahead: Vec::new(),
        }),
    }
}

fn name(customer: usize) -> String {
    format!("customer-{customer}")
}

/// How a case is recorded.
#[derive(Clone, Copy)]
struct How {
    /// Whether many clients record at the same time.
    concurrent: bool,
    /// Whether one commit evaluates so few purchases that most of the history is deferred, and evaluated while more is recorded.
    deferred: bool,
}

async fn converges(engine: Engine, case: Case, commits: Vec<Vec<oracle::generate::Fact>>, how: How) {
    let few = |config: &mut config::Config| {
        if how.deferred {
            config.writer.fold_purchases = FEW_PURCHASES;
        }
    };
    let test = TestApp::start_with(engine, few).await;
    let contents = case.orders.iter().flat_map(|order| &order.contents);
    let latest = contents.map(|content| content.at).max().unwrap_or_default();
    test.set_now(latest.max(case.campaign.starts_at) + DAY);
    let mut rule = convert::rule(&case.campaign);
    rule.lateness = convert::span(3_660 * DAY);
    let period = convert::period(&case.campaign);
    let mut drafts = Vec::new();
    for moment in ["before", "between", "after"] {
        drafts.push(test.draft(moment, &rule, &period).await);
    }
    test.activate(drafts[0]).await;
    for (index, commit) in commits.iter().enumerate() {
        if index == commits.len() / 2 {
            activate(&test, drafts[1], how).await;
        }
        let facts: Vec<Fact> = (0..CUSTOMERS)
            .flat_map(|customer| commit.iter().map(move |one| (customer, one)))
            .map(|(customer, one)| fact(one, customer))
            .collect();
        // A refund in the same batch as its purchase would not find the purchase, so refunds are recorded afterwards.
        let (refunds, purchases): (Vec<Fact>, Vec<Fact>) =
            facts.into_iter().partition(|fact| matches!(fact, Fact::Refund(_)));
        for facts in [purchases, refunds] {
            record(&test, facts, how.concurrent).await;
        }
    }
    if commits.is_empty() {
        activate(&test, drafts[1], how).await;
    }
    test.activate(drafts[2]).await;
    let mut total = 0;
    for customer in 0..CUSTOMERS {
        let expected = expected(&case, customer);
        total += 3 * expected.iter().map(|award| award.3).sum::<i64>();
        let recorded = test.awards(&name(customer)).await;
        for id in &drafts {
            let of_campaign = recorded.iter().filter(|row| row.campaign_id == *id);
            let seen: Vec<Seen> = of_campaign
                .map(|row| {
                    let row = row.clone();
                    (
                        row.purchase_external_id,
                        row.nth,
                        row.ordinal,
                        row.points,
                        row.earned_at,
                        row.opens_at,
                        row.closes_at,
                        row.evidence_from_external_id,
                    )
                })
                .collect();
            assert_eq!(seen, expected, "campaign {} of {case:?}", id.0);
        }
    }
    let mut points = 0;
    for customer in 0..CUSTOMERS {
        points += test.customer(&name(customer)).await.map_or(0, |row| row.lifetime);
    }
    assert_eq!(points, total);
    test.audit_is_clean().await;
    test.app.stop().await.unwrap();
}

/// Activates a campaign. In a deferred case, at most one commit evaluates each customer.
async fn activate(test: &TestApp, id: entity::CampaignId, how: How) {
    if !how.deferred {
        return test.activate(id).await;
    }
    windfall::app::campaign::activate(&test.app, &TestApp::actor(), id).await.unwrap();
    for customer in (0..CUSTOMERS).map(name) {
        // The evaluation of a customer without any facts is refused.
        let evaluation = vec![Fact::Evaluation(customer)];
        test.app.recorder.record(TestApp::shop().who(), evaluation).await.unwrap().remove(0).unwrap().ok();
    }
    test.audit_is_clean().await;
}

async fn record(test: &TestApp, facts: Vec<Fact>, concurrent: bool) {
    if !concurrent {
        test.record(facts).await;
        return;
    }
    let mut shares: Vec<Vec<Fact>> = (0..CLIENTS).map(|_| Vec::new()).collect();
    for (index, fact) in facts.into_iter().enumerate() {
        shares[index % CLIENTS].push(fact);
    }
    let clients: Vec<_> = shares
        .into_iter()
        .filter(|share| !share.is_empty())
        .map(|share| {
            let app = Arc::clone(&test.app);
            tokio::spawn(async move {
                for fact in share {
                    let answers = app.recorder.record(TestApp::shop().who(), vec![fact]).await.unwrap();
                    answers.into_iter().for_each(|answer| drop(answer.unwrap().unwrap()));
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_order_gives_what_the_oracle_reaches() {
    let config = Config { rng_seed: RngSeed::Fixed(20_261_123), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let mut awarded = 0;
    for index in 0..cases(40, 2_000) {
        let (case, commits) = case_with_commits().new_tree(&mut runner).unwrap().current();
        awarded += usize::from(!oracle::reached::reached(&case.campaign, &case.purchases).is_empty());
        for engine in ENGINES {
            let how = How { concurrent: index % 2 == 0, deferred: index % 3 == 0 };
            converges(engine, case.clone(), commits.clone(), how).await;
        }
    }
    assert!(awarded >= cases(10, 500), "only {awarded} cases awarded anything");
}
