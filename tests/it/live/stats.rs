//! Live updates of a campaign's statistics.

use std::time::Duration;

use serde_json::{Value, json};
use windfall::http::auth::Role;

use super::{Follower, TRANSPORTS};
use crate::support::graphql::text;
use crate::support::server::{command, token, token_for};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

const STATS: &str =
    "subscription($id: ID!) { campaignStats(id: $id) { awards customers pointsStanding pointsDeclined budgetLeft } }";

pub(super) async fn follow(transport: super::Transport, shop: &Shop, token: &str, id: &str) -> Follower {
    Follower::to(transport, shop, token, STATS, json!({ "id": id })).await
}

async fn stats(follower: &mut Follower) -> Value {
    let mut answer = follower.next().await.expect("totals");
    assert_eq!(answer.get("errors"), None, "{answer}");
    answer["data"]["campaignStats"].take()
}

fn totals(awards: usize, customers: usize, budget_left: Option<usize>) -> Value {
    json!({
        "awards": awards, "customers": customers, "pointsStanding": awards * 10, "pointsDeclined": 0,
        "budgetLeft": budget_left,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_are_told_at_once_and_as_they_move() {
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    let limited = shop.campaign(json!({ "budget": 1_000 })).await;
    let free = shop.campaign(json!({ "name": "free" })).await;
    shop.buy_many("ada", 0..3).await;
    let mut followers = Vec::new();
    for transport in TRANSPORTS {
        for (id, budget) in [(&limited, Some(1_000_usize)), (&free, None)] {
            let mut follower = follow(transport, &shop, &shop.admin, id).await;
            let left = |awards: usize| budget.map(|budget| budget - awards * 10);
            // The first totals may be up to one second old.
            while stats(&mut follower).await != totals(3, 1, left(3)) {}
            followers.push((follower, left(5)));
        }
    }
    shop.buy_many("ada", 3..4).await;
    shop.buy("bob", 0).await;
    for (follower, left) in &mut followers {
        // The two purchases may arrive as one update or as two.
        let told = stats(follower).await;
        if told != totals(5, 2, *left) {
            assert_eq!((&told["awards"], &told["customers"]), (&json!(4), &json!(1)));
            assert_eq!(stats(follower).await, totals(5, 2, *left));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_for_admins_and_of_campaigns_that_exist() {
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    let id = shop.campaign(json!({})).await;
    let gone = {
        let create = "mutation($id: ID!) { cloneCampaign(id: $id, name: \"copy\") { campaign { id } } }";
        let made = shop.data(&shop.admin, create, json!({ "id": id })).await;
        let id = text(&made["cloneCampaign"]["campaign"]["id"]);
        let delete = "mutation($id: ID!) { deleteCampaign(id: $id) { deletedId } }";
        assert_eq!(shop.data(&shop.admin, delete, json!({ "id": id })).await["deleteCampaign"]["deletedId"], *id);
        id
    };
    for transport in TRANSPORTS {
        for (token, id, code) in [
            (&shop.storefront, &id, "FORBIDDEN"),
            (&token(Role::Customer, "ada"), &id, "FORBIDDEN"),
            (&shop.admin, &gone, "NOT_FOUND"),
            (&shop.admin, &"nonsense".to_owned(), "NOT_FOUND"),
        ] {
            assert_eq!(follow(transport, &shop, token, id).await.ending().await.0, code, "{transport:?} {id}");
        }
    }
}

/// The limit holds however often points change. Each measurement lasts as long as a token is valid, by the server's clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_told_about_once_a_second_at_most() {
    let sqlite = Sqlite::new();
    let shop = Shop::open_with(command(&sqlite.url()).env("WINDFALL__AUTH__LEEWAY_SECONDS", "0")).await;
    let id = shop.campaign(json!({})).await;
    let seconds = 4;
    for (transport, customer) in TRANSPORTS.into_iter().zip(["ada", "bob"]) {
        let token = token_for(Role::Admin, "eve", Duration::from_secs(seconds));
        let mut follower = follow(transport, &shop, &token, &id).await;
        let mut bought = 0;
        let mut answers = std::pin::pin!(async {
            let (mut told, mut last) = (0, Value::Null);
            loop {
                let mut answer = follower.next().await.expect("the error before the end");
                if answer.get("errors").is_some() {
                    return (told, super::ended_with(&answer).0);
                }
                let totals = answer["data"]["campaignStats"].take();
                assert_ne!(totals, last, "an update without a change");
                last = totals;
                told += 1;
            }
        });
        let (told, code) = loop {
            tokio::select! {
                ended = &mut answers => break ended,
                () = shop.buy(customer, bought) => bought += 1,
            }
        };
        assert_eq!(code, "UNAUTHENTICATED");
        assert!(told >= 2 && told <= seconds + 2, "{told} updates in {seconds} s, {bought} purchases");
        assert!(bought > 10, "only {bought} purchases");
    }
}
