//! Abusive requests are refused before anything runs.

use serde_json::json;
use windfall::app::viewer::Viewer;

use crate::support::graphql::{GraphqlApp, admin};

/// A chain of fragments. `link` returns the selection of a fragment, which spreads the next one.
fn bomb(levels: usize, link: impl Fn(usize) -> String) -> String {
    let fragments: String = (0..levels).map(|n| format!("fragment F{n} on Customer{{{}}}", link(n + 1))).collect();
    format!("{{me{{...F0}}}}{fragments}fragment F{levels} on Customer{{id}}")
}

#[tokio::test]
async fn nested_literals_and_fragment_bombs_are_refused() {
    let app = GraphqlApp::sqlite().await;
    let nested = |open: &str, close: &str, levels: usize| {
        format!("{{ me(atLeastVersion: {}1{}) {{ id }} }}", open.repeat(levels), close.repeat(levels))
    };
    for query in [
        nested("[", "]", 1_542),
        nested("{a:", "}", 1_223),
        bomb(20, |next| format!("...F{next}...F{next}")),
        bomb(5, |next| format!("...F{next} ").repeat(20)),
        bomb(12, |next| format!("a:progress{{__typename}}...F{next}...F{next}")),
    ] {
        for viewer in [Viewer::Anonymous, admin()] {
            let answer = app.run(&viewer, &query, json!({})).await;
            assert_eq!(answer["errors"][0]["extensions"]["code"], "TOO_EXPENSIVE", "{}", &query[..60]);
            assert_eq!(answer.get("data"), None);
        }
    }
}

#[tokio::test]
async fn refusals_are_few_and_short() {
    let app = GraphqlApp::sqlite().await;
    let wrong: String = (0..200).map(|n| format!("{}{n} ", "nothing".repeat(40))).collect();
    for query in
        [format!("{{ {} }}", &wrong[..20_000]), "{ me { nothing } }".to_owned(), "{".to_owned(), "{ me }".to_owned()]
    {
        let answer = app.run(&admin(), &query, json!({})).await;
        let errors = answer["errors"].as_array().unwrap();
        assert!((1..=10).contains(&errors.len()), "{}", errors.len());
        for error in errors {
            assert!(error["message"].as_str().unwrap().chars().count() <= 300);
            assert!(error["extensions"]["code"].is_string());
        }
        assert_eq!(answer.get("data"), None);
    }
}
