//! `windfall audit`: recomputes all that is recorded.

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::sync::Arc;

use super::printable::Printable;
use super::start_app;
use crate::app::jobs::{queue, runner};
use crate::app::viewer::Viewer;
use crate::app::{App, audit};
use crate::config::Config;

/// Recompute all awards, balances and budgets; exit 1 on any difference.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Evaluate the customers that differ anew and post the differences, and count the campaigns that differ again.
    /// The ledger and the budgets' decisions are never written over: what is wrong in them can only be told.
    #[arg(long)]
    repair: bool,
}

pub(super) async fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let app = start_app(config).await?;
    let admin = Viewer::Admin("audit".to_owned()).require_admin()?;
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

/// Runs the jobs that were given up, to their end; returns how many there were.
async fn revive_jobs(app: &Arc<App>) -> anyhow::Result<u64> {
    let revived = queue::revive(app).await?;
    if revived > 0 {
        runner::finish(app).await?;
    }
    Ok(revived)
}
