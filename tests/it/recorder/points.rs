//! What a customer holds is at every instant what the oracle says, through the real write path and the real reads, on both databases:
//! after purchases, revisions, adjustments, redemptions, reservations and steps of the clock, whether or not anybody posts what is due.

use proptest::prelude::{Strategy, prop_oneof};
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::json;
use windfall::app::customer::{Balance, expiring};
use windfall::app::purchase::RecordPurchase;
use windfall::app::reading::snapshot::Extent;
use windfall::app::recorder::fact::{Fact, NewAdjustment, NewRedemption, Recorded, RedemptionStep, Refusal, StepKind};
use windfall::app::reward::{self, RewardInput};
use windfall::engine::external_id::ExternalId;
use windfall::engine::time::Instant;

use crate::oracle::points::{Dates, Holder, Taken};
use crate::support::app::{ENGINES, Engine, NOW, TestApp, cases, purchase_input};

/// The unit of time. Few of them make most steps fall on a boundary.
const MINUTE: i64 = 60_000_000;
const ADA: &str = "ada";

/// `holdFor` and `expiresAfter` of the campaigns, in minutes. Each gives one point for each euro of every purchase.
const CAMPAIGNS: [(Option<i64>, Option<i64>); 4] = [(None, None), (Some(2), None), (None, Some(3)), (Some(1), Some(2))];

#[derive(Clone, Debug)]
enum Step {
    /// The clock goes on to this many minutes from now, plus so many µs.
    Pass(i64, i64),
    /// A content of one of six purchases: its instant in minutes before now, and its total in euros.
    Buy(usize, i64, i64),
    Adjust(i64, Option<i64>),
    Redeem(i64),
    Reserve(i64, i64),
    Commit(usize),
    Cancel(usize),
    /// A job posts what is due.
    PostDue,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4_i64, select(vec![-1, 0, 0, 0, 1])).prop_map(|(minutes, micros)| Step::Pass(minutes, micros)),
        4 => (0..6_usize, 0..4_i64, 0..5_i64).prop_map(|(purchase, ago, euros)| Step::Buy(purchase, ago, euros)),
        1 => (-6..6_i64, proptest::option::of(1..4_i64)).prop_map(|(points, expires)| Step::Adjust(points, expires)),
        2 => (1..6_i64).prop_map(Step::Redeem),
        2 => (1..6_i64, 1..4_i64).prop_map(|(points, minutes)| Step::Reserve(points, minutes)),
        1 => (0..4_usize).prop_map(Step::Commit),
        2 => (0..4_usize).prop_map(Step::Cancel),
        1 => proptest::strategy::Just(Step::PostDue),
    ];
    proptest::collection::vec(step, 5..30)
}

/// A redemption that both know.
struct Known {
    number: i64,
    state: State,
}

enum State {
    Reserved(i64),
    Redeemed(Taken),
    Ended,
}

struct Life {
    test: TestApp,
    holder: Holder,
    now: i64,
    /// The points and the instant of each purchase, and its revision.
    purchases: [(i64, i64, i64); 6],
    known: Vec<Known>,
    reward: entity::RewardId,
    keys: u64,
}

fn dates((hold, expiry): (Option<i64>, Option<i64>), at: i64) -> Dates {
    let available_at = hold.map(|minutes| at + minutes * MINUTE);
    (available_at, expiry.map(|minutes| available_at.unwrap_or(at) + minutes * MINUTE))
}

impl Life {
    async fn start(engine: Engine) -> Self {
        let test = TestApp::start(engine).await;
        for (index, (hold, expiry)) in CAMPAIGNS.iter().enumerate() {
            let span = |minutes: &Option<i64>| minutes.map(|minutes| format!("PT{minutes}M"));
            let input = json!({
                "name": format!("c{index}"), "startsAt": "2026-01-01T00:00:00Z", "currency": "EUR", "window": {"campaign": "WHOLE"},
                "goal": {"everyPurchase": "EACH"}, "award": {"pointsPerUnit": "1"}, "holdFor": span(hold), "expiresAfter": span(expiry),
            });
            test.campaign(input).await;
        }
        let input = RewardInput {
            name: "a point".into(),
            description: None,
            image_url: None,
            cost: 1,
            stock: None,
            max_per_customer: None,
            starts_at: None,
            ends_at: None,
            active: true,
            self_service: false,
        };
        let reward = reward::create(&test.app, &TestApp::actor(), input, None).await.unwrap().id;
        let mut holder = Holder::default();
        holder.pass(NOW);
        Self { test, holder, now: NOW, purchases: [(0, 0, 0); 6], known: Vec::new(), reward, keys: 0 }
    }

    async fn record(&mut self, fact: Fact) -> Result<Recorded, Refusal> {
        self.test.app.recorder.record(TestApp::shop().who(), vec![fact]).await.unwrap().remove(0).unwrap()
    }

    fn key(&mut self) -> String {
        self.keys += 1;
        format!("key {}", self.keys)
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Pass(minutes, micros) => {
                let to = ((self.now - NOW) / MINUTE + minutes) * MINUTE + NOW + micros;
                self.now = self.now.max(to);
                self.test.set_now(self.now);
                self.holder.pass(self.now);
            }
            Step::Buy(purchase, ago, euros) => self.buy(purchase, ago, euros).await,
            Step::Adjust(0, _) => {}
            Step::Adjust(points, expires) => {
                let expires_at = expires.filter(|_| points > 0).map(|minutes| self.now + minutes * MINUTE);
                let fact = Fact::Adjustment(NewAdjustment {
                    customer_external_id: ExternalId::stored(ADA),
                    points,
                    reason: "test".into(),
                    idempotency_key: self.key(),
                    expires_at: expires_at.map(Instant),
                    allow_negative: true,
                    actor: None,
                });
                self.record(fact).await.unwrap();
                self.holder.adjust(points, expires_at);
            }
            Step::Redeem(points) => {
                let redeemed = self.redeem(points, None).await;
                let taken = self.holder.redeem(points);
                assert_eq!(redeemed.is_some(), taken.is_some(), "redeem {points}");
                let made = redeemed.zip(taken);
                self.known.extend(made.map(|(number, taken)| Known { number, state: State::Redeemed(taken) }));
            }
            Step::Reserve(points, minutes) => {
                let reserved = self.redeem(points, Some(minutes * MINUTE)).await;
                let until = self.now + minutes * MINUTE;
                let number = reserved.unwrap_or(i64::MAX);
                assert_eq!(self.holder.reserve(number, until, points), reserved.is_some(), "reserve {points}");
                self.known.extend(reserved.map(|number| Known { number, state: State::Reserved(until) }));
            }
            Step::Commit(index) => self.step(index, StepKind::Commit).await,
            Step::Cancel(index) => self.step(index, StepKind::Cancel { reason: None }).await,
            Step::PostDue => {
                self.record(Fact::Expiry(ADA.into())).await.ok();
                if self.test.customer(ADA).await.is_some() {
                    self.assert_lots().await;
                }
            }
        }
    }

    /// Records a content of a purchase. A content of 0 voids it.
    async fn buy(&mut self, purchase: usize, ago: i64, euros: i64) {
        let (before, at, revision) = self.purchases[purchase];
        let now = self.now - ago * MINUTE;
        let input = purchase_input(ADA, &format!("p{purchase}"), now, &euros.to_string());
        let input = RecordPurchase { revision, ..input };
        self.record(Fact::Purchase(input.check(&[], Instant(self.now)).unwrap())).await.unwrap();
        self.purchases[purchase] = (euros, now, revision + 1);
        let (mut reversals, mut redated, mut awards) = (Vec::new(), Vec::new(), Vec::new());
        for campaign in CAMPAIGNS {
            let (had, gets) = (dates(campaign, at), dates(campaign, now));
            let place = |(available, expires): Dates| (available.filter(|at| *at > self.now), expires);
            let stays = before.min(euros);
            if euros < before {
                reversals.push((before - euros, had));
            }
            if stays > 0 && place(had) != place(gets) {
                redated.push((stays, had, gets));
            }
            if euros > before {
                awards.push((euros - before, gets));
            }
        }
        self.holder.commit(&reversals, &redated, &awards);
    }

    async fn redeem(&mut self, points: i64, reserve_for: Option<i64>) -> Option<i64> {
        let fact = Fact::Redemption(NewRedemption {
            customer_external_id: ExternalId::stored(ADA),
            reward: self.reward,
            quantity: points,
            idempotency_key: self.key(),
            reserve_for,
            by_customer: false,
        });
        self.record(fact).await.ok().and_then(|recorded| Some(recorded.redemption?.number))
    }

    async fn step(&mut self, index: usize, kind: StepKind) {
        if self.known.is_empty() {
            return;
        }
        let index = index % self.known.len();
        let number = self.known[index].number;
        let commits = kind == StepKind::Commit;
        let fact = RedemptionStep { customer_external_id: ExternalId::stored(ADA), number, kind, by_customer: false };
        let answer = self.record(Fact::RedemptionStep(fact)).await;
        let state = std::mem::replace(&mut self.known[index].state, State::Ended);
        self.known[index].state = match state {
            State::Reserved(until) if until <= self.now => {
                assert!(answer.is_err(), "the reservation is over");
                State::Reserved(until)
            }
            State::Reserved(_) if commits => State::Redeemed(self.holder.commit_reservation(number).unwrap()),
            State::Reserved(_) => {
                assert!(self.holder.cancel_reservation(number));
                State::Ended
            }
            State::Redeemed(taken) if commits => State::Redeemed(taken),
            State::Redeemed(taken) => {
                self.holder.cancel_redemption(&taken);
                State::Ended
            }
            State::Ended => State::Ended,
        };
    }

    /// Compares the balance now and at later instants, at which nothing is written.
    async fn assert_balances(&self) {
        for (minutes, micros) in [(0, 0), (1, -1), (1, 0), (2, 0), (3, 1)] {
            let later = ((self.now - NOW) / MINUTE + minutes) * MINUTE + NOW + micros;
            let at = if minutes == 0 { self.now } else { later.max(self.now) };
            self.test.set_now(at);
            let mut holder = self.holder.clone();
            holder.pass(at);
            let names = [(ADA.to_owned(), None)];
            let found = self.test.app.snapshots().find(&names, Extent::Balance).await.unwrap();
            let Some(view) = found.get(ADA) else { continue };
            let balance = Balance::of_snapshot(&view.snapshot, Instant(at));
            assert_eq!(balance.as_of, Instant(at));
            let expected = (holder.available(), holder.pending(), holder.reserved());
            assert_eq!((balance.available, balance.pending, balance.reserved), expected, "{} µs later", at - self.now);
            for minutes in [1, 2, 5] {
                let by = at + minutes * MINUTE;
                let found = expiring(&self.test.app, &view.snapshot, Instant(at), Instant(by)).await.unwrap();
                assert_eq!(found, Some(holder.expiring(by)));
            }
            assert_eq!(self.test.app.snapshots().check(view).await, Some(true));
        }
        self.test.set_now(self.now);
    }

    /// Compares the stored lots, after everything that is due was posted.
    async fn assert_lots(&self) {
        let expected: Vec<(String, [i64; 4])> = self
            .holder
            .lots()
            .into_iter()
            .filter(|((matures, _), _)| matures.is_none())
            .map(|((_, expires), (left, reserved, spent, expired))| {
                (Instant(expires.unwrap()).to_string(), [left, reserved, spent, expired])
            })
            .collect();
        assert_eq!(self.test.lots(ADA).await, expected);
        let customer = self.test.customer(ADA).await.unwrap();
        assert_eq!(customer.balance, self.holder.entries);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instant_shows_what_the_oracle_holds() {
    let config = Config { rng_seed: RngSeed::Fixed(20_261_130), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let (mut expired, mut lapsed, mut given_back) = (0, 0, 0);
    for _ in 0..cases(20, 600) {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        for engine in ENGINES {
            let mut life = Life::start(engine).await;
            for step in steps.clone() {
                life.take(step).await;
                life.assert_balances().await;
            }
            life.test.audit_is_clean().await;
            life.take(Step::Pass(20, 0)).await;
            life.assert_balances().await;
            life.test.audit_is_clean().await;
            life.take(Step::PostDue).await;
            life.assert_balances().await;
            life.test.audit_is_clean().await;
            let entries = life.test.ledger(ADA).await;
            let of_kind = |kind| entries.iter().filter(|entry| entry.kind == kind).count();
            expired += of_kind(entity::LedgerEntryKind::Expiry);
            given_back += of_kind(entity::LedgerEntryKind::Cancellation);
            lapsed += life.known.iter().filter(|known| matches!(known.state, State::Reserved(_))).count();
        }
    }
    assert!(expired >= 20 && lapsed >= 5 && given_back >= 3, "{expired} {lapsed} {given_back}");
}
