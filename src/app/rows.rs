//! Many rows in one statement, whose text does not depend on how many: the statement cache stays small and a batch
//! costs as many statements as a single row.
//!
//! PostgreSQL takes one array a column (`UNNEST`). SQLite takes `VALUES`, padded with empty rows to a power of two, so
//! that few texts serve all sizes. This file alone knows.

use futures_util::TryStreamExt as _;
use sea_orm::sea_query::{ArrayType, SimpleExpr, Value};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, EntityTrait, IdenStatic, Iterable,
    ModelTrait, PrimaryKeyToColumn, QueryResult, Statement,
};

/// What a column of [`Rows`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 64-bit (or smaller) integers.
    Int,
    /// Text; never empty where it may be null.
    Text,
}

/// A table of values, to select from: `(SELECT … ) AS name`.
pub struct Rows {
    backend: DatabaseBackend,
    columns: Vec<(String, Kind)>,
    rows: Vec<Vec<Value>>,
}

/// Stands for null inside an array: the driver has no nullable arrays. No text that may be null is ever empty, and no
/// stored integer is this.
const NULL_INT: i64 = i64::MIN;

/// The most parameters of a statement on SQLite.
const SQLITE_PARAMETERS: usize = 32_766;

impl Rows {
    /// An empty table with these columns.
    pub fn new(backend: DatabaseBackend, columns: &[(&str, Kind)]) -> Self {
        let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
        Self { backend, columns, rows: Vec::new() }
    }

    /// Adds a row: one value a column, in order.
    pub fn push(&mut self, row: Vec<Value>) {
        debug_assert_eq!(row.len(), self.columns.len(), "one value a column");
        self.rows.push(row);
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// `SELECT … FROM …` that yields the rows in order, and the parameters it takes, from `$1` on.
    fn select(self) -> (String, Vec<Value>) {
        match self.backend {
            DatabaseBackend::Postgres => self.select_from_arrays(),
            _ => self.select_from_values(),
        }
    }

    /// See [`join`].
    fn join(self, what: &str, table: &str, on: &str, rest: &str) -> Statement {
        let backend = self.backend;
        let (select, values) = self.select();
        // CROSS JOIN: SQLite then keeps `r` outside, and searches `t` by its index for each of them.
        let sql = format!("SELECT {what} FROM ({select}) AS r CROSS JOIN \"{table}\" AS t WHERE {on} {rest}");
        Statement::from_sql_and_values(backend, sql, values)
    }

    fn select_from_arrays(self) -> (String, Vec<Value>) {
        let mut selected = Vec::new();
        let mut arrays = Vec::new();
        let mut aliases = Vec::new();
        let mut values = Vec::new();
        let mut columns: Vec<Vec<Value>> = self.columns.iter().map(|_| Vec::with_capacity(self.rows.len())).collect();
        for row in self.rows {
            for (column, value) in columns.iter_mut().zip(row) {
                column.push(value);
            }
        }
        for (index, ((name, kind), column)) in self.columns.iter().zip(columns).enumerate() {
            let (array_type, sql_type, expression) = match kind {
                Kind::Int => (ArrayType::BigInt, "bigint", format!("NULLIF(u.c{index}, {NULL_INT})")),
                Kind::Text => (ArrayType::String, "text", format!("NULLIF(u.c{index}, '')")),
            };
            selected.push(format!("{expression} AS \"{name}\""));
            arrays.push(format!("${}::{sql_type}[]", index + 1));
            aliases.push(format!("c{index}"));
            let column = column.into_iter().map(|value| array_value(value, *kind)).collect();
            values.push(Value::Array(array_type, Some(Box::new(column))));
        }
        let sql =
            format!("SELECT {} FROM UNNEST({}) AS u({})", selected.join(", "), arrays.join(", "), aliases.join(", "));
        (sql, values)
    }

    fn select_from_values(self) -> (String, Vec<Value>) {
        let width = self.columns.len();
        let shape = self.rows.len().next_power_of_two();
        let selected: Vec<String> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (name, _))| format!("column{} AS \"{name}\"", index + 1))
            .collect();
        let tuple = format!("({})", vec!["?"; width].join(", "));
        let mut values: Vec<Value> = Vec::with_capacity(shape * width);
        for row in self.rows {
            values.extend(row.into_iter().map(plain_value));
        }
        values.resize(shape * width, Value::BigInt(None));
        // The first column is part of a key: only padding has none.
        let sql = format!(
            "SELECT {} FROM (VALUES {}) WHERE column1 IS NOT NULL",
            selected.join(", "),
            vec![tuple; shape].join(", ")
        );
        (sql, values)
    }

    /// Cut so that each part's parameters are no more than a statement takes.
    fn parts(self) -> Vec<Self> {
        if self.backend == DatabaseBackend::Postgres {
            return vec![self];
        }
        let most = SQLITE_PARAMETERS / self.columns.len().max(1);
        let most = if most.is_power_of_two() { most } else { most.next_power_of_two() / 2 };
        let (backend, columns) = (self.backend, self.columns);
        let mut rows = self.rows.into_iter().peekable();
        let mut parts = Vec::new();
        while rows.peek().is_some() {
            let rows = rows.by_ref().take(most).collect();
            parts.push(Self { backend, columns: columns.clone(), rows });
        }
        parts
    }
}

/// What the driver binds on SQLite.
fn plain_value(value: Value) -> Value {
    match value {
        Value::Int(int) => Value::BigInt(int.map(i64::from)),
        value => value,
    }
}

/// An element of an array. Other types are in no table that is written in bulk.
fn array_value(value: Value, kind: Kind) -> Value {
    match (kind, plain_value(value)) {
        (Kind::Int, value @ Value::BigInt(Some(_))) | (Kind::Text, value @ Value::String(Some(_))) => value,
        (Kind::Int, _) => NULL_INT.into(),
        (Kind::Text, _) => String::new().into(),
    }
}

/// An element of a JSON array.
fn json_value(value: Value) -> serde_json::Value {
    match plain_value(value) {
        Value::BigInt(Some(int)) => int.into(),
        Value::String(Some(text)) => text.into(),
        _ => serde_json::Value::Null,
    }
}

/// The entity's rows, with all its columns but those left out.
fn of_models<E: EntityTrait>(
    backend: DatabaseBackend,
    models: &[E::Model],
    left_out: &[E::Column],
) -> (Vec<&'static str>, Rows) {
    let left_out: Vec<&str> = left_out.iter().map(IdenStatic::as_str).collect();
    let columns: Vec<E::Column> = E::Column::iter().filter(|column| !left_out.contains(&column.as_str())).collect();
    let names: Vec<&'static str> = columns.iter().map(IdenStatic::as_str).collect();
    let kinds: Vec<(&str, Kind)> = columns.iter().zip(&names).map(|(column, name)| (*name, kind(column))).collect();
    let mut rows = Rows::new(backend, &kinds);
    for model in models {
        rows.push(columns.iter().map(|column| model.get(*column)).collect());
    }
    (names, rows)
}

fn kind(column: &impl ColumnTrait) -> Kind {
    use sea_orm::ColumnType;
    match column.def().get_column_type() {
        ColumnType::BigInteger | ColumnType::Integer => Kind::Int,
        _ => Kind::Text,
    }
}

/// What an insert does where the primary key exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Fails.
    Fail,
    /// Leaves what is there.
    Keep,
    /// Adds to what is there, in every column outside the key.
    Add,
}

/// Inserts the models, in order.
pub async fn insert<E: EntityTrait>(
    db: &impl ConnectionTrait,
    models: &[E::Model],
    on_conflict: OnConflict,
) -> Result<(), DbErr> {
    if models.is_empty() {
        return Ok(());
    }
    let (names, rows) = of_models::<E>(db.get_database_backend(), models, &[]);
    for part in rows.parts() {
        db.execute_raw(insert_statement::<E>(&names, part, on_conflict, None)).await?;
    }
    Ok(())
}

/// Inserts those models whose key is new, in order; answers the `returning` column of those.
pub async fn insert_new<E: EntityTrait>(
    db: &impl ConnectionTrait,
    models: &[E::Model],
    left_out: &[E::Column],
    returning: E::Column,
) -> Result<Vec<String>, DbErr> {
    if models.is_empty() {
        return Ok(Vec::new());
    }
    let (names, rows) = of_models::<E>(db.get_database_backend(), models, left_out);
    let mut new = Vec::new();
    for part in rows.parts() {
        let statement = insert_statement::<E>(&names, part, OnConflict::Keep, Some(returning));
        for row in db.query_all_raw(statement).await? {
            new.push(row.try_get("", returning.as_str())?);
        }
    }
    Ok(new)
}

fn insert_statement<E: EntityTrait>(
    names: &[&str],
    rows: Rows,
    on_conflict: OnConflict,
    returning: Option<E::Column>,
) -> Statement {
    let table = E::default().table_name().to_owned();
    let backend = rows.backend;
    let (select, values) = rows.select();
    let key: Vec<&'static str> = key_columns::<E>();
    let quoted = |names: &[&str]| names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let conflict = match on_conflict {
        OnConflict::Fail => String::new(),
        OnConflict::Keep => " ON CONFLICT DO NOTHING".to_owned(),
        OnConflict::Add => {
            let add = |name: &&str| format!("\"{name}\" = \"{table}\".\"{name}\" + excluded.\"{name}\"");
            let sums: Vec<String> = names.iter().filter(|name| !key.contains(name)).map(add).collect();
            format!(" ON CONFLICT ({}) DO UPDATE SET {}", quoted(&key), sums.join(", "))
        }
    };
    let returning = returning.map(|column| format!(" RETURNING \"{}\"", column.as_str())).unwrap_or_default();
    // In brackets, with a condition: else SQLite reads ON CONFLICT as a join's.
    let sql = format!(
        "INSERT INTO \"{table}\" ({}) SELECT * FROM ({select}) AS r WHERE true{conflict}{returning}",
        quoted(names)
    );
    Statement::from_sql_and_values(backend, sql, values)
}

/// Overwrites every column of rows that exist.
pub async fn update<E: EntityTrait>(db: &impl ConnectionTrait, models: &[E::Model]) -> Result<(), DbErr> {
    if models.is_empty() {
        return Ok(());
    }
    let backend = db.get_database_backend();
    let table = E::default().table_name().to_owned();
    let (names, rows) = of_models::<E>(backend, models, &[]);
    let key = key_columns::<E>();
    let set: Vec<String> =
        names.iter().filter(|name| !key.contains(name)).map(|name| format!("\"{name}\" = s.\"{name}\"")).collect();
    let same: Vec<String> = key.iter().map(|name| format!("\"{table}\".\"{name}\" = s.\"{name}\"")).collect();
    for part in rows.parts() {
        let (select, values) = part.select();
        let (set, same) = (set.join(", "), same.join(" AND "));
        let sql = format!("UPDATE \"{table}\" SET {set} FROM ({select}) AS s WHERE {same}");
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    Ok(())
}

fn key_columns<E: EntityTrait>() -> Vec<&'static str> {
    E::PrimaryKey::iter().map(|key| key.into_column().as_str()).collect()
}

/// `SELECT {what}` of each row `r` with the rows `t` of `table` that match `on`, followed by `rest`.
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

/// [`join`], for more rows than should be in memory together: each is handed over as it comes.
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

/// [`join`], but every row `r` is answered, and what of `t` it does not match is null.
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
        let (select, values) = part.select();
        let sql = format!("SELECT {what} FROM ({select}) AS r LEFT JOIN \"{table}\" AS t ON {on}");
        found.extend(db.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?);
    }
    Ok(found)
}

/// Deletes the rows `t` of `table` that match `on` with one of the rows `r`. `key`: the table's primary key.
pub async fn delete(db: &impl ConnectionTrait, table: &str, key: &[&str], rows: Rows, on: &str) -> Result<(), DbErr> {
    for part in rows.parts() {
        let backend = part.backend;
        let (select, values) = part.select();
        let of_t: Vec<String> = key.iter().map(|column| format!("t.{column}")).collect();
        // By key, so that the table is searched for what matches and not read as a whole.
        let sql = format!(
            "DELETE FROM \"{table}\" WHERE ({}) IN (SELECT {} FROM ({select}) AS r CROSS JOIN \"{table}\" AS t WHERE {on})",
            key.join(", "),
            of_t.join(", ")
        );
        db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    }
    Ok(())
}

/// `column = ANY (values)`, whatever their number.
pub fn any<C: ColumnTrait, V: Into<Value>>(
    backend: DatabaseBackend,
    column: C,
    values: impl IntoIterator<Item = V>,
) -> SimpleExpr {
    use sea_orm::sea_query::Expr;
    let name = format!("\"{}\".\"{}\"", column.entity_name(), column.as_str());
    // No stored text holds U+0000, and PostgreSQL takes no parameter that does.
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
    /// At most so many rows.
    pub rows: usize,
    /// Of these as many as fill so many bytes of the column, and one that passes them; none: all.
    pub bytes: Option<(&'static str, usize)>,
}

impl From<usize> for Limit {
    fn from(rows: usize) -> Self {
        Self { rows, bytes: None }
    }
}

/// From here on the transaction reads tables in the order of their indexes. PostgreSQL, which does not know how far a range
/// goes, may otherwise read all of it and sort it, though no more than its beginning is asked for.
pub async fn read_in_order(tx: &DatabaseTransaction) -> Result<(), DbErr> {
    if tx.get_database_backend() == DatabaseBackend::Postgres {
        let in_order =
            "SELECT set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true)";
        tx.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, in_order)).await?;
    }
    Ok(())
}

/// For each row `r`, the first rows `t` of `table` that match, up to `limit`: one index search each. `conditions` (about `s`
/// and `r`), `order` (of `s`; with a limit of bytes: its columns alone). The answer's order is not to be relied on.
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
        let (select, values) = part.select();
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
            // CROSS JOIN: SQLite then keeps `r` outside, and searches `s` once for each of them.
            format!("SELECT {what} FROM ({select}) AS r CROSS JOIN \"{table}\" AS t WHERE t.rowid IN ({found})")
        };
        answer.extend(db.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?);
    }
    Ok(answer)
}
