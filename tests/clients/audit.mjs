// Runs the audits of the GraphQL over HTTP specification that come with graphql-http. All MUST and SHOULD must pass; failures of
// MAY are only printed.
//
// Takes WINDFALL_URL, and WINDFALL_TOKEN of an admin, because some audits read the schema.
import { serverAudits } from "graphql-http";

import { Tally, need } from "./support.mjs";

const url = need("WINDFALL_URL");
const authorization = `Bearer ${need("WINDFALL_TOKEN")}`;
const fetchFn = (input, init) => fetch(input, { ...init, headers: { ...init?.headers, authorization } });

const tally = new Tally();
for (const audit of serverAudits({ url, fetchFn })) {
  const { id, name, status, reason, response } = await audit.fn();
  if (status === "ok") {
    tally.pass();
  } else if (name.startsWith("MAY")) {
    console.log(`optional and not done: ${id} ${name}: ${reason}`);
  } else {
    tally.fail(`${id} ${name}: ${reason} (${response.status} ${response.headers.get("content-type")})`);
  }
}
tally.end();
