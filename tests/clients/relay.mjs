// Compiles an operation as relay-compiler does, as far as relay-runtime and these tests need it: fields and variables, without
// fragments.
import { TypeInfo, getNamedType, isAbstractType, isLeafType, parse, visit, visitWithTypeInfo } from "graphql";

/** Compiles the text of an operation to what relay-runtime runs. */
export function compile(schema, text) {
  const document = parse(text);
  const [{ operation, name, variableDefinitions }] = document.definitions;
  const types = new TypeInfo(schema);
  const selected = (node) => node.selectionSet.selections;
  const { definitions: [{ selections }] } = visit(document, visitWithTypeInfo(types, {
    Field: {
      enter: (node) => ({ ...node, type: types.getType() }),
      leave: ({ name, alias, arguments: given, type, ...node }) => {
        const args = given.map(({ name, value }) =>
          ({ kind: "Variable", name: name.value, variableName: value.name.value }));
        const field = { alias: alias?.value ?? null, args: args.length ? args : null, name: name.value, storageKey: null };
        if (isLeafType(getNamedType(type))) return { kind: "ScalarField", ...field };
        if (isAbstractType(getNamedType(type))) throw new Error(`${name.value} is of an abstract type`);
        const plural = String(type).startsWith("[");
        return { kind: "LinkedField", ...field, concreteType: getNamedType(type).name, plural, selections: selected(node) };
      },
    },
    OperationDefinition: { leave: (node) => ({ selections: selected(node) }) },
  }));
  const argumentDefinitions = variableDefinitions.map(({ variable }) =>
    ({ defaultValue: null, kind: "LocalArgument", name: variable.name.value }));
  const common = { argumentDefinitions, name: name.value, selections };
  const type = { query: "Query", mutation: "Mutation", subscription: "Subscription" }[operation];
  return {
    kind: "Request",
    fragment: { ...common, kind: "Fragment", metadata: null, type, abstractKey: null },
    operation: { ...common, kind: "Operation" },
    params: { cacheID: text, id: null, metadata: {}, name: name.value, operationKind: operation, text },
  };
}
