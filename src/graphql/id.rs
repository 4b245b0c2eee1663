//! The scalar `ID` of objects: [`GlobalId`] as GraphQL has it.

use async_graphql::ID;

use crate::app::global_id::GlobalId;

impl From<GlobalId> for ID {
    fn from(id: GlobalId) -> Self {
        Self(id.to_text())
    }
}
