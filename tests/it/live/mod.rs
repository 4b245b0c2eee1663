//! Live updates of points and statistics, over WebSocket and server-sent events. Whatever is cut off, slow, late or restarted
//! on the way, a follower that continues from its last cursor gets the customer's whole ledger, in order and once.

mod backlog;
mod clock;
mod cursor;
mod elsewhere;
mod end;
mod feed;
mod handover;
mod limit;
mod nodes;
mod progress;
mod reconnect;
mod rewound;
mod silent;
mod stats;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use crate::support::events::{Event, Events};
use crate::support::graphql::text;
use crate::support::server::token;
use crate::support::shop::Shop;
use crate::support::websocket::Socket;

const UPDATES: &str = "subscription($customer: String, $after: String) { \
    pointsUpdated(customerExternalId: $customer, after: $after) { cursor change \
    entries { sequence kind points balanceAfter customer { externalId balance { version available } } } \
    balance { available pending lifetime version cursor } \
    customer { externalId balance { available pending lifetime version cursor } } \
    progress { current target awardsEarned campaign { name } } } }";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    Events,
}

pub(crate) const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::Events];

/// One subscription, over either transport.
pub(crate) enum Follower {
    Socket(Box<Socket>),
    Events(Events),
}

impl Follower {
    /// Follows a customer with its own token.
    pub(crate) async fn of(transport: Transport, shop: &Shop, customer: &str, after: Option<&str>) -> Self {
        Self::with(transport, shop, &token(Role::Customer, customer), json!({ "after": after })).await
    }

    async fn with(transport: Transport, shop: &Shop, token: &str, variables: Value) -> Self {
        Self::to(transport, shop, token, UPDATES, variables).await
    }

    pub(crate) async fn to(transport: Transport, shop: &Shop, token: &str, query: &str, variables: Value) -> Self {
        match transport {
            Transport::WebSocket => {
                let mut socket = Socket::open(shop.address(), token).await;
                socket.subscribe("1", query, variables).await;
                Self::Socket(Box::new(socket))
            }
            Transport::Events => {
                Self::Events(Events::open(&shop.client, shop.address(), token, query, &variables).await)
            }
        }
    }

    /// Returns the next response, or `None` if the stream is complete.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        match self {
            Self::Socket(socket) => {
                let mut message = socket.message().await;
                match message["type"].as_str() {
                    Some("next") => Some(message["payload"].take()),
                    Some("complete") => None,
                    _ => panic!("an unexpected message: {message}"),
                }
            }
            Self::Events(events) => match events.next().await {
                Event::Next(answer) => Some(answer),
                Event::Complete => None,
                Event::Ended => panic!("the stream ended without `complete`"),
            },
        }
    }

    /// Returns the next response, which must be an update of points.
    pub(crate) async fn update(&mut self) -> Value {
        let mut answer = self.next().await.expect("an update");
        assert_eq!(answer.get("errors"), None, "{answer}");
        answer["data"]["pointsUpdated"].take()
    }

    /// Reads the error that ends the stream. Returns its code and the cursor to continue from.
    pub(crate) async fn ending(&mut self) -> (String, Option<String>) {
        let answer = self.next().await.expect("the error before the end");
        assert_eq!(self.next().await, None, "{answer}");
        ended_with(&answer)
    }
}

/// Returns the code and the cursor of a response that has an error and no data.
fn ended_with(answer: &Value) -> (String, Option<String>) {
    assert!(answer["data"].is_null(), "{answer}");
    let extensions = &answer["errors"][0]["extensions"];
    (text(&extensions["code"]), extensions["cursor"].as_str().map(str::to_owned))
}

/// Everything that the follower of a customer received, over any number of connections.
#[derive(Debug, Default)]
struct Told {
    entries: Vec<Value>,
    /// The cursor of the last update.
    cursor: Option<String>,
    balance: Value,
}

impl Told {
    /// A follower that has received nothing yet and begins after this cursor.
    fn after(cursor: String) -> Self {
        Self { cursor: Some(cursor), ..Self::default() }
    }

    /// Adds an update, which must be consistent in itself and with the earlier ones.
    fn hear(&mut self, mut update: Value) {
        let mut entries = update["entries"].as_array_mut().expect("a list").split_off(0);
        let (customer, balance) = (&update["customer"], &update["balance"]);
        assert_eq!(&customer["balance"], balance, "{update}");
        let balance = json!({ "version": balance["version"], "available": balance["available"] });
        for entry in &mut entries {
            let whose = entry.as_object_mut().and_then(|entry| entry.remove("customer"));
            assert_eq!(whose, Some(json!({ "externalId": customer["externalId"], "balance": balance })), "{update}");
        }
        let change: i64 = entries.iter().map(|entry| entry["points"].as_i64().expect("points")).sum();
        assert_eq!(update["change"], change, "{update}");
        let version = |balance: &Value| balance["version"].as_i64().unwrap_or(0);
        assert!(version(&update["balance"]) >= version(&self.balance), "{update} after {}", self.balance);
        self.entries.extend(entries);
        self.cursor = Some(update["cursor"].as_str().expect("a cursor").to_owned());
        self.balance = update["balance"].take();
    }

    /// Adds updates of a follower until there are as many entries as in the ledger.
    async fn hear_all(&mut self, follower: &mut Follower, ledger: &[Value]) {
        while self.entries.len() < ledger.len() {
            self.hear(follower.update().await);
        }
    }

    /// Asserts that no entry is missing, that none came twice, and that the last balance is the current one.
    async fn is_all_of(&self, shop: &Shop, customer: &str) {
        let ledger = entries(shop, customer).await;
        self.is(&ledger);
        assert_eq!(self.balance, shop.balance(customer).await);
        assert_eq!(Some(self.balance["cursor"].as_str().expect("a cursor")), self.cursor.as_deref());
    }

    #[track_caller]
    fn is(&self, ledger: &[Value]) {
        let sequences: Vec<i64> = self.entries.iter().filter_map(|entry| entry["sequence"].as_i64()).collect();
        let count = i64::try_from(ledger.len()).unwrap();
        assert_eq!(sequences, (1..=count).collect::<Vec<i64>>());
        assert_eq!(self.entries, ledger);
    }
}

/// Returns the customer's ledger, with the oldest entry first.
async fn entries(shop: &Shop, customer: &str) -> Vec<Value> {
    shop.ledger(customer).await.into_iter().map(|(_, entry)| entry).collect()
}
