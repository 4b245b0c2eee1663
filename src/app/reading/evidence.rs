//! The evidence of awards, which is derived from the recorded facts. Purchases are read forwards or backwards in chunks until a
//! page is full, for all awards of a request together.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{AwardStatus, award, purchase, refund};
use sea_orm::FromQueryResult;

use crate::app::App;
use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::reading::page::{List, Listed, Page, Part, Position, Slice};
use crate::app::rows::first_of_each;
use crate::app::stored::award::{evidence_key, reaching_key};
use crate::app::stored::history::refunds;
use crate::app::stored::purchase::{from_row, key};
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::engine::evidence::evidence;
use crate::engine::goal::Goal;
use crate::engine::purchase::Key;
use crate::engine::rule::Eligible;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// The evidence of an award as a list of purchases, oldest first.
pub const LIST: List = List { name: "evidence", descending: false, ..purchase::Model::LIST };

/// The number of purchases in the first chunk of an award. Each further chunk has four times as many.
const FIRST_CHUNK: usize = 128;

/// Returns the cursor of a purchase in [`LIST`].
pub fn cursor(row: &purchase::Model) -> String {
    LIST.cursor(&row.position())
}

/// The search for the page of one award.
struct Search {
    award: Arc<award::Model>,
    campaign: Arc<Campaign>,
    backward: bool,
    /// The number of eligible purchases that fill the page.
    enough: usize,
    /// The stretch that is left to read, including both ends. `None` if nothing is left.
    rest: Option<Stretch>,
    /// The last purchase of the previous chunk, with which the next chunk begins again.
    reached: Option<Key>,
    found: Vec<(Eligible, purchase::Model)>,
}

/// Returns a page of the evidence of each award, oldest purchase first.
pub async fn pages(app: &App, awards: &[Arc<award::Model>], page: &Page) -> Result<Vec<Slice<purchase::Model>>, Error> {
    let set = app.campaigns().await?;
    let mut searches = Vec::with_capacity(awards.len());
    for award in awards {
        let campaign = set.get(award.campaign_id);
        let campaign = campaign.ok_or_else(|| Error::Internal("the campaign of an award is missing".to_owned()))?;
        searches.push(Search::new(Arc::clone(award), Arc::clone(campaign), page));
    }
    let mut chunk = FIRST_CHUNK;
    while searches.iter().any(|search| search.rest.is_some()) {
        read_chunk(app, &mut searches, chunk).await?;
        chunk = chunk.saturating_mul(4);
    }
    Ok(searches.into_iter().map(|search| search.finish(page)).collect())
}

/// Reads the next chunk of every search. All searches in one direction share two statements.
async fn read_chunk(app: &App, searches: &mut [Search], chunk: usize) -> Result<(), Error> {
    for backward in [false, true] {
        let mut asked = Stretches::new(app.database.backend());
        let mut turn: Vec<&mut Search> = Vec::new();
        for search in searches.iter_mut().filter(|search| search.backward == backward) {
            let Some(rest) = &search.rest else { continue };
            asked.push(search.award.customer_id, rest);
            turn.push(search);
        }
        if turn.is_empty() {
            continue;
        }
        let conditions = lies_in("s", Stored::Purchases, Ends::FromTo);
        let order = if backward { "s.purchased_at DESC, s.external_id DESC" } else { "s.purchased_at, s.external_id" };
        let db = app.database.read();
        let what = format!("{INDEX}, t.*");
        let read = first_of_each(db, &what, "purchase", asked.into_rows(), &conditions, order, chunk).await?;
        let mut rows: HashMap<usize, Vec<purchase::Model>> = HashMap::new();
        for row in &read {
            rows.entry(index(row)?).or_default().push(purchase::Model::from_query_result(row, "")?);
        }
        let refunds = refunds(db, rows.values().flatten().map(|row| row.external_id.clone())).await?;
        for (index, search) in turn.iter_mut().enumerate() {
            search.feed(rows.remove(&index).unwrap_or_default(), &refunds, chunk)?;
        }
    }
    Ok(())
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
            backward: page.is_backward() && !streak,
            // The purchases at the cursors are also read, but are not part of the page.
            enough: if streak { usize::MAX } else { page.fetched() + 2 },
            rest: (from <= to).then_some(Stretch { after: Some(from), to: Some(to) }),
            reached: None,
            found: Vec::new(),
        }
    }

    /// Takes the rows of a chunk, in any order. If there are fewer than `chunk`, they are the last ones.
    fn feed(
        &mut self,
        mut rows: Vec<purchase::Model>,
        refunds: &HashMap<String, Vec<refund::Model>>,
        chunk: usize,
    ) -> Result<(), Error> {
        let Some(rest) = self.rest.take() else { return Ok(()) };
        let read = rows.len();
        rows.sort_by_cached_key(key);
        if self.backward {
            rows.reverse();
        }
        let repeated = self.reached.take();
        self.reached = rows.last().map(key);
        for row in rows.into_iter().filter(|row| Some(key(row)) != repeated) {
            if let Some(eligible) = self.eligible(&row, refunds)? {
                self.found.push((eligible, row));
            }
        }
        if read == chunk && self.found.len() < self.enough {
            let reached = self.reached.clone();
            self.rest =
                Some(if self.backward { Stretch { to: reached, ..rest } } else { Stretch { after: reached, ..rest } });
        }
        Ok(())
    }

    /// Returns what the purchase contributes if only the facts that count are considered.
    fn eligible(
        &self,
        row: &purchase::Model,
        refunds: &HashMap<String, Vec<refund::Model>>,
    ) -> Result<Option<Eligible>, Error> {
        if !self.counts(row.version) {
            return Ok(None);
        }
        let refunds = refunds.get(&row.external_id).map(Vec::as_slice).unwrap_or_default();
        let refunds = refunds.iter().filter(|refund| self.counts(refund.version));
        let purchase = from_row(row, refunds.map(crate::app::stored::refund::from_row).collect::<Result<_, _>>()?)?;
        Ok(self.campaign.engine().eligible(&purchase))
    }

    /// Whether a fact that was recorded in this version counts. For a reversed award, only the facts before its reversal count.
    fn counts(&self, version: i64) -> bool {
        self.award.status != AwardStatus::Reversed || version < self.award.version
    }

    fn finish(self, page: &Page) -> Slice<purchase::Model> {
        let Self { award, campaign, mut found, .. } = self;
        found.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        let (eligible, rows): (Vec<Eligible>, Vec<purchase::Model>) = found.into_iter().unzip();
        let counted = evidence(campaign.engine(), &evidence_key(&award), &reaching_key(&award), &eligible);
        let counted: Vec<&Key> = counted.into_iter().map(|eligible| &eligible.key).collect();
        let rows = rows.into_iter().filter(|row| counted.binary_search(&&key(row)).is_ok()).collect();
        page.of_all(&LIST, rows, Listed::position)
    }
}
