//! Loads the lookbacks that progress needs in addition to the running states of customers. The purchases are read page by page,
//! and only aggregates of them are kept.

use std::sync::Arc;

use entity::{CampaignId, CustomerId};
use sea_orm::{ConnectionTrait, DatabaseTransaction};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::app::campaign::set::Campaign;
use crate::app::error::Error;
use crate::app::rows::{first_of_each, read_in_order};
use crate::app::stored::checkpoint;
use crate::app::stored::history::{self, Bounds, Lines, Page, View};
use crate::app::stored::stretches::{Ends, INDEX, Stored, Stretches, index, lies_in};
use crate::engine::lookback::{Look, Lookback, Need};
use crate::engine::state::State;
use crate::engine::stretch::Stretch;
use crate::engine::time::Instant;

/// The maximum number of bytes of purchases that this process holds for all looks at a time, measured as stored. In memory,
/// purchases take about four times as much.
const LOADED_BYTES: u32 = 16 << 20;
/// The memory that these purchases take, in bytes.
pub const LOADED_MEMORY_BYTES: u64 = 4 * LOADED_BYTES as u64;
/// The maximum number of bytes of purchases that one statement reads. A larger purchase is read alone.
const PAGE_BYTES: u32 = 4 << 20;
/// An upper bound of the size of a purchase without its lines, in bytes.
const ROW_BYTES: u32 = 1 << 10;
/// The number of rows in the first page of a stretch. Each further page has four times as many, within [`PAGE_BYTES`].
const FIRST_ROWS: usize = 128;
/// How far before the current instant a lookback is valid, in µs. Other readers may have read the clock earlier, and the clocks
/// of the nodes differ.
const CLOCK_MARGIN: i64 = 60_000_000;

/// The memory for purchases that all looks share.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Semaphore>);

impl Default for Memory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOADED_BYTES as usize)))
    }
}

impl Memory {
    /// Waits for the memory of one page. A caller holds at most one page, so callers cannot block each other forever.
    async fn page(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.0.acquire_many(PAGE_BYTES).await.map_err(|_| Error::Unavailable)
    }
}

/// A lookback that must be loaded for a customer and a campaign.
pub struct Wanted<'a> {
    pub customer: CustomerId,
    pub campaign: &'a Campaign,
    /// The running state of the customer in the campaign.
    pub tail: &'a State,
    /// Why the tail is not enough.
    pub need: Need,
    /// An earlier lookback with the same tail, which the new one continues if possible.
    pub earlier: Option<&'a Lookback>,
}

/// A look in progress.
struct Job<'a> {
    customer: CustomerId,
    campaign: &'a Campaign,
    look: Look<'a>,
}

/// Loads the wanted lookbacks for progress at `now`.
pub async fn look(
    tx: &DatabaseTransaction,
    memory: &Memory,
    now: Instant,
    wanted: Vec<Wanted<'_>>,
) -> Result<Vec<(CustomerId, CampaignId, Lookback)>, Error> {
    let wanted: Vec<&Wanted<'_>> = wanted.iter().collect();
    let found = look_before(tx, memory, now, CLOCK_MARGIN, &wanted).await?;
    let (mut found, over): (Vec<_>, Vec<_>) =
        wanted.into_iter().zip(found).partition(|(_, lookback)| lookback.holds(now));
    // These windows changed so often within the margin that all steps that are kept are over. Without a margin, the first step is
    // not over.
    let over: Vec<&Wanted<'_>> = over.into_iter().map(|(wanted, _)| wanted).collect();
    let again = look_before(tx, memory, now, 0, &over).await?;
    found.extend(over.into_iter().zip(again));
    Ok(found.into_iter().map(|(wanted, lookback)| (wanted.customer, wanted.campaign.id(), lookback)).collect())
}

/// Loads lookbacks for progress at `now` and, if possible, for the `margin` (µs) before it. They are in the order of `wanted`.
async fn look_before<'a>(
    tx: &DatabaseTransaction,
    memory: &Memory,
    now: Instant,
    margin: i64,
    wanted: &[&'a Wanted<'a>],
) -> Result<Vec<Lookback>, Error> {
    let begin = |wanted: &&'a Wanted<'a>| {
        let Wanted { customer, campaign, tail, need, earlier } = **wanted;
        let mut look = Look::new(campaign.engine(), tail, need, now, margin);
        if let Some(earlier) = earlier {
            look.go_on_from(earlier);
        }
        Job { customer, campaign, look }
    };
    let mut jobs: Vec<Job<'_>> = wanted.iter().map(begin).collect();
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
    Ok(jobs.into_iter().map(|job| job.look.finish()).collect())
}

/// Reads the next page of every look whose campaign needs `lines`. Campaigns that need the lines of purchases and campaigns
/// that do not are read separately.
async fn read_pages(
    db: &impl ConnectionTrait,
    memory: &Memory,
    jobs: &mut [Job<'_>],
    lines: Lines,
    rows: usize,
) -> Result<(), Error> {
    let (mut turn, mut stretches) = (Vec::new(), Vec::new());
    for job in jobs.iter_mut().filter(|job| View::of(job.campaign.engine()).lines == lines) {
        let Some(stretch) = job.look.load() else { continue };
        stretches.push((job.customer, stretch.clone().from_start(job.campaign.life.period.starts_at)));
        turn.push(job);
    }
    if turn.is_empty() {
        return Ok(());
    }
    let _page = memory.page().await?;
    // At least one row of each stretch. Otherwise no look would make progress.
    let each = |whole: u32| (whole as usize / stretches.len()).max(1);
    let bounds = Bounds { rows: each(PAGE_BYTES / ROW_BYTES).min(rows), bytes: each(PAGE_BYTES) };
    let pages = history::pages(db, &stretches, View::now(lines), bounds).await?;
    for (job, Page { purchases, reached }) in turn.into_iter().zip(pages) {
        let eligible = purchases.iter().filter_map(|purchase| job.campaign.engine().eligible(purchase));
        job.look.feed(eligible.collect(), reached);
    }
    Ok(())
}

/// A look at an instant before the last purchase of the customer cannot begin from the tail. It begins from the latest
/// checkpoint that the look accepts.
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
