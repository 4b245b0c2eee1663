//! Relay connections: pages of lists, with cursors.

use std::borrow::Cow;

use async_graphql::{OutputType, SimpleObject, TypeName};

use crate::app::reading::page::Slice;

/// The position of a page in its list.
#[derive(Clone, Debug, SimpleObject)]
pub struct PageInfo {
    /// Whether the list goes on after this page. Always true if `before` is given.
    has_next_page: bool,
    /// Whether the list has items before this page. Always true if `after` is given.
    has_previous_page: bool,
    /// The cursor of the first item of the page. Null if the page is empty.
    start_cursor: Option<String>,
    /// The cursor of the last item of the page. Null if the page is empty.
    end_cursor: Option<String>,
}

/// An item of a list, with its cursor.
#[derive(Clone, SimpleObject)]
#[graphql(name_type)]
pub struct Edge<T: OutputType> {
    /// An opaque cursor for the position of this item. Pass it as `after` or `before` to the same list.
    cursor: String,
    /// The item at this position.
    node: T,
}

/// A page of a list. `first` and `after` page forward, `last` and `before` page backward; the order of the items is the
/// same. The error is `BAD_USER_INPUT` if both `first` and `last` are given, if one of them is not from 0 to 100, or if
/// a cursor belongs to another list.
#[derive(Clone, SimpleObject)]
#[graphql(name_type)]
pub struct Connection<T: OutputType> {
    /// The items of the page, each with its cursor.
    pub(super) edges: Vec<Edge<T>>,
    /// The items of the page, without cursors.
    pub(super) nodes: Vec<T>,
    /// The cursors at both ends of the page, and whether the list goes on beyond them.
    pub(super) page_info: PageInfo,
}

impl<T: OutputType + Clone> Connection<T> {
    /// Builds a page from rows. `cursor` returns the cursor of a row; `node` converts a row to its item.
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
