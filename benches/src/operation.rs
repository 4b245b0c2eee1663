//! What is sent, and what counts as success. The documents are constant, with variables, as real clients send them. All
//! servers get the same purchases and are asked for the same customers.

use std::io::Write as _;

use clap::ValueEnum;

use crate::clock;
use crate::http::Response;
use crate::purchase::{Purchase, Random, When};

/// The API of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Api {
    Windfall,
    /// `PostGraphile` in front of `peers/pg/peer.sql`.
    Postgraphile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Records a purchase of now.
    RecordNow,
    /// Records a purchase of a random second of the last 30 days.
    RecordLate,
    /// Reads the balance and the progress of the customer that the token belongs to.
    Me,
    /// Reads the same of a random customer, by name.
    Customer,
}

const WINDFALL_RECORD: &str = "mutation Record($input: RecordPurchaseInput!) { recordPurchase(input: $input) { \
    balance { available version } userErrors { path code message } } }";
const WINDFALL_ME: &str = "query Points { me { balance { available lifetime version asOf } \
    progress { campaign { name } state unit current target window { closesAt } } } }";
const WINDFALL_CUSTOMER: &str = "query Points($name: String!) { customer(by: { externalId: $name }) { \
    balance { available lifetime version asOf } \
    progress { campaign { name } state unit current target window { closesAt } } } }";
const POSTGRAPHILE_RECORD: &str =
    "mutation Record($input: RecordPurchaseInput!) { recordPurchase(input: $input) { result } }";
const POSTGRAPHILE_CUSTOMER: &str = "query Points($name: String!) { customerByExternalId(externalId: $name) { \
    available awardsByCustomerId(first: 5, orderBy: PRIMARY_KEY_DESC) { nodes { points awardKey } } } }";

/// An operation of which each request is one, by its number.
pub struct Operation {
    pub api: Api,
    pub kind: Kind,
    /// Customers are named `c1` to `cN`.
    pub customers: u64,
    pub seed: u64,
    /// The external ids of purchases begin with it.
    pub prefix: String,
    /// The instant from which the age of a purchase counts, in seconds since 1970.
    pub began_at: i64,
}

impl Operation {
    /// Writes the body of a request.
    pub fn write(&self, number: u64, body: &mut Vec<u8>) {
        body.clear();
        let written = match (self.kind, self.api) {
            (Kind::RecordNow | Kind::RecordLate, Api::Windfall) => {
                self.write_purchase(number, &self.purchase(number), body)
            }
            (Kind::RecordNow | Kind::RecordLate, Api::Postgraphile) => self.write_peer_purchase(number, body),
            (Kind::Me, _) => write!(body, r#"{{"query":"{WINDFALL_ME}"}}"#),
            (Kind::Customer, api) => {
                let document = if api == Api::Windfall { WINDFALL_CUSTOMER } else { POSTGRAPHILE_CUSTOMER };
                let customer = self.customer(number);
                write!(body, r#"{{"query":"{document}","variables":{{"name":"c{customer}"}}}}"#)
            }
        };
        // Writing into a vector cannot fail.
        debug_assert!(written.is_ok());
    }

    /// Writes the body of a request that records a purchase of this customer in Windfall.
    pub fn write_for(&self, number: u64, customer: u64, body: &mut Vec<u8>) {
        body.clear();
        let written = self.write_purchase(number, &Purchase { customer, ..self.purchase(number) }, body);
        debug_assert!(written.is_ok());
    }

    fn write_purchase(&self, number: u64, purchase: &Purchase, body: &mut Vec<u8>) -> std::io::Result<()> {
        let Purchase { customer, total_cents, category, .. } = purchase;
        let (units, cents, at, prefix) = (total_cents / 100, total_cents % 100, self.instant(number), &self.prefix);
        write!(
            body,
            r#"{{"query":"{WINDFALL_RECORD}","variables":{{"input":{{"externalId":"{prefix}{number}","customerExternalId":"c{customer}","purchasedAt":"{at}","total":"{units}.{cents:02}","currency":"EUR","lines":[{{"sku":"{category}-1","category":"{category}","amount":"{units}.{cents:02}"}}]}}}}}}"#
        )
    }

    fn write_peer_purchase(&self, number: u64, body: &mut Vec<u8>) -> std::io::Result<()> {
        let Purchase { customer, total_cents, category, .. } = self.purchase(number);
        let (at, prefix) = (self.instant(number), &self.prefix);
        write!(
            body,
            r#"{{"query":"{POSTGRAPHILE_RECORD}","variables":{{"input":{{"ext":"{prefix}{number}","cust":"c{customer}","amountMinor":"{total_cents}","category":"{category}","purchasedAt":"{at}"}}}}}}"#
        )
    }

    pub fn purchase(&self, number: u64) -> Purchase {
        let when = if self.kind == Kind::RecordNow { When::Now } else { When::Late };
        Purchase::nth(number, self.seed, self.customers, when)
    }

    /// Returns when a purchase was made.
    pub fn instant(&self, number: u64) -> jiff::Timestamp {
        if self.kind == Kind::RecordNow {
            return clock::wall();
        }
        let age = i64::try_from(self.purchase(number).age_seconds).unwrap_or_default();
        jiff::Timestamp::from_second(self.began_at - age).unwrap_or_default()
    }

    /// Returns the customer that a read is about, from 1.
    pub fn customer(&self, number: u64) -> u64 {
        1 + Random::new(self.seed ^ (number << 20)).below(self.customers)
    }

    /// Returns which of the tokens a request sends. With [`Kind::Me`], the n-th token is that of the n-th customer.
    pub fn token(&self, number: u64, tokens: usize) -> usize {
        let at = if self.kind == Kind::Me { self.customer(number) - 1 } else { number };
        usize::try_from(at).unwrap_or_default() % tokens.max(1)
    }

    /// Returns whether a response says that the operation has succeeded.
    pub fn succeeded(&self, response: &Response<'_>) -> bool {
        let expected: &[u8] = match (self.kind, self.api) {
            (Kind::RecordNow | Kind::RecordLate, Api::Windfall) => br#""userErrors":[]"#,
            (Kind::RecordNow | Kind::RecordLate, Api::Postgraphile) => br#""result":""#,
            (Kind::Me | Kind::Customer, _) => br#""available":"#,
        };
        response.status == 200 && contains(response.body, expected) && !contains(response.body, br#""errors":"#)
    }
}

/// Returns the first error code of a response, or its status.
pub fn failure(response: &Response<'_>) -> String {
    let code = find(response.body, br#""code":""#).and_then(|at| {
        let rest = &response.body[at + br#""code":""#.len()..];
        let end = rest.iter().position(|byte| *byte == b'"')?;
        std::str::from_utf8(&rest[..end]).ok()
    });
    code.map_or_else(|| format!("status {}", response.status), str::to_owned)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn operation(api: Api, kind: Kind) -> Operation {
        Operation { api, kind, customers: 20, seed: 7, prefix: "p-".to_owned(), began_at: 1_800_000_000 }
    }

    #[test]
    fn bodies_are_json() {
        for api in [Api::Windfall, Api::Postgraphile] {
            for kind in [Kind::RecordNow, Kind::RecordLate, Kind::Me, Kind::Customer] {
                let mut body = Vec::new();
                operation(api, kind).write(3, &mut body);
                let body: Value = serde_json::from_slice(&body).expect("JSON");
                assert!(body["query"].is_string(), "{body}");
            }
        }
    }

    #[test]
    fn both_servers_get_the_same_purchase() {
        let input = |api| {
            let mut body = Vec::new();
            operation(api, Kind::RecordLate).write(3, &mut body);
            serde_json::from_slice::<Value>(&body).expect("JSON")["variables"]["input"].take()
        };
        let (ours, theirs) = (input(Api::Windfall), input(Api::Postgraphile));
        assert_eq!(ours["customerExternalId"], theirs["cust"]);
        assert_eq!(ours["purchasedAt"], theirs["purchasedAt"]);
        assert_eq!(ours["total"].as_str().expect("a total").replace('.', ""), theirs["amountMinor"]);
    }

    #[test]
    fn a_failure_is_named_by_its_code() {
        let operation = operation(Api::Windfall, Kind::RecordNow);
        let response = |status, body: &'static str| Response { status, body: body.as_bytes() };
        let good = response(200, r#"{"data":{"recordPurchase":{"userErrors":[]}}}"#);
        assert!(operation.succeeded(&good));
        let shed = response(200, r#"{"errors":[{"message":"m","extensions":{"code":"OVERLOADED"}}]}"#);
        assert!(!operation.succeeded(&shed));
        assert_eq!((failure(&shed), failure(&response(502, "bad"))), ("OVERLOADED".into(), "status 502".into()));
    }
}
