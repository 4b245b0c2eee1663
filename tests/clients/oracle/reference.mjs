// Runs graphql-js over the captured objects. Its responses are those that Windfall must give, as far as an executor determines
// them. Of Windfall's own rules, only those are implemented that make a field null or fail.
import { GraphQLError, buildSchema, graphql, isAbstractType } from "graphql";

const MAX_PAGE = 100;

function page(fixture, edges, { first, last, after, before }) {
  if (first != null && last != null) throw new GraphQLError("first and last");
  for (const size of [first, last]) {
    if (size != null && (size < 0 || size > MAX_PAGE)) throw new GraphQLError("page size");
  }
  const place = (cursor) => {
    const at = edges.findIndex((edge) => edge.cursor === cursor);
    if (at < 0) throw new GraphQLError("cursor");
    return at;
  };
  let start = after == null ? 0 : place(after) + 1;
  let end = before == null ? edges.length : place(before);
  if (last != null) start = Math.max(start, end - last);
  else end = Math.min(end, start + (first ?? 20));
  const slice = edges.slice(start, end).map(({ cursor, id }) => ({ cursor, node: fixture.nodes.get(id) }));
  return {
    edges: slice,
    nodes: slice.map((edge) => edge.node),
    pageInfo: {
      hasNextPage: end < edges.length,
      hasPreviousPage: start > 0,
      startCursor: slice.at(0)?.cursor ?? null,
      endCursor: slice.at(-1)?.cursor ?? null,
    },
    totalCount: edges.length,
  };
}

const typed = (fixture, id, type) => {
  const node = fixture.nodes.get(id);
  return node && (!type || node.__typename === type) ? node : null;
};

const by = (fixture, type, { id, externalId }) => {
  if (id !== undefined) return typed(fixture, id, type);
  return [...fixture.nodes.values()].find((node) => node.__typename === type && node.externalId === externalId) ?? null;
};

const atLeast = (customer, version) => {
  if (customer && version != null && version > customer.balance.version) throw new GraphQLError("version");
  return customer;
};

const ref = (field) => (source, _, fixture) => source[field] && fixture.nodes.get(source[field].id);
const refs = (field) => (source, _, fixture) => source[field].map(({ id }) => fixture.nodes.get(id));
const connection = (field) => (source, args, fixture) => page(fixture, source[field], args);

const query = {
  me: (_, { atLeastVersion }, fixture) => atLeast(typed(fixture, fixture.me), atLeastVersion),
  customer: (_, args, fixture) => atLeast(by(fixture, "Customer", args.by), args.atLeastVersion),
  customers: (_, args, fixture) => {
    if (!fixture.customers) throw new GraphQLError("role");
    return page(fixture, fixture.customers, args);
  },
  purchase: (_, args, fixture) => by(fixture, "Purchase", args.by),
  campaign: (_, { id }, fixture) => typed(fixture, id, "Campaign"),
  campaigns: (_, { status, ...args }, fixture) =>
    page(fixture, fixture.campaigns.filter(({ id }) => !status || status.includes(fixture.nodes.get(id).status)), args),
  node: (_, { id }, fixture) => typed(fixture, id),
  nodes: (_, { ids }, fixture) => {
    if (ids.length > MAX_PAGE) throw new GraphQLError("ids");
    return ids.map((id) => typed(fixture, id));
  },
};

const resolvers = {
  // An anonymous caller may read nothing.
  Query: Object.fromEntries(
    Object.entries(query).map(([field, resolve]) => [
      field,
      (source, args, fixture) => {
        if (!fixture) throw new GraphQLError("nobody");
        return resolve(source, args, fixture);
      },
    ]),
  ),
  Customer: {
    progress: ({ progress }, { campaignId }) => progress.filter(({ campaign }) => !campaignId || campaign.id === campaignId),
    awards: ({ awards }, { status, campaignId, ...args }, fixture) => {
      const asked = ({ id }) => {
        const award = fixture.nodes.get(id);
        return (!status || status.includes(award.status)) && (!campaignId || award.campaign.id === campaignId);
      };
      return page(fixture, awards.filter(asked), args);
    },
    ledger: connection("ledger"),
    purchases: connection("purchases"),
  },
  CampaignProgress: { campaign: ref("campaign") },
  Purchase: { customer: ref("customer"), awards: refs("awards") },
  Award: { campaign: ref("campaign"), customer: ref("customer"), purchases: connection("purchases") },
  LedgerEntry: { customer: ref("customer"), award: ref("award"), purchase: ref("purchase") },
};

/** Accepts whole numbers that a double holds exactly; see the descriptions of the scalars. */
function whole(value, least) {
  if (!Number.isSafeInteger(value) || value < least) throw new GraphQLError("whole number");
  return value;
}

/** The forms of the scalars that are written as text. */
const FORMS = { DateTime: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/, Decimal: /^-?\d+(\.\d+)?$/ };

function written(value, form) {
  if (typeof value !== "string" || !form.test(value)) throw new GraphQLError("form");
  return value;
}

/** Returns a function that executes a request over a fixture. A null fixture stands for a caller without a token. */
export function reference(sdl) {
  const schema = buildSchema(sdl);
  for (const [type, fields] of Object.entries(resolvers)) {
    for (const [field, resolve] of Object.entries(fields)) schema.getType(type).getFields()[field].resolve = resolve;
  }
  for (const type of Object.values(schema.getTypeMap())) {
    if (isAbstractType(type) && !type.name.startsWith("__")) type.resolveType = (source) => source.__typename;
  }
  const count = schema.getType("Count");
  count.parseValue = (value) => whole(value, 0);
  count.parseLiteral = (node) => whole(node.kind === "IntValue" ? Number(node.value) : NaN, 0);
  for (const [name, form] of Object.entries(FORMS)) {
    const scalar = schema.getType(name);
    scalar.parseValue = (value) => written(value, form);
    scalar.parseLiteral = (node) => written(node.kind === "StringValue" ? node.value : null, form);
  }
  return (fixture, { query: source, variables: variableValues, operationName }) =>
    graphql({ schema, source, variableValues, operationName, contextValue: fixture });
}
