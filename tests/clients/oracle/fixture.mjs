// Reads the objects over which the reference runs from the server, list by list and node by node.

const CUSTOMER = "id externalId balance { available pending lifetime version cursor }";
const MONEY = "{ amount currency }";
const WINDOW = "{ opensAt closesAt }";
const PROGRESS = `campaign { id } window ${WINDOW} nextWindow ${WINDOW} state unit current target awardsEarned awardsLeft`;
const ENTRY = `id customer { id } sequence kind points balanceAfter availableAt expiresAt award { id } purchase { id } reason createdAt`;
const AWARD = `id campaign { id } customer { id } window ${WINDOW} ordinal points status earnedAt
  purchases(first: 100) { edges { cursor node { id } } pageInfo { hasNextPage } }`;
const PURCHASE = `id externalId customer { id } purchasedAt recordedAt total ${MONEY} net ${MONEY} channel
  lines { sku category quantity amount ${MONEY} net ${MONEY} } refunds { externalId amount ${MONEY} refundedAt } awards { id }`;
const CAMPAIGN = `id name description status startsAt endsAt timeZone currency
  filter { minAmount ${MONEY} channels categories skus }
  window {
    __typename
    ... on CampaignWindow ${WINDOW}
    ... on CalendarWindow { unit every weekStartsOn }
    ... on RecurringWindow { weekdays from to }
    ... on SessionWindow { gap }
    ... on TimerWindow { duration reopens }
    ... on RollingWindow { duration }
  }
  goal {
    __typename
    ... on EveryPurchaseGoal { atLeast }
    ... on PurchasesGoal { atLeast repeat }
    ... on SpendGoal { amount ${MONEY} repeat }
    ... on DistinctGoal { of atLeast }
    ... on StreakGoal { length purchasesPerWindow repeat }
  }
  award { __typename ... on FixedPoints { points } ... on PointsPerUnit { rate } }
  maxPerCustomer maxPerWindow lateness holdFor expiresAfter budgetExhausted revision budget
  stats { awards customers pointsStanding pointsDeclined budgetLeft }`;

/** The number of customers that an admin's fixture reads completely. All customers are listed. */
const CUSTOMERS = 3;

/**
 * What one viewer sees: `nodes` by id, `campaigns` and `customers` as edges of ids, and `me`, the id of the customer that
 * the viewer is. `customers` is null for a customer, who may not list them; `me` is null for all others.
 */
export async function capture(ask) {
  const nodes = new Map();
  const keep = (type, node) => nodes.set(node.id, { __typename: type, ...node });
  const read = async (query, variables) => {
    const { data, errors } = await ask(query, variables);
    if (errors) throw new Error(`${query}: ${JSON.stringify(errors)}`);
    return data;
  };
  /** Reads a whole list and returns its edges. `open` and `close` are the text around the list in the query. */
  const list = async (type, open, field, close, selection) => {
    const edges = [];
    const query = `query($after: String) { ${open} ${field}(first: 20, after: $after) {
      edges { cursor node { ${selection} } } pageInfo { hasNextPage endCursor } } ${close} }`;
    for (let after = null, more = true; more; ) {
      const data = await read(query, { after });
      const page = open ? data.customer[field] : data[field];
      for (const { cursor, node } of page.edges) {
        keep(type, node);
        edges.push({ cursor, id: node.id });
      }
      ({ hasNextPage: more, endCursor: after } = page.pageInfo);
    }
    return edges;
  };

  const campaigns = await list("Campaign", "", "campaigns", "", CAMPAIGN);
  const { me } = await read(`{ me { ${CUSTOMER} } }`);
  if (me) keep("Customer", me);
  const customers = me ? null : await list("Customer", "", "customers", "", CUSTOMER);

  for (const id of me ? [me.id] : customers.slice(0, CUSTOMERS).map((edge) => edge.id)) {
    const customer = nodes.get(id);
    const of = (type, field, selection) =>
      list(type, `customer(by: { id: ${JSON.stringify(id)} }) {`, field, "}", selection);
    customer.ledger = await of("LedgerEntry", "ledger", ENTRY);
    customer.purchases = await of("Purchase", "purchases", PURCHASE);
    customer.awards = await of("Award", "awards", AWARD);
    const { customer: progressing } = await read(
      `query($id: ID!) { customer(by: { id: $id }) { progress { ${PROGRESS} } } }`, { id });
    customer.progress = progressing.progress;
  }
  for (const node of nodes.values()) {
    if (node.__typename === "Award") {
      if (node.purchases.pageInfo.hasNextPage) throw new Error("an award has more than 100 purchases; only 100 are read");
      node.purchases = node.purchases.edges.map(({ cursor, node: { id } }) => ({ cursor, id }));
    }
  }
  return { nodes, campaigns, customers, me: me?.id ?? null };
}
