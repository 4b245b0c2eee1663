//! What progress takes beside customers' running states, found in the database: their purchases are read page by page, and
//! aggregates of them are kept.

use std::sync::Arc;

use entity::{CampaignId, CustomerId};
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::app::campaigns::Campaign;
use crate::app::error::Error;
use crate::app::rows::{first_of_each, read_in_order};
use crate::app::stored::checkpoint;
use crate::app::stored::history::{self, Bounds, Lines, Page};
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::engine::lookback::{Look, Lookback, Need};
use crate::engine::state::State;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// Bytes of purchases that all looks of a process hold at once, as they are stored; in memory they take about four times as
/// many.
const LOADED_BYTES: u32 = 16 << 20;
/// Bytes of the purchases that a statement reads. A purchase that is larger is read alone.
const PAGE_BYTES: u32 = 4 << 20;
/// What a purchase without its lines takes, at most.
const ROW_BYTES: u32 = 1 << 10;
/// Rows of a stretch's first page; each further one has four times as many, as far as [`PAGE_BYTES`] lets it.
const FIRST_ROWS: usize = 128;
/// A look tells of so much time before the clock's, too, µs: there are readers that came before, and nodes whose clocks
/// differ.
const CLOCK_MARGIN: i64 = 60_000_000;

/// The memory that looks share.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Semaphore>);

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOADED_BYTES as usize)))
    }
}

impl Memory {
    /// Room for a page. Whoever waits for it holds none.
    async fn page(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.0.acquire_many(PAGE_BYTES).await.map_err(|_| Error::Unavailable)
    }
}

/// What is wanted of a customer in a campaign.
pub struct Wanted<'a> {
    /// Whose.
    pub customer: CustomerId,
    /// In which.
    pub campaign: &'a Campaign,
    /// The customer's.
    pub tail: &'a State,
    /// Why more than the tail is needed.
    pub need: Need,
    /// An earlier look at the same tail.
    pub earlier: Option<&'a Lookback>,
}

/// A look under way.
struct Job<'a> {
    customer: CustomerId,
    campaign: &'a Campaign,
    look: Look<'a>,
}

/// What progress at `now` takes, for each of these.
pub async fn look(
    tx: &DatabaseTransaction,
    memory: &Memory,
    now: Instant,
    wanted: Vec<Wanted<'_>>,
) -> Result<Vec<(CustomerId, CampaignId, Lookback)>, Error> {
    let begin = |Wanted { customer, campaign, tail, need, earlier }| {
        let mut look = Look::new(campaign.engine(), tail, need, now, CLOCK_MARGIN);
        if let Some(earlier) = earlier {
            look.go_on_from(earlier);
        }
        Job { customer, campaign, look }
    };
    let mut jobs: Vec<Job<'_>> = wanted.into_iter().map(begin).collect();
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    read_in_order(tx).await?;
    begin_from_checkpoints(tx, &mut jobs).await?;
    let mut rows = FIRST_ROWS;
    while jobs.iter().any(|job| job.look.load().is_some()) {
        for lines in [Lines::LeftOut, Lines::Loaded] {
            read_pages(tx, memory, &mut jobs, lines, rows).await?;
        }
        rows = rows.saturating_mul(4);
    }
    Ok(jobs.into_iter().map(|job| (job.customer, job.campaign.id(), job.look.finish())).collect())
}

/// Reads on, in all looks that need lines, or in all that do not.
async fn read_pages(
    db: &impl ConnectionTrait,
    memory: &Memory,
    jobs: &mut [Job<'_>],
    lines: Lines,
    rows: usize,
) -> Result<(), Error> {
    let (mut turn, mut stretches) = (Vec::new(), Vec::new());
    for job in jobs.iter_mut().filter(|job| Lines::of(&job.campaign.rule) == lines) {
        let Some(stretch) = job.look.load() else { continue };
        stretches.push((job.customer, stretch.clone().from_start(job.campaign.life.period.starts_at)));
        turn.push(job);
    }
    if turn.is_empty() {
        return Ok(());
    }
    let _page = memory.page().await?;
    // At least a row of each: else none would get on.
    let each = |whole: u32| (whole as usize / stretches.len()).max(1);
    let bounds = Bounds { rows: each(PAGE_BYTES / ROW_BYTES).min(rows), bytes: each(PAGE_BYTES) };
    let pages = history::pages(db, &stretches, lines, bounds).await?;
    for (job, Page { purchases, reached }) in turn.into_iter().zip(pages) {
        let eligible = purchases.iter().filter_map(|purchase| job.campaign.engine().eligible(purchase));
        job.look.feed(eligible.collect(), reached);
    }
    Ok(())
}

/// Looks at what lies before a customer's last purchase begin from the latest checkpoint before it.
async fn begin_from_checkpoints(db: &impl ConnectionTrait, jobs: &mut [Job<'_>]) -> Result<(), Error> {
    let mut asked = Stretches::new(db.get_database_backend());
    let mut turn: Vec<(&mut Job<'_>, Option<State>)> = Vec::new();
    for job in jobs {
        let Some(to) = job.look.checkpoint() else { continue };
        let stretch = Stretch { after: None, to: Some(to.clone()) };
        asked.push_in(job.customer, job.campaign.id(), &stretch);
        turn.push((job, None));
    }
    if turn.is_empty() {
        return Ok(());
    }
    let (what, conditions) = (format!("{INDEX}, t.*"), lies_in("s", Stored::Checkpoints, Ends::UpTo));
    let order = "s.purchased_at DESC, s.external_id DESC";
    for row in first_of_each(db, &what, "checkpoint", asked.into_rows(), &conditions, order, 1).await? {
        if let Some((_, state)) = turn.get_mut(index(&row)?) {
            *state = Some(checkpoint::from_row(&row)?);
        }
    }
    turn.into_iter().for_each(|(job, state)| job.look.begin_from(state));
    Ok(())
}
