//! Statements that read or write many rows. Their text barely depends on the number of rows, so the statement cache stays
//! small, and a batch needs as many statements as a single row.
//!
//! On PostgreSQL, the rows are passed as one array per column (`UNNEST`). On SQLite, they are passed as `VALUES`, padded with
//! empty rows to a power of two, so that few texts serve all sizes. No other module depends on this difference.
//!
//! A statement that writes several rows needs a transaction, which must be rolled back if the statement fails. On SQLite, the rows
//! before the failure stay until then (`OR FAIL`). To undo one statement alone, SQLite would copy each page that it changes.

use std::borrow::Borrow;
use std::fmt::Write as _;

use futures_util::TryStreamExt as _;
use sea_orm::sea_query::{ArrayType, SimpleExpr, Value};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, EntityTrait, IdenStatic, Iterable,
    ModelTrait, PrimaryKeyToColumn, QueryResult, Statement,
};

/// The type of a column of [`Rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Integers of at most 64 bits.
    Int,
    /// Text. A column that can be null never contains an empty text.
    Text,
    /// Bytes that are never null.
    Bytes,
}

/// A table of values that a statement can select from: `(SELECT … ) AS name`.
pub struct Rows {
    backend: DatabaseBackend,
    columns: Vec<Column>,
    /// The number of rows.
    len: usize,
}

struct Column {
    name: String,
    kind: Kind,
    values: Vec<Value>,
}

/// Stands for null in an array of integers, and the empty text in an array of texts, because the driver has no arrays of
/// nullable values. No stored integer has this value, and no text that can be null is empty.
const NULL_INT: i64 = i64::MIN;

/// The maximum number of parameters of a statement on SQLite.
const SQLITE_PARAMETERS: usize = 32_766;

impl Rows {
    /// Creates an empty table with these columns.
    pub fn new(backend: DatabaseBackend, columns: &[(&str, Kind)]) -> Self {
        let column = |(name, kind): &(&str, Kind)| Column { name: (*name).to_owned(), kind: *kind, values: Vec::new() };
        Self { backend, columns: columns.iter().map(column).collect(), len: 0 }
    }

    /// Adds a row: one value per column, in the order of the columns.
    pub fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.columns.len(), "one value a column");
        self.len += 1;
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.values.push(value);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns a `SELECT … FROM …` that yields the rows in order, and its parameters. On PostgreSQL, they follow the first
    /// `taken` parameters of the statement.
    fn select(self, taken: usize) -> (String, Vec<Value>) {
        match self.backend {
            DatabaseBackend::Postgres => self.select_from_arrays(taken),
            _ => self.select_from_values(),
        }
    }

    /// The statement of [`join`].
    fn join(self, what: &str, table: &str, on: &str, rest: &str) -> Statement {
        let backend = self.backend;
        let (select, values) = self.select(0);
        let found = search(backend, "t.*", table, on);
        let sql = format!("SELECT {what} FROM ({select}) AS r CROSS JOIN {found} {rest}");
        Statement::from_sql_and_values(backend, sql, values)
    }

    fn select_from_arrays(self, taken: usize) -> (String, Vec<Value>) {
        // Every statement of a batch has such a text, so it is written piece by piece, without texts of its parts.
        let mut sql = String::with_capacity(128 + 64 * self.columns.len());
        let mut arrays = String::with_capacity(16 * self.columns.len());
        let mut aliases = String::with_capacity(8 * self.columns.len());
        let mut values = Vec::with_capacity(self.columns.len());
        sql.push_str("SELECT ");
        for (index, Column { name, kind, values: column }) in self.columns.into_iter().enumerate() {
            let (comma, parameter) = (if index == 0 { "" } else { ", " }, taken + index + 1);
            let (array_type, sql_type) = match kind {
                Kind::Int => (ArrayType::BigInt, "bigint"),
                Kind::Text => (ArrayType::String, "text"),
                Kind::Bytes => (ArrayType::Bytes, "bytea"),
            };
            match kind {
                Kind::Int => push(&mut sql, format_args!("{comma}NULLIF(u.c{index}, {NULL_INT}) AS \"{name}\"")),
                Kind::Text => push(&mut sql, format_args!("{comma}NULLIF(u.c{index}, '') AS \"{name}\"")),
                Kind::Bytes => push(&mut sql, format_args!("{comma}u.c{index} AS \"{name}\"")),
            }
            push(&mut arrays, format_args!("{comma}${parameter}::{sql_type}[]"));
            push(&mut aliases, format_args!("{comma}c{index}"));
            let column = column.into_iter().map(|value| array_value(value, kind)).collect();
            values.push(Value::Array(array_type, Some(Box::new(column))));
        }
        push(&mut sql, format_args!(" FROM UNNEST({arrays}) AS u({aliases})"));
        (sql, values)
    }

    fn select_from_values(self) -> (String, Vec<Value>) {
        let width = self.columns.len();
        let shape = self.len.next_power_of_two();
        let selected: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| format!("column{} AS \"{}\"", index + 1, column.name))
            .collect();
        let tuple = format!("({})", vec!["?"; width].join(", "));
        let mut values: Vec<Value> = Vec::with_capacity(shape * width);
        let mut columns: Vec<_> = self.columns.into_iter().map(|column| column.values.into_iter()).collect();
        for _ in 0..self.len {
            values.extend(columns.iter_mut().filter_map(Iterator::next).map(plain_value));
        }
        values.resize(shape * width, Value::BigInt(None));
        // The first column is part of a key, so only padding has no value in it.
        let sql = format!(
            "SELECT {} FROM (VALUES {}) WHERE column1 IS NOT NULL",
            selected.join(", "),
            vec![tuple; shape].join(", ")
        );
        (sql, values)
    }

    /// Splits the rows so that no part has more parameters than a statement may have.
    fn parts(mut self) -> Vec<Self> {
        if self.backend == DatabaseBackend::Postgres {
            return vec![self];
        }
        let most = SQLITE_PARAMETERS / self.columns.len().max(1);
        let most = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
        let mut parts = Vec::new();
        while self.len > most {
            let rest = |column: &mut Column| {
                let values = column.values.split_off(most);
                Column { name: column.name.clone(), kind: column.kind, values }
            };
            let (columns, len) = (self.columns.iter_mut().map(rest).collect(), self.len - most);
            let rest = Self { backend: self.backend, columns, len };
            self.len = most;
            parts.push(std::mem::replace(&mut self, rest));
        }
        parts.push(self);
        parts
    }
}

fn push(text: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a text never fails.
    let _ = text.write_fmt(part);
}

/// Widens an integer to 64 bits.
fn plain_value(value: Value) -> Value {
    match value {
        Value::Int(int) => Value::BigInt(int.map(i64::from)),
        value => value,
    }
}

/// Converts a value to an element of an array. Tables that are written in bulk have no columns of other types.
fn array_value(value: Value, kind: Kind) -> Value {
    match (kind, plain_value(value)) {
        (Kind::Int, value @ Value::BigInt(Some(_)))
        | (Kind::Text, value @ Value::String(Some(_)))
        | (Kind::Bytes, value) => value,
        (Kind::Int, _) => NULL_INT.into(),
        (Kind::Text, _) => String::new().into(),
    }
}

/// Converts a value to an element of a JSON array.
fn json_value(value: Value) -> serde_json::Value {
    match plain_value(value) {
        Value::BigInt(Some(int)) => int.into(),
        Value::String(Some(text)) => text.into(),
        _ => serde_json::Value::Null,
    }
}

/// Converts models to rows, and returns the names of their columns. `left_out` names columns to leave out.
fn of_models<E: EntityTrait>(
    backend: DatabaseBackend,
    models: &[impl Borrow<E::Model>],
    left_out: &[E::Column],
) -> (Vec<&'static str>, Rows) {
    let left_out: Vec<&str> = left_out.iter().map(IdenStatic::as_str).collect();
    let columns = E::Column::iter().filter(|column| !left_out.contains(&column.as_str()));
    let mut names = Vec::new();
    let columns = columns.map(|column| {
        names.push(column.as_str());
        let values = models.iter().map(|model| model.borrow().get(column)).collect();
        Column { name: column.as_str().to_owned(), kind: kind(&column), values }
    });
    let rows = Rows { backend, columns: columns.collect(), len: models.len() };
    (names, rows)
}

fn kind(column: &impl ColumnTrait) -> Kind {
    use sea_orm::ColumnType;
    match column.def().get_column_type() {
        ColumnType::BigInteger | ColumnType::Integer => Kind::Int,
        ColumnType::Blob => Kind::Bytes,
        _ => Kind::Text,
    }
}

/// What an insert does with a row whose primary key already exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// The whole statement fails.
    Fail,
    /// The existing row stays as it is.
    Keep,
    /// Each column that is not part of the key is added to the existing value.
    Add,
    /// Each column that is not part of the key replaces the existing value.
    Replace,
}

/// Inserts the models, in order.
pub async fn insert<E: EntityTrait>(
    tx: &DatabaseTransaction,
    models: &[E::Model],
    on_conflict: OnConflict,
) -> Result<(), DbErr> {
    let mut group = WriteGroup::new(tx.get_database_backend());
    group.insert::<E>(models, on_conflict);
    group.run(tx).await
}

/// Inserts the models whose key does not exist yet, in order. The columns `left_out` get their defaults. Returns the
/// columns `returning` of the inserted rows.
pub async fn insert_new<E: EntityTrait>(
    tx: &DatabaseTransaction,
    models: &[impl Borrow<E::Model>],
    left_out: &[E::Column],
    returning: &str,
) -> Result<Vec<QueryResult>, DbErr> {
    if models.is_empty() {
        return Ok(Vec::new());
    }
    let (names, rows) = of_models::<E>(tx.get_database_backend(), models, left_out);
    let mut new = Vec::new();
    for part in rows.parts() {
        let backend = part.backend;
        let (select, values) = part.select(0);
        let sql = format!("{} RETURNING {returning}", insert_sql::<E>(backend, &names, &select, OnConflict::Keep));
        new.extend(tx.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?);
    }
    Ok(new)
}

/// Returns what follows INSERT or UPDATE.
fn or_fail(backend: DatabaseBackend) -> &'static str {
    if backend == DatabaseBackend::Sqlite { " OR FAIL" } else { "" }
}

fn insert_sql<E: EntityTrait>(
    backend: DatabaseBackend,
    names: &[&str],
    select: &str,
    on_conflict: OnConflict,
) -> String {
    let table = E::default().table_name().to_owned();
    let key: Vec<&'static str> = key_columns::<E>();
    let quoted = |names: &[&str]| format!("\"{}\"", names.join("\", \""));
    let conflict = match on_conflict {
        OnConflict::Fail => String::new(),
        OnConflict::Keep => " ON CONFLICT DO NOTHING".to_owned(),
        OnConflict::Add | OnConflict::Replace => {
            let existing = |name: &str| match on_conflict {
                OnConflict::Add => format!("\"{table}\".\"{name}\" + "),
                _ => String::new(),
            };
            let set = |name: &&str| format!("\"{name}\" = {}excluded.\"{name}\"", existing(name));
            let set: Vec<String> = names.iter().filter(|name| !key.contains(name)).map(set).collect();
            format!(" ON CONFLICT ({}) DO UPDATE SET {}", quoted(&key), set.join(", "))
        }
    };
    // Without the condition, SQLite would parse ON CONFLICT as the ON clause of a join.
    format!(
        "INSERT{} INTO \"{table}\" ({}) SELECT * FROM ({select}) AS r WHERE true{conflict}",
        or_fail(backend),
        quoted(names)
    )
}

/// Overwrites all columns of existing rows. The rows are found by their primary key.
pub async fn update<E: EntityTrait>(tx: &DatabaseTransaction, models: &[impl Borrow<E::Model>]) -> Result<(), DbErr> {
    let mut group = WriteGroup::new(tx.get_database_backend());
    group.update::<E>(models, &[]);
    group.run(tx).await
}

/// Statements that write rows of different tables. On PostgreSQL, they are one statement: each of them sees the tables as they
/// were before all of them. On SQLite, they run in order.
pub struct WriteGroup {
    backend: DatabaseBackend,
    statements: Vec<String>,
    values: Vec<Vec<Value>>,
}

impl WriteGroup {
    pub fn new(backend: DatabaseBackend) -> Self {
        Self { backend, statements: Vec::new(), values: Vec::new() }
    }

    /// Inserts the models, in order.
    pub fn insert<E: EntityTrait>(&mut self, models: &[impl Borrow<E::Model>], on_conflict: OnConflict) {
        self.insert_without::<E>(models, &[], on_conflict);
    }

    /// Inserts the models, in order. The columns `left_out` get their defaults.
    pub fn insert_without<E: EntityTrait>(
        &mut self,
        models: &[impl Borrow<E::Model>],
        left_out: &[E::Column],
        on_conflict: OnConflict,
    ) {
        let (names, rows) = of_models::<E>(self.backend, models, left_out);
        let backend = self.backend;
        self.add(rows, |select| insert_sql::<E>(backend, &names, select, on_conflict));
    }

    /// Overwrites existing rows but for the columns `left_out`. The rows are found by their primary key.
    pub fn update<E: EntityTrait>(&mut self, models: &[impl Borrow<E::Model>], left_out: &[E::Column]) {
        let table = E::default().table_name().to_owned();
        let (names, rows) = of_models::<E>(self.backend, models, left_out);
        let key = key_columns::<E>();
        let (mut set, mut same) = (String::with_capacity(32 * names.len()), String::new());
        for name in names.iter().filter(|name| !key.contains(name)) {
            let comma = if set.is_empty() { "" } else { ", " };
            push(&mut set, format_args!("{comma}\"{name}\" = s.\"{name}\""));
        }
        for name in &key {
            let and = if same.is_empty() { "" } else { " AND " };
            push(&mut same, format_args!("{and}\"{table}\".\"{name}\" = s.\"{name}\""));
        }
        let or_fail = or_fail(self.backend);
        self.add(rows, |select| format!("UPDATE{or_fail} \"{table}\" SET {set} FROM ({select}) AS s WHERE {same}"));
    }

    fn add(&mut self, rows: Rows, statement: impl Fn(&str) -> String) {
        if rows.is_empty() {
            return;
        }
        for part in rows.parts() {
            let (select, values) = part.select(self.values.iter().map(Vec::len).sum());
            self.statements.push(statement(&select));
            self.values.push(values);
        }
    }

    /// Runs the statements. A single row needs no transaction.
    pub async fn run(self, db: &impl ConnectionTrait) -> Result<(), DbErr> {
        let Self { backend, statements, values } = self;
        if backend != DatabaseBackend::Postgres || statements.len() < 2 {
            for (sql, values) in statements.into_iter().zip(values) {
                db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
            }
            return Ok(());
        }
        let named = statements.iter().enumerate().map(|(index, sql)| format!("w{index} AS ({sql})"));
        let sql = format!("WITH {} SELECT 1", named.collect::<Vec<_>>().join(", "));
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values.into_iter().flatten())).await?;
        Ok(())
    }
}

fn key_columns<E: EntityTrait>() -> Vec<&'static str> {
    E::PrimaryKey::iter().map(|key| key.into_column().as_str()).collect()
}

/// Joins each row `r` with the rows `t` of `table` that match the condition `on`, and selects `what`. `rest` is appended to the
/// statement.
pub async fn join(
    db: &impl ConnectionTrait,
    what: &str,
    table: &str,
    rows: Rows,
    on: &str,
    rest: &str,
) -> Result<Vec<QueryResult>, DbErr> {
    let mut found = Vec::new();
    for part in rows.parts() {
        found.extend(db.query_all_raw(part.join(what, table, on, rest)).await?);
    }
    Ok(found)
}

/// Like [`join`], for results that should not be in memory as a whole: `take` is called with each row as it arrives.
pub async fn join_each(
    tx: &DatabaseTransaction,
    what: &str,
    table: &str,
    rows: Rows,
    on: &str,
    mut take: impl FnMut(QueryResult) -> Result<(), DbErr>,
) -> Result<(), DbErr> {
    for part in rows.parts() {
        let mut found = sea_orm::StreamTrait::stream_raw(tx, part.join(what, table, on, "")).await?;
        while let Some(row) = found.try_next().await? {
            take(row)?;
        }
    }
    Ok(())
}

/// Like [`join`], but a row `r` that matches no row `t` is returned too, with nulls for the columns of `t`.
pub async fn left_join(
    db: &impl ConnectionTrait,
    what: &str,
    table: &str,
    rows: Rows,
    on: &str,
) -> Result<Vec<QueryResult>, DbErr> {
    let mut found = Vec::new();
    for part in rows.parts() {
        let backend = part.backend;
        let (select, values) = part.select(0);
        let sql = if backend == DatabaseBackend::Postgres {
            let found = search(backend, "t.*", table, on);
            format!("SELECT {what} FROM ({select}) AS r LEFT JOIN {found} ON true")
        } else {
            format!("SELECT {what} FROM ({select}) AS r LEFT JOIN \"{table}\" AS t ON {on}")
        };
        found.extend(db.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?);
    }
    Ok(found)
}

/// Returns a search of an index for each row `r`: the right side of a CROSS JOIN, with its condition. On PostgreSQL, it yields
/// `columns`.
///
/// PostgreSQL must not choose how to join: by its statistics, a table that was empty a minute ago is best read as a whole. SQLite
/// keeps `r` as the outer table of a CROSS JOIN.
fn search(backend: DatabaseBackend, columns: &str, table: &str, on: &str) -> String {
    if backend == DatabaseBackend::Postgres {
        format!("LATERAL (SELECT {columns} FROM \"{table}\" AS t WHERE {on} OFFSET 0) AS t")
    } else {
        format!("\"{table}\" AS t WHERE {on}")
    }
}

/// Deletes the rows `t` of `table` that match the condition `on` with one of the rows `r`. `key` is the primary key of the table.
pub async fn delete(db: &impl ConnectionTrait, table: &str, key: &[&str], rows: Rows, on: &str) -> Result<(), DbErr> {
    for part in rows.parts() {
        let backend = part.backend;
        let (select, values) = part.select(0);
        let found = search(backend, "t.ctid", table, on);
        let sql = if backend == DatabaseBackend::Postgres {
            format!(
                "DELETE FROM \"{table}\" WHERE ctid = ANY(ARRAY(SELECT t.ctid FROM ({select}) AS r CROSS JOIN {found}))"
            )
        } else {
            let of_t: Vec<String> = key.iter().map(|column| format!("t.{column}")).collect();
            // Deletes by key, so that SQLite uses an index instead of reading the whole table.
            format!(
                "DELETE FROM \"{table}\" WHERE ({}) IN (SELECT {} FROM ({select}) AS r CROSS JOIN {found})",
                key.join(", "),
                of_t.join(", ")
            )
        };
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    Ok(())
}

/// Returns the condition that the column has one of these values. The text does not depend on the number of values.
pub fn any<C: ColumnTrait, V: Into<Value>>(
    backend: DatabaseBackend,
    column: C,
    values: impl IntoIterator<Item = V>,
) -> SimpleExpr {
    use sea_orm::sea_query::Expr;
    let name = format!("\"{}\".\"{}\"", column.entity_name(), column.as_str());
    // No stored text contains U+0000, and PostgreSQL refuses a parameter that does.
    let storable = |value: &Value| !matches!(value, Value::String(Some(text)) if text.contains('\0'));
    let values: Vec<Value> = values.into_iter().map(Into::into).filter(storable).collect();
    if backend == DatabaseBackend::Postgres {
        let array_type = if kind(&column) == Kind::Int { ArrayType::BigInt } else { ArrayType::String };
        let array = Value::Array(array_type, Some(Box::new(values)));
        Expr::cust_with_values(format!("{name} = ANY($1)"), [array])
    } else {
        let json = serde_json::Value::Array(values.into_iter().map(json_value).collect()).to_string();
        Expr::cust_with_values(format!("{name} IN (SELECT value FROM json_each(?))"), [json])
    }
}

/// How much [`first_of_each`] reads for each row.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The maximum number of rows.
    pub rows: usize,
    /// A column, and a number of bytes. Reading stops with the row at which the values of the column reach that size. `None`: the
    /// size is not limited.
    pub bytes: Option<(&'static str, usize)>,
}

impl From<usize> for Limit {
    fn from(rows: usize) -> Self {
        Self { rows, bytes: None }
    }
}

/// Makes the rest of the transaction read tables in the order of their indexes. PostgreSQL does not know how long a range is.
/// Otherwise it may read and sort a whole range, although the statement needs its beginning only.
pub async fn read_in_order(tx: &DatabaseTransaction) -> Result<(), DbErr> {
    if tx.get_database_backend() == DatabaseBackend::Postgres {
        let in_order =
            "SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)";
        tx.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, in_order)).await?;
    }
    Ok(())
}

/// Selects `what` from each row `r` and the first matching rows `t` of `table`, up to `limit`. This costs one search of an index
/// per row `r`. `conditions` and `order` call the table `s`. With a limit in bytes, `order` may contain column names only. The
/// order of the result is unspecified.
pub async fn first_of_each(
    db: &impl ConnectionTrait,
    what: &str,
    table: &str,
    rows: Rows,
    conditions: &str,
    order: &str,
    limit: impl Into<Limit>,
) -> Result<Vec<QueryResult>, DbErr> {
    let Limit { rows: most, bytes } = limit.into();
    let found =
        |what: &str| format!("SELECT {what} FROM \"{table}\" AS s WHERE {conditions} ORDER BY {order} LIMIT {most}");
    let mut answer = Vec::new();
    for part in rows.parts() {
        let backend = part.backend;
        let (select, values) = part.select(0);
        let sql = if backend == DatabaseBackend::Postgres {
            let found = match bytes {
                None => found("*"),
                Some((column, most)) => format!(
                    "SELECT * FROM (SELECT *, SUM(octet_length({column})) OVER (ORDER BY {order}) AS bytes_to FROM ({}) AS s) \
                     AS w WHERE bytes_to - octet_length({column}) < {most}",
                    found("*")
                ),
            };
            format!("SELECT {what} FROM ({select}) AS r CROSS JOIN LATERAL ({found}) AS t")
        } else {
            let found = match bytes {
                None => found("s.rowid"),
                Some((column, most)) => format!(
                    "SELECT id FROM (SELECT id, bytes, SUM(bytes) OVER (ORDER BY {order}) AS bytes_to FROM ({}) AS s) \
                     WHERE bytes_to - bytes < {most}",
                    found(&format!("s.rowid AS id, octet_length(s.{column}) AS bytes, {order}"))
                ),
            };
            // With CROSS JOIN, SQLite keeps `r` as the outer table, and searches `s` once for each of its rows.
            format!("SELECT {what} FROM ({select}) AS r CROSS JOIN \"{table}\" AS t WHERE t.rowid IN ({found})")
        };
        answer.extend(db.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?);
    }
    Ok(answer)
}
