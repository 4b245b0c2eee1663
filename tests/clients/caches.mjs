// Loads a customer's balance into each normalised cache that clients use, moves points, and checks that the balance in the cache
// follows: first by a subscription, then by the responses to mutations. The program never tells a cache what to update, and sends
// no query twice.
//
// Takes WINDFALL_URL, WINDFALL_SCHEMA, WINDFALL_TOKEN of a customer, and WINDFALL_ADMIN_TOKEN. Each purchase must be worth
// points.
import { readFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { OperationTypeNode, buildSchema, isObjectType } from "graphql";
import { createClient } from "graphql-ws";
import relay from "relay-runtime";
import WebSocket from "ws";

import { extract } from "./extract.mjs";
import { compile } from "./relay.mjs";
import { Tally, asker, need } from "./support.mjs";

/** How long the program waits for anything. */
const PATIENCE_MS = 60_000;
const PAUSE_MS = 10;

const url = need("WINDFALL_URL");
const schema = buildSchema(readFileSync(need("WINDFALL_SCHEMA"), "utf8"));
const tokens = { customer: need("WINDFALL_TOKEN"), admin: need("WINDFALL_ADMIN_TOKEN") };
const directory = mkdtempSync(join(tmpdir(), "windfall-caches-"));
extract(directory);
const { keys } = await import(pathToFileURL(join(directory, "keys.mjs")));
rmSync(directory, { recursive: true });

const tally = new Tally();
// Caches report problems with a response on the console. Each such message is a failure.
for (const told of ["warn", "error"]) {
  const print = console[told];
  console[told] = (...words) => {
    if (String(words[0]).startsWith("FAILED")) print(...words);
    else tally.fail(`a message on the console: ${words.join(" ")}`);
  };
}

const CUSTOMER = "id balance { available lifetime version cursor }";
const ME = `query Me { me { ${CUSTOMER} } }`;
const WHO = `query Who($by: CustomerBy!) { customer(by: $by) { ${CUSTOMER} } }`;
const POINTS = `subscription Points($after: String) {
  pointsUpdated(after: $after) { cursor customer { ${CUSTOMER} } entries { id points customer { id } } } }`;
const MUTATIONS = {
  recordPurchase: `mutation Buy($input: RecordPurchaseInput!) { recordPurchase(input: $input) { customer { ${CUSTOMER} } } }`,
  recordRefund: `mutation Refund($input: RecordRefundInput!) { recordRefund(input: $input) { customer { ${CUSTOMER} } } }`,
  adjustPoints: `mutation Adjust($input: AdjustPointsInput!) {
    adjustPoints(input: $input) { customer { ${CUSTOMER} } entry { id customer { id } } } }`,
};

const sockets = (token) => createClient({
  url: url.replace(/^http/, "ws"), connectionParams: { authorization: `Bearer ${token}` }, webSocketImpl: WebSocket,
});

/** Makes each cache over a transport. `watch` and `follow` return at once, and pass on all later results. */
const caches = {
  "Apollo Client": (fetch, token) => {
    const link = ApolloLink.split(({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
      new GraphQLWsLink(sockets(token)), new HttpLink({ uri: url, fetch }));
    const client = new ApolloClient({ link, cache: new InMemoryCache({ typePolicies: { Balance: { merge: false } } }) });
    return {
      watch: (query, variables, hear) =>
        client.watchQuery({ query: gql(query), variables }).subscribe(({ data }) => hear(data)),
      follow: (query, variables, hear) =>
        client.subscribe({ query: gql(query), variables }).subscribe(({ data }) => hear(data)),
      mutate: (mutation, variables) => client.mutate({ mutation: gql(mutation), variables }),
    };
  },
  "urql with graphcache": (fetch, token) => {
    const ws = sockets(token);
    const forwardSubscription = ({ query, variables }) =>
      ({ subscribe: (sink) => ({ unsubscribe: ws.subscribe({ query, variables }, sink) }) });
    const exchanges = [cacheExchange({ keys }), fetchExchange, subscriptionExchange({ forwardSubscription })];
    const client = new Client({ url, fetch, exchanges, preferGetMethod: false });
    return {
      watch: (query, variables, hear) => client.query(query, variables).subscribe(({ data }) => hear(data)),
      follow: (query, variables, hear) => client.subscription(query, variables).subscribe(({ data }) => hear(data)),
      mutate: (mutation, variables) => client.mutation(mutation, variables).toPromise(),
    };
  },
  "Relay": (fetch, token) => {
    const ws = sockets(token);
    const send = async ({ text: query }, variables) => {
      const headers = { "content-type": "application/json" };
      return (await fetch(url, { method: "POST", headers, body: JSON.stringify({ query, variables }) })).json();
    };
    const subscribe = ({ text: query }, variables) => relay.Observable.create((sink) => ws.subscribe({ query, variables }, sink));
    const environment = new relay.Environment({
      network: relay.Network.create(send, subscribe), store: new relay.Store(new relay.RecordSource()),
    });
    return {
      watch: async (query, variables, hear) => {
        const operation = relay.createOperationDescriptor(compile(schema, query), variables);
        environment.retain(operation);
        await relay.fetchQuery(environment, operation.request.node, variables).toPromise();
        const snapshot = environment.lookup(operation.fragment);
        hear(snapshot.data);
        environment.subscribe(snapshot, ({ data }) => hear(data));
      },
      follow: (query, variables, hear) =>
        relay.requestSubscription(environment, { subscription: compile(schema, query), variables, onNext: hear }),
      mutate: (mutation, variables) => new Promise((onCompleted, onError) =>
        relay.commitMutation(environment, { mutation: compile(schema, mutation), variables, onCompleted, onError })),
    };
  },
};

/** Waits until a condition holds, and returns whether it does in time. */
async function comes(holds) {
  for (let waited = 0; waited < PATIENCE_MS && !holds(); waited += PAUSE_MS) await setTimeout(PAUSE_MS);
  return holds();
}

/** A cache of one caller, with the number of queries that it sent. */
function open(make, token) {
  const opened = { queries: 0, shown: null };
  const counted = (input, init) => {
    if (JSON.parse(init.body).query.startsWith("query")) opened.queries++;
    return fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } });
  };
  return Object.assign(opened, make(counted, token));
}

const admin = asker(url, tokens.admin);
const { externalId } = (await asker(url, tokens.customer)("{ me { externalId } }")).data.me;
let number = 0;
const purchase = () => ({
  externalId: `cached-${number += 1}`, customerExternalId: externalId, purchasedAt: new Date().toISOString(), total: "20.00",
  currency: "EUR",
});
const refund = () => ({ externalId: `cached-${number}`, purchaseExternalId: `cached-${number}`, refundedAt: new Date().toISOString() });
const adjustment = () => ({ customerExternalId: externalId, points: 7, reason: "a test", idempotencyKey: `cached-${number}` });

/** Checks that the cache shows the same balance as the server, without a second query. */
async function follows(what, cache, shown) {
  const { data } = await admin(WHO, { by: { externalId } });
  const current = JSON.stringify(data.customer.balance);
  const same = await comes(() => JSON.stringify(plain(shown())) === current);
  if (same && cache.queries === 1) tally.pass();
  else tally.fail(`${what}: it shows ${JSON.stringify(plain(shown()))}, not ${current}, after ${cache.queries} queries`);
}

const plain = ({ available, lifetime, version, cursor }) => ({ available, lifetime, version, cursor });

for (const [name, make] of Object.entries(caches)) {
  const mine = open(make, tokens.customer);
  mine.watch(ME, {}, (data) => { mine.shown = data ?? mine.shown; });
  await comes(() => mine.shown?.me);
  let heard = 0;
  mine.follow(POINTS, { after: mine.shown.me.balance.cursor }, () => { heard += 1; });
  for (let times = 1; times <= 3; times++) {
    await admin(MUTATIONS.recordPurchase, { input: purchase() });
    await comes(() => heard >= times);
    await follows(`${name}, by the subscription`, mine, () => mine.shown.me.balance);
  }

  const theirs = open(make, tokens.admin);
  theirs.watch(WHO, { by: { externalId } }, (data) => { theirs.shown = data ?? theirs.shown; });
  await comes(() => theirs.shown?.customer);
  for (const [mutation, input] of [["recordPurchase", purchase], ["recordRefund", refund], ["adjustPoints", adjustment]]) {
    const before = theirs.shown.customer.balance.version;
    await theirs.mutate(MUTATIONS[mutation], { input: input() });
    await follows(`${name}, by ${mutation}`, theirs, () => theirs.shown.customer.balance);
    if (theirs.shown.customer.balance.version === before) tally.fail(`${name}: ${mutation} changed nothing`);
  }
}

const embedded = Object.values(schema.getTypeMap()).filter((type) => isObjectType(type) && !type.name.startsWith("__") &&
  !type.getFields().id && !/^(Query|Mutation|Subscription|PageInfo)$|(Connection|Edge)$/.test(type.name));
const missing = embedded.map(({ name }) => name).filter((name) => !(name in keys));
const extra = Object.keys(keys).filter((name) => !embedded.some((type) => type.name === name));
if (missing.length || extra.length) tally.fail(`keys.mjs of docs/clients.md lacks [${missing}], and need not name [${extra}]`);
else tally.pass();
tally.end();
