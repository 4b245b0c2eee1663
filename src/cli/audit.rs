//! `windfall audit`: recomputes what follows from the recorded facts and prints each difference. With `--repair`, fixes what
//! can be recomputed.

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use super::printable::Printable;
use super::start_app;
use crate::app::jobs::{queue, runner};
use crate::app::viewer::Viewer;
use crate::app::{App, audit};
use crate::config::Config;

/// Recompute all awards, balances and budgets; exit with 1 if anything differs.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Fix the differences: evaluate each customer that differs again and post the difference, count the statistics and budgets
    /// of campaigns again, and rerun evaluations that are dead or cancelled. Ledger entries and recorded budget decisions are
    /// never overwritten: if one of them is wrong, every audit reports it.
    #[arg(long)]
    repair: bool,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let app = start_app(config).await?;
    let admin = Viewer::Admin("audit".into()).require_admin()?;
    let mut broken = None;
    let audited = audit::run(&app, args.repair.then_some(&admin), |difference| {
        if let Err(error) = writeln!(stdout(), "{}", Printable(difference)) {
            broken = Some(error);
        }
    })
    .await?;
    let revived = if args.repair { revive_jobs(&app).await? } else { 0 };
    app.stop().await?;
    if let Some(error) = broken {
        return Err(error.into());
    }
    let audit::Audited { customers, differences, repaired, campaigns_repaired } = audited;
    write!(stdout(), "{customers} customers, {differences} differences, {repaired} customers repaired")?;
    if campaigns_repaired > 0 {
        write!(stdout(), ", {campaigns_repaired} campaigns repaired")?;
    }
    if revived > 0 {
        write!(stdout(), ", {revived} jobs run again")?;
    }
    writeln!(stdout())?;
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes evaluations that are dead or cancelled run again, and waits until none is left. Returns their number.
async fn revive_jobs(app: &Arc<App>) -> anyhow::Result<u64> {
    let revived = queue::revive(app).await?;
    if revived > 0 {
        runner::finish(app).await?;
    }
    Ok(revived)
}
