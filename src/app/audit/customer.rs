//! Audits one customer. Folds its purchases in all campaigns at the same time, and compares the recorded awards and checkpoints
//! with the result of each purchase, in the same order.

use entity::{AwardStatus, CampaignId, CustomerId, award, checkpoint, customer};
use sea_orm::DatabaseTransaction;
use sea_orm::sea_query::Value;

use super::fold::Fold;
use super::history::{Fact, History};
use super::ledger::{Ledger, Stands};
use super::pages::{Customers, Pages, Row};
use crate::app::audit::difference::{Found, Tell};
use crate::app::campaign::set::{Campaign, CampaignSet};
use crate::app::error::Error;
use crate::app::rows::Kind;
use crate::app::stored::running::Running;
use crate::app::stored::{award as awards, checkpoint as checkpoints};
use crate::engine::award::Reached;
use crate::engine::external_id::is_erased;
use crate::engine::purchase::Key;
use crate::engine::state::State;
use crate::engine::time::Instant;

impl Row for award::Model {
    const SELECT: &'static str = "s.*";
    const FROM: &'static str = "award AS s";
    const ORDER: &'static [(&'static str, Kind)] = &[
        ("customer_id", Kind::Int),
        ("earned_at", Kind::Int),
        ("purchase_external_id", Kind::Text),
        ("nth", Kind::Int),
        ("number", Kind::Int),
    ];

    fn position(&self) -> Vec<Value> {
        let by = self.purchase_external_id.clone();
        vec![
            self.customer_id.0.into(),
            self.earned_at.into(),
            by.into(),
            i64::from(self.nth).into(),
            self.number.into(),
        ]
    }

    fn customer(&self) -> CustomerId {
        self.customer_id
    }

    fn bytes(&self) -> usize {
        256 + self.purchase_external_id.len() + self.evidence_from_external_id.len()
    }
}

impl Row for checkpoint::Model {
    const SELECT: &'static str = "s.*";
    const FROM: &'static str = "checkpoint AS s";
    const ORDER: &'static [(&'static str, Kind)] = &[
        ("customer_id", Kind::Int),
        ("purchased_at", Kind::Int),
        ("external_id", Kind::Text),
        ("campaign_id", Kind::Int),
    ];

    fn position(&self) -> Vec<Value> {
        let id = self.external_id.clone();
        vec![self.customer_id.0.into(), self.purchased_at.into(), id.into(), self.campaign_id.0.into()]
    }

    fn customer(&self) -> CustomerId {
        self.customer_id
    }

    fn bytes(&self) -> usize {
        128 + self.external_id.len() + self.state.len()
    }
}

/// Everything that is recorded of a range of customers. It is read in order.
pub(super) struct Records<'a> {
    snapshot: &'a DatabaseTransaction,
    history: History<'a>,
    awards: Pages<'a, award::Model>,
    checkpoints: Pages<'a, checkpoint::Model>,
    ledger: Ledger<'a>,
}

impl<'a> Records<'a> {
    pub(super) fn of(snapshot: &'a DatabaseTransaction, customers: Customers) -> Self {
        Self {
            snapshot,
            history: History::of(snapshot, customers),
            awards: Pages::of(snapshot, customers),
            checkpoints: Pages::of(snapshot, customers),
            ledger: Ledger::of(snapshot, customers),
        }
    }

    /// Reports each difference of the next customer. Returns the number of differences.
    pub(super) async fn audit(
        &mut self,
        set: &'a CampaignSet,
        row: &customer::Model,
        tell: Tell<'_>,
    ) -> Result<u64, Error> {
        let found = Found { customer: row.external_id.clone(), tell, count: 0 };
        let activated = set.all().iter().filter(|campaign| campaign.life.activated);
        // If the states cannot be read, `compare_running` reports that.
        let running = Running::parse(&row.head).unwrap_or_default();
        let campaigns = activated.map(|campaign| OneCampaign {
            fold: Fold::new(self.snapshot, campaign, evaluated_up_to(campaign, row, &running)),
            recorded: Vec::new(),
            standing: 0,
            declined: 0,
            points: 0,
            has_checkpoints: false,
        });
        let mut audit = Audit { records: self, row, found, campaigns: campaigns.collect(), stands: Stands::new() };
        if is_erased(&row.external_id) {
            audit.read_what_stays().await?;
        } else {
            audit.walk().await?;
            audit.compare_running();
        }
        let Audit { mut found, stands, .. } = audit;
        self.ledger.compare(set, row, stands, &mut found).await?;
        Ok(found.count)
    }
}

/// Returns the key up to which the customer has been evaluated for the campaign. What follows is not evaluated yet and is no
/// difference. Returns `None` if the evaluation is complete.
fn evaluated_up_to(campaign: &Campaign, row: &customer::Model, running: &Running) -> Option<Key> {
    if campaign.row.activated_revision > Some(row.evaluated_revision) {
        return Some(Key::before(Instant::EPOCH));
    }
    running.get(campaign.id())?.mark.clone()
}

/// The fold of one campaign, and the recorded awards that it is compared with.
struct OneCampaign<'a> {
    fold: Fold<'a>,
    /// The recorded STANDING and DECLINED awards of the current purchase.
    recorded: Vec<Reached>,
    /// The number of recorded STANDING awards so far.
    standing: i64,
    /// The number of recorded DECLINED awards so far.
    declined: i64,
    /// The points of both so far.
    points: i64,
    /// Whether a checkpoint is recorded.
    has_checkpoints: bool,
}

struct Audit<'a, 'b, 't> {
    records: &'b mut Records<'a>,
    row: &'b customer::Model,
    found: Found<'t>,
    campaigns: Vec<OneCampaign<'a>>,
    stands: Stands,
}

impl Audit<'_, '_, '_> {
    /// Reads the awards of an erased customer. What they come from is gone, or about to go.
    async fn read_what_stays(&mut self) -> Result<(), Error> {
        while self.records.history.next(self.row.id, None).await?.is_some() {}
        while self.records.checkpoints.next_if(self.row.id, |_| true).await?.is_some() {}
        while let Some(row) = self.records.awards.next_if(self.row.id, |_| true).await? {
            self.see_award(&row);
        }
        Ok(())
    }

    /// Audits the purchases of the customer in order.
    async fn walk(&mut self) -> Result<(), Error> {
        let mut next = self.records.history.next(self.row.id, None).await?;
        while let Some(fact) = next {
            let key = fact.purchase.key.clone();
            self.tell_surplus(Some(&key)).await?;
            // A campaign counts at most one content at a place, but a purchase may have had several there.
            next = Some(fact);
            while let Some(fact) = next.take_if(|fact| fact.purchase.key == key) {
                self.look_at(&fact);
                for campaign in &mut self.campaigns {
                    campaign.fold.step(self.row.id, &fact.purchase).await?;
                }
                next = self.records.history.next(self.row.id, None).await?;
            }
            self.read_awards(&key).await?;
            for campaign in &mut self.campaigns {
                campaign.compare_awards(&mut self.found);
            }
            self.compare_checkpoints(&key).await?;
        }
        self.tell_surplus(None).await
    }

    fn look_at(&mut self, fact: &Fact) {
        self.stands.see_version(fact.version);
        for (refund, had) in &fact.refunds {
            // Refunds of the time when the purchase belonged to another customer have versions of that one.
            if refund.customer_id == self.row.id {
                self.stands.see_version(refund.version);
            } else if !had {
                let what = format!("customer of refund {}", refund.external_id);
                self.found.compare(None, &what, refund.customer_id.0, self.row.id.0);
            }
        }
    }

    /// Reports the remaining awards and checkpoints before this key: their purchases do not exist. `None` stands for the end.
    async fn tell_surplus(&mut self, before: Option<&Key>) -> Result<(), Error> {
        let precedes = |key: Key| before.is_none_or(|before| key < *before);
        while let Some(row) =
            self.records.awards.next_if(self.row.id, |row| precedes(awards::reaching_key(row))).await?
        {
            if let Some((at, award)) = self.see_award(&row) {
                self.found.note(Some(self.campaigns[at].fold.campaign), name(&award), show(&award), none());
            }
        }
        while let Some(row) =
            self.records.checkpoints.next_if(self.row.id, |row| precedes(checkpoints::key(row))).await?
        {
            self.compare_checkpoint(&row, false);
        }
        Ok(())
    }

    /// Reads the recorded awards of the purchase with this key.
    async fn read_awards(&mut self, key: &Key) -> Result<(), Error> {
        while let Some(row) = self.records.awards.next_if(self.row.id, |row| awards::reaching_key(row) == *key).await? {
            if let Some((at, award)) = self.see_award(&row) {
                self.campaigns[at].recorded.push(award);
            }
        }
        Ok(())
    }

    /// Counts a recorded award. Returns the position of its campaign, and what must equal the reached award. Returns `None` if
    /// the award is REVERSED or its campaign was never activated.
    fn see_award(&mut self, row: &award::Model) -> Option<(usize, Reached)> {
        self.stands.see(row);
        let Some(at) = self.position(row.campaign_id) else {
            let what = format!("campaign of award {}", row.number);
            let (recorded, expected) = (row.campaign_id.0, "an activated campaign".to_owned());
            self.found.note(None, what, format!("campaign {recorded}"), expected);
            return None;
        };
        let campaign = &mut self.campaigns[at];
        match row.status {
            AwardStatus::Standing => campaign.standing += 1,
            AwardStatus::Declined => campaign.declined += 1,
            AwardStatus::Reversed => return None,
        }
        campaign.points += row.points;
        Some((at, awards::recorded(row).reached))
    }

    fn position(&self, id: CampaignId) -> Option<usize> {
        self.campaigns.iter().position(|campaign| campaign.fold.campaign.id() == id)
    }

    async fn compare_checkpoints(&mut self, key: &Key) -> Result<(), Error> {
        while let Some(row) = self.records.checkpoints.next_if(self.row.id, |row| checkpoints::key(row) == *key).await?
        {
            self.compare_checkpoint(&row, true);
        }
        Ok(())
    }

    /// Compares a checkpoint with the state of the fold. `reached` says whether the purchase of the checkpoint exists and was
    /// just folded.
    fn compare_checkpoint(&mut self, row: &checkpoint::Model, reached: bool) {
        let Some(at) = self.position(row.campaign_id) else { return };
        self.campaigns[at].has_checkpoints = true;
        let Fold { campaign, state, .. } = &self.campaigns[at].fold;
        if !campaign.counts() {
            return;
        }
        let expected = Some(state).filter(|state| reached && state.last == Some(checkpoints::key(row)));
        if serde_json::from_str::<State>(&row.state).ok().as_ref() != expected {
            let what = format!("checkpoint at purchase {}", row.external_id);
            let expected = expected.map_or_else(none, |state| format!("{state:?}"));
            self.found.note(Some(campaign), what, row.state.clone(), expected);
        }
    }

    /// Compares the stored state of each campaign that still counts facts with the state at the end of the fold.
    fn compare_running(&mut self) {
        let running = Running::parse(&self.row.head).unwrap_or_else(|_| {
            let (what, expected) = ("running states".to_owned(), "states that can be read".to_owned());
            self.found.note(None, what, self.row.head.escape_ascii().to_string(), expected);
            Running::default()
        });
        for OneCampaign { fold, standing, declined, points, has_checkpoints, .. } in &self.campaigns {
            if !fold.campaign.counts() {
                continue;
            }
            let recorded = running.of(fold.campaign.id());
            // The opposite is no difference: a release that did not know better wrote that there may be some.
            if *has_checkpoints && !recorded.has_checkpoints {
                self.found.note(Some(fold.campaign), "checkpoints".to_owned(), none(), "some".to_owned());
            }
            if recorded.state != fold.state {
                let (recorded, expected) = (format!("{:?}", recorded.state), format!("{:?}", fold.state));
                self.found.note(Some(fold.campaign), "running state".to_owned(), recorded, expected);
            }
            self.found.compare(Some(fold.campaign), "standing awards", recorded.standing_awards, *standing);
            self.found.compare(Some(fold.campaign), "declined awards", recorded.declined_awards, *declined);
            if fold.campaign.rule.caps_points() {
                self.found.compare(Some(fold.campaign), "points of awards", recorded.points, *points);
            }
        }
    }
}

impl OneCampaign<'_> {
    /// Compares the recorded awards of the current purchase with those that it reached.
    fn compare_awards(&mut self, found: &mut Found<'_>) {
        let campaign = Some(self.fold.campaign);
        let mut recorded = std::mem::take(&mut self.recorded);
        for expected in self.fold.reached.drain(..) {
            let same = recorded.iter().position(|award| award.nth == expected.nth);
            match same.map(|at| recorded.remove(at)) {
                None => found.note(campaign, name(&expected), none(), show(&expected)),
                Some(award) if award != expected => {
                    found.note(campaign, name(&expected), show(&award), show(&expected));
                }
                Some(_) => {}
            }
            // The rows are sorted by `nth`. A further row with the same name is reported as surplus.
            while let Some(at) = recorded.iter().position(|award| award.nth == expected.nth) {
                let twice = recorded.remove(at);
                found.note(campaign, name(&twice), format!("another: {}", show(&twice)), none());
            }
        }
        for award in recorded {
            found.note(campaign, name(&award), show(&award), none());
        }
    }
}

fn name(award: &Reached) -> String {
    format!("award of purchase {} (number {})", award.by.external_id, award.nth)
}

fn none() -> String {
    "none".to_owned()
}

fn show(award: &Reached) -> String {
    let of = if award.points_before_cap == award.points {
        String::new()
    } else {
        format!(" of {}", award.points_before_cap)
    };
    let date = |what, at: Option<Instant>| at.map_or(String::new(), |at| format!(", {what} {at}"));
    let dates = date("available from", award.dates.available_at) + &date("expiring at", award.dates.expires_at);
    format!(
        "{}{of} points, earned at {}{dates}, window {} to {}, ordinal {}, evidence from {} at {}",
        award.points,
        award.by.at,
        award.window.opens,
        award.window.closes,
        award.ordinal,
        award.evidence_from.external_id,
        award.evidence_from.at
    )
}
