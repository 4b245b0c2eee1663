//! Checks the values in a text by those rules of the specification that the validator behind this gate does not implement.
//!
//! The validator compares variables inside lists and objects only by the name of their type. The validator also takes `= null`
//! for a default that makes a variable non-null, does not know `@oneOf`, does not look into the literals of custom scalars, and
//! reports only one of several unknown input fields.

use apollo_compiler::ast::{DirectiveList, InputValueDefinition, Type, Value};
use apollo_compiler::collections::HashSet;
use apollo_compiler::executable::{Argument, ExecutableDocument, Operation, Selection, SelectionSet};
use apollo_compiler::parser::SourceSpan;
use apollo_compiler::schema::{ExtendedType, InputObjectType};
use apollo_compiler::{Name, Node, Schema};

use super::refusal::{Code, MAX_REFUSALS, Refusal};
use super::scalars::{self, Scalars};

/// The variables whose type allows null although a place that uses them does not. The specification permits such a variable if
/// the variable or the place has a default, but a request can still send null for the variable.
pub(super) type NeverNull = HashSet<Name>;

/// Checks all values of one operation, including those in its fragments.
pub(super) fn check(
    schema: &Schema,
    scalars: &Scalars,
    document: &ExecutableDocument,
    operation: &Operation,
) -> Result<NeverNull, Vec<Refusal>> {
    let mut check = Check {
        schema,
        scalars,
        document,
        operation,
        fragments: HashSet::default(),
        never_null: HashSet::default(),
        refusals: Vec::new(),
    };
    check.directives(&operation.directives);
    for variable in &operation.variables {
        check.directives(&variable.directives);
        if let Some(default) = &variable.default_value {
            check.value(default, Some(Place { ty: &variable.ty, has_default: false }));
        }
    }
    check.selection_set(&operation.selection_set);
    if check.refusals.is_empty() { Ok(check.never_null) } else { Err(check.refusals) }
}

pub(super) fn is_one_of(input: &InputObjectType) -> bool {
    input.directives.has("oneOf")
}

/// The type that is expected of a value, and whether the argument or input field has a default.
#[derive(Clone, Copy)]
struct Place<'a> {
    ty: &'a Type,
    has_default: bool,
}

struct Check<'a> {
    schema: &'a Schema,
    scalars: &'a Scalars,
    document: &'a ExecutableDocument,
    operation: &'a Operation,
    fragments: HashSet<&'a Name>,
    never_null: NeverNull,
    refusals: Vec<Refusal>,
}

impl<'a> Check<'a> {
    fn selection_set(&mut self, set: &'a SelectionSet) {
        for selection in &set.selections {
            self.directives(selection.directives());
            match selection {
                Selection::Field(field) => {
                    self.arguments(&field.arguments, &field.definition.arguments);
                    self.selection_set(&field.selection_set);
                }
                Selection::InlineFragment(fragment) => self.selection_set(&fragment.selection_set),
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.document.fragments.get(&spread.fragment_name)
                        && self.fragments.insert(&spread.fragment_name)
                    {
                        self.directives(&fragment.directives);
                        self.selection_set(&fragment.selection_set);
                    }
                }
            }
        }
    }

    fn directives(&mut self, directives: &'a DirectiveList) {
        for directive in directives.iter() {
            if let Some(definition) = self.schema.directive_definitions.get(&directive.name) {
                self.arguments(&directive.arguments, &definition.arguments);
            }
        }
    }

    fn arguments(&mut self, arguments: &'a [Node<Argument>], definitions: &[Node<InputValueDefinition>]) {
        for argument in arguments {
            if let Some(definition) = definitions.iter().find(|definition| definition.name == argument.name) {
                self.value(&argument.value, Some(Place::of(definition)));
            }
        }
    }

    /// `place` is `None` where no type is known, for example inside the literal of a custom scalar.
    fn value(&mut self, value: &Node<Value>, place: Option<Place<'_>>) {
        if let Some(place) = place
            && let Some(scalar) = scalars::of_literal(self.scalars, place.ty, value)
        {
            if !scalar.fits_literal(value) {
                let message = format!("this is not a value of type {}: {}", place.ty, scalar.expected);
                self.refuse(message, value.location());
            }
            return;
        }
        match value.as_ref() {
            Value::Variable(name) => self.variable(name, value.location(), place),
            Value::Int(_) | Value::Float(_) if !is_finite(value) => {
                self.refuse("the number is too large".into(), value.location());
            }
            Value::List(items) => {
                let item = place.filter(|place| place.ty.is_list());
                let item = item.map(|place| Place { ty: place.ty.item_type(), has_default: false });
                for value in items {
                    self.value(value, item);
                }
            }
            Value::Object(fields) => self.object(fields, value.location(), place),
            _ => {}
        }
    }

    fn variable(&mut self, name: &Name, location: Option<SourceSpan>, place: Option<Place<'_>>) {
        let Some(variable) = self.operation.variables.iter().find(|variable| variable.name == *name) else {
            return self.refuse(format!("variable `${name}` is not defined"), location);
        };
        let Some(place) = place else { return };
        let mut allowed = variable.ty.is_assignable_to(place.ty);
        if !allowed && place.ty.is_non_null() && !variable.ty.is_non_null() {
            let defaults = place.has_default || variable.default_value.as_ref().is_some_and(|value| !value.is_null());
            allowed = defaults && variable.ty.is_assignable_to(&place.ty.clone().nullable());
            self.never_null.insert(name.clone());
        }
        if !allowed {
            let message =
                format!("variable `${name}` of type `{}` is used where `{}` is expected", variable.ty, place.ty);
            self.refuse(message, location);
        }
    }

    fn object(&mut self, fields: &[(Name, Node<Value>)], location: Option<SourceSpan>, place: Option<Place<'_>>) {
        let input = match place.and_then(|place| self.schema.types.get(place.ty.inner_named_type())) {
            Some(ExtendedType::InputObject(input)) => Some(input),
            _ => None,
        };
        let mut names = HashSet::default();
        for (name, value) in fields {
            if !names.insert(name) {
                self.refuse(format!("there can be only one input field named `{name}`"), location);
            }
            let definition = input.and_then(|input| input.fields.get(name));
            if let (Some(input), None) = (input, definition) {
                self.refuse(format!("field `{name}` does not exist on `{}`", input.name), value.location());
            }
            self.value(value, definition.map(|definition| Place::of(definition)));
        }
        if let Some(input) = input.filter(|input| is_one_of(input)) {
            let allowed = match fields {
                [(_, value)] => !value.is_null() && !value.as_variable().is_some_and(|name| self.may_be_null(name)),
                _ => false,
            };
            if !allowed {
                self.refuse(one_of_message(&input.name), location);
            }
        }
    }

    fn may_be_null(&self, variable: &Name) -> bool {
        self.operation.variables.iter().any(|definition| definition.name == *variable && !definition.ty.is_non_null())
    }

    fn refuse(&mut self, message: String, location: Option<SourceSpan>) {
        if self.refusals.len() < MAX_REFUSALS {
            let refusal = Refusal::new(Code::GraphqlValidationFailed, message);
            self.refusals.push(refusal.at_span(location, &self.document.sources));
        }
    }
}

impl<'a> Place<'a> {
    fn of(definition: &'a InputValueDefinition) -> Self {
        Self { ty: &definition.ty, has_default: definition.default_value.is_some() }
    }
}

pub(super) fn one_of_message(input: &Name) -> String {
    format!("exactly one field of `{input}` must be given, and it must not be null")
}

/// Whether the executor's parser accepts the number. The parser reads an integer beyond 64 bits as a float, and fails if the
/// float overflows.
fn is_finite(number: &Value) -> bool {
    match number {
        Value::Int(number) => number.try_to_f64().is_ok(),
        Value::Float(number) => number.try_to_f64().is_ok(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fixture::{admit_with, refused};
    use super::*;

    #[test]
    fn variables_fit_where_they_stand() {
        for query in [
            "query($a: Boolean = null) { me @include(if: $a) { id } }",
            "query($a: Boolean = null) { me { id ...F @skip(if: $a) } } fragment F on Customer { rank }",
            "query($a: Int) { me @include(if: $a) { id } }",
            "query($a: ID) { echo(ids: [$a]) }",
            "query($a: [ID!]) { echo(ids: [$a]) }",
            "query($a: [String!]) { echo(filter: {name: $a}) }",
            "query($a: String) { echo(filter: {tags: [$a]}) }",
            "query($a: Int = null) { echo(filter: {and: [{min: $a, name: $b}]}) }",
            "query($a: ID) { customer(by: {id: $a}) { id } }",
            "{ echo(points: {deep: [$undefined]}) }",
        ] {
            let (code, message) = refused(query, json!({}));
            assert_eq!(code, Code::GraphqlValidationFailed, "{query}: {message}");
        }
        for query in [
            "query($a: Int) { echo(page: $a) }",
            "query($a: Int = 3) { echo(page: $a) }",
            "query($a: Boolean = true) { me @include(if: $a) { id } }",
            "query($a: Int) { echo(filter: {min: $a}) }",
            "query($a: Points) { echo(points: {deep: [$a]}) }",
            "query($a: Int) { echo(points: {deep: [$a]}) }",
        ] {
            assert!(admit_with(query, json!({})).is_ok(), "{query}");
        }
    }

    #[test]
    fn null_does_not_reach_a_place_that_refuses_it() {
        for query in [
            "query($a: Int = 3) { echo(page: $a) }",
            "query($a: Int) { echo(page: $a) }",
            "query($a: Boolean = true) { me @include(if: $a) { id } }",
            "query($a: Boolean = true) { ...F } fragment F on Query { me { id @skip(if: $a) label } }",
            "query($a: Int) { echo(filter: {min: $a}) }",
        ] {
            assert_eq!(refused(query, json!({"a": null})).0, Code::BadUserInput, "{query}");
            assert!(admit_with(query, json!({})).is_ok(), "{query}");
        }
        assert_eq!(refused("query($a: Int = null) { echo(page: $a) }", json!({})).0, Code::BadUserInput);
        assert!(admit_with("query($a: Int = null) { echo(page: $a) }", json!({"a": 1})).is_ok());
        assert!(admit_with("query($a: Int = 3) { echo(number: $a) }", json!({"a": null})).is_ok());
    }

    #[test]
    fn one_of_takes_exactly_one_field() {
        for literal in ["{}", "{id: 1, externalId: \"x\"}", "{id: null}", "{id: 1, externalId: null}"] {
            for query in [
                format!("{{ customer(by: {literal}) {{ id }} }}"),
                format!("query($by: CustomerBy! = {literal}) {{ customer(by: $by) {{ id }} }}"),
                format!("{{ echo(filter: {{and: [{{by: {literal}}}]}}) }}"),
            ] {
                let (code, message) = refused(&query, json!({}));
                assert_eq!(code, Code::GraphqlValidationFailed);
                assert!(message.contains("exactly one field of `CustomerBy`"), "{message}");
            }
        }
        assert!(admit_with("query($id: ID!) { customer(by: {id: $id}) { id } }", json!({"id": "1"})).is_ok());
    }

    #[test]
    fn literals_are_what_the_executor_can_read() {
        assert!(refused("{ echo(points: 1e999) }", json!({})).1.contains("too large"));
        assert!(refused("{ echo(points: {a: 1, a: 2}) }", json!({})).1.contains("only one input field named `a`"));
        assert!(refused("{ echo(filter: {name: \"a\", name: \"b\"}) }", json!({})).1.contains("only one input field"));
        let long = admit_with("{ echo(points: [123456789012345678901234567890, -0, 0.0E+5]) }", json!({})).unwrap();
        assert!(async_graphql::parser::parse_query(&long.document).is_ok());
    }
}
