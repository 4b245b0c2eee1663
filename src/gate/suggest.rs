//! Suggests a field for a misspelt one. Only callers that may query the schema anyway get suggestions.

use apollo_compiler::schema::ExtendedType;
use apollo_compiler::{Name, Schema};

use super::refusal::{Code, Refusal};

/// Adds the most similar name to a refusal about a field that does not exist.
pub(super) fn suggest(schema: &Schema, mut refusal: Refusal) -> Refusal {
    if refusal.code == Code::GraphqlValidationFailed
        && let Some(name) = nearest(schema, &refusal.message)
    {
        refusal.message = format!("{}; did you mean `{name}`?", refusal.message);
    }
    refusal
}

/// Matches the validator's message, which is its only information about an error. A test pins the wording.
fn nearest<'a>(schema: &'a Schema, message: &str) -> Option<&'a str> {
    let (ty, asked) = message.strip_prefix("type `")?.split_once("` does not have a field `")?;
    let asked = asked.split('`').next()?;
    let names: Vec<&str> = match schema.types.get(ty)? {
        ExtendedType::Object(object) => object.fields.keys().map(Name::as_str).collect(),
        ExtendedType::Interface(interface) => interface.fields.keys().map(Name::as_str).collect(),
        _ => return None,
    };
    // Up to a third of the letters may be wrong.
    let most = asked.chars().count() / 3;
    let distance = |name: &str| strsim::damerau_levenshtein(&asked.to_lowercase(), &name.to_lowercase());
    let nearest = names.into_iter().map(|name| (distance(name), name)).min()?;
    (nearest.0 <= most).then_some(nearest.1)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::gate;
    use super::super::{Request, Rights};

    #[test]
    fn a_misspelt_field_is_guessed_for_those_who_may_see_the_schema() {
        let told = |query: &str, introspection| {
            let request = Request { query, hash: None, operation_name: None, variables: "" };
            let rights = Rights { introspection, ..Rights::default() };
            gate().admit(&request, rights).unwrap_err()[0].message.clone()
        };
        assert!(
            told("{ me { balence } }", true).ends_with("did you mean `balance`?"),
            "{}",
            told("{ me { balence } }", true)
        );
        assert!(told("{ Customers { nodes { id } } }", true).ends_with("did you mean `customers`?"));
        assert!(!told("{ me { balence } }", false).contains("did you mean"));
        assert!(!told("{ me { weather } }", true).contains("did you mean"));
    }
}
