//! What each attack costs the server, and whether honest clients are served in the meantime.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use windfall::http::auth::Role;

use super::attack::Attack;
use super::corpus;
use crate::support::app::cases;
use crate::support::process::{cpu, resident_bytes};
use crate::support::server::{other_build, token};
use crate::support::shop::Shop;
use crate::support::sqlite::Sqlite;

/// The price of an attack is the mean over this many, because the CPU clock of a process is coarse.
const REPEATED: usize = 50;
/// The highest price of an attack, in small honest queries on the same server. The ratio is about the same for builds with
/// and without optimisation.
const MAX_PRICE: f64 = 30.0;
/// What the price may rise for each MiB that an attack sends, because the server must receive and read it.
const MAX_PRICE_PER_MIB: f64 = 80.0;
/// The highest CPU time of an attack on an optimised build, in seconds. It is checked when `WINDFALL_BINARY` is set, for
/// example to `target/dist/windfall`.
const MAX_SECONDS: f64 = 0.010;
/// The limit on memory growth over [`REPEATED`] attacks.
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
            // Warms up what is loaded once, and the memory that the allocator keeps ready.
            let mut numbers = 10;
            repeat(&shop, &attack, carrier, 0..numbers).await;
            // A leak grows each time, but memory that the allocator moves between threads does not. So the lowest figures count.
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
                "{carrier}: {name}: {:.1} ms, {ratio:.1} honest queries; {} KiB more resident",
                price * 1_000.0,
                growth / 1_024
            );
            #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
            let bound = MAX_PRICE + MAX_PRICE_PER_MIB * attack.bytes() as f64 / f64::from(1 << 20);
            let slow = other_build().is_some() && price >= MAX_SECONDS;
            if slow || ratio >= bound || growth >= MAX_GROWTH_BYTES {
                too_dear
                    .push(format!("{carrier}: {name}: {price} s, {ratio} of {bound} honest queries, {growth} bytes"));
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
    println!("{answered} honest purchases in the meantime");
    assert!(Arc::into_inner(shop).expect("all attackers have ended").server.terminate().success());
}
