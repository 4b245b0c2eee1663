//! Pages of every connection, forwards and backwards.

use serde_json::{Value, json};

use crate::support::graphql::{GraphqlApp, admin, on_both, text};

const PAGE: &str =
    "{ edges { cursor node { id } } nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } }";

/// A connection: the query text before and after its arguments, and a JSON pointer to it in the response's data.
struct List {
    name: &'static str,
    before: &'static str,
    after: &'static str,
    at: &'static str,
}

const LISTS: [List; 9] = [
    List { name: "deadLetters", before: "{ deadLetters", after: "}", at: "/deadLetters" },
    List { name: "jobs", before: "{ jobs", after: "}", at: "/jobs" },
    List { name: "customers", before: "{ customers", after: "}", at: "/customers" },
    List { name: "campaigns", before: "{ campaigns", after: "}", at: "/campaigns" },
    List {
        name: "awards",
        before: "{ customer(by: {externalId: \"ada\"}) { awards",
        after: "} }",
        at: "/customer/awards",
    },
    List {
        name: "ledger",
        before: "{ customer(by: {externalId: \"ada\"}) { ledger",
        after: "} }",
        at: "/customer/ledger",
    },
    List {
        name: "purchases",
        before: "{ customer(by: {externalId: \"ada\"}) { purchases",
        after: "} }",
        at: "/customer/purchases",
    },
    List {
        name: "evidence",
        before: "{ customer(by: {externalId: \"ada\"}) { awards(status: [STANDING], first: 1) { nodes { purchases",
        after: "} } } }",
        at: "/customer/awards/nodes/0/purchases",
    },
    List { name: "trail", before: "{ trail", after: "}", at: "/trail" },
];

impl List {
    async fn page(&self, app: &GraphqlApp, arguments: &str) -> Value {
        let query = format!("{}({arguments}) {PAGE} {}", self.before, self.after);
        let answer = app.data(&admin(), &query, json!({})).await;
        answer.pointer(self.at).unwrap_or_else(|| panic!("{}: {answer}", self.name)).clone()
    }

    async fn codes(&self, app: &GraphqlApp, arguments: &str) -> Vec<String> {
        let query = format!("{}({arguments}) {PAGE} {}", self.before, self.after);
        app.codes(&admin(), &query, json!({})).await
    }
}

fn ids(page: &Value) -> Vec<String> {
    page["nodes"].as_array().unwrap().iter().map(|node| text(&node["id"])).collect()
}

fn flag(page: &Value, name: &str) -> bool {
    page["pageInfo"][name].as_bool().unwrap()
}

/// Ada has seven purchases, an award for each, and one for all seven. There are seven customers, seven campaigns and
/// seven jobs and seven dead letters. The trail has an entry for each campaign that was created, and for each that was activated.
async fn sevens(app: &GraphqlApp) {
    for n in 0..7 {
        // Two jobs share each instant, so the id decides their order.
        let (kind, state) = (["audit", "settlement"][n % 2], ["done", "waiting", "dead"][n % 3]);
        let columns = "kind, unique_key, state, requests, attempts, run_at, created_at";
        app.execute(&format!("INSERT INTO job ({columns}) VALUES ('{kind}', 'k{n}', '{state}', 1, 0, 0, {})", n / 2))
            .await;
        let columns = "topic, \"partition\", message_offset, hash, reason, recorded_at, headers, payload";
        app.execute(&format!(
            "INSERT INTO dead_letter ({columns}) VALUES ('t', 0, {n}, 'h', 'r', {}, '[]', '')",
            n / 2
        ))
        .await;
    }
    app.campaign(json!({ "name": "Each", "goal": { "everyPurchase": "EACH" } })).await;
    app.campaign(json!({ "name": "Seven", "goal": { "purchases": { "atLeast": 7 } } })).await;
    for n in 2..7 {
        app.draft(json!({ "name": format!("Draft {n}") })).await;
    }
    for n in 0..7 {
        // Two purchases share each instant, so the external id decides their order.
        app.purchase(&format!("p{n}"), "ada", &format!("2026-11-02T10:0{}:00Z", n / 2), "5").await;
        if n > 0 {
            app.purchase(&format!("q{n}"), &format!("c{n}"), "2026-11-02T10:00:00Z", "5").await;
        }
    }
}

on_both! {
    async fn pages_put_together_are_the_list(app: &GraphqlApp) {
        sevens(app).await;
        for list in &LISTS {
            let whole = list.page(app, "first: 100").await;
            let all = ids(&whole);
            assert!(all.len() >= 7, "{}: {}", list.name, all.len());
            assert!(!flag(&whole, "hasNextPage") && !flag(&whole, "hasPreviousPage"), "{}", list.name);
            let edges: Vec<String> =
                whole["edges"].as_array().unwrap().iter().map(|edge| text(&edge["node"]["id"])).collect();
            assert_eq!(edges, all);
            assert_eq!(whole["pageInfo"]["startCursor"], whole["edges"][0]["cursor"]);

            let (mut forward, mut after) = (Vec::new(), String::new());
            loop {
                let page = list.page(app, &format!("first: 3{after}")).await;
                assert_eq!(flag(&page, "hasPreviousPage"), !after.is_empty(), "{}", list.name);
                forward.extend(ids(&page));
                assert_eq!(flag(&page, "hasNextPage"), forward.len() < all.len(), "{}", list.name);
                if !flag(&page, "hasNextPage") {
                    break;
                }
                after = format!(", after: {}", page["pageInfo"]["endCursor"]);
            }
            assert_eq!(forward, all, "{}", list.name);

            let (mut backward, mut before) = (Vec::new(), String::new());
            loop {
                let page = list.page(app, &format!("last: 3{before}")).await;
                let mut rows = ids(&page);
                rows.append(&mut backward);
                backward = rows;
                assert_eq!(flag(&page, "hasNextPage"), !before.is_empty(), "{}", list.name);
                if !flag(&page, "hasPreviousPage") {
                    break;
                }
                before = format!(", before: {}", page["pageInfo"]["startCursor"]);
            }
            assert_eq!(backward, all, "{}", list.name);

            let (second, sixth) = (&whole["edges"][1]["cursor"], &whole["edges"][5]["cursor"]);
            let between = list.page(app, &format!("first: 10, after: {second}, before: {sixth}")).await;
            assert_eq!(ids(&between), all[2..5], "{}", list.name);
            let last = list.page(app, &format!("last: 2, after: {second}, before: {sixth}")).await;
            assert_eq!(ids(&last), all[3..5], "{}", list.name);
        }
    }

    async fn odd_pages(app: &GraphqlApp) {
        sevens(app).await;
        for list in &LISTS {
            let none = list.page(app, "first: 0").await;
            assert_eq!((ids(&none).len(), flag(&none, "hasNextPage")), (0, true), "{}", list.name);
            assert_eq!(none["pageInfo"]["startCursor"], Value::Null);
            for wrong in [
                "first: 1, last: 1", "first: -1", "last: -1", "first: 101", "last: 101", "after: \"\"",
                "after: \"x\"", "before: \"bm9uc2Vuc2U6MQ\"",
            ] {
                assert_eq!(list.codes(app, wrong).await, ["BAD_USER_INPUT"], "{}({wrong})", list.name);
            }
        }
        // A cursor is valid for its own list only.
        let cursor = LISTS[3].page(app, "first: 1").await["pageInfo"]["endCursor"].clone();
        assert_eq!(LISTS[4].codes(app, &format!("after: {cursor}")).await, ["BAD_USER_INPUT"]);
    }

    async fn lists_are_newest_first_and_can_be_filtered(app: &GraphqlApp) {
        sevens(app).await;
        let query = "{ customer(by: {externalId: \"ada\"}) { purchases(first: 3) { nodes { externalId } } \
            ledger(first: 2) { nodes { sequence } } \
            none: awards(status: []) { nodes { id } } standing: awards(status: [STANDING]) { nodes { id } } \
            gone: awards(status: [REVERSED, DECLINED]) { nodes { id } } nowhere: awards(campaignId: \"x\") { nodes { id } } } \
            campaigns(first: 1) { totalCount nodes { name } } \
            prefixed: customers(externalIdPrefix: \"c\", first: 2) { nodes { externalId } } \
            exact: customers(externalIdPrefix: \"ada\") { nodes { externalId } } \
            nobody: customers(externalIdPrefix: \"cc\") { nodes { externalId } } }";
        let answer = app.data(&admin(), query, json!({})).await;
        let ada = &answer["customer"];
        assert_eq!(ada["purchases"]["nodes"], json!([{ "externalId": "p6" }, { "externalId": "p5" }, { "externalId": "p4" }]));
        assert_eq!(ada["ledger"]["nodes"], json!([{ "sequence": 8 }, { "sequence": 7 }]));
        let count = |list: &str| ada[list]["nodes"].as_array().unwrap().len();
        assert_eq!((count("none"), count("standing"), count("gone"), count("nowhere")), (0, 8, 0, 0));
        assert_eq!(answer["campaigns"], json!({ "totalCount": 7, "nodes": [{ "name": "Draft 6" }] }));
        assert_eq!(answer["prefixed"]["nodes"], json!([{ "externalId": "c6" }, { "externalId": "c5" }]));
        assert_eq!(answer["exact"]["nodes"], json!([{ "externalId": "ada" }]));
        assert_eq!(answer["nobody"]["nodes"], json!([]));
    }

    async fn evidence_of_a_streak_is_the_first_of_each_window(app: &GraphqlApp) {
        app.campaign(json!({
            "window": { "calendar": { "unit": "DAY" } }, "goal": { "streak": { "length": 2, "purchasesPerWindow": 2 } },
        })).await;
        for (id, at) in [
            ("a", "2026-11-01T01:00:00Z"), ("b", "2026-11-01T02:00:00Z"), ("c", "2026-11-01T03:00:00Z"),
            ("d", "2026-11-02T01:00:00Z"), ("e", "2026-11-02T02:00:00Z"), ("f", "2026-11-02T03:00:00Z"),
        ] {
            app.purchase(id, "ada", at, "1").await;
        }
        let query = "query($first: Int, $last: Int, $after: String) { customer(by: {externalId: \"ada\"}) { awards { nodes { \
            purchases(first: $first, last: $last, after: $after) { nodes { externalId } pageInfo { endCursor hasNextPage } } \
            } } } }";
        let page = async |variables: Value| {
            let answer = app.data(&admin(), query, variables).await;
            answer.pointer("/customer/awards/nodes/0/purchases").unwrap().clone()
        };
        let names = |page: &Value| -> Vec<String> {
            page["nodes"].as_array().unwrap().iter().map(|node| text(&node["externalId"])).collect()
        };
        assert_eq!(names(&page(json!({})).await), ["a", "b", "d", "e"]);
        assert_eq!(names(&page(json!({ "last": 3 })).await), ["b", "d", "e"]);
        let three = page(json!({ "first": 3 })).await;
        assert_eq!(names(&three), ["a", "b", "d"]);
        assert_eq!(names(&page(json!({ "first": 3, "after": three["pageInfo"]["endCursor"] })).await), ["e"]);
    }

    async fn evidence_is_read_in_chunks(app: &GraphqlApp) {
        app.campaign(json!({
            "filter": { "minAmount": "2" }, "goal": { "purchases": { "atLeast": 150 } }, "startsAt": "2026-10-01T00:00:00Z",
        })).await;
        let record = "mutation($inputs: [RecordPurchaseInput!]!) { recordPurchases(inputs: $inputs) { userErrors { code } } }";
        // Every other purchase is below `minAmount`.
        let inputs: Vec<Value> = (0..300).map(|n| json!({
            "externalId": format!("p{n:03}"), "customerExternalId": "ada", "currency": "EUR",
            "purchasedAt": format!("2026-11-01T{:02}:{:02}:00Z", n / 60, n % 60), "total": if n % 2 == 0 { "5" } else { "1" },
        })).collect();
        app.data(&admin(), record, json!({ "inputs": inputs })).await;
        let query = "query($first: Int, $after: String, $last: Int, $before: String) { \
            customer(by: {externalId: \"ada\"}) { awards { nodes { \
            purchases(first: $first, after: $after, last: $last, before: $before) { nodes { externalId } \
            pageInfo { endCursor startCursor hasNextPage hasPreviousPage } } } } } }";
        let page = async |variables: Value| {
            let answer = app.data(&admin(), query, variables).await;
            answer.pointer("/customer/awards/nodes/0/purchases").unwrap().clone()
        };
        let first = page(json!({ "first": 100 })).await;
        let rest = page(json!({ "first": 100, "after": first["pageInfo"]["endCursor"] })).await;
        assert_eq!((first["nodes"].as_array().unwrap().len(), rest["nodes"].as_array().unwrap().len()), (100, 50));
        assert_eq!((&first["nodes"][99]["externalId"], &rest["nodes"][0]["externalId"]), (&json!("p198"), &json!("p200")));
        assert_eq!(rest["pageInfo"]["hasNextPage"], false);
        let last = page(json!({ "last": 100 })).await;
        assert_eq!((&last["nodes"][0]["externalId"], &last["nodes"][99]["externalId"]), (&json!("p100"), &json!("p298")));
        let before = page(json!({ "last": 100, "before": last["pageInfo"]["startCursor"] })).await;
        assert_eq!((before["nodes"].as_array().unwrap().len(), &before["nodes"][49]["externalId"]), (50, &json!("p098")));
        assert_eq!(before["pageInfo"]["hasPreviousPage"], false);
    }
}
