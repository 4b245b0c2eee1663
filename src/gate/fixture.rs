//! A small schema with every kind of type, and helpers for the tests of this module.

use serde_json::{Value, json};

use super::{Admitted, Code, Gate, Limits, OperationKind, Refusal, Request, Rights, Scalar};

pub(super) const SDL: &str = r#"
directive @oneOf on INPUT_OBJECT
directive @once repeatable on FIELD
scalar Points
scalar Even
interface Node { id: ID! label: String! parent: Node }
type Query {
  me: Customer
  node(id: ID!): Node
  nodes(ids: [ID!]!): [Node]!
  customer(by: CustomerBy!): Customer
  customers(first: Int, after: String, last: Int): CustomerConnection!
  goals: [Goal!]!
  search: [Hit!]!
  echo(
    text: String, number: Int, page: Int! = 7, ids: [ID!], by: CustomerBy, filter: Filter, points: Points, flag: Boolean,
    status: Status, ratio: Float, even: Even, evens: [Even!]
  ): String
}
type CustomerConnection { nodes: [Customer!]! edges: [CustomerEdge!]! pageInfo: PageInfo! }
type CustomerEdge { cursor: String! node: Customer! }
type PageInfo { hasNextPage: Boolean! }
type Customer implements Node {
  id: ID!
  label: String!
  parent: Node
  balance: Points!
  friend: Customer
  awards(first: Int, last: Int): [Award!]!
  fragile: Int!
  unlucky: Int
  rank: Int
  note(text: String): String
}
type Campaign implements Node { id: ID! label: String! parent: Campaign goal: Goal! status: Status! rank: String }
type Award implements Node { id: ID! label: String! parent: Node points: Points! customer: Customer! campaign: Campaign! }
enum Status { DRAFT ACTIVE }
union Goal = SpendGoal | StreakGoal
type SpendGoal { atLeast: Int! }
type StreakGoal { length: Int! atLeast: Int! }
union Hit = Customer | Campaign | SpendGoal
input CustomerBy @oneOf { id: ID externalId: String }
input Filter { name: String min: Int! = 1 tags: [String!] by: CustomerBy and: [Filter!] }
type Mutation {
  record(input: RecordInput!): RecordPayload!
  other: Int
}
input RecordInput { externalId: String! points: Points lines: [LineInput!] }
input LineInput { sku: String! quantity: Int! = 1 even: Even }
type RecordPayload { replayed: Boolean! customer: Customer errors: [String!]! }
type Subscription { ticks(after: String): Int! points: Customer! }
"#;

/// Prepares a document as its text.
pub(super) fn text(_: OperationKind, _: &[String], text: String) -> String {
    text
}

pub(super) fn gate() -> Gate<String> {
    let even = Scalar { fits: |value| value.as_i64().is_some_and(|number| number % 2 == 0), expected: "write it even" };
    Gate::new(SDL, [("Even", even)].into(), Limits::default(), text).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "tests write the values inside the call")]
pub(super) fn admit_with(query: &str, variables: Value) -> Result<Admitted<String>, Vec<Refusal>> {
    let variables = &variables.to_string();
    gate().admit(&Request { query, hash: None, operation_name: None, variables }, Rights::default())
}

pub(super) fn admit(query: &str) -> Result<Admitted<String>, Vec<Refusal>> {
    admit_with(query, json!({}))
}

/// Returns the normalised text. Panics if the query is refused.
pub(super) fn normalized(query: &str, variables: Value) -> String {
    admit_with(query, variables).unwrap().document.clone()
}

/// Returns the code and the message of the first refusal. Panics if the query is admitted.
pub(super) fn refused(query: &str, variables: Value) -> (Code, String) {
    let refusal = admit_with(query, variables).unwrap_err().remove(0);
    (refusal.code, refusal.message)
}

/// Returns the variables of an admitted request.
pub(super) fn values(admitted: &Admitted<String>) -> Value {
    serde_json::to_value(&admitted.variables).unwrap()
}
