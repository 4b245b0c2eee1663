//! One customer, recomputed.

use std::collections::{BTreeMap, HashMap};

use entity::{AwardStatus, CustomerId, LedgerEntryKind, award, checkpoint, customer, ledger_entry, purchase, refund};
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder};

use super::Difference;
use super::budgets::word;
use crate::app::award as awards;
use crate::app::campaigns::{Campaign, CampaignSet};
use crate::app::error::Error;
use crate::app::rows::any;
use crate::app::running::Running;
use crate::app::{purchase as purchases, refund as refunds};
use crate::engine::award::Reached;
use crate::engine::purchase::Key;
use crate::engine::rule::Eligible;
use crate::engine::state::State;
use crate::engine::time::Instant;

/// Everything recorded of a customer.
pub(super) struct History {
    pub(super) row: customer::Model,
    purchases: Vec<purchase::Model>,
    refunds: HashMap<String, Vec<refund::Model>>,
    awards: Vec<award::Model>,
    entries: Vec<ledger_entry::Model>,
    checkpoints: Vec<checkpoint::Model>,
}

/// Loads the customers' histories, each kind of row in one statement.
pub(super) async fn load(snapshot: &DatabaseTransaction, chunk: &[customer::Model]) -> Result<Vec<History>, Error> {
    let backend = snapshot.get_database_backend();
    let ids = || chunk.iter().map(|customer| customer.id.0);
    let purchases =
        purchase::Entity::find().filter(any(backend, purchase::Column::CustomerId, ids())).all(snapshot).await?;
    let bought = purchases.iter().map(|purchase| purchase.external_id.clone());
    let refunds =
        refund::Entity::find().filter(any(backend, refund::Column::PurchaseExternalId, bought)).all(snapshot).await?;
    let awards = award::Entity::find().filter(any(backend, award::Column::CustomerId, ids())).all(snapshot).await?;
    let entries = ledger_entry::Entity::find()
        .filter(any(backend, ledger_entry::Column::CustomerId, ids()))
        .order_by_asc(ledger_entry::Column::Sequence)
        .all(snapshot)
        .await?;
    let checkpoints =
        checkpoint::Entity::find().filter(any(backend, checkpoint::Column::CustomerId, ids())).all(snapshot).await?;
    let mut histories: BTreeMap<CustomerId, History> = chunk
        .iter()
        .map(|row| {
            let history = History {
                row: row.clone(),
                purchases: Vec::new(),
                refunds: HashMap::new(),
                awards: Vec::new(),
                entries: Vec::new(),
                checkpoints: Vec::new(),
            };
            (row.id, history)
        })
        .collect();
    let mut of = |id: CustomerId, put: &mut dyn FnMut(&mut History)| {
        if let Some(history) = histories.get_mut(&id) {
            put(history);
        }
    };
    for row in purchases {
        of(row.customer_id, &mut |history| history.purchases.push(row.clone()));
    }
    for row in refunds {
        of(row.customer_id, &mut |history| {
            history.refunds.entry(row.purchase_external_id.clone()).or_default().push(row.clone());
        });
    }
    for row in awards {
        of(row.customer_id, &mut |history| history.awards.push(row.clone()));
    }
    for row in entries {
        of(row.customer_id, &mut |history| history.entries.push(row.clone()));
    }
    for row in checkpoints {
        of(row.customer_id, &mut |history| history.checkpoints.push(row.clone()));
    }
    Ok(histories.into_values().collect())
}

/// What of the customer is not as it should be.
pub(super) fn differences(set: &CampaignSet, history: &History) -> Result<Vec<Difference>, Error> {
    let mut found = Found { customer: history.row.external_id.clone(), differences: Vec::new() };
    let running = Running::parse(&history.row.running).unwrap_or_else(|_| {
        found.note(
            None,
            "running states".to_owned(),
            history.row.running.clone(),
            "states that can be read".to_owned(),
        );
        Running::default()
    });
    for campaign in set.all().iter().filter(|campaign| campaign.life.activated) {
        // Not evaluated yet: nothing is recorded.
        let evaluated = campaign.row.activated_revision <= Some(history.row.evaluated_revision);
        let mut eligible = if evaluated { eligible(campaign, history)? } else { Vec::new() };
        // What lies behind the mark is still to be evaluated: open, and no difference.
        if let Some(mark) = running.get(campaign.id()).and_then(|standing| standing.mark.as_ref()) {
            eligible.retain(|purchase| purchase.key <= *mark);
        }
        let (states, reached) = fold(campaign, &eligible);
        compare_awards(&mut found, campaign, history, reached);
        if campaign.counts() {
            compare_states(&mut found, campaign, history, &running, &states);
        }
    }
    let counts = |id| set.get(id).is_some_and(|campaign| campaign.life.activated);
    for award in history.awards.iter().filter(|award| !counts(award.campaign_id)) {
        let (what, expected) = (format!("award {}", award.number), "of a campaign that was activated".to_owned());
        found.note(None, what, format!("of campaign {}", award.campaign_id.0), expected);
    }
    compare_ledger(&mut found, set, history);
    Ok(found.differences)
}

struct Found {
    customer: String,
    differences: Vec<Difference>,
}

impl Found {
    fn note(&mut self, campaign: Option<&Campaign>, what: String, recorded: String, expected: String) {
        let campaign = campaign.map(|campaign| (campaign.id().0, campaign.row.name.clone()));
        self.differences.push(Difference { customer: Some(self.customer.clone()), campaign, what, recorded, expected });
    }

    fn compare<T: Copy + PartialEq + std::fmt::Display>(
        &mut self,
        campaign: Option<&Campaign>,
        what: &str,
        recorded: T,
        expected: T,
    ) {
        if recorded != expected {
            self.note(campaign, what.to_owned(), recorded.to_string(), expected.to_string());
        }
    }
}

/// What counts for the campaign: facts recorded before it settled.
fn eligible(campaign: &Campaign, history: &History) -> Result<Vec<Eligible>, Error> {
    let counts = |revision: i64| campaign.row.settled_revision.is_none_or(|settled| revision < settled);
    let mut eligible = Vec::new();
    for row in history.purchases.iter().filter(|row| counts(row.revision)) {
        let refunds = history.refunds.get(&row.external_id).map(Vec::as_slice).unwrap_or_default();
        let refunds = refunds.iter().filter(|refund| counts(refund.revision)).map(refunds::from_row);
        let purchase = purchases::from_row(row, refunds.collect::<Result<_, _>>()?)?;
        eligible.extend(campaign.engine().eligible(&purchase));
    }
    eligible.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(eligible)
}

/// The whole fold: the state after each counted purchase, and the awards.
fn fold(campaign: &Campaign, eligible: &[Eligible]) -> (BTreeMap<Key, State>, Vec<Reached>) {
    let mut state = State::default();
    let mut states = BTreeMap::new();
    let mut reached = Vec::new();
    for next in 0..eligible.len() {
        state.step(campaign.engine(), eligible, next, &mut reached);
        if let Some(last) = &state.last {
            states.insert(last.clone(), state.clone());
        }
    }
    if let Some(most) = campaign.rule.most_awards() {
        reached.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    }
    (states, reached)
}

fn compare_awards(found: &mut Found, campaign: &Campaign, history: &History, reached: Vec<Reached>) {
    let name = |award: &Reached| format!("award of purchase {} (number {})", award.by.external_id, award.nth);
    let none = || "none".to_owned();
    let mut recorded: HashMap<(Key, i32), Reached> = HashMap::new();
    for row in history.awards.iter().filter(|row| row.campaign_id == campaign.id()) {
        if row.status == AwardStatus::Reversed {
            continue;
        }
        let award = awards::recorded(row).reached;
        if let Some(twice) = recorded.insert((award.by.clone(), award.nth), award) {
            found.note(Some(campaign), name(&twice), format!("another: {}", show(&twice)), none());
        }
    }
    for expected in reached {
        match recorded.remove(&(expected.by.clone(), expected.nth)) {
            None => found.note(Some(campaign), name(&expected), none(), show(&expected)),
            Some(award) if award != expected => {
                found.note(Some(campaign), name(&expected), show(&award), show(&expected));
            }
            Some(_) => {}
        }
    }
    for award in recorded.into_values() {
        found.note(Some(campaign), name(&award), show(&award), none());
    }
}

fn show(award: &Reached) -> String {
    format!(
        "{} points, earned at {}, window {} to {}, ordinal {}, evidence from {} at {}",
        award.points,
        award.by.at,
        award.window.opens,
        award.window.closes,
        award.ordinal,
        award.evidence_from.external_id,
        award.evidence_from.at
    )
}

fn compare_states(
    found: &mut Found,
    campaign: &Campaign,
    history: &History,
    running: &Running,
    states: &BTreeMap<Key, State>,
) {
    let standing = running.of(campaign.id());
    let expected = states.last_key_value().map(|(_, state)| state.clone()).unwrap_or_default();
    if standing.state != expected {
        let what = "running state".to_owned();
        found.note(Some(campaign), what, format!("{:?}", standing.state), format!("{expected:?}"));
    }
    let count = |status: AwardStatus| {
        let rows = history.awards.iter().filter(|row| row.campaign_id == campaign.id());
        i64::try_from(rows.filter(|row| row.status == status).count()).unwrap_or(i64::MAX)
    };
    found.compare(Some(campaign), "standing awards", standing.standing, count(AwardStatus::Standing));
    found.compare(Some(campaign), "declined awards", standing.declined, count(AwardStatus::Declined));
    for row in history.checkpoints.iter().filter(|row| row.campaign_id == campaign.id()) {
        let key = Key { at: Instant(row.purchased_at), external_id: row.external_id.clone() };
        let expected = states.get(&key);
        if serde_json::from_str::<State>(&row.state).ok().as_ref() != expected {
            let what = format!("checkpoint at purchase {}", row.external_id);
            let expected = expected.map_or_else(|| "none".to_owned(), |state| format!("{state:?}"));
            found.note(Some(campaign), what, row.state.clone(), expected);
        }
    }
}

fn compare_ledger(found: &mut Found, set: &CampaignSet, history: &History) {
    let row = &history.row;
    let (balance, posted) = compare_entries(found, history);
    let (last, posted_at) = history.entries.last().map_or((0, 0), |entry| (entry.sequence, entry.created_at));
    found.compare(None, "last sequence", row.ledger_sequence, last);
    found.compare(None, "time of the last entry", row.posted_at, posted_at);
    found.compare(None, "balance", row.balance, balance);
    let lifetime = compare_posted(found, set, history, posted);
    found.compare(None, "lifetime", row.lifetime, lifetime);
    found.compare(None, "last award number", row.award_number, last_award(&history.awards, &history.entries));
    let versions = history.entries.iter().map(|entry| entry.version).chain(history.awards.iter().map(|a| a.version));
    let versions = versions.chain(history.purchases.iter().map(|purchase| purchase.version));
    let versions = versions.chain(history.refunds.values().flatten().map(|refund| refund.version));
    let versions = versions.max().unwrap_or_default();
    if row.version < versions {
        found.note(None, "version".to_owned(), row.version.to_string(), format!("at least {versions}"));
    }
}

/// The entries among themselves; their sum, and the points that they posted by award.
fn compare_entries(found: &mut Found, history: &History) -> (i64, BTreeMap<i64, i64>) {
    let (mut sequence, mut balance) = (0, 0);
    let mut posted: BTreeMap<i64, i64> = BTreeMap::new();
    for entry in &history.entries {
        found.compare(None, "ledger sequence", entry.sequence, sequence + 1);
        sequence = entry.sequence;
        balance += entry.points;
        let what = format!("balance after ledger entry {sequence}");
        found.compare(None, &what, entry.balance_after, balance);
        if let Some(award) = entry.award_number {
            *posted.entry(award).or_default() += entry.points;
        }
        let of_an_award = matches!(entry.kind, LedgerEntryKind::Award | LedgerEntryKind::Reversal);
        let what = format!("award of ledger entry {sequence}");
        found.compare(None, &what, entry.award_number.is_some(), of_an_award);
    }
    (balance, posted)
}

/// What was posted for each award against its points; the points that stand.
fn compare_posted(found: &mut Found, set: &CampaignSet, history: &History, mut posted: BTreeMap<i64, i64>) -> i64 {
    let mut lifetime = 0;
    for award in &history.awards {
        let campaign = set.get(award.campaign_id).map(AsRef::as_ref);
        let stands = if award.status == AwardStatus::Standing { award.points } else { 0 };
        lifetime += stands;
        let posted = posted.remove(&award.number).unwrap_or_default();
        if award.status == AwardStatus::Declined && posted == award.points {
            // Nothing is ever posted for an award that was declined.
            let (recorded, expected) = (word(AwardStatus::Declined), word(AwardStatus::Standing));
            found.note(campaign, format!("status of award {}", award.number), recorded, expected);
        }
        found.compare(campaign, &format!("points posted for award {}", award.number), posted, stands);
    }
    for (number, posted) in posted {
        found.compare(None, &format!("points posted for award {number}, which does not exist"), posted, 0);
    }
    lifetime
}

/// The number of the last award that there was.
pub(in crate::app) fn last_award<'a>(
    awards: impl IntoIterator<Item = &'a award::Model>,
    entries: impl IntoIterator<Item = &'a ledger_entry::Model>,
) -> i64 {
    let posted = entries.into_iter().filter_map(|entry| entry.award_number);
    awards.into_iter().map(|award| award.number).chain(posted).max().unwrap_or_default()
}
