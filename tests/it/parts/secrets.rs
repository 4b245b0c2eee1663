//! Secrets in files, and the rotation of the secret that signs tokens.

use std::fs;
use std::path::Path;

use serde_json::json;
use windfall::http::auth::Role;

use crate::support::server::{SECRET, ask, command, run, token_by};
use crate::support::shop::{BALANCE, Shop};
use crate::support::sqlite::Sqlite;

const OLD: &str = SECRET;
const NEW: &str = "the next secret of this test, with more than 32 bytes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_reads_its_secrets_from_files() {
    let (sqlite, files) = (Sqlite::new(), tempfile::tempdir().unwrap());
    let (url, secret) = (files.path().join("url"), files.path().join("secret"));
    fs::write(&url, sqlite.url() + "\n").unwrap();
    fs::write(&secret, SECRET.to_owned() + "\r\n").unwrap();
    let with_files = || {
        let mut command = command("");
        command.env_remove("WINDFALL__DATABASE__URL").env_remove("WINDFALL__AUTH__HS256_SECRET");
        command.env("WINDFALL__DATABASE__URL_FILE", &url).env("WINDFALL__AUTH__HS256_SECRET_FILE", &secret);
        command
    };
    let shop = Shop::open_with(&mut with_files()).await;
    shop.campaign(json!({})).await;
    shop.buy("ada", 0).await;
    assert_eq!(shop.balance("ada").await["available"], json!(10));
    assert!(shop.server.terminate().success());
    assert_eq!(run(with_files().arg("audit")).stdout, "1 customers, 0 differences, 0 customers repaired\n");

    let refused = |command: &mut std::process::Command, words: &[&str]| {
        let ran = run(command.arg("serve"));
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{words:?}: {ran:?}");
        assert!(!ran.stderr.contains(SECRET) && !ran.stderr.contains(&sqlite.url()), "{ran:?}");
    };
    refused(
        with_files().env("WINDFALL__AUTH__HS256_SECRET", SECRET),
        &["WINDFALL__AUTH__HS256_SECRET)", "WINDFALL__AUTH__HS256_SECRET_FILE)", "must not both be set"],
    );
    // A secret in the place of its path is not shown either.
    refused(
        with_files().env("WINDFALL__AUTH__HS256_SECRET_FILE", SECRET),
        &["WINDFALL__AUTH__HS256_SECRET_FILE", "cannot be read"],
    );
}

/// The secrets are replaced as the operator's guide says, node by node. Every token that is valid at some time of the rotation
/// is accepted by all nodes at that time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_replaced_node_by_node() {
    let sqlite = Sqlite::new();
    let files = tempfile::tempdir().unwrap();
    let (current, previous) = (files.path().join("current"), files.path().join("previous"));
    let (of_old, of_new) = (token_by(OLD, Role::Customer, "ada"), token_by(NEW, Role::Customer, "ada"));
    for (step, [now, before], accepted) in [
        ("before", [OLD, ""], [true, false]),
        ("all nodes learn the new secret", [OLD, NEW], [true, true]),
        ("all nodes sign with the new secret", [NEW, OLD], [true, true]),
        ("the tokens of the old secret have expired", [NEW, ""], [false, true]),
    ] {
        fs::write(&current, now).unwrap();
        fs::write(&previous, before).unwrap();
        let configured = || {
            let mut command = command(&sqlite.url());
            command.env_remove("WINDFALL__AUTH__HS256_SECRET").env("WINDFALL__AUTH__HS256_SECRET_FILE", &current);
            let name = "WINDFALL__AUTH__HS256_SECRET_PREVIOUS_FILE";
            command.env(name, if before.is_empty() { Path::new("") } else { &previous });
            command
        };
        let shop = Shop::open_with(&mut configured()).await;
        // The second time, the node remembers the token.
        for _ in 0..2 {
            for (token, accepted) in [&of_old, &of_new].into_iter().zip(accepted) {
                let answer = ask(&shop.client, shop.address(), token, BALANCE, json!({})).await.unwrap();
                assert_eq!(answer.get("errors").is_none(), accepted, "{step}: {answer}");
            }
        }
        // New tokens are signed with the current secret.
        let minted = run(configured().args(["token", "--role", "customer", "--sub", "ada"]));
        let signed_by = |secret: &str| minted_by(secret, minted.stdout.trim());
        assert!(signed_by(now), "{step}: {minted:?}");
        assert!(shop.server.terminate().success());
    }
}

/// Whether a token has been signed with this secret.
fn minted_by(secret: &str, token: &str) -> bool {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["windfall"]);
    decode::<serde_json::Value>(token, &DecodingKey::from_secret(secret.as_bytes()), &validation).is_ok()
}
