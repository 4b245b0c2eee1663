//! The shipped schema equals that of the code, and contains everything that the public contract promises.

use std::collections::HashMap;
use std::path::Path;

use apollo_compiler::Schema;
use apollo_compiler::ast::{FieldDefinition, InputValueDefinition};
use apollo_compiler::schema::ExtendedType;
use windfall::graphql::scalar::FORMS;

const CONTRACT: &str = include_str!("contract.graphql");

fn parse(sdl: &str, name: &str) -> Schema {
    match Schema::parse_and_validate(sdl, name) {
        Ok(schema) => schema.into_inner(),
        Err(failed) => panic!("{name}: {}", failed.errors),
    }
}

#[test]
fn schema_graphql_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.graphql");
    let sdl = windfall::graphql::sdl();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &sdl).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shipped == sdl, "schema.graphql differs from the code: run `UPDATE=1 cargo test --test it schema`");
}

#[test]
fn asyncapi_json_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("asyncapi.json");
    let document = windfall::ingest::asyncapi::document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let shipped = std::fs::read_to_string(path).unwrap();
    assert!(shipped == document, "asyncapi.json differs from the code: run `UPDATE=1 cargo test --test it schema`");
}

#[test]
fn the_contract_is_in_the_schema() {
    let contract = parse(&format!("{CONTRACT}\ndirective @oneOf on INPUT_OBJECT"), "contract.graphql");
    let schema = parse(&windfall::graphql::sdl(), "schema.graphql");
    let mut missing = Vec::new();
    for (name, promised) in contract.types.iter().filter(|(_, promised)| !promised.is_built_in()) {
        match schema.types.get(name) {
            Some(real) => compare_types(name.as_str(), promised, real, &mut missing),
            None => missing.push(format!("{name}")),
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

fn compare_types(name: &str, promised: &ExtendedType, real: &ExtendedType, missing: &mut Vec<String>) {
    match (promised, real) {
        (ExtendedType::Scalar(_), ExtendedType::Scalar(_)) => {}
        (ExtendedType::Object(promised), ExtendedType::Object(real)) => {
            for interface in &promised.implements_interfaces {
                if !real.implements_interfaces.contains(interface) {
                    missing.push(format!("{name} implements {interface}"));
                }
            }
            for (field, promised) in &promised.fields {
                compare_fields(&format!("{name}.{field}"), promised, real.fields.get(field).map(|f| &***f), missing);
            }
        }
        (ExtendedType::Interface(promised), ExtendedType::Interface(real)) => {
            for (field, promised) in &promised.fields {
                compare_fields(&format!("{name}.{field}"), promised, real.fields.get(field).map(|f| &***f), missing);
            }
        }
        (ExtendedType::Union(promised), ExtendedType::Union(real)) => {
            let lost = promised.members.iter().filter(|member| !real.members.contains(*member));
            missing.extend(lost.map(|member| format!("{name} = {member}")));
        }
        (ExtendedType::Enum(promised), ExtendedType::Enum(real)) => {
            let lost = promised.values.keys().filter(|value| !real.values.contains_key(*value));
            missing.extend(lost.map(|value| format!("{name}.{value}")));
        }
        (ExtendedType::InputObject(promised), ExtendedType::InputObject(real)) => {
            if promised.directives.has("oneOf") != real.directives.has("oneOf") {
                missing.push(format!("{name} @oneOf"));
            }
            for (field, promised) in &promised.fields {
                compare_inputs(&format!("{name}.{field}"), promised, real.fields.get(field).map(|f| &***f), missing);
            }
        }
        _ => missing.push(format!("{name} has another kind")),
    }
}

fn compare_fields(path: &str, promised: &FieldDefinition, real: Option<&FieldDefinition>, missing: &mut Vec<String>) {
    let Some(real) = real else { return missing.push(path.to_owned()) };
    if promised.ty != real.ty {
        missing.push(format!("{path}: {} (is {})", promised.ty, real.ty));
    }
    for argument in &promised.arguments {
        let path = format!("{path}({})", argument.name);
        compare_inputs(&path, argument, real.argument_by_name(&argument.name).map(|a| &**a), missing);
    }
    for argument in &real.arguments {
        if promised.argument_by_name(&argument.name).is_none() && argument.is_required() {
            missing.push(format!("{path} without ({})", argument.name));
        }
    }
}

fn compare_inputs(
    path: &str,
    promised: &InputValueDefinition,
    real: Option<&InputValueDefinition>,
    missing: &mut Vec<String>,
) {
    let Some(real) = real else { return missing.push(path.to_owned()) };
    let same_default = match (&promised.default_value, &real.default_value) {
        (Some(promised), Some(real)) => promised.to_string() == real.to_string(),
        (None, None) => true,
        _ => false,
    };
    if *promised.ty != *real.ty || !same_default {
        missing.push(format!("{promised} (is {real}) at {path}"));
    }
}

#[test]
fn everything_is_described() {
    let schema = parse(&windfall::graphql::sdl(), "schema.graphql");
    let mut bare = Vec::new();
    let mut note = |described: bool, path: String| {
        if !described {
            bare.push(path);
        }
    };
    for (name, ty) in schema.types.iter().filter(|(_, ty)| !ty.is_built_in()) {
        note(ty.description().is_some(), name.to_string());
        let fields = match ty {
            ExtendedType::Object(object) => &object.fields,
            ExtendedType::Interface(interface) => &interface.fields,
            ExtendedType::Enum(values) => {
                for (value, definition) in &values.values {
                    note(definition.description.is_some(), format!("{name}.{value}"));
                }
                continue;
            }
            ExtendedType::InputObject(input) => {
                for (field, definition) in &input.fields {
                    note(definition.description.is_some(), format!("{name}.{field}"));
                }
                continue;
            }
            ExtendedType::Scalar(_) | ExtendedType::Union(_) => continue,
        };
        for (field, definition) in fields {
            note(definition.description.is_some(), format!("{name}.{field}"));
            for argument in &definition.arguments {
                note(argument.description.is_some(), format!("{name}.{field}({})", argument.name));
            }
        }
    }
    assert!(bare.is_empty(), "without a description: {bare:#?}");
}

/// Otherwise a client would need an alias to select the fields of both types.
#[test]
fn fields_of_one_name_in_a_union_have_one_type() {
    let schema = parse(&windfall::graphql::sdl(), "schema.graphql");
    let mut conflicts = Vec::new();
    for (name, ty) in &schema.types {
        let ExtendedType::Union(union) = ty else { continue };
        let members = union.members.iter().filter_map(|member| schema.get_object(member));
        let mut types = HashMap::new();
        for (field, definition) in members.flat_map(|member| &member.fields) {
            let ty = types.entry(field.clone()).or_insert_with(|| definition.ty.clone());
            if *ty != definition.ty {
                conflicts.push(format!("{name}: `{field}` is {ty} and {}", definition.ty));
            }
        }
    }
    assert!(conflicts.is_empty(), "{conflicts:#?}");
}

/// A scalar without a form would not be checked before the operation runs.
#[test]
fn every_custom_scalar_has_a_form_and_a_specification() {
    let schema = parse(&windfall::graphql::sdl(), "schema.graphql");
    for (name, ty) in schema.types.iter().filter(|(_, ty)| ty.is_scalar() && !ty.is_built_in()) {
        assert!(FORMS.iter().any(|form| form.scalar == name.as_str()), "{name} has no form");
        assert!(ty.directives().has("specifiedBy"), "{name} has no specification");
    }
}
