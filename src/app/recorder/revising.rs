//! Decides about contents of purchases that are recorded already: duplicates, conflicts, and revisions.
//!
//! Of all contents of a purchase, the one with the highest revision counts, whatever came first. A lower one is kept. Equal content
//! under a higher revision only raises the number; the old number still stands for the content. See "Revisions" in `docs/semantics.md`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use entity::{CustomerId, purchase, purchase_revision, raised_revision, refund};
use sea_orm::{EntityTrait as _, QueryFilter as _};

use super::conflict;
use super::fact::{Kept, MAX_CONTENTS, NewPurchase, Refusal, Verdict};
use super::touched::{Batch, Customers, Revised};
use crate::app::error::{Error, UserErrorCode};
use crate::app::rows::{self, OnConflict};
use crate::app::stored::history::{self, Lines};
use crate::app::stored::{purchase as purchases, purchase_revision as revisions};
use crate::engine::external_id::is_erased;
use crate::engine::purchase::{Line, Purchase};

/// The maximum number of raised numbers that are kept of a purchase.
const MAX_RAISED: usize = 1_000;

/// A content whose purchase is recorded already.
pub(super) struct Again<'a> {
    /// The index of the fact in the batch.
    pub(super) index: usize,
    pub(super) new: &'a NewPurchase,
    /// The row of the content as if it counted.
    pub(super) row: &'a purchase::Model,
}

/// A purchase while the batch decides about its contents.
struct Order {
    /// The row before the batch. `None` if the batch inserted it.
    before: Option<purchase::Model>,
    row: purchase::Model,
    /// The contents that do not count. Those that were stored before have lines only if they are compared.
    others: Vec<purchase_revision::Model>,
    /// The others from this index on are new.
    stored_others: usize,
    /// The numbers that contents had, and the higher ones to which they were raised.
    raised: BTreeMap<i64, i64>,
    newly_raised: Vec<raised_revision::Model>,
    refunds: Vec<refund::Model>,
    /// The row has changed.
    changed: bool,
    /// The purchase counts in another way than before.
    revised: bool,
    /// The customers that the purchase had during the batch.
    owners: BTreeSet<CustomerId>,
}

/// The versions of the customer of a purchase: the present one, and the one after the commit.
#[derive(Clone, Copy)]
struct Versions {
    now: i64,
    next: i64,
}

/// Decides about the contents, in order. `stored` are the rows of their purchases, with whether the batch inserted them; all of
/// their customers are locked. Writes what changes, and returns the customers that the purchases have then.
pub(super) async fn revise(
    batch: &Batch<'_>,
    sent: Vec<Again<'_>>,
    stored: BTreeMap<String, (purchase::Model, bool)>,
    customers: &mut Customers,
    verdicts: &mut [Verdict],
) -> Result<HashMap<String, CustomerId>, Error> {
    let names: HashMap<CustomerId, String> =
        customers.iter().map(|(name, customer)| (customer.row.id, name.clone())).collect();
    let mut orders = load(batch, &sent, stored).await?;
    for Again { index, new, row } in sent {
        let Some(order) = orders.get_mut(&row.external_id) else { continue };
        let name = |id: CustomerId| names.get(&id).cloned().unwrap_or_default();
        if is_erased(&name(order.row.customer_id)) {
            verdicts[index] = Verdict::replayed(false);
            continue;
        }
        if !new.ahead.is_empty() && !order.has(row.revision) {
            verdicts[index] = Verdict::Refused(Refusal::of(new.ahead.clone()));
            continue;
        }
        if new.kept.customer && order.row.customer_id != row.customer_id && !order.has(row.revision) {
            verdicts[index] = Verdict::Refused(belongs_to(name(order.row.customer_id)));
            continue;
        }
        let row = &*order.completed(row, new.kept)?;
        let content = revisions::of_purchase(row.clone(), new.customer_external_id.to_string());
        let counting = revisions::of_purchase(order.row.clone(), name(order.row.customer_id));
        let owner = customers.get(&counting.customer_external_id);
        let owner = owner.ok_or_else(|| Error::Internal("a purchase's customer was not locked".to_owned()))?;
        let versions = Versions { now: owner.row.version, next: owner.next_version() };
        verdicts[index] = if order.raised.contains_key(&row.revision) {
            order.repeat_raised(&content, &counting)?
        } else if row.revision < order.row.revision {
            order.supersede(content, versions)?
        } else {
            order.renew(row, &content, counting, versions)?
        };
    }
    let changed: Vec<&purchase::Model> =
        orders.values().filter(|order| order.changed).map(|order| &order.row).collect();
    rows::update::<purchase::Entity>(batch.tx, &changed).await?;
    let new = orders.values().flat_map(|order| order.others[order.stored_others..].iter().cloned());
    let new: Vec<purchase_revision::Model> = new.collect();
    if !new.is_empty() {
        rows::insert::<purchase_revision::Entity>(batch.tx, &new, OnConflict::Fail).await?;
    }
    let raised: Vec<raised_revision::Model> =
        orders.values_mut().flat_map(|order| std::mem::take(&mut order.newly_raised)).collect();
    if !raised.is_empty() {
        rows::insert::<raised_revision::Entity>(batch.tx, &raised, OnConflict::Fail).await?;
    }
    let owners = orders.iter().map(|(id, order)| (id.clone(), order.row.customer_id)).collect();
    for order in orders.into_values().filter(|order| order.revised) {
        let id = order.row.external_id.clone();
        let revised = Arc::new(Revised { before: order.before, after: order.row });
        for owner in order.owners {
            if let Some(customer) = names.get(&owner).and_then(|name| customers.get_mut(name)) {
                customer.purchases.retain(|new| new.key.external_id != id);
                customer.revised.push(Arc::clone(&revised));
            }
        }
    }
    Ok(owners)
}

/// Loads what the decisions need. Nothing is loaded if each content has the revision that counts, as duplicates have.
async fn load(
    batch: &Batch<'_>,
    sent: &[Again<'_>],
    stored: BTreeMap<String, (purchase::Model, bool)>,
) -> Result<BTreeMap<String, Order>, Error> {
    let other_revision = |again: &&Again<'_>| {
        stored.get(&again.row.external_id).is_some_and(|(row, _)| row.revision != again.row.revision)
    };
    let revised: BTreeSet<&str> =
        sent.iter().filter(other_revision).map(|again| again.row.external_id.as_str()).collect();
    let ids = || revised.iter().map(|id| (*id).to_owned());
    let (mut others, mut refunds, mut raised) = (HashMap::new(), HashMap::new(), HashMap::new());
    if !revised.is_empty() {
        others = history::contents(batch.tx, ids(), Lines::LeftOut).await?;
        refunds = history::refunds(batch.tx, ids()).await?;
        raised = load_raised(batch, ids()).await?;
        load_compared(batch, sent, &raised, &mut others).await?;
    }
    let order = |(id, (row, is_new)): (String, (purchase::Model, bool))| {
        let others: Vec<purchase_revision::Model> = others.remove(&id).unwrap_or_default();
        let order = Order {
            before: (!is_new).then(|| row.clone()),
            owners: BTreeSet::from([row.customer_id]),
            row,
            stored_others: others.len(),
            raised: raised.remove(&id).unwrap_or_default(),
            newly_raised: Vec::new(),
            others,
            refunds: refunds.remove(&id).unwrap_or_default(),
            changed: false,
            revised: false,
        };
        (id, order)
    };
    Ok(stored.into_iter().map(order).collect())
}

/// The numbers that contents of purchases had, by the external id of the purchase.
type Raised = HashMap<String, BTreeMap<i64, i64>>;

async fn load_raised(batch: &Batch<'_>, external_ids: impl IntoIterator<Item = String>) -> Result<Raised, Error> {
    let of_purchases = rows::any(batch.backend(), raised_revision::Column::ExternalId, external_ids);
    let mut raised = Raised::new();
    for row in raised_revision::Entity::find().filter(of_purchases).all(batch.tx).await? {
        raised.entry(row.external_id).or_default().insert(row.revision, row.raised_to);
    }
    Ok(raised)
}

/// Returns the number that the content with this number has now.
fn present_number(raised: &BTreeMap<i64, i64>, revision: i64) -> i64 {
    let mut number = revision;
    // Each step leads to a higher number, so this ends.
    while let Some(higher) = raised.get(&number).filter(|higher| **higher > number) {
        number = *higher;
    }
    number
}

/// Loads the lines of the contents that have, or had, a sent revision.
async fn load_compared(
    batch: &Batch<'_>,
    sent: &[Again<'_>],
    raised: &Raised,
    others: &mut HashMap<String, Vec<purchase_revision::Model>>,
) -> Result<(), Error> {
    let mut compared = Vec::new();
    for Again { row, .. } in sent {
        let others = others.get(&row.external_id).map(Vec::as_slice).unwrap_or_default();
        let revision = raised.get(&row.external_id).map_or(row.revision, |raised| present_number(raised, row.revision));
        if others.iter().any(|other| other.revision == revision) {
            compared.push((row.external_id.clone(), revision));
        }
    }
    for ((external_id, revision), lines) in history::load_lines(batch.tx, compared).await? {
        let others = others.get_mut(&external_id).into_iter().flatten();
        if let Some(other) = others.into_iter().find(|other| other.revision == revision) {
            other.lines = lines;
        }
    }
    Ok(())
}

impl Order {
    /// Adds the parts of a content that stay as they are recorded: in the content with the same revision, if there is one, and
    /// otherwise in the one that counts. So the same content is a duplicate whenever it is sent again.
    fn completed<'a>(&self, row: &'a purchase::Model, kept: Kept) -> Result<Cow<'a, purchase::Model>, Error> {
        if !(kept.channel || kept.categories || kept.lines) {
            return Ok(Cow::Borrowed(row));
        }
        let mut row = row.clone();
        let revision = present_number(&self.raised, row.revision);
        let same = self.others.iter().find(|other| other.revision == revision);
        let (channel, lines, currency) = match same {
            Some(other) => (&other.channel, &other.lines, &other.currency),
            None => (&self.row.channel, &self.row.lines, &self.row.currency),
        };
        if kept.channel {
            row.channel.clone_from(channel);
        }
        // Amounts of another currency mean nothing in this one.
        if kept.lines && row.currency == *currency {
            row.lines.clone_from(lines);
        } else if kept.categories {
            let broken = |error| Error::Internal(format!("purchase {}: {error}", row.external_id));
            let recorded: Vec<Line> = serde_json::from_str(lines).map_err(broken)?;
            let mut sent: Vec<Line> = serde_json::from_str(&row.lines).map_err(broken)?;
            for line in &mut sent {
                let known = recorded.iter().find(|known| known.sku == line.sku);
                line.category = known.and_then(|known| known.category.clone());
            }
            row.lines = purchases::lines_text(&sent)?;
        }
        Ok(Cow::Owned(row))
    }

    /// Decides about a content with the revision that counts, or a higher one. `versions` are those of the present customer.
    fn renew(
        &mut self,
        row: &purchase::Model,
        content: &purchase_revision::Model,
        counting: purchase_revision::Model,
        versions: Versions,
    ) -> Result<Verdict, Error> {
        let differences = conflict::of_purchases(content, &counting)?;
        if row.revision == self.row.revision {
            return Ok(differences.into_conflict().map_or(Verdict::replayed(false), Verdict::Refused));
        }
        if differences.is_empty() || (differences.only("refundedUntil") && self.only_moves_on(content, &counting)) {
            let states_sum = purchases::states_sum(&self.row);
            self.keep_number(row.revision);
            self.row.revision = row.revision;
            if states_sum {
                self.row.refunded_revision = Some(row.revision);
                self.row.refunded_until = content.refunded_until;
            }
            self.changed = true;
            return Ok(Verdict::replayed(false));
        }
        if self.is_full() {
            return Ok(Verdict::Refused(too_many_contents()));
        }
        let (ended_set_revision, ended_version) = (Some(row.set_revision), Some(versions.next));
        self.others.push(purchase_revision::Model { ended_set_revision, ended_version, ..counting });
        self.row = row.clone();
        self.owners.insert(row.customer_id);
        self.inherit_sum()?;
        (self.changed, self.revised) = (true, true);
        Ok(Verdict::Accepted { superseded: false })
    }

    /// Keeps the number of the content that counts, which is raised to this one.
    fn keep_number(&mut self, raised_to: i64) {
        if self.raised.len() < MAX_RAISED {
            let (external_id, revision) = (self.row.external_id.clone(), self.row.revision);
            self.raised.insert(revision, raised_to);
            self.newly_raised.push(raised_revision::Model { external_id, revision, raised_to });
        }
    }

    /// Decides about a content with a number that was raised.
    fn repeat_raised(
        &self,
        content: &purchase_revision::Model,
        counting: &purchase_revision::Model,
    ) -> Result<Verdict, Error> {
        let revision = present_number(&self.raised, content.revision);
        let recorded = self.others.iter().find(|other| other.revision == revision).unwrap_or(counting);
        let differences = conflict::of_purchases(content, recorded)?;
        // The raise may have moved `refundedUntil` on.
        let moved_on = content.refunded_until.zip(recorded.refunded_until).is_some_and(|(from, to)| from < to);
        let is_same = differences.only("refundedUntil") && moved_on;
        let conflict = differences.into_conflict().filter(|_| !is_same);
        Ok(conflict.map_or(Verdict::replayed(true), Verdict::Refused))
    }

    /// Decides about a content with a lower revision than the one that counts. `versions` are those of the customer of the purchase.
    fn supersede(&mut self, content: purchase_revision::Model, versions: Versions) -> Result<Verdict, Error> {
        if let Some(recorded) = self.others.iter().find(|other| other.revision == content.revision) {
            let differences = conflict::of_purchases(&content, recorded)?;
            return Ok(differences.into_conflict().map_or(Verdict::replayed(true), Verdict::Refused));
        }
        if self.is_full() {
            return Ok(Verdict::Refused(too_many_contents()));
        }
        let counts =
            content.refunded.is_some() && self.row.refunded_revision.is_none_or(|other| other < content.revision);
        let version = if counts { versions.next } else { versions.now };
        self.others.push(purchase_revision::Model { customer_id: self.row.customer_id, version, ..content });
        if counts {
            self.inherit_sum()?;
            (self.changed, self.revised) = (true, true);
        }
        Ok(Verdict::Accepted { superseded: true })
    }

    /// Whether the content differs from the counting one only by a running sum that was counted later, and no refund lies between.
    fn only_moves_on(&self, content: &purchase_revision::Model, counting: &purchase_revision::Model) -> bool {
        let (Some(from), Some(to)) = (counting.refunded_until, content.refunded_until) else { return false };
        from < to && !self.refunds.iter().any(|refund| from < refund.refunded_at && refund.refunded_at <= to)
    }

    /// Lets the running sum of the highest revision that states one count.
    fn inherit_sum(&mut self) -> Result<(), Error> {
        let sums = revisions::sums(&self.row, &self.others)?;
        let sum = sums.into_iter().max_by_key(|sum| sum.revision);
        let counted = Purchase { sums: sum.into_iter().collect(), ..purchases::from_row(&self.row, Vec::new())? };
        let sum = counted.sums.first();
        self.row.refunded = sum.map(|_| i64::try_from(counted.refunded()).unwrap_or(i64::MAX));
        self.row.refunded_until = sum.and_then(|sum| sum.until).map(|until| until.0);
        self.row.refunded_revision = sum.map(|sum| sum.revision);
        Ok(())
    }

    /// Whether a content with this revision is recorded.
    fn has(&self, revision: i64) -> bool {
        let is_other = || self.others.iter().any(|other| other.revision == revision);
        self.row.revision == revision || self.raised.contains_key(&revision) || is_other()
    }

    fn is_full(&self) -> bool {
        self.others.len() + 1 >= MAX_CONTENTS
    }
}

fn belongs_to(owner: String) -> Refusal {
    let message = format!("is recorded under the customer {owner}");
    Refusal { owner: Some(owner), ..Refusal::new(UserErrorCode::IdempotencyConflict, "customerExternalId", &message) }
}

fn too_many_contents() -> Refusal {
    let message = "the purchase already has 1000 contents";
    Refusal::new(UserErrorCode::OutOfRange, "revision", message)
}
