//! Measures what recording costs on this machine, with an SQLite database that exists only for this purpose. The configured database is
//! not touched.

use std::time::Duration;

use tokio::time::Instant as Monotonic;

use crate::app::App;
use crate::app::campaign::input::CampaignInput;
use crate::app::purchase::RecordPurchase;
use crate::app::recorder::fact::Fact;
use crate::app::recorder::pace::Sums;
use crate::app::viewer::Actor;
use crate::cli::import::campaigns;
use crate::cli::start_app;
use crate::config::Config;

/// The longest calibration.
pub(super) const MAX_CALIBRATION: Duration = Duration::from_mins(2);
/// How many purchases are sent at once, in turn. So batches have different sizes.
const SIZES: [usize; 6] = [1, 8, 32, 64, 128, 256];
const CUSTOMERS: usize = 5_000;
/// The campaign that counts the purchases.
const CAMPAIGN: &str = r#"{
    "name": "Calibration", "startsAt": "1970-01-01T00:00:00Z", "currency": "EUR", "window": { "campaign": "WHOLE" },
    "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 }
}"#;

/// Records purchases for this long. Returns how long batches took.
pub(super) async fn calibrate(config: &Config, span: Duration) -> anyhow::Result<Sums> {
    let directory = tempfile::tempdir()?;
    let mut config = config.clone();
    config.database.url = format!("sqlite://{}/calibration.db", directory.path().display()).into();
    (config.database.password, config.database.login, config.database.pooler) = (None, None, false);
    (config.database.migrate, config.redis.servers) = (true, None);
    let app = start_app(&config).await?;
    let recorded = record(&app, span).await;
    let sums = app.recorder.pace();
    app.stop().await?;
    recorded.map(|()| sums)
}

async fn record(app: &App, span: Duration) -> anyhow::Result<()> {
    let campaign: CampaignInput = serde_json::from_str(CAMPAIGN)?;
    campaigns::activate(app, &Actor::process("calibration"), vec![campaign]).await?;
    let late = Monotonic::now() + span;
    let mut number = 0;
    for size in SIZES.into_iter().cycle() {
        let mut answers = Vec::with_capacity(size);
        for _ in 0..size {
            number += 1;
            let purchase = purchase(app, number).check_by(&app.clock, &[])?;
            answers.push(app.recorder.record_when_free(Fact::Purchase(purchase)).await?);
        }
        for answer in answers {
            let _ = answer.await??;
        }
        if Monotonic::now() >= late {
            break;
        }
    }
    Ok(())
}

fn purchase(app: &App, number: usize) -> RecordPurchase {
    RecordPurchase {
        external_id: format!("purchase-{number}"),
        customer_external_id: format!("customer-{}", number * 7_919 % CUSTOMERS),
        purchased_at: app.clock.now().to_string(),
        total: "19.90".to_owned(),
        currency: "EUR".to_owned(),
        refunded: None,
        refunded_until: None,
        channel: None,
        lines: None,
        revision: 0,
    }
}
