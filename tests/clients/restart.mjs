// Subscribes to a customer with each client that docs/clients.md shows, while the server is stopped and started again. No client
// may take the stop for the end of its subscription. Clients that keep the last cursor with the unchanged resume.mjs receive
// every entry once. Clients that come back with their first cursor receive every entry at least once.
//
// Takes WINDFALL_URL, and WINDFALL_TOKEN of a customer without purchases. Prints `following` when all clients have subscribed.
// Each line of the standard input is the number of entries in the customer's ledger; the program prints `heard of` that number
// when all clients have received so many.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { ApolloClient, ApolloLink, InMemoryCache, Observable, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { Client, subscriptionExchange } from "@urql/core";
import { createClient as createSseClient } from "graphql-sse";
import { createClient as createWsClient } from "graphql-ws";
import WebSocket from "ws";

import { extract } from "./extract.mjs";
import { Tally, asker, need } from "./support.mjs";

/** How long the program waits for anything. */
const PATIENCE_MS = 60_000;
const PAUSE_MS = 20;

// Apollo Client takes the WebSocket from `globalThis`.
globalThis.WebSocket ??= WebSocket;

const url = need("WINDFALL_URL");
const token = need("WINDFALL_TOKEN");
const authorization = `Bearer ${token}`;
const POINTS = "subscription Points($after: String) { pointsUpdated(after: $after) { cursor entries { sequence } } }";

const directory = mkdtempSync(join(tmpdir(), "windfall-restart-"));
extract(directory);
const { reconnecting, resuming } = await import(pathToFileURL(join(directory, "resume.mjs")));
rmSync(directory, { recursive: true });

// Clients retry soon, so that the tests are short.
const pause = () => setTimeout(PAUSE_MS);
const sockets = () => createWsClient({
  url: url.replace(/^http/, "ws"), connectionParams: { authorization }, ...reconnecting, retryWait: pause,
});

/** How each client subscribes. `keep` wraps what its transport passes to it. */
const clients = {
  "graphql-ws": (request, sink, keep) => sockets().subscribe(request, keep(request, sink)),
  "graphql-sse": (request, sink, keep) =>
    createSseClient({ url, headers: { authorization }, ...reconnecting, retry: pause }).subscribe(request, keep(request, sink)),
  "Apollo Client": ({ query, variables }, sink, keep) => {
    const resume = new ApolloLink((operation, forward) =>
      new Observable((observer) => forward(operation).subscribe(keep(operation, observer))));
    const client = new ApolloClient({ link: resume.concat(new GraphQLWsLink(sockets())), cache: new InMemoryCache() });
    client.subscribe({ query: gql(query), variables }).subscribe({ ...sink, next: ({ data, error }) => {
      if (error) sink.error(error);
      else sink.next({ data });
    } });
  },
  "urql": ({ query, variables }, sink, keep) => {
    const ws = sockets();
    const forwardSubscription = ({ query, variables }) => {
      const request = { query, variables: { ...variables } };
      return { subscribe: (sink) => ({ unsubscribe: ws.subscribe(request, keep(request, sink)) }) };
    };
    const client = new Client({ url, exchanges: [subscriptionExchange({ forwardSubscription })] });
    client.subscription(query, variables).subscribe(({ data, error }) => {
      if (error) sink.error(error);
      else sink.next({ data });
    });
  },
};

/** Subscribes a client and collects the entries that it receives. */
function follow(name, subscribe, after, resumes) {
  const told = { name: `${name}, ${resumes ? "resuming" : "as it comes"}`, resumes, sequences: [], end: null };
  const sink = {
    next({ data, errors }) {
      if (errors) told.end ??= JSON.stringify(errors);
      else told.sequences.push(...data.pointsUpdated.entries.map(({ sequence }) => sequence));
    },
    error: (error) => { told.end ??= `error: ${error.message ?? JSON.stringify(error)} ${error.code ?? ""}`; },
    complete: () => { told.end ??= "complete"; },
  };
  subscribe({ query: POINTS, variables: { after } }, sink, resumes ? resuming : (_, sink) => sink);
  return told;
}

/** Whether a client has received the first `count` entries. */
function heard({ resumes, sequences }, count) {
  const all = Array.from({ length: count }, (_, index) => index + 1);
  return String(resumes ? sequences : [...new Set(sequences)].sort((a, b) => a - b)) === String(all);
}

const { data } = await asker(url, token)("{ me { balance { cursor } } }");
const followers = Object.entries(clients).flatMap(([name, subscribe]) =>
  [true, false].map((resumes) => follow(name, subscribe, data.me.balance.cursor, resumes)));
console.log("following");
const tally = new Tally();
for await (const line of createInterface({ input: process.stdin })) {
  const count = Number(line);
  for (let waited = 0; waited < PATIENCE_MS; waited += PAUSE_MS) {
    if (followers.every((follower) => follower.end || heard(follower, count))) break;
    await setTimeout(PAUSE_MS);
  }
  for (const follower of followers) {
    if (!follower.end && heard(follower, count)) tally.pass();
    else tally.fail(`${follower.name}: ${follower.end ?? "late"}: of ${count} entries it heard ${follower.sequences}`);
  }
  if (tally.failed) break;
  console.log(`heard of ${count}`);
}
tally.end();
