//! The evidence of awards, which is derived from the recorded facts. Purchases are read forwards or backwards in chunks until a
//! page is full, for all awards of a request together.
//!
//! A purchase may have changed since it counted: its content that counted may have been replaced, and the purchase may belong to
//! another customer now. So for awards that no longer follow the present, the replaced contents are read too.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{AwardStatus, CustomerId, award, purchase, purchase_revision};
use sea_orm::{FromQueryResult as _, QueryResult};

use crate::app::App;
use crate::app::campaign::set::Campaign;
use crate::app::customer::by_ids;
use crate::app::error::Error;
use crate::app::purchase::by_external_ids;
use crate::app::reading::page::{List, Listed, Page, Part, Position, Slice};
use crate::app::reading::purchase_revision::Content;
use crate::app::rows::first_of_each;
use crate::app::stored::award::{evidence_key, reaching_key};
use crate::app::stored::history::TakenBack;
use crate::app::stored::purchase_revision::{key, of_purchase};
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::app::stored::{purchase_revision as revisions, refund as refunds};
use crate::app::viewer::Reader;
use crate::engine::evidence::evidence;
use crate::engine::goal::Goal;
use crate::engine::purchase::{Key, Purchase};
use crate::engine::rule::Eligible;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// The evidence of an award as a list of purchases, oldest first.
pub const LIST: List = List { name: "evidence", descending: false, ..purchase::Model::LIST };

/// The number of purchases in the first chunk of an award. Each further chunk has four times as many.
const FIRST_CHUNK: usize = 128;

/// A purchase of the evidence of an award.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The purchase as it is now.
    pub purchase: Arc<purchase::Model>,
    /// The content that counted.
    pub counted: Content,
}

/// Returns the cursor of a purchase in [`LIST`].
pub fn cursor(evidence: &Evidence) -> String {
    LIST.cursor(&position(&evidence.counted.row))
}

fn position(row: &purchase_revision::Model) -> Position {
    [Part::Int(row.purchased_at), Part::Text(row.external_id.clone())].into()
}

/// The search for the page of one award.
struct Search {
    award: Arc<award::Model>,
    campaign: Arc<Campaign>,
    /// The external id of the customer.
    name: String,
    /// Whether the reader may see purchases that belong to another customer now.
    sees_others: bool,
    backward: bool,
    /// The number of eligible purchases that fill the page.
    enough: usize,
    /// The stretch that is left to read, including both ends. `None` if nothing is left.
    rest: Option<Stretch>,
    found: Vec<Found>,
}

/// A purchase that may be evidence.
struct Found {
    eligible: Eligible,
    evidence: Evidence,
    /// Whether the reader may see the purchase. Hidden purchases are needed too: they decide which others are evidence of a streak.
    is_seen: bool,
}

/// Returns a page of the evidence of each award, oldest purchase first. Leaves out the purchases that the reader may not see, because
/// they belong to another customer now.
pub async fn pages(
    app: &App,
    reader: Reader<'_>,
    awards: &[Arc<award::Model>],
    page: &Page,
) -> Result<Vec<Slice<Evidence>>, Error> {
    let set = app.campaigns().await?;
    let sees_others = reader.myself().is_none();
    let customers = by_ids(app, awards.iter().map(|award| award.customer_id).collect()).await?;
    let mut searches = Vec::with_capacity(awards.len());
    for award in awards {
        let campaign = set.get(award.campaign_id);
        let campaign = campaign.ok_or_else(|| Error::Internal("the campaign of an award is missing".to_owned()))?;
        let customer = customers.get(&award.customer_id);
        let customer = customer.ok_or_else(|| Error::Internal("the customer of an award is missing".to_owned()))?;
        let name = customer.external_id.clone();
        searches.push(Search { name, sees_others, ..Search::new(Arc::clone(award), Arc::clone(campaign), page) });
    }
    let mut chunk = FIRST_CHUNK;
    while searches.iter().any(|search| search.rest.is_some()) {
        read_chunk(app, &mut searches, chunk).await?;
        chunk = chunk.saturating_mul(4);
    }
    Ok(searches.into_iter().map(|search| search.finish(page)).collect())
}

/// Reads the next chunk of every search. All searches in one direction share their statements.
async fn read_chunk(app: &App, searches: &mut [Search], chunk: usize) -> Result<(), Error> {
    for backward in [false, true] {
        let mut turn: Vec<&mut Search> =
            searches.iter_mut().filter(|search| search.backward == backward && search.rest.is_some()).collect();
        if turn.is_empty() {
            continue;
        }
        let mut chunks: Vec<Chunk> = turn.iter().map(|_| Chunk::default()).collect();
        for row in read_rows(app, &turn, "purchase", chunk).await? {
            let at = index(&row)?;
            let content = of_purchase(purchase::Model::from_query_result(&row, "")?, turn[at].name.clone());
            chunks[at].current.push(content);
        }
        let looking_back: Vec<usize> = (0..turn.len()).filter(|at| turn[*at].looks_back()).collect();
        if !looking_back.is_empty() {
            let asking: Vec<&Search> = looking_back.iter().map(|at| &*turn[*at]).collect();
            for row in read_rows(app, &asking, "purchase_revision", chunk).await? {
                let content = purchase_revision::Model::from_query_result(&row, "")?;
                chunks[looking_back[index(&row)?]].replaced.push(content);
            }
        }
        let ids: Vec<String> = chunks.iter().flat_map(Chunk::rows).map(|row| row.external_id.clone()).collect();
        let known = Known::load(app, ids).await?;
        for (search, rows) in turn.iter_mut().zip(chunks) {
            search.feed(rows, chunk, &known)?;
        }
    }
    Ok(())
}

/// Reads the first rows of `table` in what is left to read of each search, all in one direction.
async fn read_rows<S: std::borrow::Borrow<Search>>(
    app: &App,
    searches: &[S],
    table: &str,
    chunk: usize,
) -> Result<Vec<QueryResult>, Error> {
    let mut asked = Stretches::new(app.database.backend());
    let mut backward = false;
    for search in searches.iter().map(std::borrow::Borrow::borrow) {
        backward = search.backward;
        let rest = search.rest.clone().unwrap_or_default();
        asked.push(search.award.customer_id, &rest);
    }
    let order = if backward { "s.purchased_at DESC, s.external_id DESC" } else { "s.purchased_at, s.external_id" };
    let conditions = lies_in("s", Stored::Purchases, Ends::FromTo);
    let (what, rows) = (format!("{INDEX}, t.*"), asked.into_rows());
    Ok(first_of_each(app.database.read(), &what, table, rows, &conditions, order, chunk).await?)
}

/// The rows that were read for one search.
#[derive(Default)]
struct Chunk {
    /// Contents that count now.
    current: Vec<purchase_revision::Model>,
    /// Contents that do not count now.
    replaced: Vec<purchase_revision::Model>,
}

impl Chunk {
    fn rows(&self) -> impl Iterator<Item = &purchase_revision::Model> {
        self.current.iter().chain(&self.replaced)
    }
}

/// What is known of the purchases of a chunk.
struct Known {
    now: HashMap<String, Arc<purchase::Model>>,
    taken_back: TakenBack,
}

impl Known {
    async fn load(app: &App, external_ids: Vec<String>) -> Result<Self, Error> {
        let now = by_external_ids(app, external_ids.clone()).await?;
        let now = now.into_iter().map(|(id, row)| (id, Arc::new(row))).collect();
        Ok(Self { now, taken_back: TakenBack::load(app.database.read(), external_ids).await? })
    }
}

fn key_of(position: &Position) -> Option<Key> {
    match position.parts() {
        [Part::Int(at), Part::Text(external_id)] => Some(Key { at: Instant(*at), external_id: external_id.clone() }),
        _ => None,
    }
}

impl Search {
    fn new(award: Arc<award::Model>, campaign: Arc<Campaign>, page: &Page) -> Self {
        let whole = (evidence_key(&award), reaching_key(&award));
        // Whether a purchase is evidence of a streak depends on the purchases before it, so a streak is read from its beginning.
        let streak = matches!(campaign.rule.goal, Goal::Streak { .. });
        let (after, before) = (page.after().and_then(key_of), page.before().and_then(key_of));
        let from = after.filter(|_| !streak).map_or(whole.0.clone(), |after| after.max(whole.0));
        let to = before.filter(|_| !streak).map_or(whole.1.clone(), |before| before.min(whole.1));
        Self {
            award,
            campaign,
            name: String::new(),
            sees_others: false,
            backward: page.is_backward() && !streak,
            // The purchases at the cursors are also read, but are not part of the page.
            enough: if streak { usize::MAX } else { page.fetched() + 2 },
            rest: (from <= to).then_some(Stretch { after: Some(from), to: Some(to) }),
            found: Vec::new(),
        }
    }

    /// Whether contents that do not count now may be evidence: those that counted until the award was reversed, or until the campaign
    /// was settled.
    fn looks_back(&self) -> bool {
        self.award.status == AwardStatus::Reversed || self.campaign.engine().settled_revision.is_some()
    }

    /// Takes the rows of a chunk. If there are fewer than `most` of a kind, they are the last ones of it.
    fn feed(&mut self, chunk: Chunk, most: usize, known: &Known) -> Result<(), Error> {
        let Some(rest) = self.rest.take() else { return Ok(()) };
        let backward = self.backward;
        let end = |rows: &[purchase_revision::Model]| {
            let keys = rows.iter().map(key);
            let end = if backward { keys.min() } else { keys.max() };
            end.filter(|_| rows.len() == most)
        };
        let ends = [end(&chunk.current), end(&chunk.replaced)].into_iter().flatten();
        let reached = if backward { ends.max() } else { ends.min() };
        // There may be more contents with the key that was reached, so the next chunk, which is longer, begins with it again.
        let is_complete = |key: &Key| match &reached {
            None => true,
            Some(reached) => {
                if backward {
                    key > reached
                } else {
                    key < reached
                }
            }
        };
        let counted_once = chunk.replaced.into_iter().filter(|row| row.ended_version.is_some());
        for row in chunk.current.into_iter().chain(counted_once) {
            if is_complete(&key(&row)) {
                self.found.extend(self.look_at(row, known)?);
            }
        }
        let seen = self.found.iter().filter(|found| found.is_seen).count();
        if reached.is_some() && seen < self.enough {
            self.rest =
                Some(if backward { Stretch { to: reached, ..rest } } else { Stretch { after: reached, ..rest } });
        }
        Ok(())
    }

    /// Returns what the content contributes, if it counted.
    fn look_at(&self, row: purchase_revision::Model, known: &Known) -> Result<Option<Found>, Error> {
        let Some(purchase) = known.now.get(&row.external_id) else { return Ok(None) };
        let content = if self.award.status == AwardStatus::Reversed {
            self.as_of_reversal(&row, purchase, known)?
        } else {
            Some(known.taken_back.content(&row, purchase)?)
        };
        let Some(eligible) = content.and_then(|content| self.campaign.engine().eligible(&content)) else {
            return Ok(None);
        };
        let counted = Content::new(row, purchase, &known.taken_back)?;
        let is_seen = self.sees_others || purchase.customer_id == self.award.customer_id;
        Ok(Some(Found { eligible, evidence: Evidence { purchase: Arc::clone(purchase), counted }, is_seen }))
    }

    /// Returns the content with the facts that counted just before the award was reversed, or `None` if another content of the purchase,
    /// or none, counted then.
    fn as_of_reversal(
        &self,
        row: &purchase_revision::Model,
        purchase: &purchase::Model,
        known: &Known,
    ) -> Result<Option<Purchase>, Error> {
        let (customer, reversed) = (self.award.customer_id, self.award.version);
        if row.version >= reversed || row.ended_version.is_some_and(|ended| ended < reversed) {
            return Ok(None);
        }
        let contents = known.taken_back.contents(&row.external_id);
        // A fact that was recorded while the purchase belonged to another customer counts if it did before this content began.
        let handed_over = |owner: CustomerId, version: i64| {
            let ended_later =
                |content: &purchase_revision::Model| content.ended_version.is_some_and(|ended| version < ended);
            contents
                .iter()
                .any(|content| content.customer_id == owner && content.revision < row.revision && ended_later(content))
        };
        let counted = |owner: CustomerId, version: i64| {
            if owner == customer { version < reversed } else { handed_over(owner, version) }
        };
        let mut sums = Vec::new();
        let of_purchase = of_purchase(purchase.clone(), String::new());
        for content in contents.iter().chain([&of_purchase]).filter(|one| counted(one.customer_id, one.version)) {
            sums.extend(revisions::sum(content)?);
        }
        let refunds = known.taken_back.refunds(&row.external_id).iter();
        let refunds = refunds.filter(|refund| counted(refund.customer_id, refund.version));
        let refunds = refunds.map(refunds::from_row).collect::<Result<_, _>>()?;
        Ok(Some(Purchase { replaced_at: None, ..revisions::from_row(row, refunds, sums)? }))
    }

    fn finish(self, page: &Page) -> Slice<Evidence> {
        let Self { award, campaign, mut found, .. } = self;
        found.sort_by(|a, b| a.eligible.key.cmp(&b.eligible.key));
        let (eligible, rows): (Vec<Eligible>, Vec<(Evidence, bool)>) =
            found.into_iter().map(|found| (found.eligible, (found.evidence, found.is_seen))).unzip();
        let counted = evidence(campaign.engine(), &evidence_key(&award), &reaching_key(&award), &eligible);
        let counted: Vec<&Key> = counted.into_iter().map(|eligible| &eligible.key).collect();
        let is_counted = |row: &Evidence| counted.binary_search(&&key(&row.counted.row)).is_ok();
        let seen = rows.into_iter().filter(|(row, is_seen)| *is_seen && is_counted(row));
        let rows: Vec<Evidence> = seen.map(|(row, _)| row).collect();
        page.of_all(&LIST, rows, |row| position(&row.counted.row))
    }
}
