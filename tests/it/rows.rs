//! Statements that write many rows.

use entity::CustomerId;
use entity::erased_name::{self, Column};
use sea_orm::{
    ColumnTrait as _, DatabaseBackend, DatabaseTransaction, EntityTrait as _, PaginatorTrait as _, QueryFilter as _,
};
use windfall::app::rows::{OnConflict, insert};

use crate::support::app::{ENGINES, TestApp};

fn names(hashes: &[&str]) -> Vec<erased_name::Model> {
    hashes.iter().map(|hash| erased_name::Model { hash: (*hash).to_owned(), customer_id: CustomerId(1) }).collect()
}

async fn count(tx: &DatabaseTransaction) -> u64 {
    erased_name::Entity::find().filter(Column::Hash.ne("stored")).count(tx).await.unwrap()
}

/// A statement that fails ends its transaction. SQLite does not undo it alone, because it would have to copy each page first.
#[tokio::test]
async fn a_statement_that_fails_leaves_nothing_after_its_transaction() {
    for engine in ENGINES {
        let test = TestApp::start(engine).await;
        let database = &test.app.database;
        let tx = database.begin().await.unwrap();
        insert::<erased_name::Entity>(&tx, &names(&["stored"]), OnConflict::Fail).await.unwrap();
        tx.commit().await.unwrap();

        let tx = database.begin().await.unwrap();
        insert::<erased_name::Entity>(&tx, &names(&["a", "stored", "b"]), OnConflict::Fail).await.unwrap_err();
        if database.backend() == DatabaseBackend::Sqlite {
            assert_eq!(count(&tx).await, 1, "the row before the failure stays until the transaction ends");
        }
        tx.rollback().await.unwrap();
        let tx = database.begin().await.unwrap();
        assert_eq!(count(&tx).await, 0);
        tx.rollback().await.unwrap();
    }
}
