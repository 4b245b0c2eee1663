//! Tests the gate together with the real executor, which then runs each field once and has nothing to merge.

use std::sync::{Arc, Mutex};

use async_graphql::futures_util::StreamExt;
use async_graphql::{
    Context, EmptySubscription, InputObject, Interface, MaybeUndefined, Object, OneofObject, Schema, SimpleObject,
    Union, ValidationMode, Variables,
};
use serde_json::{Value, json};

use super::super::fixture::{text, values};
use super::super::{Gate, Limits, Request, Rights, Scalars};

/// The resolver calls, in the order in which they ran.
type Log = Arc<Mutex<Vec<String>>>;

fn log(ctx: &Context<'_>, entry: impl Into<String>) {
    ctx.data_unchecked::<Log>().lock().unwrap().push(entry.into());
}

#[derive(Interface)]
#[graphql(field(name = "id", ty = "String"))]
enum Node {
    Customer(Customer),
    Campaign(Campaign),
}

#[derive(SimpleObject)]
struct Campaign {
    id: String,
    goal: Goal,
}

#[derive(Union)]
enum Goal {
    Spend(Spend),
    Streak(Streak),
}

#[derive(SimpleObject)]
struct Spend {
    at_least: i32,
}

#[derive(SimpleObject)]
struct Streak {
    length: i32,
}

struct Customer(i32);

#[Object]
impl Customer {
    async fn id(&self, ctx: &Context<'_>) -> String {
        log(ctx, format!("id {}", self.0));
        self.0.to_string()
    }

    async fn name(&self, ctx: &Context<'_>) -> String {
        log(ctx, format!("name {}", self.0));
        format!("n{}", self.0)
    }

    /// Returns a list of a different length on each call. If the executor merged two calls by index, the items would be mixed.
    async fn awards(&self, ctx: &Context<'_>) -> Vec<Customer> {
        log(ctx, "awards");
        let calls = ctx.data_unchecked::<Log>().lock().unwrap().iter().filter(|entry| *entry == "awards").count();
        (0..i32::try_from(calls).unwrap() + 1)
            .map(|index| Customer(10 * i32::try_from(calls).unwrap() + index))
            .collect()
    }

    async fn failing(&self) -> Option<Result<i32, async_graphql::Error>> {
        Some(Err("failed".into()))
    }
}

struct Query;

#[Object]
impl Query {
    async fn me(&self, ctx: &Context<'_>) -> Option<Customer> {
        log(ctx, "me");
        Some(Customer(1))
    }

    async fn nodes(&self, ctx: &Context<'_>) -> Vec<Node> {
        log(ctx, "nodes");
        let campaign = |id: &str, goal| Node::Campaign(Campaign { id: id.into(), goal });
        vec![
            Node::Customer(Customer(1)),
            campaign("a", Goal::Spend(Spend { at_least: 5 })),
            campaign("b", Goal::Streak(Streak { length: 3 })),
        ]
    }
}

#[derive(InputObject)]
struct Change {
    name: MaybeUndefined<String>,
}

#[derive(OneofObject)]
enum By {
    Id(i32),
    Name(String),
}

struct Mutation;

#[Object]
impl Mutation {
    async fn record(&self, ctx: &Context<'_>, text: String) -> Customer {
        log(ctx, format!("record {text}"));
        Customer(7)
    }

    async fn change(&self, change: Change, by: By) -> String {
        let by = match by {
            By::Id(id) => id.to_string(),
            By::Name(name) => name,
        };
        match change.name {
            MaybeUndefined::Undefined => format!("{by} kept"),
            MaybeUndefined::Null => format!("{by} cleared"),
            MaybeUndefined::Value(name) => format!("{by} is {name}"),
        }
    }
}

struct Subscription;

#[async_graphql::Subscription]
impl Subscription {
    async fn ticks(&self) -> impl async_graphql::futures_util::Stream<Item = Customer> {
        async_graphql::futures_util::stream::iter([Customer(1), Customer(2)])
    }
}

/// Returns the response as text, and the resolver calls.
async fn run(query: &str, variables: Value) -> (String, Vec<String>) {
    let log = Log::default();
    let schema = Schema::build(Query, Mutation, EmptySubscription)
        .validation_mode(ValidationMode::Fast)
        .data(Arc::clone(&log))
        .finish();
    let gate = Gate::new(&schema.sdl(), Scalars::default(), Limits::default(), text).unwrap();
    let admitted = gate
        .admit(
            &Request { query, hash: None, operation_name: None, variables: &variables.to_string() },
            Rights { introspection: true, ..Rights::default() },
        )
        .unwrap();
    let variables = Variables::from_json(values(&admitted));
    let answer = schema.execute(async_graphql::Request::new(admitted.document.clone()).variables(variables)).await;
    let errors: Vec<_> = answer.errors.iter().map(|error| error.message.clone()).collect();
    let text = format!("{}{}", answer.data, if errors.is_empty() { String::new() } else { format!(" {errors:?}") });
    let ran = log.lock().unwrap().clone();
    (text, ran)
}

#[tokio::test]
async fn a_mutation_selected_twice_runs_once() {
    let query = r#"mutation($t: String!) {
        record(text: $t) { id } ...F record(text: $t) { name }
        ... on Mutation { record(text: $t) { id name } } other: record(text: "o") { id }
    } fragment F on Mutation { record(text: $t) { id } }"#;
    let (answer, ran) = run(query, json!({"t": "x"})).await;
    assert_eq!(answer, r#"{record: {id: "7", name: "n7"}, other: {id: "7"}}"#);
    assert_eq!(ran, ["record x", "id 7", "name 7", "record o", "id 7"]);
}

#[tokio::test]
async fn a_list_selected_by_two_fragments_is_fetched_once() {
    let query = "{ me { ...A ...B awards { id } } } fragment A on Customer { awards { id } } fragment B on Customer { awards { name } }";
    let (answer, ran) = run(query, json!({})).await;
    assert_eq!(answer, r#"{me: {awards: [{id: "10", name: "n10"}, {id: "11", name: "n11"}]}}"#);
    assert_eq!(ran.iter().filter(|entry| *entry == "awards").count(), 1);
}

#[tokio::test]
async fn abstract_parents_answer_each_type_by_its_own_fields() {
    let query = "{ nodes { ... on Campaign { goal { ... on Spend { atLeast } ... on Streak { length __typename } } } id ...C } }
        fragment C on Customer { name id __typename }";
    let (answer, ran) = run(query, json!({})).await;
    let expected = r#"{nodes: [{id: "1", name: "n1", __typename: "Customer"}, {goal: {atLeast: 5}, id: "a"}, {goal: {length: 3, __typename: "Streak"}, id: "b"}]}"#;
    assert_eq!(answer, expected);
    assert_eq!(ran, ["nodes", "id 1", "name 1"]);
    let (answer, _) = run("{ nodes { id ... { id } } }", json!({})).await;
    assert_eq!(answer, r#"{nodes: [{id: "1"}, {id: "a"}, {id: "b"}]}"#);
}

#[tokio::test]
async fn a_selection_of_nothing_answers_an_empty_object() {
    let (answer, ran) = run("{ me { id @skip(if: true) } nodes { ... on Campaign { id } } }", json!({})).await;
    assert_eq!(answer, r#"{me: {}, nodes: [{}, {id: "a"}, {id: "b"}]}"#);
    assert_eq!(ran, ["me", "nodes"]);
    assert_eq!(run("{ me @skip(if: true) { id } }", json!({})).await, ("{}".into(), vec![]));
    let nothing = run("mutation { record(text: \"x\") @include(if: false) { id } }", json!({})).await;
    assert_eq!(nothing, ("{}".into(), vec![]));
}

#[tokio::test]
async fn absent_is_not_null() {
    let query = "mutation($n: String, $id: Int!) { change(change: {name: $n}, by: {id: $id}) }";
    for (variables, expected) in [
        (json!({"id": 1}), r#"{change: "1 kept"}"#),
        (json!({"id": 1, "n": null}), r#"{change: "1 cleared"}"#),
        (json!({"id": 1, "n": "N"}), r#"{change: "1 is N"}"#),
    ] {
        assert_eq!(run(query, variables).await.0, expected);
    }
    let whole = "mutation($c: Change!, $by: By!) { change(change: $c, by: $by) }";
    assert_eq!(run(whole, json!({"c": {}, "by": {"name": "x"}})).await.0, r#"{change: "x kept"}"#);
}

#[tokio::test]
async fn strings_arrive_as_they_were_sent() {
    let sent = r#"mutation { record(text: "\u{1F600}\u0000\t\"\\ é") { id } b: record(text: """
          block
            "text"
        """) { id } }"#;
    let (_, ran) = run(sent, json!({})).await;
    assert_eq!(ran, ["record 😀\0\t\"\\ é", "id 7", "record block\n  \"text\"", "id 7"]);
}

#[tokio::test]
async fn a_nullable_field_that_fails_is_null() {
    let (answer, _) = run("{ me { failing ...F id } } fragment F on Customer { failing }", json!({})).await;
    assert_eq!(answer, r#"{me: {failing: null, id: "1"}} ["failed"]"#);
}

#[tokio::test]
async fn introspection_answers_through_the_gate() {
    let query = "{ __type(name: \"By\") { isOneOf kind inputFields { name } } __schema { queryType { name } ...S } }
        fragment S on __Schema { queryType { kind } }";
    let (answer, _) = run(query, json!({})).await;
    let expected = r#"{__type: {isOneOf: true, kind: INPUT_OBJECT, inputFields: [{name: "id"}, {name: "name"}]}, __schema: {queryType: {name: "Query", kind: OBJECT}}}"#;
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn the_query_that_tools_ask_a_schema_with_is_answered() {
    let mut of_type = String::from("kind name");
    for _ in 0..9 {
        of_type = format!("kind name ofType {{ {of_type} }}");
    }
    let query = format!(
        "query IntrospectionQuery {{ __schema {{ description queryType {{ name kind }} mutationType {{ name kind }}
            subscriptionType {{ name kind }} types {{ ...FullType }}
            directives {{ name description isRepeatable locations args {{ ...InputValue }} }} }} }}
        fragment FullType on __Type {{ kind name description specifiedByURL isOneOf
            fields(includeDeprecated: true) {{ name description args {{ ...InputValue }} type {{ ...TypeRef }}
                isDeprecated deprecationReason }}
            inputFields {{ ...InputValue }} interfaces {{ ...TypeRef }}
            enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }}
            possibleTypes {{ ...TypeRef }} }}
        fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue }}
        fragment TypeRef on __Type {{ {of_type} }}"
    );
    let (answer, _) = run(&query, json!({})).await;
    assert!(answer.contains(r#"queryType: {name: "Query", kind: OBJECT}"#));
    assert!(
        answer.contains(r#"{kind: INPUT_OBJECT, name: "By", description: null, specifiedByURL: null, isOneOf: true"#)
    );
}

#[tokio::test]
async fn a_subscription_streams() {
    let schema = Schema::build(Query, Mutation, Subscription).data(Log::default()).finish();
    let gate = Gate::new(&schema.sdl(), Scalars::default(), Limits::default(), text).unwrap();
    let query = "subscription S { ticks { id ...F } } fragment F on Customer { id name }";
    let request = Request { query, hash: None, operation_name: Some("S"), variables: "" };
    let admitted = gate.admit(&request, Rights::default()).unwrap();
    let stream = schema.execute_stream(async_graphql::Request::new(admitted.document.clone()));
    let answers: Vec<_> = stream.map(|answer| answer.data.to_string()).collect().await;
    assert_eq!(answers, [r#"{ticks: {id: "1", name: "n1"}}"#, r#"{ticks: {id: "2", name: "n2"}}"#]);
}
