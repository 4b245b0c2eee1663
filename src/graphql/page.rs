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
pub struct Connection<T: OutputType, E: OutputType = Edge<T>> {
    /// The items of the page, each with its cursor.
    pub(super) edges: Vec<E>,
    /// The items of the page, without cursors.
    pub(super) nodes: Vec<T>,
    /// The cursors at both ends of the page, and whether the list goes on beyond them.
    pub(super) page_info: PageInfo,
}

impl<T: OutputType + Clone> Connection<T> {
    /// Builds a page from rows. `cursor` returns the cursor of a row; `node` converts a row to its item.
    pub fn new<R>(slice: Slice<R>, cursor: impl Fn(&R) -> String, node: impl Fn(R) -> T) -> Self {
        Self::with_edges(slice, |row| {
            let (cursor, node) = (cursor(&row), node(row));
            (cursor.clone(), node.clone(), Edge { cursor, node })
        })
    }
}

impl<T: OutputType, E: OutputType> Connection<T, E> {
    /// Builds a page from rows. `convert` converts a row to its cursor, its item and its edge.
    pub fn with_edges<R>(slice: Slice<R>, convert: impl Fn(R) -> (String, T, E)) -> Self {
        let Slice { rows, has_next, has_previous } = slice;
        let (mut cursors, mut nodes, mut edges) = (Vec::new(), Vec::new(), Vec::new());
        for (cursor, node, edge) in rows.into_iter().map(convert) {
            cursors.push(cursor);
            nodes.push(node);
            edges.push(edge);
        }
        let (start_cursor, end_cursor) = (cursors.first().cloned(), cursors.last().cloned());
        let page_info = PageInfo { has_next_page: has_next, has_previous_page: has_previous, start_cursor, end_cursor };
        Self { edges, nodes, page_info }
    }
}

impl<T: OutputType> TypeName for Edge<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", <T as OutputType>::type_name()).into()
    }
}

impl<T: OutputType, E: OutputType> TypeName for Connection<T, E> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Connection", <T as OutputType>::type_name()).into()
    }
}
