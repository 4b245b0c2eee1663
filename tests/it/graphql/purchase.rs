//! Recording purchases, and reading them.

use serde_json::json;
use windfall::app::viewer::Viewer;

use crate::support::app::{TestApp, customer, on_both};

on_both! {
    async fn a_purchase_awards_what_it_reaches(app: &TestApp) {
        app.campaign(json!({})).await;
        app.purchase("p1", "ada", "2026-11-02T10:00:00Z", "5").await;
        app.purchase("p2", "ada", "2026-11-02T10:10:00Z", "5").await;
        let third = app.purchase("p3", "ada", "2026-11-02T10:20:00Z", "5.50").await;
        assert_eq!(third["awards"][0]["points"], 10);
        assert_eq!(third["balance"]["available"], 10);
        assert_eq!(third["balance"]["version"], 3);
        let me = "{ me { externalId balance { available pending lifetime version } \
            progress { state unit current target awardsEarned awardsLeft } \
            awards { nodes { points status purchases { nodes { externalId } } } } } }";
        let answer = app.data(&customer("ada"), me, json!({})).await;
        assert_eq!(answer["me"], json!({
            "externalId": "ada",
            "balance": { "available": 10, "pending": 0, "lifetime": 10, "version": 3 },
            "progress": [{
                "state": "IN_PROGRESS", "unit": "PURCHASES", "current": "0", "target": "3", "awardsEarned": 1,
                "awardsLeft": null,
            }],
            "awards": { "nodes": [{
                "points": 10, "status": "STANDING",
                "purchases": { "nodes": [{ "externalId": "p1" }, { "externalId": "p2" }, { "externalId": "p3" }] },
            }] },
        }));
        let _ = Viewer::Admin;
    }
}
