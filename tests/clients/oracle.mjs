// Sends the same requests to Windfall and to graphql-js and compares the responses: data byte for byte, errors by their paths. A
// request that is refused as a whole must have no data in either. graphql-js runs on the same schema, over objects that were read
// from the server before. So both have the same data, and the reference implementation determines the form of the response. At
// the end, the schema that introspection returns is compared with WINDFALL_SCHEMA.
//
// Takes WINDFALL_URL, WINDFALL_SCHEMA (the path of schema.graphql), WINDFALL_ADMIN_TOKEN, and WINDFALL_TOKEN of a customer with
// at least three ledger entries, one of them for an award. Nobody may write meanwhile or in the second before, because statistics
// lag by one second.
import { readFileSync } from "node:fs";
import { buildClientSchema, buildSchema, getIntrospectionQuery, lexicographicSortSchema, printSchema } from "graphql";

import { capture } from "./oracle/fixture.mjs";
import { reference } from "./oracle/reference.mjs";
import { requests } from "./oracle/requests.mjs";
import { Tally, asker, need } from "./support.mjs";

const url = need("WINDFALL_URL");
const sdl = readFileSync(need("WINDFALL_SCHEMA"), "utf8");
const ask = {
  customer: asker(url, need("WINDFALL_TOKEN")),
  admin: asker(url, need("WINDFALL_ADMIN_TOKEN")),
  nobody: asker(url),
};
const fixtures = { customer: await capture(ask.customer), admin: await capture(ask.admin), nobody: null };
const execute = reference(sdl);

/** What is wrong with a response, or null. */
function difference({ stricter }, expected, actual) {
  const { status, data, errors } = actual;
  if (status !== 200) return "the status is not 200";
  if (errors?.some((error) => typeof error.message !== "string" || typeof error.extensions?.code !== "string")) {
    return "an error has no message or no code";
  }
  if (errors && errors.length === 0) return "errors are empty";
  if (stricter || !("data" in expected)) {
    return errors && !("data" in actual) ? null : "it was not refused as a whole";
  }
  if (JSON.stringify(data) !== JSON.stringify(expected.data)) return "the data differs";
  const paths = (list = []) => JSON.stringify(list.map((error) => JSON.stringify(error.path)).sort());
  return paths(errors) === paths(expected.errors) ? null : "the errors' paths differ";
}

const tally = new Tally();
for (const request of requests(fixtures.customer)) {
  const { as = "customer", query, variables, operationName } = request;
  const expected = await execute(fixtures[as], request);
  const actual = await ask[as](query, variables, operationName);
  const wrong = difference(request, expected, actual);
  if (wrong) {
    const told = { as, query, variables, operationName, expected, actual };
    tally.fail(`${wrong}: ${JSON.stringify(told, null, 1)}`);
  } else {
    tally.pass();
  }
}

const introspection = await ask.admin(getIntrospectionQuery({ oneOf: true, specifiedByUrl: true }));
const printed = (schema) => printSchema(lexicographicSortSchema(schema));
if (!introspection.errors && printed(buildClientSchema(introspection.data)) === printed(buildSchema(sdl))) {
  tally.pass();
} else {
  tally.fail(`introspection returns another schema than WINDFALL_SCHEMA: ${JSON.stringify(introspection.errors)}`);
}
tally.end();
