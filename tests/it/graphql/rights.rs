//! The rights of each role, for every field of `Query` and `Mutation` in the schema.

use apollo_compiler::Schema;
use apollo_compiler::ast::FieldDefinition;
use apollo_compiler::schema::ExtendedType;
use serde_json::{Value, json};
use windfall::app::viewer::Viewer;

use super::node::ids;
use crate::support::graphql::{GraphqlApp, admin, campaign_input, customer, on_both, storefront, text};

/// The queries that only admins may use, and those that storefronts may use too. All others are for everyone with a token.
const QUERIES_OF_ADMINS: [&str; 4] = ["trail", "jobs", "job", "deadLetters"];
const QUERIES_OF_STOREFRONTS: [&str; 1] = ["customers"];
/// The mutations that storefronts may use. All others are for admins.
const OF_STOREFRONTS: [&str; 3] = ["recordPurchase", "recordPurchases", "recordRefund"];
/// The mutations that a customer may use, for itself. Resolvers and the recorder decide the rest.
const OF_CUSTOMERS: [&str; 4] = ["redeemReward", "reserveReward", "commitRedemption", "cancelRedemption"];

pub(super) fn fields(root: &str) -> Vec<FieldDefinition> {
    let schema = Schema::parse_and_validate(windfall::graphql::sdl(), "schema.graphql").unwrap();
    let Some(ExtendedType::Object(root)) = schema.types.get(root) else { panic!("{root} is not an object type") };
    root.fields.values().map(|field| field.node.as_ref().clone()).collect()
}

/// Returns a valid operation with that field alone, and its variables. Panics if a required argument has a type that is not
/// known here, so that whoever adds such a type gives it a value.
fn operation(kind: &str, field: &FieldDefinition) -> (String, Value) {
    let purchase = json!({
        "externalId": "x", "customerExternalId": "ada", "purchasedAt": "2026-11-02T10:00:00Z", "total": "1", "currency": "EUR",
    });
    let mut variables = json!({});
    let mut definitions = Vec::new();
    let mut arguments = Vec::new();
    for argument in field.arguments.iter().filter(|argument| argument.is_required()) {
        let (name, ty) = (argument.name.as_str(), argument.ty.to_string());
        variables[name] = match ty.as_str() {
            "ID!" => json!("Q2FtcGFpZ246OTk"),
            "[ID!]!" => json!(["Q2FtcGFpZ246OTk"]),
            "String!" => json!("text"),
            "CustomerBy!" | "PurchaseBy!" => json!({ "externalId": "x" }),
            "RecordPurchaseInput!" => purchase.clone(),
            "[RecordPurchaseInput!]!" => json!([purchase]),
            "RecordRefundInput!" => {
                json!({ "externalId": "r", "purchaseExternalId": "x", "refundedAt": "2026-11-02T10:00:00Z" })
            }
            "CampaignInput!" => campaign_input(json!({})),
            "CampaignUpdateInput!" => json!({ "ifRevision": 1 }),
            "AdjustPointsInput!" => {
                json!({ "customerExternalId": "ada", "points": 1, "reason": "r", "idempotencyKey": "k" })
            }
            "RewardInput!" => json!({ "name": "r", "cost": 1 }),
            "RewardUpdateInput!" => json!({ "ifRevision": 1 }),
            "[String!]!" => json!(["A"]),
            "RedeemRewardInput!" | "ReserveRewardInput!" => json!({ "rewardId": "x", "idempotencyKey": "k" }),
            other => panic!("this test needs a value of the type {other}"),
        };
        definitions.push(format!("${name}: {ty}"));
        arguments.push(format!("{name}: ${name}"));
    }
    let list = |items: &[String]| if items.is_empty() { String::new() } else { format!("({})", items.join(", ")) };
    (format!("{kind}{} {{ {}{} {{ __typename }} }}", list(&definitions), field.name, list(&arguments)), variables)
}

on_both! {
    async fn every_field_refuses_who_may_not_use_it(app: &GraphqlApp) {
        let (queries, mutations) = (fields("Query"), fields("Mutation"));
        assert!(queries.len() >= 8 && mutations.len() >= 12, "{} and {}", queries.len(), mutations.len());
        for field in &queries {
            let (query, variables) = operation("query", field);
            assert_eq!(app.codes(&Viewer::Anonymous, &query, variables.clone()).await, ["UNAUTHENTICATED"], "{query}");
            let is_of_admins = QUERIES_OF_ADMINS.contains(&field.name.as_str());
            let is_of_shops = is_of_admins || QUERIES_OF_STOREFRONTS.contains(&field.name.as_str());
            for (viewer, is_refused) in [(customer("ada"), is_of_shops), (storefront(), is_of_admins), (admin(), false)] {
                let expected: &[&str] = if is_refused { &["FORBIDDEN"] } else { &[] };
                assert_eq!(app.codes(&viewer, &query, variables.clone()).await, expected, "{query}");
            }
        }
        for field in &mutations {
            let (query, variables) = operation("mutation", field);
            let codes = async |viewer| app.codes(&viewer, &query, variables.clone()).await;
            assert_eq!(codes(Viewer::Anonymous).await, ["UNAUTHENTICATED"], "{query}");
            let of_customers = OF_CUSTOMERS.contains(&field.name.as_str());
            let expected: &[&str] = if of_customers { &[] } else { &["FORBIDDEN"] };
            assert_eq!(codes(customer("ada")).await, expected, "{query}");
            let may = of_customers || OF_STOREFRONTS.contains(&field.name.as_str());
            let expected: &[&str] = if may { &[] } else { &["FORBIDDEN"] };
            assert_eq!(codes(storefront()).await, expected, "{query}");
            assert!(codes(admin()).await.is_empty(), "{query}");
        }
    }

    async fn budgets_and_drafts_are_not_for_everyone(app: &GraphqlApp) {
        let (ids, draft) = ids(app).await;
        let campaign = app.campaign(json!({ "budget": 100 })).await;
        let query = "query($id: ID!) { campaign(id: $id) { name budget stats { awards } budgetExhausted } }";
        let seen = async |viewer: Viewer, id: &str| app.data(&viewer, query, json!({ "id": id })).await["campaign"].take();
        let whole = json!({ "name": "Three", "budget": 100, "stats": { "awards": 0 }, "budgetExhausted": false });
        let public = json!({ "name": "Three", "budget": null, "stats": null, "budgetExhausted": false });
        assert_eq!(seen(admin(), &campaign).await, whole);
        assert_eq!(seen(storefront(), &campaign).await, public);
        assert_eq!(seen(customer("ada"), &campaign).await, public);
        assert_eq!(seen(customer("ada"), &draft).await, Value::Null);
        assert_eq!(seen(storefront(), &draft).await["name"], "Secret");
        let list = "{ campaigns { totalCount nodes { id status } } drafts: campaigns(status: [DRAFT]) { nodes { id } } }";
        let mine = app.data(&customer("ada"), list, json!({})).await;
        assert_eq!((&mine["campaigns"]["totalCount"], &mine["drafts"]["nodes"]), (&json!(2), &json!([])));
        let all = app.data(&admin(), list, json!({})).await;
        assert_eq!((&all["campaigns"]["totalCount"], &all["drafts"]["nodes"]), (&json!(3), &json!([{ "id": draft }])));
        assert_eq!(text(&all["campaigns"]["nodes"][2]["id"]), ids[4]);
    }
}
