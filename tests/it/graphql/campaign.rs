//! The life of campaigns: creating, changing, activating, pausing, ending and settling them.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, campaign_input, on_both, text};

const NOBODY: &str = "Q2FtcGFpZ246OTk";

async fn change(app: &GraphqlApp, mutation: &str, id: &str) -> Value {
    let query = format!(
        "mutation($id: ID!) {{ {mutation}(id: $id) {{ campaign {{ status endsAt revision }} userErrors {{ code path }} }} }}"
    );
    app.data(&admin(), &query, json!({ "id": id })).await[mutation].take()
}

async fn update(app: &GraphqlApp, id: &str, input: Value) -> Value {
    let query = "mutation($id: ID!, $input: CampaignUpdateInput!) { updateCampaign(id: $id, input: $input) { \
        campaign { name description revision endsAt budget maxPerCustomer } userErrors { code path } } }";
    app.data(&admin(), query, json!({ "id": id, "input": input })).await["updateCampaign"].take()
}

async fn revision(app: &GraphqlApp, id: &str) -> Value {
    let query = "query($id: ID!) { campaign(id: $id) { revision } }";
    app.data(&admin(), query, json!({ "id": id })).await["campaign"]["revision"].take()
}

async fn create(app: &GraphqlApp, input: Value, key: Option<&str>) -> Value {
    let query = "mutation($input: CampaignInput!, $key: String) { createCampaign(input: $input, idempotencyKey: $key) { \
        campaign { id } userErrors { code path } } }";
    let variables = json!({ "input": campaign_input(input), "key": key });
    app.data(&admin(), query, variables).await["createCampaign"].take()
}

fn refused(answer: &Value, code: &str, path: &[&str]) {
    assert_eq!(answer["userErrors"], json!([{ "code": code, "path": path }]));
    assert_eq!(answer["campaign"], Value::Null);
}

on_both! {
    async fn what_was_sent_is_answered(app: &GraphqlApp) {
        let everything = json!({
            "name": "Whole", "description": "All there is", "startsAt": "2026-11-01T00:00:00+01:00",
            "endsAt": "2026-12-01T00:00:00Z", "timeZone": "Europe/Vienna", "currency": "EUR",
            "filter": { "minAmount": "5", "channels": ["web"], "categories": ["c"], "skus": ["s"] },
            "window": { "calendar": { "unit": "WEEK", "every": 2, "weekStartsOn": "SUNDAY" } },
            "goal": { "spend": { "amount": "20", "repeat": true } }, "award": { "points": 7 },
            "maxPerCustomer": 3, "maxPerWindow": 2, "budget": 1000, "lateness": "PT36H",
            "holdFor": "P1D", "expiresAfter": "P52W",
        });
        let id = app.draft(everything).await;
        let query = "query($id: ID!) { campaign(id: $id) { name description status startsAt endsAt timeZone currency \
            filter { minAmount { amount currency } channels categories skus } window { __typename \
            ... on CalendarWindow { unit every weekStartsOn } } goal { __typename ... on SpendGoal { amount { amount } repeat } } \
            award { __typename ... on FixedPoints { points } } maxPerCustomer maxPerWindow budget lateness holdFor expiresAfter \
            budgetExhausted stats { awards customers pointsStanding pointsDeclined budgetLeft } } }";
        let answer = app.data(&admin(), query, json!({ "id": id })).await;
        assert_eq!(answer["campaign"], json!({
            "name": "Whole", "description": "All there is", "status": "DRAFT", "startsAt": "2026-10-31T23:00:00Z",
            "endsAt": "2026-12-01T00:00:00Z", "timeZone": "Europe/Vienna", "currency": "EUR",
            "filter": { "minAmount": { "amount": "5.00", "currency": "EUR" }, "channels": ["web"], "categories": ["c"],
                "skus": ["s"] },
            "window": { "__typename": "CalendarWindow", "unit": "WEEK", "every": 2, "weekStartsOn": "SUNDAY" },
            "goal": { "__typename": "SpendGoal", "amount": { "amount": "20.00" }, "repeat": true },
            "award": { "__typename": "FixedPoints", "points": 7 }, "maxPerCustomer": 3, "maxPerWindow": 2, "budget": 1000,
            "lateness": "PT36H", "holdFor": "P1D", "expiresAfter": "P52W", "budgetExhausted": false,
            "stats": { "awards": 0, "customers": 0, "pointsStanding": 0, "pointsDeclined": 0, "budgetLeft": 1000 },
        }));
    }

    async fn every_window_goal_and_award(app: &GraphqlApp) {
        let query = "query($id: ID!) { campaign(id: $id) { timeZone lateness window { __typename \
            ... on CampaignWindow { opensAt closesAt } ... on CalendarWindow { unit every weekStartsOn dayStartsAt } \
            ... on RecurringWindow { weekdays from to } ... on SessionWindow { gap } \
            ... on TimerWindow { duration reopens } ... on RollingWindow { duration } } \
            goal { __typename ... on EveryPurchaseGoal { atLeast } ... on PurchasesGoal { atLeast repeat } \
            ... on SpendGoal { amount { amount } repeat } ... on DistinctGoal { of atLeast } ... on UnitsGoal { atLeast repeat } \
            ... on StreakGoal { length purchasesPerWindow repeat } } \
            award { __typename ... on FixedPoints { points } ... on PointsPerUnit { rate rates { categories rate } } } } }";
        let each = json!({ "everyPurchase": "EACH" });
        let three = json!({ "purchases": { "atLeast": 3 } });
        for (input, field, expected) in [
            (json!({ "window": { "campaign": "WHOLE" } }), "window",
                json!({ "__typename": "CampaignWindow", "opensAt": "2026-11-01T00:00:00Z", "closesAt": null })),
            (json!({ "window": { "calendar": { "unit": "DAY" } } }), "window",
                json!({ "__typename": "CalendarWindow", "unit": "DAY", "every": 1, "weekStartsOn": "MONDAY",
                    "dayStartsAt": "00:00" })),
            (json!({ "window": { "recurring": { "weekdays": ["FRIDAY"], "from": "18:00", "to": "20:00" } } }), "window",
                json!({ "__typename": "RecurringWindow", "weekdays": ["FRIDAY"], "from": "18:00", "to": "20:00" })),
            (json!({ "window": { "session": { "gap": "PT30M" } } }), "window",
                json!({ "__typename": "SessionWindow", "gap": "PT30M" })),
            (json!({ "window": { "timer": { "duration": "P1W" } } }), "window",
                json!({ "__typename": "TimerWindow", "duration": "P1W", "reopens": false })),
            (json!({ "window": { "rolling": { "duration": "P7D" } }, "goal": three }), "window",
                json!({ "__typename": "RollingWindow", "duration": "P7D" })),
            (json!({ "goal": each }), "goal", json!({ "__typename": "EveryPurchaseGoal", "atLeast": 1 })),
            (json!({ "goal": three }), "goal", json!({ "__typename": "PurchasesGoal", "atLeast": 3, "repeat": false })),
            (json!({ "goal": { "spend": { "amount": "9.5" } } }), "goal",
                json!({ "__typename": "SpendGoal", "amount": { "amount": "9.50" }, "repeat": false })),
            (json!({ "goal": { "distinct": { "of": "CATEGORY", "atLeast": 2 } } }), "goal",
                json!({ "__typename": "DistinctGoal", "of": "CATEGORY", "atLeast": 2 })),
            (json!({ "goal": { "units": { "atLeast": 6 } } }), "goal",
                json!({ "__typename": "UnitsGoal", "atLeast": 6, "repeat": false })),
            (json!({ "goal": { "streak": { "length": 4 } }, "window": { "calendar": { "unit": "MONTH" } } }), "goal",
                json!({ "__typename": "StreakGoal", "length": 4, "purchasesPerWindow": 1, "repeat": false })),
            (json!({ "award": { "pointsPerUnit": "1.50" }, "goal": each }), "award",
                json!({ "__typename": "PointsPerUnit", "rate": "1.5", "rates": [] })),
            (json!({ "award": { "pointsByCategory": { "rate": "1", "rates": [{ "categories": ["a"], "rate": "0.50" }] } },
                "goal": each }), "award",
                json!({ "__typename": "PointsPerUnit", "rate": "1", "rates": [{ "categories": ["a"], "rate": "0.5" }] })),
        ] {
            let id = app.draft(input).await;
            let answer = app.data(&admin(), query, json!({ "id": id })).await;
            assert_eq!(answer["campaign"][field], expected);
            assert_eq!((&answer["campaign"]["timeZone"], &answer["campaign"]["lateness"]), (&json!("UTC"), &json!("P30D")));
        }
    }

    async fn each_fault_is_told_with_its_path(app: &GraphqlApp) {
        for (over, code, path) in [
            (json!({ "name": "" }), "REQUIRED", vec!["name"]),
            (json!({ "name": "x".repeat(201) }), "TOO_LONG", vec!["name"]),
            (json!({ "endsAt": "2026-10-01T00:00:00Z" }), "OUT_OF_RANGE", vec!["endsAt"]),
            (json!({ "currency": "EURO" }), "UNKNOWN_CURRENCY", vec!["currency"]),
            (json!({ "filter": { "channels": [] } }), "OUT_OF_RANGE", vec!["filter", "channels"]),
            (json!({ "filter": { "excludedSkus": [] } }), "OUT_OF_RANGE", vec!["filter", "excludedSkus"]),
            (json!({ "goal": { "units": { "atLeast": 0 } } }), "OUT_OF_RANGE", vec!["goal", "units", "atLeast"]),
            (json!({ "filter": { "minAmount": "1.001" } }), "TOO_MANY_DECIMALS", vec!["filter", "minAmount"]),
            (json!({ "goal": { "purchases": { "atLeast": 0 } } }), "OUT_OF_RANGE", vec!["goal", "purchases", "atLeast"]),
            (json!({ "goal": { "streak": { "length": 2 } } }), "UNSUPPORTED_COMBINATION", vec!["goal"]),
            (json!({ "award": { "pointsPerUnit": "1" } }), "UNSUPPORTED_COMBINATION", vec!["award"]),
            (json!({ "award": { "points": 0 } }), "OUT_OF_RANGE", vec!["award", "points"]),
            (json!({ "award": { "pointsByCategory": { "rate": "1", "rates": [] } }, "goal": { "everyPurchase": "EACH" } }),
                "OUT_OF_RANGE", vec!["award", "pointsByCategory", "rates"]),
            (json!({ "award": { "pointsByCategory": { "rate": "1", "rates": [{ "categories": ["a"], "rate": "0.0000001" }] } },
                "goal": { "everyPurchase": "EACH" } }), "TOO_MANY_DECIMALS", vec!["award", "pointsByCategory", "rates", "0", "rate"]),
            (json!({ "budget": -1 }), "OUT_OF_RANGE", vec!["budget"]),
            (json!({ "maxPerCustomer": 0 }), "OUT_OF_RANGE", vec!["maxPerCustomer"]),
        ] {
            let path: Vec<&str> = std::iter::once("input").chain(path).collect();
            refused(&create(app, over, None).await, code, &path);
        }
    }

    async fn a_key_makes_one_campaign(app: &GraphqlApp) {
        let first = create(app, json!({}), Some("k")).await;
        assert_eq!(create(app, json!({}), Some("k")).await, first);
        refused(&create(app, json!({ "name": "Other" }), Some("k")).await, "IDEMPOTENCY_CONFLICT", &["idempotencyKey"]);
        assert_ne!(create(app, json!({}), None).await, first);
        let clone = "mutation($id: ID!, $name: String!) { cloneCampaign(id: $id, name: $name, idempotencyKey: \"c\") { \
            campaign { id name status } userErrors { code path } } }";
        let id = text(&first["campaign"]["id"]);
        let cloned = app.data(&admin(), clone, json!({ "id": id, "name": "Again" })).await;
        assert_eq!(cloned["cloneCampaign"]["campaign"]["name"], "Again");
        assert_eq!(app.data(&admin(), clone, json!({ "id": id, "name": "Again" })).await, cloned);
        let empty = app.data(&admin(), clone, json!({ "id": id, "name": "" })).await;
        refused(&empty["cloneCampaign"], "REQUIRED", &["name"]);
    }

    async fn a_draft_is_edited_freely_and_deleted(app: &GraphqlApp) {
        let id = app.draft(json!({ "description": "old", "maxPerCustomer": 2 })).await;
        let at = revision(app, &id).await;
        let change = json!({ "ifRevision": at, "name": "New", "description": null, "goal": { "everyPurchase": "EACH" } });
        let changed = update(app, &id, change.clone()).await;
        assert_eq!(changed["userErrors"], json!([]));
        assert_eq!((&changed["campaign"]["name"], &changed["campaign"]["description"]), (&json!("New"), &Value::Null));
        assert_eq!(changed["campaign"]["maxPerCustomer"], 2);
        refused(&update(app, &id, change).await, "STALE_REVISION", &["input", "ifRevision"]);
        let at = revision(app, &id).await;
        refused(&update(app, &id, json!({ "ifRevision": at, "name": null })).await, "REQUIRED", &["input", "name"]);
        let delete = "mutation($id: ID!) { deleteCampaign(id: $id) { deletedId userErrors { code path } } }";
        let gone = app.data(&admin(), delete, json!({ "id": id })).await;
        assert_eq!(gone["deleteCampaign"], json!({ "deletedId": id, "userErrors": [] }));
        let again = app.data(&admin(), delete, json!({ "id": id })).await;
        let missing = json!({ "deletedId": null, "userErrors": [{ "code": "NOT_FOUND", "path": ["id"] }] });
        assert_eq!(again["deleteCampaign"], missing);
    }

    async fn from_draft_to_ended(app: &GraphqlApp) {
        let id = app.draft(json!({ "startsAt": "2026-11-03T00:00:00Z", "endsAt": "2026-12-01T00:00:00Z" })).await;
        refused(&change(app, "pauseCampaign", &id).await, "ILLEGAL_TRANSITION", &["id"]);
        assert_eq!(change(app, "activateCampaign", &id).await["campaign"]["status"], "SCHEDULED");
        refused(&change(app, "activateCampaign", &id).await, "ILLEGAL_TRANSITION", &["id"]);
        app.set_clock("2026-11-04T00:00:00Z");
        let fixed = update(app, &id, json!({ "ifRevision": revision(app, &id).await, "goal": { "everyPurchase": "EACH" } })).await;
        refused(&fixed, "CAMPAIGN_NOT_EDITABLE", &["input", "goal"]);
        let past = update(app, &id, json!({ "ifRevision": revision(app, &id).await, "endsAt": "2026-11-03T12:00:00Z" })).await;
        refused(&past, "BOUNDARY_IN_PAST", &["input", "endsAt"]);
        let budget = update(app, &id, json!({ "ifRevision": revision(app, &id).await, "budget": 5 })).await;
        assert_eq!((&budget["campaign"]["budget"], &budget["userErrors"]), (&json!(5), &json!([])));
        for (mutation, status) in
            [("pauseCampaign", "PAUSED"), ("resumeCampaign", "ACTIVE"), ("pauseCampaign", "PAUSED"), ("endCampaign", "ENDED")]
        {
            assert_eq!(change(app, mutation, &id).await["campaign"]["status"], status);
        }
        refused(&change(app, "resumeCampaign", &id).await, "ILLEGAL_TRANSITION", &["id"]);
        let delete = "mutation($id: ID!) { deleteCampaign(id: $id) { deletedId userErrors { code path } } }";
        let kept = app.data(&admin(), delete, json!({ "id": id })).await;
        assert_eq!(kept["deleteCampaign"]["userErrors"], json!([{ "code": "ILLEGAL_TRANSITION", "path": ["id"] }]));
    }

    async fn what_cannot_be_activated(app: &GraphqlApp) {
        let over = json!({ "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2026-02-01T00:00:00Z" });
        let over = app.draft(over).await;
        refused(&change(app, "activateCampaign", &over).await, "BOUNDARY_IN_PAST", &["id"]);
        // The message says which lateness is enough, and one day less is not.
        let query = "mutation($id: ID!) { activateCampaign(id: $id) { userErrors { message } } }";
        let told = app.data(&admin(), query, json!({ "id": over })).await;
        let message = told["activateCampaign"]["userErrors"][0]["message"].as_str().unwrap();
        let days = message.split_once("raise `lateness` to at least P").and_then(|(_, rest)| rest.split_once("D to count"));
        let days: i64 = days.unwrap_or_else(|| panic!("{message}")).0.parse().unwrap();
        for (lateness, is_enough) in [(days - 1, false), (days, true)] {
            let if_revision = revision(app, &over).await;
            update(app, &over, json!({ "ifRevision": if_revision, "lateness": format!("P{lateness}D") })).await;
            let answer = change(app, "activateCampaign", &over).await;
            assert_eq!(answer["userErrors"] == json!([]), is_enough, "P{lateness}D: {answer}");
        }
    }

    async fn an_unknown_id_is_told(app: &GraphqlApp) {
        for id in [NOBODY, "nonsense", ""] {
            for mutation in ["activateCampaign", "pauseCampaign", "resumeCampaign", "endCampaign"] {
                refused(&change(app, mutation, id).await, "NOT_FOUND", &["id"]);
            }
            refused(&update(app, id, json!({ "ifRevision": 1 })).await, "NOT_FOUND", &["id"]);
            let answer = app.data(&admin(), "query($id: ID!) { campaign(id: $id) { id } }", json!({ "id": id })).await;
            assert_eq!(answer["campaign"], Value::Null);
        }
    }

    async fn a_budget_declines_what_it_has_no_room_for(app: &GraphqlApp) {
        let id = app.campaign(json!({ "goal": { "everyPurchase": "EACH" }, "budget": 25 })).await;
        for n in 0..3 {
            app.purchase(&format!("p{n}"), "ada", &format!("2026-11-02T10:0{n}:00Z"), "5").await;
        }
        let query = "query($id: ID!) { campaign(id: $id) { budgetExhausted \
            stats { awards customers pointsStanding pointsDeclined budgetLeft } } \
            purchase(by: {externalId: \"p2\"}) { awards { status points } } }";
        let answer = app.data(&admin(), query, json!({ "id": id })).await;
        assert_eq!(answer["campaign"], json!({
            "budgetExhausted": true,
            "stats": { "awards": 2, "customers": 1, "pointsStanding": 20, "pointsDeclined": 10, "budgetLeft": 5 },
        }));
        assert_eq!(answer["purchase"]["awards"], json!([{ "status": "DECLINED", "points": 10 }]));
    }

    async fn what_comes_after_the_settlement_changes_nothing(app: &GraphqlApp) {
        let id = app.campaign(json!({ "endsAt": "2026-11-03T00:00:00Z", "lateness": "PT1H" })).await;
        for n in 1..4 {
            app.purchase(&format!("p{n}"), "ada", &format!("2026-11-02T10:0{n}:00Z"), "5").await;
        }
        app.set_clock("2026-11-03T01:00:00Z");
        assert_eq!(windfall::app::jobs::settlement::run(&app.app).await.unwrap(), 1);
        let refund = "mutation { recordRefund(input: {externalId: \"r\", purchaseExternalId: \"p2\", \
            refundedAt: \"2026-11-03T00:30:00Z\"}) { purchase { net { amount } } awards { id } userErrors { code } } }";
        let answer = app.data(&admin(), refund, json!({})).await;
        let expected = json!({ "purchase": { "net": { "amount": "0.00" } }, "awards": [], "userErrors": [] });
        assert_eq!(answer["recordRefund"], expected);
        app.purchase("p0", "ada", "2026-11-02T10:00:00Z", "5").await;
        let query = "query($id: ID!) { campaign(id: $id) { status } customer(by: {externalId: \"ada\"}) { \
            awards { nodes { status purchases { nodes { externalId } } } } } }";
        let answer = app.data(&admin(), query, json!({ "id": id })).await;
        assert_eq!(answer["campaign"]["status"], "SETTLED");
        let evidence = json!([{ "externalId": "p1" }, { "externalId": "p2" }, { "externalId": "p3" }]);
        let awards = json!([{ "status": "STANDING", "purchases": { "nodes": evidence } }]);
        assert_eq!(answer["customer"]["awards"]["nodes"], awards);
    }

    async fn an_end_clips_the_windows_that_were_reached(app: &GraphqlApp) {
        let id = app.campaign(json!({ "goal": { "everyPurchase": "EACH" } })).await;
        app.purchase("p", "ada", "2026-11-02T10:00:00Z", "5").await;
        change(app, "endCampaign", &id).await;
        let query = "{ customer(by: {externalId: \"ada\"}) { progress { current } awards { nodes { \
            window { opensAt closesAt } } } } }";
        let answer = app.data(&admin(), query, json!({})).await;
        let window = json!({ "opensAt": "2026-11-01T00:00:00Z", "closesAt": "2026-11-02T12:00:00Z" });
        assert_eq!(answer["customer"], json!({ "progress": [], "awards": { "nodes": [{ "window": window }] } }));
    }
}
