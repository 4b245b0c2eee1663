//! Keeps the resolvers of a part of the root apart in memory.
//!
//! The executor allocates and moves one future for each selected field, which is as large as the largest resolver of its object. The root
//! asks each of its parts for a field, the last one first. Resolvers of admins take up to 14 KiB, so without [`Apart`], each purchase would
//! move that much several times.

use std::borrow::Cow;
use std::collections::HashSet;

use async_graphql::parser::types::Field;
use async_graphql::registry::{MetaType, Registry};
use async_graphql::{ContainerType, Context, ContextSelectionSet, OutputType, Positioned, ServerResult, Value};

/// A part of the root whose resolvers are allocated only for its own fields.
pub struct Apart<T> {
    part: T,
    fields: HashSet<String>,
}

impl<T: Default + OutputType> Default for Apart<T> {
    fn default() -> Self {
        let fields = match Registry::default().create_fake_output_type::<T>() {
            MetaType::Object { fields, .. } => fields.into_keys().collect(),
            _ => HashSet::new(),
        };
        Self { part: T::default(), fields }
    }
}

impl<T: ContainerType> ContainerType for Apart<T> {
    async fn resolve_field(&self, ctx: &Context<'_>) -> ServerResult<Option<Value>> {
        if !self.fields.contains(ctx.item.node.name.node.as_str()) {
            return Ok(None);
        }
        Box::pin(self.part.resolve_field(ctx)).await
    }
}

impl<T: OutputType> OutputType for Apart<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, field: &Positioned<Field>) -> ServerResult<Value> {
        Box::pin(self.part.resolve(ctx, field)).await
    }
}
