//! What a job or an entry of the trail is about. It can be of several types, so these fields return the interface `Node`.
//!
//! They are apart from the other fields of their types because `Node` knows these types.

use async_graphql::{ComplexObject, Context};

use super::campaign::Campaign;
use super::customer::Customer;
use super::dead_letter::DeadLetter;
use super::error::ApiError;
use super::job::Job;
use super::loaders::{CustomerOf, FindCampaign, FindDeadLetter, FindJob, RewardOf};
use super::node::Node;
use super::reward::Reward;
use super::session::ContextExt;
use super::trail::TrailEntry;
use crate::app::model::{CampaignId, CustomerId};
use crate::app::trail::Target;

#[ComplexObject]
impl Job {
    /// What an `EVALUATION` is about: a campaign, whose past is evaluated for every customer, or a customer, whose
    /// history is evaluated. What an `EXPORT` is about: the customer. Null for other kinds, and if the customer no longer exists.
    async fn subject(&self, ctx: &Context<'_>) -> Option<Result<Node, ApiError>> {
        let campaign = self.row.campaign_id.map(|id| Target::Campaign(CampaignId(id)));
        let customer = self.row.customer_id.map(|id| Target::Customer(CustomerId(id)));
        find(ctx, campaign.or(customer)?).await.transpose()
    }
}

#[ComplexObject]
impl TrailEntry {
    /// The campaign, customer, reward, job or dead letter that the action is about. For `createCampaign`, `cloneCampaign` and
    /// `createReward`, the new object; for a refused `cloneCampaign`, the campaign to clone. Null if the object does not
    /// exist or was deleted.
    async fn node(&self, ctx: &Context<'_>) -> Option<Result<Node, ApiError>> {
        find(ctx, self.target?).await.transpose()
    }
}

async fn find(ctx: &Context<'_>, target: Target) -> Result<Option<Node>, ApiError> {
    let loaders = ctx.loaders();
    Ok(match target {
        Target::Campaign(id) => loaders.load_one(FindCampaign(id)).await?.map(|row| Campaign(row).into()),
        Target::Customer(id) => loaders.load_one(CustomerOf(id)).await?.map(|row| Customer::from(row).into()),
        Target::Reward(id) => loaders.load_one(RewardOf(id)).await?.map(|row| Reward(row).into()),
        Target::DeadLetter(id) => loaders.load_one(FindDeadLetter(id)).await?.map(|row| DeadLetter::from(row).into()),
        Target::Job(id) => loaders.load_one(FindJob(id)).await?.map(|row| Job::from(row).into()),
    })
}
