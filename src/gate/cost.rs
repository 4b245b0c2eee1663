//! What a document asks for, counted without expanding it.
//!
//! A few hundred bytes of fragments that spread each other select millions of fields. Each fragment is therefore counted once and
//! its counts are added wherever it is spread: the work is that of reading the text. This runs before validation, which walks
//! fragments too, and everything that comes later may recurse and expand freely because of it.

use apollo_compiler::Name;
use apollo_compiler::collections::HashMap;
use apollo_compiler::executable::{ExecutableDocument, Operation, Selection, SelectionSet};

use super::limits::Limits;
use super::refusal::{Code, Refusal};

/// Counts of a selection set with all its fragments expanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    fields: u32,
    aliases: u32,
    directives: u32,
    depth: u32,
    introspection_depth: u32,
    levels: u32,
}

impl Cost {
    pub(super) fn introspects(&self) -> bool {
        self.introspection_depth > 0
    }

    fn add(&mut self, other: Self) {
        self.fields = self.fields.saturating_add(other.fields);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.directives = self.directives.saturating_add(other.directives);
        self.depth = self.depth.max(other.depth);
        self.introspection_depth = self.introspection_depth.max(other.introspection_depth);
        self.levels = self.levels.max(other.levels);
    }
}

/// Counts operations of one document.
pub(super) struct Counter<'a> {
    document: &'a ExecutableDocument,
    limits: &'a Limits,
    /// Absent: not met yet. None: being counted, so that meeting it again is a cycle.
    fragments: HashMap<&'a Name, Option<Cost>>,
    /// Selections read so far, to show that none is read twice.
    #[cfg(test)]
    visited: usize,
}

impl<'a> Counter<'a> {
    pub(super) fn new(document: &'a ExecutableDocument, limits: &'a Limits) -> Self {
        Self {
            document,
            limits,
            fragments: HashMap::default(),
            #[cfg(test)]
            visited: 0,
        }
    }

    /// The counts of one operation, all within the limits.
    pub(super) fn count(&mut self, operation: &'a Operation) -> Result<Cost, Refusal> {
        let mut cost = self.selection_set(&operation.selection_set, 1)?;
        let on_variables: usize = operation.variables.iter().map(|variable| variable.directives.len()).sum();
        cost.directives = cost.directives.saturating_add(count(operation.directives.len() + on_variables));
        let Limits { fields, aliases, directives, depth, introspection_depth, .. } = *self.limits;
        for (what, actual, limit) in [
            ("fields", cost.fields, fields),
            ("aliases", cost.aliases, aliases),
            ("directives", cost.directives, directives),
            ("levels of fields", cost.depth, depth),
            ("levels of introspection fields", cost.introspection_depth, introspection_depth),
        ] {
            if actual > limit {
                let message = format!("the operation has more than {limit} {what} when its fragments are expanded");
                return Err(Refusal::new(Code::TooExpensive, message));
            }
        }
        Ok(cost)
    }

    fn selection_set(&mut self, set: &'a SelectionSet, level: u32) -> Result<Cost, Refusal> {
        self.check_level(level)?;
        let mut total = Cost { levels: 1, ..Cost::default() };
        for selection in &set.selections {
            #[cfg(test)]
            {
                self.visited += 1;
            }
            let mut cost = match selection {
                Selection::Field(field) if field.selection_set.is_empty() => Cost { depth: 1, ..Cost::default() },
                Selection::Field(field) => {
                    let mut cost = self.selection_set(&field.selection_set, level + 1)?;
                    cost.depth += 1;
                    cost.levels += 1;
                    cost
                }
                Selection::InlineFragment(fragment) => {
                    let mut cost = self.selection_set(&fragment.selection_set, level + 1)?;
                    cost.levels += 1;
                    cost
                }
                Selection::FragmentSpread(spread) => {
                    let mut cost = self.fragment(&spread.fragment_name, level + 1)?;
                    cost.levels += 1;
                    cost
                }
            };
            cost.fields = cost.fields.saturating_add(1);
            cost.directives = cost.directives.saturating_add(count(selection.directives().len()));
            if let Selection::Field(field) = selection {
                cost.aliases = cost.aliases.saturating_add(u32::from(field.alias.is_some()));
                if matches!(field.name.as_str(), "__schema" | "__type") {
                    cost.introspection_depth = std::mem::take(&mut cost.depth);
                }
            }
            total.add(cost);
        }
        Ok(total)
    }

    fn fragment(&mut self, name: &'a Name, level: u32) -> Result<Cost, Refusal> {
        let Some(fragment) = self.document.fragments.get(name) else {
            // Validation says so.
            return Ok(Cost::default());
        };
        match self.fragments.get(name) {
            Some(Some(cost)) => {
                let cost = *cost;
                self.check_level(level + cost.levels - 1)?;
                return Ok(cost);
            }
            Some(None) => {
                let message = format!("fragment `{name}` contains itself");
                let refusal = Refusal::new(Code::GraphqlValidationFailed, message);
                return Err(refusal.at_span(fragment.location(), &self.document.sources));
            }
            None => {}
        }
        self.fragments.insert(name, None);
        let mut cost = self.selection_set(&fragment.selection_set, level)?;
        cost.directives = cost.directives.saturating_add(count(fragment.directives.len()));
        self.fragments.insert(name, Some(cost));
        Ok(cost)
    }

    fn check_level(&self, level: u32) -> Result<(), Refusal> {
        if level <= self.limits.levels {
            return Ok(());
        }
        let message = format!("selections and fragments are nested more than {} levels", self.limits.levels);
        Err(Refusal::new(Code::TooExpensive, message))
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
