//! Reads the contents of purchases: every revision that was recorded, the highest first.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{purchase, purchase_revision};

use crate::app::App;
use crate::app::customer::by_ids;
use crate::app::error::Error;
use crate::app::reading::page::{List, Page, Part, Position, Slice};
use crate::app::rows::Kind;
use crate::app::stored::history::{LEFT_OUT, TakenBack, load_lines};
use crate::app::stored::purchase_revision::{currency, of_purchase};
use crate::engine::money::Currency;
use crate::engine::purchase::{Line, Rounding};

/// The contents of a purchase, the highest revision first.
pub const LIST: List =
    List { name: "revisions", table: "purchase_revision", order: &[("revision", Kind::Int)], descending: true };

/// A content of a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub row: purchase_revision::Model,
    /// The currency of all amounts.
    pub currency: Currency,
    /// The lines of the content, each with what all refunds would leave of it, in minor units.
    pub lines: Vec<(Line, i64)>,
}

impl Content {
    /// Computes what is left of the lines of a content of this purchase.
    pub(super) fn new(
        row: purchase_revision::Model,
        purchase: &purchase::Model,
        taken_back: &TakenBack,
    ) -> Result<Self, Error> {
        let content = taken_back.content(&row, purchase)?;
        let left = content.net_lines(Rounding::Down);
        Ok(Self { currency: currency(&row)?, lines: content.lines.into_iter().zip(left).collect(), row })
    }

    /// Whether the content counts now or did once.
    pub fn counted(&self, purchase: &purchase::Model) -> bool {
        self.row.revision == purchase.revision || self.row.ended_version.is_some()
    }
}

fn position(row: &purchase_revision::Model) -> Position {
    [Part::Int(row.revision)].into()
}

/// Returns the cursor of a content in [`LIST`].
pub fn cursor(content: &Content) -> String {
    LIST.cursor(&position(&content.row))
}

/// Loads the same page of the contents of each purchase.
pub async fn pages(app: &App, purchases: &[Arc<purchase::Model>], page: &Page) -> Result<Vec<Slice<Content>>, Error> {
    let db = app.database.read();
    let ids: Vec<String> = purchases.iter().map(|purchase| purchase.external_id.clone()).collect();
    let taken_back = TakenBack::load(db, ids).await?;
    let names = by_ids(app, purchases.iter().map(|purchase| purchase.customer_id).collect()).await?;
    let mut slices = Vec::with_capacity(purchases.len());
    for purchase in purchases {
        let name = names.get(&purchase.customer_id).map(|customer| customer.external_id.clone()).unwrap_or_default();
        let counting = of_purchase((**purchase).clone(), name);
        let mut rows: Vec<purchase_revision::Model> = taken_back.contents(&purchase.external_id).to_vec();
        rows.push(counting);
        rows.sort_by_key(|row| std::cmp::Reverse(row.revision));
        slices.push(page.of_all(&LIST, rows, position));
    }
    let mut others: HashMap<(String, i64), String> = {
        let on_pages = slices.iter().flat_map(|slice| &slice.rows).filter(|row| row.lines == LEFT_OUT);
        load_lines(db, on_pages.map(|row| (row.external_id.clone(), row.revision)).collect()).await?
    };
    let mut contents = Vec::with_capacity(slices.len());
    for (Slice { rows, has_previous, has_next }, purchase) in slices.into_iter().zip(purchases) {
        let mut of_page = Vec::with_capacity(rows.len());
        for mut row in rows {
            if let Some(lines) = others.remove(&(row.external_id.clone(), row.revision)) {
                row.lines = lines;
            }
            of_page.push(Content::new(row, purchase, &taken_back)?);
        }
        contents.push(Slice { rows: of_page, has_previous, has_next });
    }
    Ok(contents)
}
