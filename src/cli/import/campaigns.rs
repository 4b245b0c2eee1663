//! The campaigns of an import: created and activated once, whatever often the import is run.

use std::path::Path;

use anyhow::Context as _;

use super::reader::reason;
use crate::app::App;
use crate::app::campaign::input::CampaignInput;
use crate::app::campaign::{activate as activate_campaign, create};
use crate::app::viewer::Viewer;

/// Creates and activates those that are not there yet. The key is the campaign's name in such files.
pub(super) async fn activate(app: &App, file: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let inputs: Vec<CampaignInput> =
        serde_json::from_str(&text).with_context(|| format!("{} is not an array of campaigns", file.display()))?;
    // Whoever may write the database is an admin of it.
    let admin = Viewer::Admin.require_admin()?;
    for input in inputs {
        let name = input.name.clone();
        let key = Some(format!("import: {name}"));
        let refused = |error| anyhow::anyhow!("campaign `{name}`: {}", reason(&error));
        let campaign = create(app, &admin, input, key).await.map_err(refused)?;
        if !campaign.life.activated {
            activate_campaign(app, &admin, campaign.id()).await.map_err(refused)?;
        }
    }
    Ok(())
}
