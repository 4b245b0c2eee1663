//! Creates and activates the campaigns of an import. However often the import runs, each campaign is created only once.

use std::path::Path;

use anyhow::Context as _;

use crate::app::App;
use crate::app::campaign::input::CampaignInput;
use crate::app::campaign::{activate as activate_campaign, create};
use crate::app::error::{Error, UserErrorCode};
use crate::app::viewer::Actor;

/// Reads and checks the file. If one campaign is invalid, all are refused before any of them is created.
pub(super) fn read(file: &Path) -> anyhow::Result<Vec<CampaignInput>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let inputs: Vec<CampaignInput> =
        serde_json::from_str(&text).with_context(|| format!("{} is not an array of campaigns", file.display()))?;
    for input in &inputs {
        input.clone().check(&[]).map_err(|error| refused(&input.name, &error))?;
    }
    Ok(inputs)
}

/// Creates and activates the campaigns that do not exist yet. A campaign is identified by its name in the file.
pub(in crate::cli) async fn activate(app: &App, actor: &Actor, inputs: Vec<CampaignInput>) -> anyhow::Result<()> {
    for input in inputs {
        let name = input.name.clone();
        let key = Some(format!("import: {name}"));
        let campaign = create(app, actor, input, key).await.map_err(|error| not_made(&name, &error))?;
        if !campaign.life.activated {
            activate_campaign(app, actor, campaign.id()).await.map_err(|error| refused(&name, &error))?;
        }
    }
    Ok(())
}

fn not_made(name: &str, error: &Error) -> anyhow::Error {
    match error {
        Error::Refused(errors) if errors.iter().any(|error| error.code == UserErrorCode::IdempotencyConflict) => {
            anyhow::anyhow!(
                "campaign `{name}`: was imported before with different content; \
                 give it another name, or change the recorded campaign with updateCampaign"
            )
        }
        other => refused(name, other),
    }
}

fn refused(name: &str, error: &Error) -> anyhow::Error {
    anyhow::anyhow!("campaign `{name}`: {error}")
}
