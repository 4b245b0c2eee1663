//! A client of a real server, which creates campaigns, records purchases and reads balances.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use windfall::engine::time::Instant;
use windfall::http::auth::Role;

use super::server::{Server, ask, command, token};
use super::websocket::PATIENCE;

/// 2020-01-01T00:00:00Z in microseconds: the start of campaigns and the first purchase.
const START: i64 = 1_577_836_800_000_000;
const HOUR: i64 = 3_600_000_000;
/// The most purchases that one request records.
const MAX_PURCHASES: usize = 500;

pub(crate) const BALANCE: &str = "{ me { balance { available pending lifetime version cursor } } }";

pub(crate) struct Shop {
    pub(crate) server: Server,
    pub(crate) client: reqwest::Client,
    pub(crate) admin: String,
    pub(crate) storefront: String,
}

impl Shop {
    pub(crate) async fn open(database_url: &str) -> Self {
        Self::open_with(&mut command(database_url)).await
    }

    /// Starts the server with a prepared command.
    pub(crate) async fn open_with(command: &mut Command) -> Self {
        Self::of(Server::start_with(command).await.0)
    }

    pub(crate) fn of(server: Server) -> Self {
        Self {
            server,
            // Shorter than the timeout of the server, which could otherwise close a connection just when it is used
            // again.
            client: reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(5)).build().unwrap(),
            admin: token(Role::Admin, "eve"),
            storefront: token(Role::Storefront, "shop"),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.server.address
    }

    /// Sends a request that must have no errors and returns its data.
    pub(crate) async fn data(&self, token: &str, query: &str, variables: Value) -> Value {
        let mut answer = ask(&self.client, self.address(), token, query, variables).await.expect("an answer");
        assert_eq!(answer.get("errors"), None, "{query}: {answer}");
        answer["data"].take()
    }

    /// Creates and activates a campaign and returns its id. The fields of `input` replace those of a campaign that
    /// awards 10 points for each purchase.
    pub(crate) async fn campaign(&self, input: Value) -> String {
        let mut whole = json!({
            "name": "each", "startsAt": Instant(START).to_string(), "currency": "EUR", "window": { "campaign": "WHOLE" },
            "goal": { "everyPurchase": "EACH" }, "award": { "points": 10 },
        });
        let (Value::Object(fields), Value::Object(over)) = (&mut whole, input) else { panic!("an input is an object") };
        fields.extend(over);
        let create = "mutation($input: CampaignInput!) { \
            createCampaign(input: $input) { campaign { id } userErrors { code path message } } }";
        let made = self.data(&self.admin, create, json!({ "input": whole })).await;
        assert_eq!(made["createCampaign"]["userErrors"], json!([]));
        let id = made["createCampaign"]["campaign"]["id"].as_str().expect("an id").to_owned();
        let activate = "mutation($id: ID!) { activateCampaign(id: $id) { campaign { status } } }";
        let activated = self.data(&self.admin, activate, json!({ "id": id })).await;
        assert_eq!(activated["activateCampaign"]["campaign"]["status"], "ACTIVE");
        id
    }

    /// Records the `number`-th purchase of the customer.
    pub(crate) async fn buy(&self, customer: &str, number: usize) {
        self.buy_many(customer, number..number + 1).await;
    }

    /// Records purchases, with up to [`MAX_PURCHASES`] in one request.
    pub(crate) async fn buy_many(&self, customer: &str, numbers: std::ops::Range<usize>) {
        let query = "mutation($inputs: [RecordPurchaseInput!]!) { \
            recordPurchases(inputs: $inputs) { replayed userErrors { code path message } } }";
        let numbers: Vec<usize> = numbers.collect();
        for numbers in numbers.chunks(MAX_PURCHASES) {
            let inputs: Vec<Value> = numbers.iter().map(|number| purchase(customer, *number)).collect();
            let answer = self.data(&self.storefront, query, json!({ "inputs": inputs })).await;
            for recorded in answer["recordPurchases"].as_array().expect("a list") {
                assert_eq!(recorded, &json!({ "replayed": false, "userErrors": [] }));
            }
        }
    }

    /// Hands the `number`-th purchase of a customer over to another one.
    pub(crate) async fn hand_over(&self, customer: &str, number: usize, to: &str) {
        let query = "mutation($input: RecordPurchaseInput!) { \
            recordPurchase(input: $input) { replayed userErrors { code path message } } }";
        let mut input = purchase(customer, number);
        (input["customerExternalId"], input["revision"]) = (json!(to), json!(1));
        let answer = self.data(&self.storefront, query, json!({ "input": input })).await;
        assert_eq!(answer["recordPurchase"], json!({ "replayed": false, "userErrors": [] }));
    }

    /// Refunds the `number`-th purchase of the customer.
    pub(crate) async fn refund(&self, customer: &str, number: usize) {
        let query = "mutation($input: RecordRefundInput!) { \
            recordRefund(input: $input) { replayed userErrors { code path message } } }";
        let id = external_id(customer, number);
        let input = json!({ "externalId": id, "purchaseExternalId": id, "refundedAt": "2026-01-01T00:00:00Z" });
        let answer = self.data(&self.storefront, query, json!({ "input": input })).await;
        assert_eq!(answer["recordRefund"], json!({ "replayed": false, "userErrors": [] }));
    }

    /// The whole ledger of the customer, oldest entry first: cursors and entries.
    pub(crate) async fn ledger(&self, customer: &str) -> Vec<(String, Value)> {
        let query = "query($customer: String!, $after: String) { customer(by: { externalId: $customer }) { \
            ledger(first: 100, after: $after) { \
            edges { cursor node { sequence kind points balanceAfter } } pageInfo { hasNextPage endCursor } } } }";
        let (mut entries, mut after) = (Vec::new(), Value::Null);
        loop {
            let variables = json!({ "customer": customer, "after": after });
            let mut page = self.data(&self.storefront, query, variables).await["customer"]["ledger"].take();
            for edge in page["edges"].as_array_mut().expect("a list") {
                entries.push((edge["cursor"].as_str().expect("a cursor").to_owned(), edge["node"].take()));
            }
            if page["pageInfo"]["hasNextPage"] == json!(false) {
                entries.reverse();
                return entries;
            }
            after = page["pageInfo"]["endCursor"].take();
        }
    }

    /// Waits until the database of the server answers again.
    pub(crate) async fn is_back(&self) {
        tokio::time::sleep(UNCHECKED).await;
        let query = "{ campaigns(first: 1) { nodes { id } } }";
        let asked = async || ask(&self.client, self.address(), &self.admin, query, json!({})).await.expect("an answer");
        let back = async {
            while asked().await.get("errors").is_some() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, back).await.expect("the database answers again");
    }

    /// The balance as the customer sees it.
    pub(crate) async fn balance(&self, customer: &str) -> Value {
        self.data(&token(Role::Customer, customer), BALANCE, json!({})).await["me"]["balance"].take()
    }
}

/// The server does not check a connection that it used less than a second ago, and the database may have closed it.
const UNCHECKED: Duration = Duration::from_millis(1_200);

fn external_id(customer: &str, number: usize) -> String {
    format!("{customer}-{number}")
}

/// The input of a purchase. Six purchases are made in the first hours of each day.
fn purchase(customer: &str, number: usize) -> Value {
    let number_in_time = i64::try_from(number).unwrap();
    let at = START + (number_in_time / 6 * 24 + number_in_time % 6) * HOUR;
    json!({
        "externalId": external_id(customer, number), "customerExternalId": customer,
        "purchasedAt": Instant(at).to_string(), "total": "5.00", "currency": "EUR",
    })
}
