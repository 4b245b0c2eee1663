//! Tests that normalisation does not change the meaning of an operation. An executor that follows the specification strictly runs
//! the original and the normalised operation over results made up from the schema. Both must return the same response, including
//! its errors and the order of its keys.

use std::cell::Cell;

use apollo_compiler::ast::Type;
use apollo_compiler::collections::HashSet;
use apollo_compiler::executable::{Selection, SelectionSet};
use apollo_compiler::resolvers::{Execution, FieldError, ObjectValue, ResolveInfo, ResolvedValue};
use apollo_compiler::response::{JsonMap, JsonValue};
use apollo_compiler::schema::ExtendedType;
use apollo_compiler::validation::Valid;
use apollo_compiler::{ExecutableDocument, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::fixture::{SDL, admit_with, text, values};
use super::super::{Admitted, Gate, Limits, Request, Rights, Scalars};

/// An object of type `ty`. `seed` chooses the concrete types of abstract results.
struct Object<'a> {
    schema: &'a Schema,
    ty: String,
    seed: usize,
    resolved: &'a Cell<usize>,
}

impl ObjectValue for Object<'_> {
    fn type_name(&self) -> &str {
        &self.ty
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Result<ResolvedValue<'a>, FieldError> {
        self.resolved.set(self.resolved.get() + 1);
        match info.field_name() {
            "fragile" | "unlucky" => Err(FieldError { message: format!("{} failed", info.field_name()) }),
            name => {
                let arguments = serde_json::to_value(info.arguments()).unwrap();
                // The object's own definition, because the operation may have selected the field through an interface.
                let definition = self.schema.type_field(&self.ty, name).unwrap();
                Ok(self.answer(&definition.ty, &format!("{}.{name}{arguments}", self.ty), self.seed))
            }
        }
    }
}

impl Object<'_> {
    fn answer<'a>(&'a self, ty: &Type, text: &str, seed: usize) -> ResolvedValue<'a> {
        if ty.is_list() {
            let items: Vec<_> = (0..4).map(|index| Ok(self.answer(ty.item_type(), text, seed + index))).collect();
            return ResolvedValue::List(Box::new(items.into_iter()));
        }
        let name = ty.inner_named_type();
        let types: Vec<String> = match &self.schema.types[name] {
            ExtendedType::Object(_) => vec![name.to_string()],
            ExtendedType::Union(union) => union.members.iter().map(ToString::to_string).collect(),
            ExtendedType::Interface(_) => {
                self.schema.implementers_map()[name].objects.iter().map(ToString::to_string).collect()
            }
            ExtendedType::Enum(_) => return ResolvedValue::Leaf("DRAFT".into()),
            _ => {
                return ResolvedValue::Leaf(match name.as_str() {
                    "Int" => json!(text.len()).into(),
                    "Boolean" => json!(true).into(),
                    _ => text.into(),
                });
            }
        };
        let ty = types[seed % types.len()].clone();
        ResolvedValue::Object(Box::new(Object { ty, seed: seed + 1, ..*self }))
    }
}

/// Returns the response's data and errors as text, and the number of fields that were resolved.
fn run(schema: &Valid<Schema>, query: &str, variables: &Value, seed: usize) -> (String, usize) {
    let document = ExecutableDocument::parse_and_validate(schema, query, "query").unwrap();
    let operation = document.operations.get(None).unwrap();
    let JsonValue::Object(variables): JsonValue = variables.clone().into() else { panic!("variables are an object") };
    let resolved = Cell::new(0);
    let root = Object { schema, ty: operation.selection_set.ty.to_string(), seed, resolved: &resolved };
    let execution = Execution::new(schema, &document).raw_variable_values(&variables);
    let response = execution.execute_sync(&root).unwrap();
    let errors: Vec<_> = response.errors.iter().map(|error| json!([error.message, error.path]).to_string()).collect();
    (format!("{} {errors:?}", serde_json::to_string::<Option<JsonMap>>(&response.data).unwrap()), resolved.get())
}

/// Asserts that each response key occurs once at each place, and that there are no fragments except one for each concrete type of
/// an abstract parent.
fn assert_normal(schema: &Schema, set: &SelectionSet) {
    let mut seen = HashSet::default();
    for selection in &set.selections {
        match selection {
            Selection::Field(field) => {
                assert!(seen.insert(field.response_key().to_string()), "{} twice", field.response_key());
                assert!(field.directives.is_empty());
                assert_normal(schema, &field.selection_set);
            }
            Selection::InlineFragment(fragment) => match &fragment.type_condition {
                Some(condition) => {
                    assert!(matches!(schema.types[condition], ExtendedType::Object(_)));
                    assert!(!matches!(schema.types[&set.ty], ExtendedType::Object(_)));
                    assert!(seen.insert(format!("on {condition}")), "on {condition} twice");
                    assert_normal(schema, &fragment.selection_set);
                }
                None => assert_eq!(set.selections.len(), 1, "only the selection of nothing has no condition"),
            },
            Selection::FragmentSpread(_) => panic!("a spread is left"),
        }
    }
    let fields = set.fields().count();
    assert!(fields == 0 || fields == set.selections.len(), "fields beside fragments");
}

#[test]
fn an_operation_means_the_same_after_normalisation() {
    let schema = Schema::parse_and_validate(SDL, "schema").unwrap();
    let record = r#"record(input: {externalId: "1", points: 5, lines: [{sku: "a"}]})"#;
    let documents: Vec<(String, Value)> = [
        ("{ me { id label } }", json!({})),
        ("{ me { id } me { label } me { id } }", json!({})),
        ("{ a: me { id } b: me { id } a: me { rank } }", json!({})),
        ("{ __typename me { __typename t: __typename __typename } }", json!({})),
        ("{ me { friend { id } balance friend { friend { rank } label } } }", json!({})),
        ("{ me { ...F } me { ...F friend { ...F } } } fragment F on Customer { id friend { label } }", json!({})),
        ("{ ...A ...B } fragment A on Query { me { id } ...B } fragment B on Query { me { rank } goals { __typename } }", json!({})),
        ("{ ... { ... { me { id } } } ... on Query { me { label } } }", json!({})),
        ("{ node(id: 1) { id label } }", json!({})),
        ("{ node(id: 1) { id ... on Customer { rank } ... on Award { points } label } }", json!({})),
        ("{ node(id: 1) { ... on Customer { rank } ... on Campaign { rank2: rank } id } }", json!({})),
        ("{ search { ... on Customer { x: fragile } ... on SpendGoal { x: atLeast } ... on Campaign { y: label } } }", json!({})),
        ("{ node(id: 1) { ... on Customer { id } } }", json!({})),
        ("{ node(id: 1) { parent { parent { id ... on Award { campaign { goal { ... on SpendGoal { atLeast } } } } } } } }", json!({})),
        ("{ node(id: 1) { ...N ... on Campaign { ...N status } } } fragment N on Node { id parent { ...M } } fragment M on Node { label }", json!({})),
        ("{ nodes(ids: [1, 2]) { id ... on Customer { awards(first: 1) { id } } ... on Node { label } } }", json!({})),
        ("{ nodes(ids: [1, 2]) { ...A ...B } } fragment A on Customer { awards { id } } fragment B on Customer { awards { points customer { id } } }", json!({})),
        ("{ goals { ... on SpendGoal { atLeast } ... on StreakGoal { length } } }", json!({})),
        ("{ goals { __typename ... on StreakGoal { atLeast length } ... on SpendGoal { atLeast } } }", json!({})),
        ("{ search { ... on Node { id label } ... on Customer { rank id } ... on SpendGoal { atLeast } } }", json!({})),
        ("{ search { ... on Node { ... on Campaign { goal { __typename } } parent { id } } __typename } }", json!({})),
        ("{ customers { nodes { id } nodes { label } edges { node { id } cursor } pageInfo { hasNextPage } } }", json!({})),
        ("{ me { fragile id } goals { __typename } }", json!({})),
        ("{ me { unlucky id } goals { __typename } }", json!({})),
        ("{ customers { nodes { id fragile } } me { id } }", json!({})),
        ("{ me { friend { fragile } id friend { label unlucky } } }", json!({})),
        ("{ me { awards { customer { fragile } id } } }", json!({})),
        ("query($y: Boolean!, $n: Boolean!) { me @include(if: $y) { id @skip(if: $y) label @skip(if: $n) } goals @include(if: $n) { __typename } }", json!({"y": true, "n": false})),
        ("query($n: Boolean!) { me { ...F @include(if: $n) ...F rank } } fragment F on Customer { id label }", json!({"n": false})),
        ("query($n: Boolean!) { me { ...F @include(if: $n) rank ... @skip(if: $n) { ...F } } } fragment F on Customer { id label }", json!({"n": false})),
        ("{ me { id @skip(if: true) } node(id: 1) { ... on Customer { rank @skip(if: true) } id @include(if: false) } }", json!({})),
        ("{ me @skip(if: true) { id } }", json!({})),
        ("query($y: Boolean = true) { me @include(if: $y) { id } goals @skip(if: $y) { __typename } }", json!({})),
        ("query($i: Int, $t: String = \"d\", $p: Int) { echo(number: $i, text: $t, page: $p) }", json!({})),
        ("query($i: Int, $t: String = \"d\", $p: Int) { echo(number: $i, text: $t, page: $p) }", json!({"i": 1, "t": null, "p": 3})),
        ("query($ids: [ID!], $f: Filter) { echo(ids: $ids, filter: $f) b: echo(ids: $ids) }", json!({"ids": "x", "f": {"tags": "t"}})),
        ("query($min: Int!) { echo(filter: {min: $min, and: [{tags: [\"a\", \"b\"]}]}) b: echo(filter: {min: $min}) }", json!({"min": 4})),
        ("{ echo(text: \"line\\nbreak \\\"quoted\\\" \\\\ \\u00e9 é\", points: [1, {a: 2.5}], status: ACTIVE, ratio: 1e3) }", json!({})),
        ("{ echo(text: \"\"\"\n    block\n      text\n  \"\"\") customer(by: {externalId: \"x\"}) { id } }", json!({})),
        ("mutation { REC { replayed } REC { errors } other ...F } fragment F on Mutation { REC { customer { id } } other }", json!({})),
        ("mutation($i: RecordInput!) { record(input: $i) { replayed } again: record(input: $i) { errors } }", json!({"i": {"externalId": "1", "lines": [{"sku": "s"}]}})),
        ("query Named($a: Int = 1, $b: Int = 2) { x: echo(number: $a) y: echo(number: $b) @skip(if: true) }", json!({"b": 5})),
        ("{ me { parent { ... on Customer { parent { ... on Award { points } id } } ... on Campaign { parent { status } } } } }", json!({})),
    ]
    .into_iter()
    .map(|(query, variables)| (query.replace("REC", record), variables))
    .collect();

    for (query, variables) in &documents {
        admit_with(query, variables.clone()).unwrap();
        assert_same_meaning(&schema, query, variables);
    }
}

/// Asserts that normalisation keeps the meaning of the query. Asserts nothing if the query is refused.
fn assert_same_meaning(schema: &Valid<Schema>, query: &str, variables: &Value) {
    let Limits { tokens, fields, .. } = Limits::default();
    let (aliases, directives) = (u32::MAX, u32::MAX);
    // The normalised text may be longer than the original, because it repeats the fields for each concrete type.
    let limits = Limits { tokens: 20 * tokens, fields: 5 * fields, aliases, directives, ..Limits::default() };
    let gate = Gate::new(SDL, Scalars::default(), limits, text).unwrap();
    let admit = |query: &str, variables: Value| {
        gate.admit(
            &Request { query, hash: None, operation_name: None, variables: &variables.to_string() },
            Rights::default(),
        )
    };
    let Ok(admitted) = admit(query, variables.clone()) else { return };
    let kept_variables = values(&admitted);
    let normalized = ExecutableDocument::parse_and_validate(schema, &admitted.document, "normalised").unwrap();
    assert_normal(schema, &normalized.operations.get(None).unwrap().selection_set);
    async_graphql::parser::parse_query(&admitted.document).unwrap();
    for seed in 0..4 {
        let sent = run(schema, query, variables, seed);
        let kept = run(schema, &admitted.document, &kept_variables, seed);
        assert_eq!(sent, kept, "{query}\n{}", admitted.document);
    }
    let again = admit(&admitted.document, kept_variables).unwrap();
    let told = |of: &Admitted<String>| (of.operation, of.document.clone(), of.variables.clone(), of.cost);
    assert_eq!(told(&again), told(&admitted), "normalising twice changes nothing");
}

/// Writes an operation that is determined by a sequence of choices.
struct Writer {
    choices: std::vec::IntoIter<u8>,
    /// The first fragment that may be spread. Spreads of earlier fragments could form a cycle.
    fragment: usize,
}

const FRAGMENTS: [&str; 6] = ["Query", "Node", "Customer", "Award", "Customer", "Node"];

impl Writer {
    fn choose<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[usize::from(self.choices.next().unwrap_or(0)) % from.len()]
    }

    fn selection_set(&mut self, ty: &str, depth: usize) -> String {
        let count = 1 + self.choices.next().unwrap_or(0) % 4;
        let selections: Vec<_> = (0..count).map(|_| self.selection(ty, depth)).collect();
        format!("{{ {} }}", selections.join(" "))
    }

    fn selection(&mut self, ty: &str, depth: usize) -> String {
        let conditions: &[&str] =
            &["", "", "", "@skip(if: $yes)", "@skip(if: $no)", "@include(if: $yes)", "@include(if: $no)"];
        let condition = self.choose(conditions);
        let leaves: &[&str] = match ty {
            "Query" => &["__typename", "t: __typename"],
            "Customer" => &["id", "rank", "fragile", "unlucky", "a: label"],
            "Award" => &["id", "points", "a: label"],
            "Campaign" => &["id", "status", "a: label"],
            "SpendGoal" => &["atLeast"],
            "Node" => &["id", "a: label", "__typename"],
            _ => &["__typename"],
        };
        let composites: &[(&str, &str)] = match ty {
            "Query" => &[("me", "Customer"), ("node(id: 1)", "Node"), ("nodes(ids: [1])", "Node"), ("search", "Hit")],
            "Customer" => &[("friend", "Customer"), ("parent", "Node"), ("awards", "Award")],
            "Award" => &[("customer", "Customer"), ("campaign", "Campaign"), ("parent", "Node")],
            "Campaign" => &[("parent", "Campaign"), ("goal", "Goal")],
            "Node" => &[("parent", "Node")],
            _ => &[],
        };
        let narrower: &[&str] = match ty {
            "Node" => &["Customer", "Award", "Campaign", "Node"],
            "Hit" => &["Customer", "Campaign", "SpendGoal", "Node"],
            "Goal" => &["SpendGoal", "StreakGoal"],
            "Customer" | "Award" | "Campaign" => &["Node"],
            _ => &[],
        };
        match self.choices.next().unwrap_or(0) % 5 {
            1 | 2 if depth > 0 && !composites.is_empty() => {
                let (field, inner) = composites[usize::from(self.choices.next().unwrap_or(0)) % composites.len()];
                format!("{field} {condition} {}", self.selection_set(inner, depth - 1))
            }
            3 if depth > 0 && !narrower.is_empty() => {
                let narrower = self.choose(narrower);
                format!("... on {narrower} {condition} {}", self.selection_set(narrower, depth - 1))
            }
            4 => match (self.fragment..FRAGMENTS.len())
                .find(|&index| FRAGMENTS[index] == ty || narrower.contains(&FRAGMENTS[index]))
            {
                Some(index) => format!("...F{index} {condition}"),
                None => format!("... {condition} {{ {} }}", self.choose(leaves)),
            },
            _ => format!("{} {condition}", self.choose(leaves)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_operation_means_the_same_after_normalisation(choices in prop::collection::vec(any::<u8>(), 20..300)) {
        let schema = Schema::parse_and_validate(SDL, "schema").unwrap();
        let mut writer = Writer { choices: choices.into_iter(), fragment: 0 };
        let mut query = format!("query($yes: Boolean = true, $no: Boolean!) {}", writer.selection_set("Query", 4));
        for (index, ty) in FRAGMENTS.iter().enumerate() {
            writer.fragment = index + 1;
            query += &format!(" fragment F{index} on {ty} {}", writer.selection_set(ty, 3));
        }
        let query = with_what_is_used(&query);
        assert_same_meaning(&schema, &query, &json!({"no": false}));
    }
}

/// Adds selections that use all variables and fragments, because unused ones are errors.
fn with_what_is_used(query: &str) -> String {
    let spreads = "... @include(if: $yes) { ... @skip(if: $no) { __typename } } \
        me { ...F2 ...F4 awards { ...F3 } ... on Node { ...F1 ...F5 } } ...F0";
    query.replacen("$no: Boolean!) {", &format!("$no: Boolean!) {{ {spreads}"), 1)
}
