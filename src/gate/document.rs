//! One text, parsed, counted and validated. It depends on the schema and the text alone, not on variables or on who asks.

use apollo_compiler::collections::HashMap;
use apollo_compiler::executable::{ExecutableDocument, Operation};
use apollo_compiler::introspection::check_max_depth;
use apollo_compiler::parser::Parser;
use apollo_compiler::validation::{DiagnosticList, Valid};
use apollo_compiler::{Name, Node, Schema};

use super::cost::Counter;
use super::limits::Limits;
use super::refusal::{Code, Refusal};
use super::scan::scan;
use super::values::{self, NeverNull};

/// Stands for the text in the parser's records; nothing shows it.
const SOURCE_NAME: &str = "request";

pub(super) struct Document {
    text_bytes: usize,
    executable: Valid<ExecutableDocument>,
    facts: HashMap<Option<Name>, Facts>,
}

/// What is known of one operation.
pub(super) struct Facts {
    pub(super) introspects: bool,
    pub(super) never_null: NeverNull,
}

impl Document {
    /// Every operation of the text must pass, not only the one that will be asked for.
    pub(super) fn parse(schema: &Valid<Schema>, limits: &Limits, text: &str) -> Result<Self, Vec<Refusal>> {
        scan(text, limits).map_err(|refusal| vec![refusal])?;
        // Second line behind the scan; in the parser's units, which are more than one for a bracket.
        let mut parser = Parser::new().recursion_limit(8 * limits.levels as usize);
        let ast = parser
            .parse_ast(text, SOURCE_NAME)
            .map_err(|failed| Refusal::from_diagnostics(Code::GraphqlParseFailed, &failed.errors))?;
        if ast.definitions.is_empty() {
            return Err(vec![Refusal::new(Code::GraphqlParseFailed, "syntax error: the document is empty")]);
        }
        let invalid = |errors: &DiagnosticList| Refusal::from_diagnostics(Code::GraphqlValidationFailed, errors);
        let executable = ast.to_executable(schema).map_err(|failed| invalid(&failed.errors))?;

        let mut counter = Counter::new(&executable, limits);
        let mut introspects = HashMap::default();
        for operation in executable.operations.iter() {
            let cost = counter.count(operation).map_err(|refusal| vec![refusal])?;
            introspects.insert(operation.name.clone(), cost.introspects());
        }

        let executable = executable.validate(schema).map_err(|failed| invalid(&failed.errors))?;
        let mut facts = HashMap::default();
        for operation in executable.operations.iter() {
            let never_null = values::check(schema, &executable, operation)?;
            let introspects = introspects.get(&operation.name).is_some_and(|introspects| *introspects);
            if introspects {
                check_max_depth(&executable, operation).map_err(|error| {
                    let refusal = Refusal::new(Code::TooExpensive, error.message().to_string());
                    vec![refusal.at_span(error.location(), &executable.sources)]
                })?;
            }
            facts.insert(operation.name.clone(), Facts { introspects, never_null });
        }
        Ok(Self { text_bytes: text.len(), executable, facts })
    }

    /// Length of its text.
    pub(super) fn text_bytes(&self) -> usize {
        self.text_bytes
    }

    pub(super) fn executable(&self) -> &ExecutableDocument {
        &self.executable
    }

    /// The operation of that name; without a name the only one.
    pub(super) fn operation(&self, name: Option<&str>) -> Result<(&Node<Operation>, &Facts), Refusal> {
        let operation = self
            .executable
            .operations
            .get(name)
            .map_err(|error| Refusal::new(Code::BadUserInput, error.message().to_string()))?;
        match self.facts.get(&operation.name) {
            Some(facts) => Ok((operation, facts)),
            None => Err(Refusal::new(Code::BadUserInput, "no such operation")),
        }
    }
}
