//! The engine and the oracle agree on eligible amounts, reached awards and evidence when the whole history is folded.

use std::collections::BTreeMap;

use windfall::engine::award::Reached;
use windfall::engine::evidence::evidence;
use windfall::engine::purchase::{Key, Rounding};
use windfall::engine::rule::{Campaign, Eligible};

use super::store::whole;
use super::{Owned, convert, each_case};
use crate::oracle::generate::case;
use crate::oracle::{self, Purchase};

pub(super) fn eligible(campaign: Campaign<'_>, purchases: &[Purchase]) -> BTreeMap<Key, Eligible> {
    let eligible = purchases.iter().filter_map(|p| campaign.eligible(&convert::purchase(p)));
    eligible.map(|eligible| (eligible.key.clone(), eligible)).collect()
}

#[test]
fn net_amounts_and_eligible_ones_agree() {
    each_case(400, &case(), |case| {
        let c = &case.campaign;
        let owned = Owned::new(c);
        let eligible = eligible(owned.campaign(), &case.purchases);
        let grouped = |id: &String| match c.window {
            // The oracle excludes purchases outside every occurrence when it groups them, not when it decides what is
            // eligible.
            oracle::Window::Recurring { .. } => {
                oracle::reached::groups(c, &oracle::reached::eligible(c, &case.purchases))
                    .iter()
                    .any(|group| group.purchases.iter().any(|p| p.external_id == *id))
            }
            _ => true,
        };
        let expected: Vec<(String, i64, i64, i64, Vec<String>)> = oracle::reached::eligible(c, &case.purchases)
            .into_iter()
            .filter(|p| grouped(&p.external_id))
            .map(|p| {
                let kinds = matches!(c.goal, oracle::Goal::Distinct { .. }).then_some(p.kinds);
                let adds = match c.goal {
                    oracle::Goal::Spend { .. } => p.amount,
                    oracle::Goal::Units { .. } => p.units,
                    _ => 0,
                };
                (p.external_id, p.amount, p.points, adds, kinds.into_iter().flatten().collect())
            })
            .collect();
        let found: Vec<(String, i64, i64, i64, Vec<String>)> =
            eligible.into_values().map(|p| (p.key.external_id, p.amount, p.points, p.adds, p.items)).collect();
        assert_eq!(found, expected);
        for p in &case.purchases {
            let converted = convert::purchase(p);
            assert_eq!(converted.net(), oracle::reached::net(p));
            assert_eq!(converted.net_lines(Rounding::Down), oracle::reached::line_nets(p));
        }
    });
}

#[test]
fn a_whole_fold_reaches_what_the_oracle_reaches() {
    each_case(1500, &case(), |case| {
        let owned = Owned::new(&case.campaign);
        let campaign = owned.campaign();
        let eligible = eligible(campaign, &case.purchases);
        let awards = whole(campaign, &eligible).awards;
        let expected = oracle::reached::reached(&case.campaign, &case.purchases);
        let as_reached: Vec<Reached> =
            expected.iter().map(|award| convert::reached(&case.campaign, award, &case.purchases)).collect();
        assert_eq!(awards, as_reached);
        for (award, expected) in awards.iter().zip(&expected) {
            let range: Vec<Eligible> =
                eligible.range(&award.evidence_from..=&award.by).map(|(_, eligible)| eligible.clone()).collect();
            let found = evidence(campaign, &award.evidence_from, &award.by, &range);
            let found: Vec<&str> = found.into_iter().map(|p| p.key.external_id.as_str()).collect();
            assert_eq!(found, expected.evidence);
        }
    });
}
