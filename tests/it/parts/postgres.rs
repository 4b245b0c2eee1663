//! PostgreSQL with TLS, and with a password that changes while nodes run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;
use windfall::http::auth::Role;

use super::{persist, rows, run_sql};
use crate::support::certificates::Authority;
use crate::support::node::node;
use crate::support::postgres::Postgres;
use crate::support::server::{ask, command, run, token};
use crate::support::shop::{BALANCE, Shop};

const RECORD: &str = "mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { userErrors { code } } }";

/// The same database as the user `shop`, who owns it.
async fn owned_by_shop(postgres: &Postgres, password: &str) -> String {
    let url = postgres.create_database().await;
    let name = url.rsplit('/').next().unwrap();
    run_sql(&url, &format!("CREATE ROLE shop LOGIN PASSWORD '{password}'; ALTER DATABASE {name} OWNER TO shop")).await;
    url
}

fn set_access(data: &Path, rules: &str) {
    fs::write(data.join("pg_hba.conf"), format!("host all windfall 127.0.0.1/32 trust\n{rules}\n")).unwrap();
}

/// With `sslmode=verify-full`, a node connects only to a server that its own authority has certified by this name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_s_certificate_is_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = authority.sign("IP:127.0.0.1");
    let postgres = Postgres::start_prepared(|data| {
        fs::copy(&own.certificate, data.join("server.crt")).unwrap();
        fs::copy(&own.key, data.join("server.key")).unwrap();
        fs::set_permissions(data.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let settings = fs::File::options().append(true).open(data.join("postgresql.conf")).unwrap();
        std::io::Write::write_all(&mut &settings, b"ssl = on\n").unwrap();
        set_access(data, "hostssl all shop all trust");
    });
    let plain = owned_by_shop(&postgres, "unused").await;
    let with = |host: &str, options: &str| plain.replace("windfall@127.0.0.1", &format!("shop@{host}")) + "?" + options;
    let verified =
        |authority: &Authority| format!("sslmode=verify-full&sslrootcert={}", authority.certificate().display());
    let shop = node(&with("127.0.0.1", &verified(&authority)), None, &[]).await;
    shop.campaign(json!({})).await;
    shop.buy("ada", 0).await;
    assert_eq!(shop.balance("ada").await["available"], json!(10));
    let sessions = rows(
        &plain,
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'windfall'",
    )
    .await;
    assert!(!sessions.is_empty() && sessions.iter().all(|row| row.try_get_by_index(0).unwrap()));

    for (url, problem) in [
        (with("127.0.0.1", &verified(&stranger)), "UnknownIssuer"),
        (with("127.0.0.1", "sslmode=verify-full"), "UnknownIssuer"),
        (with("localhost", &verified(&authority)), "not valid for name"),
        (with("127.0.0.1", "sslmode=disable"), "pg_hba.conf"),
    ] {
        let refused = run(command(&url).arg("audit"));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(problem) && refused.stderr.contains("`database.url`"), "{refused:?}");
    }
}

fn purchase(number: usize) -> serde_json::Value {
    json!({ "input": {
        "externalId": format!("p-{number}"), "customerExternalId": "ada", "purchasedAt": "2020-01-01T12:00:00Z",
        "total": "5.00", "currency": "EUR",
    }})
}

/// Records a purchase. A node whose connections were closed asks its caller to try again.
async fn buys(shop: &Shop, number: usize) {
    persist(async || ask(&shop.client, shop.address(), &shop.storefront, RECORD, purchase(number)).await).await;
}

/// Puts a new content in the place of a file at once, as those who mount secrets do.
fn replace(file: &Path, content: &str) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, file).unwrap();
}

/// The password changes, and all connections are closed. Nodes go on with the new password from their files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changes_without_a_restart() {
    let postgres = Postgres::start_prepared(|data| set_access(data, "host all shop 127.0.0.1/32 scram-sha-256"));
    let plain = owned_by_shop(&postgres, "one").await;
    let as_shop = |login: &str| plain.replace("windfall@", &format!("{login}@"));
    let files = tempfile::tempdir().unwrap();
    let (password, url) = (files.path().join("password"), files.path().join("url"));
    fs::write(&password, "one\n").unwrap();
    fs::write(&url, as_shop("shop:one") + "\n").unwrap();

    let by_password =
        node(&as_shop("shop"), None, &[("WINDFALL__DATABASE__PASSWORD_FILE", password.to_str().unwrap())]).await;
    let mut by_url = command("");
    by_url.env_remove("WINDFALL__DATABASE__URL").env("WINDFALL__DATABASE__URL_FILE", &url);
    let by_url = Shop::open_with(by_url.env("WINDFALL__LOG__FILTER", "error")).await;
    by_password.campaign(json!({})).await;
    let end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'";
    let mut number = 0;
    for next in ["two", "three/:@ü"] {
        for shop in [&by_password, &by_url] {
            buys(shop, number).await;
            number += 1;
        }
        run_sql(&plain, &format!("ALTER ROLE shop PASSWORD '{next}'")).await;
        rows(&plain, end_sessions).await;
        // With the old password, no connection opens.
        let me = token(Role::Customer, "ada");
        for shop in [&by_password, &by_url] {
            let refused = loop {
                // A connection that was just closed fails first in another way.
                let answer = ask(&shop.client, shop.address(), &me, BALANCE, json!({})).await.unwrap();
                if answer.get("errors").is_some() {
                    break answer;
                }
            };
            assert_eq!(refused["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{refused}");
        }
        replace(&password, next);
        let encoded: String = next.bytes().map(|byte| format!("%{byte:02x}")).collect();
        replace(&url, &as_shop(&format!("shop:{encoded}")));
    }
    for shop in [&by_password, &by_url] {
        buys(shop, number).await;
        number += 1;
    }
    assert_eq!(by_url.balance("ada").await["available"], json!(10 * number));
    for shop in [by_password, by_url] {
        assert!(shop.server.terminate().success());
    }
}
