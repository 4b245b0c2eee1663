//! What each attack costs the server, and what those notice who ask honestly meanwhile.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use windfall::http::auth::Role;

use super::attack::Attack;
use super::corpus;
use crate::support::direct::cases;
use crate::support::process::{cpu, resident_bytes};
use crate::support::server::{other_build, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

/// Attacks of which the price is the mean: the clock of processes is coarse.
const REPEATED: usize = 50;
/// What an attack may cost, in small honest queries on the same server: a build that is not optimised computes many times
/// as long as one that is, for both.
const MAX_PRICE: f64 = 30.0;
/// And for each MiB that it sends, which must be received and read.
const MAX_PRICE_PER_MIB: f64 = 80.0;
/// What an attack may cost an optimised build, in seconds: with WINDFALL_BINARY=target/release/windfall this test measures that.
const MAX_SECONDS: f64 = 0.010;
/// What may stay after so many attacks.
const MAX_GROWTH_BYTES: u64 = 1 << 20;

async fn ask(shop: &Shop, token: &str) {
    let data = shop.data(token, "{ me { externalId } }", json!({})).await;
    assert_eq!(data["me"]["externalId"], "ada");
}

async fn repeat(shop: &Shop, attack: &Attack, carrier: &str, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(attack.send(shop, number).await, attack.expected, "{carrier}: {}", attack.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_refused_at_a_small_price() {
    let sqlite = Sqlite::new();
    let shop = Shop::open(&sqlite.url()).await;
    let (pid, ada) = (shop.server.pid(), token(Role::Customer, "ada"));
    let per = |spent: Duration, times: usize| spent.as_secs_f64() / f64::from(u32::try_from(times).unwrap());
    let asked = cases(1_000, 5_000);
    let spent = cpu(pid);
    for _ in 0..asked {
        ask(&shop, &ada).await;
    }
    let honest = per(cpu(pid) - spent, asked);
    println!("an honest query: {:.2} ms", honest * 1_000.0);
    let mut too_dear = Vec::new();
    for (carrier, attacks) in corpus::all() {
        for attack in attacks {
            // So that what is loaded once, and what the allocator holds ready, is there.
            let mut numbers = 10;
            repeat(&shop, &attack, carrier, 0..numbers).await;
            // What stays grows each time; what the allocator moves between threads does not.
            let (mut price, mut growth) = (f64::MAX, u64::MAX);
            for _ in 0..10 {
                let (spent, held) = (cpu(pid), resident_bytes(pid));
                repeat(&shop, &attack, carrier, numbers..numbers + REPEATED).await;
                numbers += REPEATED;
                price = price.min(per(cpu(pid) - spent, REPEATED));
                growth = growth.min(resident_bytes(pid).saturating_sub(held));
                if growth < MAX_GROWTH_BYTES {
                    break;
                }
            }
            let (name, ratio) = (attack.name, price / honest);
            println!(
                "{carrier}: {name}: {:.1} ms, {ratio:.1} honest ones; {} KiB stay",
                price * 1_000.0,
                growth / 1_024
            );
            #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
            let bound = MAX_PRICE + MAX_PRICE_PER_MIB * attack.bytes() as f64 / f64::from(1 << 20);
            let slow = other_build().is_some() && price >= MAX_SECONDS;
            if slow || ratio >= bound || growth >= MAX_GROWTH_BYTES {
                too_dear
                    .push(format!("{carrier}: {name}: {price} s, {ratio} honest queries of {bound}, {growth} bytes"));
            }
        }
    }
    assert!(too_dear.is_empty(), "{too_dear:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_clients_are_answered_meanwhile() {
    const ATTACKERS: usize = 4;
    let sqlite = Sqlite::new();
    let shop = Arc::new(Shop::open(&sqlite.url()).await);
    let mut attackers = JoinSet::new();
    for attacker in 0..ATTACKERS {
        let shop = Arc::clone(&shop);
        attackers.spawn(async move {
            for round in 0..cases(2, 20) {
                for (carrier, attacks) in corpus::all() {
                    for attack in attacks {
                        let number = round * ATTACKERS + attacker;
                        repeat(&shop, &attack, carrier, number..number + 1).await;
                    }
                }
            }
        });
    }
    let ada = token(Role::Customer, "ada");
    let mut answered = 0;
    while !attackers.is_empty() {
        shop.buy("ada", answered).await;
        ask(&shop, &ada).await;
        answered += 1;
        while let Some(ended) = attackers.try_join_next() {
            ended.unwrap();
        }
    }
    assert!(answered > 10, "{answered}");
    println!("{answered} honest purchases meanwhile");
    assert!(Arc::into_inner(shop).expect("nobody else has it").server.terminate().success());
}
