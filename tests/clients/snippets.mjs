// Runs the files that docs/clients.md shows, unchanged, and checks what they print. Meanwhile the program records purchases, so
// that subscriptions receive something.
//
// Takes WINDFALL_URL, WINDFALL_TOKEN of a customer with at least four ledger entries and three awards, WINDFALL_SHOP_TOKEN of a
// storefront, and WINDFALL_PYTHON, a Python with the packages of requirements.txt. A campaign must award points for each purchase
// of 20 EUR.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setInterval } from "node:timers/promises";
import { promisify } from "node:util";

import { extract, files } from "./extract.mjs";
import { Tally, asker, need } from "./support.mjs";

const url = need("WINDFALL_URL");
const customer = asker(url, need("WINDFALL_TOKEN"));
const shop = asker(url, need("WINDFALL_SHOP_TOKEN"));

/** Records two purchases a second. */
async function record() {
  const { data } = await customer("{ me { externalId } }");
  for await (const _ of setInterval(500)) {
    const purchasedAt = new Date().toISOString();
    const { externalId } = data.me;
    const input = { externalId: purchasedAt, customerExternalId: externalId, purchasedAt, total: "20.00", currency: "EUR" };
    await shop("mutation($input: RecordPurchaseInput!) { recordPurchase(input: $input) { replayed } }", { input });
  }
}

// Node 20 has the WebSocket of browsers only with this option.
const node = [process.execPath, ...(globalThis.WebSocket ? [] : ["--no-warnings", "--experimental-websocket"])];
/** `first`, `last` and `some` match the first, the last and any line that a program prints. `with`: other files that it needs. */
const programs = [
  { run: ["sh", "query.sh"], first: /^{"data":{"me":{"externalId":".+","balance":{"available":-?\d+,"version":\d+}}}}$/ },
  { run: ["sh", "purchase.sh"], first: /^{"data":{"recordPurchase":{"replayed":(true|false),"userErrors":\[]}}}$/ },
  { run: ["sh", "live.sh"], first: /^data: {"data":{"pointsUpdated":{"cursor":".+","change":-?\d+,"balance":{"available":-?\d+}}}}$/ },
  // If a purchase comes between its two pages, the second page shows it, and the next update does not repeat it.
  { run: [...node, "apollo.mjs"], with: ["resume.mjs"], first: /^-?\d+ available, 2 ledger entries$/, some: /^-?\d+ available, 4 ledger entries$/ },
  { run: [...node, "urql.mjs"], with: ["keys.mjs"], first: /^-?\d+ available$/, last: /^-?\d+ more: -?\d+ available$/ },
  { run: [...node, "live.mjs"], first: /^0 more: -?\d+ available$/, last: /^[1-9]\d* more: -?\d+ available$/ },
  { run: [need("WINDFALL_PYTHON"), "points.py"], first: /^-?\d+ available$/, last: /^-?\d+ more: -?\d+ available$/ },
  { run: ["sh", "typed.sh"], with: ["codegen.ts", "typed.ts"], last: /^\d+ points on \d{4}-\d\d-\d\d: .+$/ },
];

const tally = new Tally();
const known = programs.flatMap((program) => [program.run.at(-1), ...(program.with ?? [])]);
for (const name of files().keys()) {
  if (!known.includes(name)) tally.fail(`${name} is shown, but nothing runs it`);
}
const directory = mkdtempSync(join(tmpdir(), "windfall-clients-"));
extract(directory);
record();
for (const { run: [command, ...options], first = /./, some = /./, last = /./ } of programs) {
  try {
    const { stdout } = await promisify(execFile)(command, options, { cwd: directory, timeout: 120_000 });
    const lines = stdout.trim().split("\n");
    if (first.test(lines.at(0)) && lines.some((line) => some.test(line)) && last.test(lines.at(-1))) tally.pass();
    else tally.fail(`${options.at(-1)} prints\n${stdout}`);
  } catch (error) {
    tally.fail(`${error.message}\n${error.stdout}`);
  }
}
rmSync(directory, { recursive: true });
tally.end();
