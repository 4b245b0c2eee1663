//! Parses, counts and validates one text. The result depends only on the schema and the text, not on variables or the caller.

use apollo_compiler::collections::{HashMap, HashSet};
use apollo_compiler::executable::{ExecutableDocument, Operation};
use apollo_compiler::introspection::check_max_depth;
use apollo_compiler::parser::Parser;
use apollo_compiler::validation::Valid;
use apollo_compiler::{Name, Node, Schema};

use super::cost::Counter;
use super::documents::{Hash, hash_of};
use super::limits::Limits;
use super::plan::{Deciding, deciding};
use super::refusal::{Code, MAX_REFUSALS, Refusal};
use super::scalars::Scalars;
use super::scan::{scan, without};
use super::values::{self, NeverNull};
use super::wording;

/// Names the text in the parser's records. No message shows the name.
const SOURCE_NAME: &str = "request";

/// Everything that a document is checked against.
#[derive(Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) schema: &'a Valid<Schema>,
    pub(super) scalars: &'a Scalars,
    pub(super) limits: &'a Limits,
}

pub(super) struct Document {
    hash: Hash,
    text_bytes: usize,
    executable: Valid<ExecutableDocument>,
    facts: HashMap<Option<Name>, Facts>,
}

/// What validation finds out about one operation.
pub(super) struct Facts {
    pub(super) introspects: bool,
    pub(super) never_null: NeverNull,
    pub(super) deciding: Deciding,
}

impl Document {
    /// Parses and validates the text. Every operation must be valid, not only the one that the request names.
    pub(super) fn parse(rules: &Rules<'_>, text: &str) -> Result<Self, Vec<Refusal>> {
        let Rules { schema, scalars, limits } = *rules;
        let sent = text;
        let descriptions = scan(sent, limits).map_err(|refusal| vec![refusal])?.descriptions;
        let text = &*without(sent, &descriptions);
        // A second line of defence behind the scan. The limit is in the parser's own units, of which a bracket takes several.
        let mut parser = Parser::new().recursion_limit(8 * limits.levels as usize);
        let ast = parser.parse_ast(text, SOURCE_NAME).map_err(|failed| vec![wording::syntax(text, &failed.errors)])?;
        if ast.definitions.is_empty() {
            return Err(vec![Refusal::new(Code::GraphqlParseFailed, "syntax error: the document is empty")]);
        }
        let mut refusals = Vec::new();
        let executable = ast.to_executable(schema).unwrap_or_else(|failed| {
            refusals = wording::invalid(schema, &failed.errors, true);
            failed.partial
        });
        let introspecting = introspecting(&executable, limits).map_err(|refusal| vec![refusal])?;
        let executable = executable.validate(schema).map(Valid::into_inner).unwrap_or_else(|failed| {
            refusals.extend(wording::invalid(schema, &failed.errors, refusals.is_empty()));
            failed.partial
        });
        let mut facts = HashMap::default();
        for operation in executable.operations.iter() {
            let introspects = introspecting.contains(&operation.name);
            match values::check(schema, scalars, &executable, operation) {
                Ok(never_null) => {
                    let deciding = deciding(&executable, operation);
                    facts.insert(operation.name.clone(), Facts { introspects, never_null, deciding });
                }
                Err(more) => add(&mut refusals, more),
            }
        }
        if !refusals.is_empty() {
            refusals.truncate(MAX_REFUSALS);
            return Err(refusals);
        }
        let executable = Valid::assume_valid(executable);
        check_introspection(&executable, &introspecting)?;
        Ok(Self { hash: hash_of(sent), text_bytes: text.len(), executable, facts })
    }

    /// The hash of the text as the client sent it.
    pub(super) fn hash(&self) -> Hash {
        self.hash
    }

    pub(super) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    pub(super) fn executable(&self) -> &ExecutableDocument {
        &self.executable
    }

    /// Returns the operation with this name or, without a name, the only operation.
    pub(super) fn operation(&self, name: Option<&str>) -> Result<(&Node<Operation>, &Facts), Refusal> {
        let operation = self
            .executable
            .operations
            .get(name)
            .map_err(|error| Refusal::new(Code::BadUserInput, error.message().to_string()))?;
        match self.facts.get(&operation.name) {
            Some(facts) => Ok((operation, facts)),
            None => Err(Refusal::new(Code::BadUserInput, "the document has no such operation")),
        }
    }
}

/// Returns the names of the operations that query the schema. Every operation is counted, whichever one will run.
fn introspecting(document: &ExecutableDocument, limits: &Limits) -> Result<HashSet<Option<Name>>, Refusal> {
    let mut counter = Counter::new(document, limits);
    let mut introspecting = HashSet::default();
    for operation in document.operations.iter() {
        if counter.count(operation)?.introspects() {
            introspecting.insert(operation.name.clone());
        }
    }
    Ok(introspecting)
}

fn check_introspection(
    document: &Valid<ExecutableDocument>,
    introspecting: &HashSet<Option<Name>>,
) -> Result<(), Vec<Refusal>> {
    for operation in document.operations.iter().filter(|operation| introspecting.contains(&operation.name)) {
        check_max_depth(document, operation).map_err(|error| {
            let refusal = Refusal::new(Code::TooExpensive, error.message().to_string());
            vec![refusal.at_span(error.location(), &document.sources)]
        })?;
    }
    Ok(())
}

/// Adds each refusal whose place has no refusal yet.
fn add(refusals: &mut Vec<Refusal>, more: Vec<Refusal>) {
    for refusal in more {
        if !refusals.iter().any(|told| told.locations == refusal.locations) {
            refusals.push(refusal);
        }
    }
}
