//! An audit runs as a process of its own, on a database that a server writes to at the same time.

use std::process::Stdio;

use serde_json::json;
use windfall::http::auth::Role;

use crate::support::app::{ENGINES, scratch};
use crate::support::server::{command, ended, run, token};
use crate::support::shop::{BALANCE, Shop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_runs_beside_a_server_on_the_same_database() {
    for engine in ENGINES {
        let (url, _sqlite) = scratch(engine).await;
        let shop = Shop::open(&url).await;
        shop.campaign(json!({ "name": "limited", "budget": 200 })).await;
        shop.buy_many("ada", 0..100).await;
        let mut bought = 100;
        // The second audit begins with what was recorded during the first.
        for _ in 0..2 {
            let audit = command(&url).arg("audit").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            let mut audit = audit.unwrap();
            let before = bought;
            while audit.try_wait().unwrap().is_none() || bought < before + 10 {
                shop.buy("ada", bought).await;
                shop.buy("bob", bought).await;
                bought += 1;
            }
            let ran = ended(audit.wait_with_output().unwrap());
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{engine:?}: {ran:?}");
            assert!(ran.stdout.ends_with(" customers, 0 differences, 0 customers repaired\n"), "{engine:?}: {ran:?}");
        }
        let mine = shop.data(&token(Role::Customer, "bob"), BALANCE, json!({})).await;
        assert_eq!(mine["me"]["balance"]["version"], bought - 100, "{engine:?}");
        assert!(shop.server.terminate().success());
        let ran = run(command(&url).arg("audit"));
        assert_eq!(ran.stdout, "2 customers, 0 differences, 0 customers repaired\n", "{engine:?}: {ran:?}");
    }
}
