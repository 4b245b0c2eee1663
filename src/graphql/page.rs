//! Relay connections.

use async_graphql::{OutputType, SimpleObject};

use super::award::Award;
use super::campaign::Campaign;
use super::customer::Customer;
use super::ledger::LedgerEntry;
use super::purchase::Purchase;
use super::scalar::Count;
use crate::app::reading::page::Slice;

/// Where a page lies in its list.
#[derive(Clone, Debug, SimpleObject)]
pub struct PageInfo {
    /// Whether more follows after this page.
    has_next_page: bool,
    /// Whether more lies before this page.
    has_previous_page: bool,
    /// Of the page's first edge; null: the page is empty.
    start_cursor: Option<String>,
    /// Of the page's last edge; null: the page is empty.
    end_cursor: Option<String>,
}

/// A node and its place in the list.
#[derive(Clone, SimpleObject)]
#[graphql(
    concrete(name = "CustomerEdge", params(Customer)),
    concrete(name = "CampaignEdge", params(Campaign)),
    concrete(name = "AwardEdge", params(Award)),
    concrete(name = "LedgerEntryEdge", params(LedgerEntry)),
    concrete(name = "PurchaseEdge", params(Purchase))
)]
pub struct Edge<T: OutputType> {
    /// Opaque: pass it as `after` or `before`.
    cursor: String,
    /// What stands there.
    node: T,
}

/// A page of a list.
#[derive(Clone, SimpleObject)]
#[graphql(
    concrete(name = "CustomerConnection", params(Customer)),
    concrete(name = "AwardConnection", params(Award)),
    concrete(name = "LedgerEntryConnection", params(LedgerEntry)),
    concrete(name = "PurchaseConnection", params(Purchase))
)]
pub struct Connection<T>
where
    T: OutputType,
    Edge<T>: OutputType,
{
    /// The page's nodes with their cursors.
    edges: Vec<Edge<T>>,
    /// The page's nodes alone.
    nodes: Vec<T>,
    /// Where the page lies.
    page_info: PageInfo,
}

/// A page of the campaigns.
#[derive(Clone, SimpleObject)]
pub struct CampaignConnection {
    /// The page's campaigns with their cursors.
    edges: Vec<Edge<Campaign>>,
    /// The page's campaigns alone.
    nodes: Vec<Campaign>,
    /// Where the page lies.
    page_info: PageInfo,
    /// Campaigns in the whole list.
    total_count: Count,
}

impl<T> Connection<T>
where
    T: OutputType + Clone,
    Edge<T>: OutputType,
{
    /// A page whose rows have these cursors and become these nodes.
    pub fn new<R>(slice: Slice<R>, cursor: impl Fn(&R) -> String, node: impl Fn(R) -> T) -> Self {
        let edges: Vec<Edge<T>> =
            slice.rows.into_iter().map(|row| Edge { cursor: cursor(&row), node: node(row) }).collect();
        let page_info = PageInfo {
            has_next_page: slice.has_next,
            has_previous_page: slice.has_previous,
            start_cursor: edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: edges.last().map(|edge| edge.cursor.clone()),
        };
        let nodes = edges.iter().map(|edge| edge.node.clone()).collect();
        Self { edges, nodes, page_info }
    }
}

impl CampaignConnection {
    /// A page, and how many campaigns there are in all.
    pub fn new(page: Connection<Campaign>, total_count: Count) -> Self {
        let Connection { edges, nodes, page_info } = page;
        Self { edges, nodes, page_info, total_count }
    }
}
