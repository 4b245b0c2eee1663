// node extract.mjs DIRECTORY: writes the files that docs/clients.md shows into a directory, unchanged, and links what they need
// beside them: the packages installed here, and schema.graphql.
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** The files that the document shows: texts by names. */
export function files() {
  const document = readFileSync(here("../../docs/clients.md"), "utf8");
  return new Map(Array.from(document.matchAll(/^```\w+ file=(\S+)\n(.*?)^```$/gms), ([, name, text]) => [name, text]));
}

/** Writes the files into a directory and links what they need. */
export function extract(directory, schema = here("../../schema.graphql")) {
  mkdirSync(directory, { recursive: true });
  for (const [name, text] of files()) writeFileSync(join(directory, name), text);
  const links = { "node_modules": here("node_modules"), "package.json": here("package.json"), "schema.graphql": schema };
  for (const [link, target] of Object.entries(links)) {
    rmSync(join(directory, link), { force: true });
    symlinkSync(target, join(directory, link));
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.length !== 3) {
    console.error("usage: node extract.mjs DIRECTORY");
    process.exit(2);
  }
  extract(process.argv[2], process.env.WINDFALL_SCHEMA);
}
