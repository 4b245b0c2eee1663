//! The journeys of customers through a topic: they give what an import of the same facts gives, award by award.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use entity::{AwardStatus, CampaignId, CustomerId, award, campaign, customer, ledger_entry};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};

use super::*;
use crate::support::app::open;

/// Of each so many purchases without a refund, one is sent again with another content.
const REVISED: usize = 20;

/// A file with facts, and the messages with the same facts.
struct Journeys {
    directory: tempfile::TempDir,
    /// The customer and the fact.
    messages: Vec<(String, String)>,
}

impl Journeys {
    /// The facts of the sample: purchases and refunds. Some of the purchases get a new content, which follows them.
    fn of_sample() -> Self {
        let lines = std::fs::read_to_string(repository("data/sample.ndjson")).unwrap();
        let facts: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let refunded: Vec<&Value> = facts.iter().map(|fact| &fact["refund"]["purchaseExternalId"]).collect();
        let mut customers = BTreeMap::new();
        let mut messages = Vec::new();
        for (number, fact) in facts.iter().enumerate() {
            if let Some(refund) = fact.get("refund") {
                let customer: &String = &customers[&text(&refund["purchaseExternalId"])];
                messages.push((customer.clone(), fact.to_string()));
                continue;
            }
            let customer = text(&fact["customerExternalId"]);
            customers.insert(text(&fact["externalId"]), customer.clone());
            messages.push((customer.clone(), fact.to_string()));
            if number % REVISED == 0 && !refunded.contains(&&fact["externalId"]) {
                messages.push((customer, revised(fact).to_string()));
            }
        }
        let journeys = Self { directory: tempfile::tempdir().unwrap(), messages };
        let lines: Vec<&str> = journeys.messages.iter().map(|(_, fact)| fact.as_str()).collect();
        std::fs::write(journeys.path("journeys"), lines.join("\n")).unwrap();
        // A purchase that counts in no campaign, because an import needs a file that is not empty.
        std::fs::write(journeys.path("nothing"), purchase("nothing", "nobody").replace("EUR", "USD")).unwrap();
        journeys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.ndjson"))
    }

    /// Creates and activates the campaigns of the sample.
    fn prepare(&self, database: &str) {
        let campaigns = repository("data/campaigns.json");
        let ran = crate::support::server::run(
            command(database).arg("import").arg(self.path("nothing")).arg("--campaigns").arg(campaigns),
        );
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    fn import(&self, database: &str) {
        self.prepare(database);
        let ran = crate::support::server::run(command(database).arg("import").arg(self.path("journeys")));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        audit_is_clean(database);
    }

    /// Reads the facts from a topic.
    async fn read(&self, database: &str, topic: &Topic) {
        self.prepare(database);
        let shop = topic.read(database).await;
        let all = u32::try_from(self.messages.len()).unwrap();
        wait(
            async || metric(&shop, "windfall_ingest_messages_total").await >= f64::from(all),
            "all messages are counted",
        )
        .await;
        assert_eq!(metric(&shop, "windfall_dead_letters").await, 0.0);
        assert_eq!(metric(&shop, "windfall_waiting_facts").await, 0.0, "each refund follows its purchase");
        assert_eq!(shop.server.terminate().code(), Some(0));
        audit_is_clean(database);
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Another content of a purchase: one line, and another total.
fn revised(purchase: &Value) -> Value {
    let mut revised = purchase.clone();
    revised["revision"] = json!(1);
    revised["total"] = json!("31.40");
    revised["lines"] = json!([{ "sku": "atlas", "category": "BOOKS", "quantity": 1, "amount": "31.40" }]);
    revised
}

/// The awards of a database, and what the ledger says of each of them. What depends on which facts came in one commit is left out:
/// ids, versions, the order of the entries, when they were posted, and awards that were posted and reversed again.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    awards: BTreeSet<String>,
    /// The points of each award, as the sum of its entries.
    points: BTreeMap<String, i64>,
    balances: BTreeMap<String, i64>,
}

impl Outcome {
    async fn of(url: &str) -> Self {
        let database = open(url).await;
        let read = database.read();
        let customers = customer::Entity::find().all(read).await.unwrap();
        let campaigns = campaign::Entity::find().all(read).await.unwrap();
        let standing = award::Column::Status.ne(AwardStatus::Reversed);
        let rows = award::Entity::find().filter(standing).all(read).await.unwrap();
        let entries = ledger_entry::Entity::find().all(read).await.unwrap();
        database.close().await.unwrap();
        let names: BTreeMap<CustomerId, &str> = customers.iter().map(|row| (row.id, &*row.external_id)).collect();
        let balances = customers.iter().map(|row| (row.external_id.clone(), row.balance)).collect();
        let mut by_number = BTreeMap::new();
        for row in rows {
            let campaign = campaigns.iter().find(|campaign| campaign.id == row.campaign_id).unwrap();
            by_number.insert((row.customer_id, row.number), told(names[&row.customer_id], &campaign.name, row));
        }
        let mut points: BTreeMap<String, i64> = BTreeMap::new();
        for entry in entries {
            let award = entry.award_number.and_then(|number| by_number.get(&(entry.customer_id, number)));
            let of = award.cloned().unwrap_or_else(|| format!("{}: no award that stands", names[&entry.customer_id]));
            *points.entry(of).or_default() += entry.points;
        }
        // Nothing is left of awards that were reversed.
        points.retain(|_, points| *points != 0);
        Self { awards: by_number.into_values().collect(), points, balances }
    }
}

fn told(customer: &str, campaign: &str, row: award::Model) -> String {
    let anonymous =
        award::Model { customer_id: CustomerId(0), campaign_id: CampaignId(0), number: 0, version: 0, ..row };
    format!("{customer} {campaign} {anonymous:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn journeys_give_what_an_import_gives() {
    let journeys = Journeys::of_sample();
    let topic = Topic::shared(3).await;
    topic.send(journeys.messages.iter().map(|(customer, fact)| (customer.as_str(), fact.clone())));
    let mut expected = None;
    for engine in ENGINES {
        let (database, _kept) = scratch(engine).await;
        journeys.import(&database);
        let imported = Outcome::of(&database).await;
        let (database, _kept) = scratch(engine).await;
        journeys.read(&database, &topic).await;
        let read = Outcome::of(&database).await;
        assert_eq!(read, imported, "{engine:?}");
        assert!(read.awards.len() > 1_000, "{}", read.awards.len());
        assert_eq!(&read, expected.get_or_insert(imported), "{engine:?}");
    }
}
