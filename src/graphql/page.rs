//! Relay connections.

use std::borrow::Cow;

use async_graphql::{OutputType, SimpleObject, TypeName};

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
#[graphql(name_type)]
pub struct Edge<T: OutputType> {
    /// Opaque: pass it as `after` or `before`.
    cursor: String,
    /// What stands there.
    node: T,
}

/// A page of a list.
#[derive(Clone, SimpleObject)]
#[graphql(name_type)]
pub struct Connection<T: OutputType> {
    /// The page's nodes with their cursors.
    pub(super) edges: Vec<Edge<T>>,
    /// The page's nodes alone.
    pub(super) nodes: Vec<T>,
    /// Where the page lies.
    pub(super) page_info: PageInfo,
}

impl<T: OutputType + Clone> Connection<T> {
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

impl<T: OutputType> TypeName for Edge<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", <T as OutputType>::type_name()).into()
    }
}

impl<T: OutputType> TypeName for Connection<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Connection", <T as OutputType>::type_name()).into()
    }
}
