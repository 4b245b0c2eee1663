//! `windfall demo`: a made-up shop in one process, with six weeks of past purchases and with customers who keep buying.
//!
//! One folder holds an SQLite database, the tokens, and the secret that signs them. Past purchases are recorded through the
//! write path. New purchases are sent over HTTP to the same endpoint that any client uses, and the printed feed of points
//! subscribes to that endpoint.

mod banner;
mod bustle;
mod feed;
mod shop;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::import::{campaigns, progress_bar};
use super::serve::{Server, lock_file};
use super::start_app;
use super::token::mint;
use crate::app::App;
use crate::app::campaign::input::CampaignInput;
use crate::app::clock::Clock;
use crate::app::recorder::fact::Fact;
use crate::app::reward::{self, RewardInput};
use crate::app::viewer::Actor;
use crate::config::{Config, Secret};
use crate::engine::time::{Instant, parse_instant};
use crate::http::auth::{Role, Verifier};

const CAMPAIGNS: &str = include_str!("campaigns.json");
/// How long the shop has been open when the demo runs for the first time, µs.
const PAST: i64 = 42 * 24 * 3_600 * 1_000_000;
const DAY: i64 = 24 * 3_600 * 1_000_000;
/// The files that the demo creates in its folder. `--fresh` removes these and no others.
const FILES: [&str; 9] = [
    "windfall.db",
    "windfall.db-wal",
    "windfall.db-shm",
    "windfall.db.lock",
    "opened",
    "secret",
    "ada.token",
    "storefront.token",
    "admin.token",
];
const TOKENS_HOLD: Duration = Duration::from_hours(24 * 30);

/// Try Windfall with a made-up shop: six weeks of purchases, five campaigns, a reward, and customers who keep buying.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder that keeps the database and the tokens between runs.
    #[arg(long, value_name = "DIR", default_value = "windfall-demo")]
    folder: PathBuf,
    /// Start from scratch: remove what an earlier run left in the folder.
    #[arg(long)]
    fresh: bool,
}

/// The tokens that are printed. Each is also stored in a file of the folder.
struct Tokens {
    customer: String,
    storefront: String,
    admin: String,
}

pub(super) async fn run(args: &Args, mut config: Config) -> anyhow::Result<ExitCode> {
    let folder = prepare(args)?;
    let clock = Clock::System;
    config.database.url = Secret::from(format!("sqlite://{}", folder.join("windfall.db").display()));
    config.auth.hs256_secret = Some(kept(&folder, "secret", secret)?.into());
    config.auth.public_keys = None;
    config.http.introspection = true;
    config.http.graphiql = true;
    let _lock = lock_file(&config)?;

    let midnight = clock.now().0.div_euclid(DAY) * DAY;
    let opened = kept(&folder, "opened", || Instant(midnight - PAST).to_string())?;
    let opened = parse_instant(&opened).with_context(|| format!("{}/opened", folder.display()))?;
    crate::http::metrics::record();
    let app = start_app(&config).await?;
    open_shop(&app, opened).await?;

    let verifier = Verifier::new(&config.auth, clock.now().0).await?;
    let listener = listen(&config).await?;
    let address = listener.local_addr()?;
    let server = Server::new(Arc::clone(&app), verifier, listener, &config)?;
    let tokens = Tokens {
        customer: token(&folder, "ada", &config, Role::Customer, "ada")?,
        storefront: token(&folder, "storefront", &config, Role::Storefront, "demo")?,
        admin: token(&folder, "admin", &config, Role::Admin, "demo")?,
    };
    banner::print(address, &folder, &tokens)?;
    let url = format!("http://{address}/graphql");
    let feed = tokio::spawn(feed::print(url.clone(), tokens.storefront.clone(), app.stopping.clone()));
    let bustle = tokio::spawn(bustle::run(url, tokens.storefront, clock, app.stopping.clone()));
    server.run(&config).await?;
    feed.await??;
    bustle.await??;
    banner::goodbye(&folder)?;
    Ok(ExitCode::SUCCESS)
}

/// Creates the folder if it does not exist, and with `--fresh` removes the demo's files from it. Returns its absolute path.
fn prepare(args: &Args) -> anyhow::Result<PathBuf> {
    let cannot = || format!("the folder {} cannot be used", args.folder.display());
    fs::create_dir_all(&args.folder).with_context(cannot)?;
    // Absolute, because the printed commands are pasted into shells with other current directories.
    let folder = args.folder.canonicalize().with_context(cannot)?;
    if args.fresh {
        for file in FILES {
            match fs::remove_file(folder.join(file)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(cannot),
                _ => {}
            }
        }
    }
    Ok(folder)
}

/// Returns the content of the file. If the file does not exist, creates it with what `make` returns.
fn kept(folder: &Path, file: &str, make: impl FnOnce() -> String) -> anyhow::Result<String> {
    let path = folder.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let text = make();
            write_private(&path, &text)?;
            Ok(text)
        }
        Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
    }
}

/// Returns 256 random bits as hexadecimal digits.
fn secret() -> String {
    format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())
}

/// Writes a file. A file that it creates can be read by its owner only.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(writeln!(file, "{text}")?)
}

/// Mints a token and writes it into its file in the folder.
fn token(folder: &Path, name: &str, config: &Config, role: Role, subject: &str) -> anyhow::Result<String> {
    let token = mint(&config.auth, role, subject, TOKENS_HOLD, Clock::System.now().0)?;
    write_private(&folder.join(format!("{name}.token")), &token)?;
    Ok(token)
}

/// Listens on `http.listen`, or on a free port if that port is taken.
async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    let wanted = config.http.listen;
    match TcpListener::bind(wanted).await {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(TcpListener::bind((wanted.ip(), 0)).await?),
        bound => bound.with_context(|| format!("`http.listen`: cannot listen on {wanted}")),
    }
}

/// The reward of the shop.
fn mug() -> RewardInput {
    RewardInput {
        name: "A mug".to_owned(),
        description: Some("Of stoneware, as in the shop.".to_owned()),
        image_url: None,
        cost: 150,
        stock: Some(1_000),
        max_per_customer: None,
        starts_at: None,
        ends_at: None,
        active: true,
        self_service: false,
    }
}

/// Activates the campaigns, offers a reward, and records all past purchases up to now. Recording a purchase again changes nothing, so a later
/// run adds only what is new.
async fn open_shop(app: &App, opened: Instant) -> anyhow::Result<()> {
    let mut inputs: Vec<CampaignInput> = serde_json::from_str(CAMPAIGNS)?;
    for input in &mut inputs {
        // Points that are gone after seconds say nothing of the past.
        let counts_the_past = input.expires_after.is_none();
        input.starts_at = if counts_the_past { opened } else { opened.plus(PAST) }.to_string();
    }
    let actor = Actor::process("demo");
    campaigns::activate(app, &actor, inputs).await?;
    reward::create(app, &actor, mug(), Some("demo".to_owned())).await?;
    let now = app.clock.now();
    let past = shop::past(opened, now);
    let bar = progress_bar(Some(past.len() as u64));
    bar.set_message("recording the last six weeks of a small shop");
    let mut waiting = Vec::with_capacity(past.len());
    for purchase in past {
        waiting.push(app.recorder.record_when_free(Fact::Purchase(purchase.check(&[], now)?)).await?);
    }
    for answer in waiting {
        // A conflict is ignored: an older version of the demo made up another purchase under this id. The recorded one stays.
        let _ = answer.await.context("the import was interrupted")??;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
