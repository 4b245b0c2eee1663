//! Rewrites an operation so that it selects every field exactly once, as the executor needs it.
//!
//! The executor runs a field as often as it is selected, and merges the results afterwards. This module therefore collects
//! selections as CollectFields in the specification does, for each concrete type that a result can have. The normaliser
//! applies `@skip` and `@include`, resolves fragments, and merges fields with equal response keys together with their
//! sub-selections. Response keys keep the order of first appearance. Other directives are dropped, because they mean nothing to
//! the executor.

use apollo_compiler::ast::{DirectiveList, FieldDefinition, Value};
use apollo_compiler::collections::{HashMap, HashSet, IndexMap, IndexSet};
use apollo_compiler::executable::{self, ExecutableDocument, Operation, Selection, SelectionSet};
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::{Name, Node, Schema};

use super::limits::Limits;
use super::refusal::{Code, Refusal};

/// The object types that implement each interface or belong to each union.
pub(super) type ConcreteTypes = HashMap<Name, IndexSet<Name>>;

pub(super) fn concrete_types(schema: &Schema) -> ConcreteTypes {
    let implementers = schema.implementers_map();
    let concrete = |ty: &ExtendedType| match ty {
        ExtendedType::Interface(interface) => {
            Some(implementers.get(&interface.name).map(|implementers| implementers.objects.clone()).unwrap_or_default())
        }
        ExtendedType::Union(union) => Some(union.members.iter().map(|member| member.name.clone()).collect()),
        _ => None,
    };
    schema.types.iter().filter_map(|(name, ty)| Some((name.clone(), concrete(ty)?))).collect()
}

/// One field of the normalised operation.
pub(super) struct Field<'a> {
    pub(super) source: &'a executable::Field,
    pub(super) definition: &'a FieldDefinition,
    pub(super) selected: Selected<'a>,
}

/// The selection of a field's result.
pub(super) enum Selected<'a> {
    /// The result is a scalar or an enum and has no selection.
    Leaf,
    /// The same fields are selected for every concrete type.
    Fields(Vec<Field<'a>>),
    /// Different fields are selected for each concrete type. Nothing is selected for a type that is not in the list.
    PerType(Vec<(&'a Name, Vec<Field<'a>>)>),
}

/// The selected fields by response key, in order of first appearance.
type Groups<'a> = IndexMap<&'a Name, Vec<&'a executable::Field>>;

pub(super) struct Normalizer<'a> {
    schema: &'a Schema,
    concrete_types: &'a ConcreteTypes,
    document: &'a ExecutableDocument,
    variables: &'a JsonMap,
    limits: &'a Limits,
    visited: u32,
}

impl<'a> Normalizer<'a> {
    pub(super) fn new(
        schema: &'a Schema,
        concrete_types: &'a ConcreteTypes,
        document: &'a ExecutableDocument,
        variables: &'a JsonMap,
        limits: &'a Limits,
    ) -> Self {
        Self { schema, concrete_types, document, variables, limits, visited: 0 }
    }

    pub(super) fn operation(&mut self, operation: &'a Operation) -> Result<Selected<'a>, Refusal> {
        self.selected(&operation.selection_set.ty, &[&operation.selection_set])
    }

    fn selected(&mut self, ty: &'a Name, sets: &[&'a SelectionSet]) -> Result<Selected<'a>, Refusal> {
        let Some(concrete_types) = self.concrete_types.get(ty) else {
            return match self.schema.types.get(ty) {
                Some(ExtendedType::Object(_)) => {
                    let groups = self.collect(ty, sets)?.unwrap_or_default();
                    Ok(Selected::Fields(self.fields(ty, groups)?))
                }
                _ => Ok(Selected::Leaf),
            };
        };
        // Often no fragment distinguishes between the concrete types. One selection then serves all of them.
        if let Some(groups) = self.collect(ty, sets)? {
            return Ok(Selected::Fields(self.fields(ty, groups)?));
        }
        let mut per_type = Vec::new();
        for concrete in concrete_types {
            let groups = self.collect(concrete, sets)?.unwrap_or_default();
            if !groups.is_empty() {
                per_type.push((concrete, self.fields(concrete, groups)?));
            }
        }
        Ok(Selected::PerType(per_type))
    }

    fn fields(&mut self, parent: &'a Name, groups: Groups<'a>) -> Result<Vec<Field<'a>>, Refusal> {
        let mut fields = Vec::with_capacity(groups.len());
        for sources in groups.into_values() {
            let Some(&source) = sources.first() else { continue };
            let definition = match self.schema.type_field(parent, &source.name) {
                Ok(definition) => definition,
                Err(_) => &source.definition,
            };
            let sets: Vec<_> = sources.iter().map(|source| &source.selection_set).collect();
            let selected = self.selected(definition.ty.inner_named_type(), &sets)?;
            fields.push(Field { source, definition, selected });
        }
        Ok(fields)
    }

    /// Returns the fields that the sets select for a result of type `ty`. Returns `None` if `ty` is abstract and a fragment has
    /// another type condition.
    fn collect(&mut self, ty: &Name, sets: &[&'a SelectionSet]) -> Result<Option<Groups<'a>>, Refusal> {
        let is_abstract = self.concrete_types.contains_key(ty);
        let mut groups = Groups::default();
        let mut spread_already = HashSet::default();
        let mut open: Vec<_> = sets.iter().rev().map(|set| set.selections.iter()).collect();
        while let Some(selections) = open.last_mut() {
            let Some(selection) = selections.next() else {
                open.pop();
                continue;
            };
            self.visited += 1;
            if self.visited > self.limits.normalized_fields {
                let limit = self.limits.normalized_fields;
                let message =
                    format!("expanded for every concrete type, the operation has more than {limit} selections");
                return Err(Refusal::new(Code::TooExpensive, message));
            }
            if !self.is_included(selection.directives()) {
                continue;
            }
            let (condition, set) = match selection {
                Selection::Field(field) => {
                    groups.entry(field.response_key()).or_default().push(field.as_ref());
                    continue;
                }
                Selection::InlineFragment(fragment) => (fragment.type_condition.as_ref(), &fragment.selection_set),
                Selection::FragmentSpread(spread) => {
                    let Some(fragment) = self.document.fragments.get(&spread.fragment_name) else { continue };
                    if !spread_already.insert(&spread.fragment_name) {
                        continue;
                    }
                    (Some(fragment.type_condition()), &fragment.selection_set)
                }
            };
            match condition.filter(|condition| *condition != ty) {
                None => open.push(set.selections.iter()),
                Some(_) if is_abstract => return Ok(None),
                Some(condition) => {
                    if self.concrete_types.get(condition).is_some_and(|concrete| concrete.contains(ty)) {
                        open.push(set.selections.iter());
                    }
                }
            }
        }
        Ok(Some(groups))
    }

    fn is_included(&self, directives: &DirectiveList) -> bool {
        let holds =
            |name| directives.get(name).map(|directive| self.is_true(directive.specified_argument_by_name("if")));
        !holds("skip").unwrap_or(false) && holds("include").unwrap_or(true)
    }

    fn is_true(&self, value: Option<&Node<Value>>) -> bool {
        match value.map(AsRef::as_ref) {
            Some(Value::Boolean(value)) => *value,
            Some(Value::Variable(name)) => self.variables.get(name.as_str()).and_then(JsonValue::as_bool) == Some(true),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{normalized, refused};
    use super::*;

    fn plain(query: &str) -> String {
        normalized(query, json!({}))
    }

    #[test]
    fn equal_response_keys_are_one_field_in_order_of_first_appearance() {
        assert_eq!(
            plain("{ me { id } goals { __typename } me { label id } }"),
            "query{me{id label} goals{__typename}}"
        );
        let through_fragments = "mutation {
            ...R record(input: {externalId: \"1\"}) { errors } ... on Mutation { record(input: {externalId: \"1\"}) { replayed } } }
            fragment R on Mutation { record(input: {externalId: \"1\"}) { customer { id } } other }";
        let expected = "mutation{record(input:{externalId:\"1\"}){customer{id} errors replayed} other}";
        assert_eq!(plain(through_fragments), expected);
    }

    #[test]
    fn skip_and_include_are_decided() {
        let query = "query($yes: Boolean!, $no: Boolean = false) {
            a: me @skip(if: $no) { id @include(if: $no) label @include(if: $yes) @skip(if: false) rank @skip(if: $yes) }
            ... @include(if: $yes) { b: me { ...F @skip(if: $yes) ...F balance } }
            ...G @include(if: false)
        } fragment F on Customer { rank } fragment G on Query { c: me { id } }";
        assert_eq!(normalized(query, json!({"yes": true})), "query{a:me{label} b:me{rank balance}}");
    }

    #[test]
    fn a_selection_of_nothing_stays_a_selection() {
        assert_eq!(plain("{ me { id @skip(if: true) } }"), "query{me{...@skip(if:true){__typename}}}");
        assert_eq!(plain("{ me @skip(if: true) { id } }"), "query{...@skip(if:true){__typename}}");
        let per_type = "{ node(id: 1) { ... on Customer { id @skip(if: true) } } }";
        assert_eq!(plain(per_type), "query{node(id:1){...@skip(if:true){__typename}}}");
    }

    #[test]
    fn abstract_parents_are_expanded_where_the_types_differ() {
        assert_eq!(plain("{ node(id: 1) { id ... { label } ... on Node { id } } }"), "query{node(id:1){id label}}");
        let query = "{ node(id: 1) { id ... on Customer { rank label } label ...N ... on Award { id points } } }
            fragment N on Node { parent { id } ... on Campaign { status } }";
        let expected = "query{node(id:1){...on Customer{id rank label parent{id}}\
            ...on Campaign{id label parent{id} status}...on Award{id label parent{id} points}}}";
        assert_eq!(plain(query), expected);
    }

    #[test]
    fn a_union_s_fragments_may_be_of_interfaces() {
        let query =
            "{ search { ... on Node { id } ... on SpendGoal { atLeast } ... on Customer { id rank } __typename } }";
        let expected = "query{search{...on Customer{id rank __typename}...on Campaign{id __typename}\
            ...on SpendGoal{atLeast __typename}}}";
        assert_eq!(plain(query), expected);
    }

    #[test]
    fn a_concrete_parent_takes_only_fragments_that_apply() {
        let query = "{ me { ... on Node { id ... on Award { points } ... on Customer { rank } } } }";
        assert_eq!(plain(query), "query{me{id rank}}");
    }

    #[test]
    fn expansion_over_types_is_bounded() {
        let mut inner = String::from("id");
        for _ in 0..12 {
            inner = format!("parent {{ id ... on Customer {{ rank }} {inner} }}");
        }
        let (code, message) = refused(&format!("{{ node(id: 1) {{ {inner} }} }}"), json!({}));
        assert_eq!(code, Code::TooExpensive, "{message}");
        assert!(message.contains("every concrete type"), "{message}");
    }
}
