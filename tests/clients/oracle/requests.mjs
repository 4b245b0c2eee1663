// The requests that are sent to both. `as` is customer (the default), admin or nobody.
//
// `stricter`: Windfall refuses the whole request where graphql-js lets only a field fail.

const NODE = `
  fragment Whole on Node {
    __typename
    ... on Customer { externalId balance { version available } }
    ... on Award { points status customer { externalId } campaign { id name } window { opensAt closesAt } }
    ... on Campaign { name startsAt window { __typename } }
    ... on Purchase { externalId total { amount currency } lines { sku quantity } awards { id points } }
    ... on LedgerEntry { sequence kind award { id } purchase { externalId } }
    id
  }`;

/** The requests, with names from a customer's fixture. */
export function requests(fixture) {
  const { nodes } = fixture;
  const me = nodes.get(fixture.me);
  const entry = nodes.get(me.ledger.find(({ id }) => nodes.get(id).award).id);
  const award = nodes.get(entry.award.id);
  const purchase = nodes.get(award.purchases[0].id);
  const campaign = nodes.get(award.campaign.id);
  const ids = [me.id, entry.id, award.id, purchase.id, campaign.id];
  const id = (text) => JSON.stringify(text);
  const escaped = [...me.externalId].map((char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");
  const [newest, second, third] = me.ledger.map((edge) => edge.cursor);
  const many = Array.from({ length: 101 }, () => campaign.id);
  const anyone = `{ me { id } node(id: ${id(campaign.id)}) { id } campaigns { totalCount } }`;

  return [
    // Order of keys, fields selected twice, aliases
    { query: "{ me { externalId id } campaigns(first: 2) { totalCount nodes { id name } } }" },
    { query: "{ campaigns(first: 2) { nodes { name id } totalCount } me { id externalId } }" },
    { query: "{ me { externalId } me { id } me { externalId balance { version } } }" },
    { query: `{ ...F me { id } campaigns(first: 1) { totalCount } }
        fragment F on Query { campaigns(first: 1) { nodes { id } } me { externalId } }` },
    { query: `{ me { ...A ...B } } fragment A on Customer { balance { available } id }
        fragment B on Customer { balance { pending available lifetime } externalId }` },
    { query: `{ me { ...B ...A } } fragment A on Customer { balance { available } id }
        fragment B on Customer { balance { pending available lifetime } externalId }` },
    { query: "{ me { ledger(first: 3) { nodes { id } nodes { points sequence } edges { cursor } edges { node { kind } } } } }" },
    { query: `{ me { ledger(first: 3) { ...L } ledger(first: 3) { nodes { award { id campaign { name } } } } } }
        fragment L on LedgerEntryConnection { nodes { award { campaign { id } points } } pageInfo { endCursor } }` },
    { query: `query($c: String) {
        me { ledger(first: 2, after: $c) { nodes { id } } ledger(after: $c, first: 2) { nodes { points } } } }`,
      variables: { c: newest } },
    { query: "{ a: me { x: id y: id } b: me { id: externalId externalId: id } }" },
    { query: "{ one: me { ledger(first: 1) { nodes { sequence } } } two: me { ledger(last: 1) { nodes { sequence } } } }" },
    { query: "{ me { ... { id } ... @include(if: true) { externalId } ... @skip(if: true) { balance { version } } } }" },
    { query: `{ me { ...A } } fragment A on Customer { ...B id } fragment B on Customer { ...C externalId }
        fragment C on Customer { externalId balance { version } id }` },
    { query: "{ me { ... on Node { id ... on Customer { externalId } } ... on Customer { ... on Node { __typename } } } }" },
    { query: "query A { me { id } } query B { me { externalId } }", operationName: "B" },
    { query: "\ufeff# a comment\n{ me,, { id , externalId } } # another" },

    // `__typename`
    { query: "{ __typename }" },
    { query: "mutation { __typename t: __typename }" },
    { query: `{ t: __typename __typename me { __typename balance { __typename } ledger(first: 1) {
        __typename edges { __typename node { __typename award { __typename } } } nodes { __typename } pageInfo { __typename } } } }` },
    { query: "{ campaigns { __typename nodes { __typename window { __typename } goal { t: __typename } award { __typename } } } }" },

    // Interfaces and unions
    ...ids.map((id) => ({ query: `query($id: ID!) { node(id: $id) { ...Whole } } ${NODE}`, variables: { id } })),
    { query: `query($ids: [ID!]!) { nodes(ids: $ids) { ...Whole } } ${NODE}`,
      variables: { ids: [...ids, "", "nothing", purchase.id, campaign.id] } },
    { query: `{ nodes(ids: [${id(award.id)}, ${id(me.id)}]) {
        id ... on Award { id customer { id } } ... on Node { __typename id } ... on Customer { externalId } } }` },
    { query: "{ me { ledger(first: 3) { nodes { customer { externalId balance { version } ledger(first: 1) { nodes { id } } } } } } }" },
    { query: `{ nodes(ids: [${ids.map(id)}]) {
        ... on Customer { name: externalId } ... on Purchase { name: externalId } ... on Campaign { name } } }` },
    { query: "{ nodes(ids: []) { id } }" },
    { query: `{ campaigns { nodes {
        window {
          ... on CampaignWindow { opensAt closesAt } ... on CalendarWindow { unit every weekStartsOn }
          ... on RecurringWindow { weekdays from to } ... on SessionWindow { gap } ... on TimerWindow { duration reopens }
          ... on RollingWindow { duration } }
        goal {
          ... on EveryPurchaseGoal { atLeast } ... on PurchasesGoal { atLeast repeat }
          ... on SpendGoal { amount { currency amount } repeat } ... on DistinctGoal { atLeast of }
          ... on StreakGoal { repeat length purchasesPerWindow } }
        award { ... on FixedPoints { points } ... on PointsPerUnit { rate } } } } }` },
    { query: `{ campaigns { nodes { window { ...W __typename } goal { ... on StreakGoal { length } } } } }
        fragment W on WindowRule { ... on SessionWindow { gap } __typename ... on TimerWindow { duration } ...R }
        fragment R on RollingWindow { duration }` },
    { query: "{ campaigns { nodes { filter { categories skus minAmount { amount } } maxPerCustomer description endsAt holdFor } } }" },
    { query: "{ campaigns { nodes { name budget stats { awards pointsStanding budgetLeft customers } } } }" },
    { as: "admin", query: "{ campaigns { nodes { name budget stats { awards pointsStanding budgetLeft customers } } } }" },
    { as: "admin", query: `{ customers(first: 2) {
        edges { node { externalId ledger(first: 2) { nodes { sequence points } } } cursor }
        pageInfo { hasNextPage hasPreviousPage } } }` },
    { query: "{ me { progress { campaign { name currency } unit target awardsLeft } } }" },
    { query: `query($c: ID) {
        me { progress(campaignId: $c) { campaign { id } } awards(first: 3, campaignId: $c) { nodes { points } } } }`,
      variables: { c: campaign.id } },
    { query: `{ me { purchases(first: 3) { nodes {
        externalId customer { id } purchasedAt recordedAt channel net { amount } refunds { externalId }
        lines { category amount { amount } }
        awards { ordinal earnedAt purchases { nodes { externalId } pageInfo { hasNextPage } } } } } } }` },
    { query: "query($a: String, $b: String) { me { ledger(after: $a, before: $b) { edges { cursor } pageInfo { hasPreviousPage } } } }",
      variables: { a: newest, b: third } },
    { query: `query($b: String) {
        me { ledger(last: 1, before: $b) { nodes { sequence } pageInfo { startCursor endCursor hasPreviousPage } } } }`,
      variables: { b: second } },

    // Nulls, and fields that fail
    { query: `{ node(id: "nothing") { id } campaign(id: "nothing") { id }
        purchase(by: { externalId: "no such purchase" }) { id } customer(by: { externalId: "no such customer" }) { id } }` },
    { query: `{ campaign(id: ${id(award.id)}) { id } customer(by: { id: ${id(campaign.id)} }) { id }
        purchase(by: { id: ${id(me.id)} }) { id } }` },
    { as: "admin", query: "{ me { id balance { version } } }" },
    { as: "nobody", query: "{ me { id } }" },
    { as: "nobody", query: `{ me { id } node(id: ${id(campaign.id)}) { id } campaign(id: ${id(campaign.id)}) { id } __typename }` },
    { as: "nobody", query: "{ campaigns { totalCount } }" },
    { query: anyone },
    { query: "{ customers { nodes { id } } }" },
    { query: "{ me { id } customers { nodes { id } } }" },
    { query: "{ me { externalId ledger(first: 101) { nodes { id } } } }" },
    { query: "{ a: me { id ledger(first: 1, last: 1) { nodes { id } } } b: me { id } }" },
    { query: "{ me { ledger(after: \"nothing\") { nodes { id } } } campaigns(first: 1) { totalCount } }" },
    { query: "{ me(atLeastVersion: 9007199254740991) { id } campaigns(first: 1) { totalCount } again: me { externalId } }" },
    { query: "{ x: me { y: ledger(last: -1) { nodes { id } } } }" },
    { query: `{ node(id: ${id(award.id)}) { id ... on Award { evidence: purchases(first: -1) { nodes { id } } } } }` },
    { query: `{ nodes(ids: [${id(award.id)}, ${id(campaign.id)}, ${id(award.id)}]) {
        id ... on Award { purchases(first: 101) { nodes { id } } } } }` },
    { query: "{ me { ledger(first: 3) { nodes { sequence award { id purchases(first: 101) { nodes { id } } } } } } }" },
    { query: `{ purchase(by: { id: ${id(purchase.id)} }) { externalId customer { externalId awards(first: 101) { nodes { id } } } } }` },
    { query: `{ a: me { ledger(first: 101) { nodes { id } } }
        b: node(id: ${id(award.id)}) { ... on Award { purchases(last: 101) { nodes { id } } } } }` },
    { query: "query($ids: [ID!]!) { me { id } nodes(ids: $ids) { id } }", variables: { ids: many } },

    // Variables
    ...[{}, { n: 1 }, { n: null }].map((variables) => ({
      query: "query($n: Int = 2) { me { ledger(first: $n) { nodes { sequence } } } }", variables,
    })),
    { query: "query($n: Int) { me { ledger(first: $n) { nodes { sequence } } } }" },
    { query: "query($n: Int!) { me { ledger(first: $n) { nodes { sequence } } } }", variables: { n: 1, unknown: [1] } },
    ...[ids, [], campaign.id, 5, ["nothing", 5]].map((ids) => ({
      query: "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", variables: { ids },
    })),
    { query: `{ nodes(ids: ${id(campaign.id)}) { id } node(id: 5) { id } }` },
    { query: "query($id: ID!) { nodes(ids: [$id, \"nothing\", $id]) { id } }", variables: { id: campaign.id } },
    ...[["STANDING"], "STANDING", [], null, ["REVERSED", "DECLINED"]].map((s) => ({
      query: "query($s: [AwardStatus!]) { me { awards(first: 2, status: $s) { nodes { status } } } }", variables: { s },
    })),
    { query: "query($s: AwardStatus!) { me { awards(first: 2, status: [$s, DECLINED]) { nodes { status } } } }",
      variables: { s: "STANDING" } },
    { query: "{ me { awards(first: 2, status: STANDING) { nodes { status } } } }" },
    { query: "query($by: CustomerBy!) { customer(by: $by) { externalId } }", variables: { by: { externalId: me.externalId } } },
    { query: "query($e: String!) { customer(by: { externalId: $e }) { id } }", variables: { e: me.externalId } },
    { query: `{ customer(by: { externalId: "${escaped}" }) { id } }` },
    { query: `{ customer(by: { externalId: """${me.externalId}""" }) { id } }` },
    ...[[true, true], [true, false], [false, true], [false, false]].map(([yes, no]) => ({
      query: `query($yes: Boolean!, $no: Boolean!) { me {
          id @include(if: $yes) externalId @skip(if: $no) balance @include(if: $yes) @skip(if: $no) { version }
          ...F @include(if: $no) ... @skip(if: $yes) { ledger(first: 1) { nodes { points } } } __typename } }
        fragment F on Customer { externalId ledger(first: 1) { nodes { sequence } } }`,
      variables: { yes, no },
    })),
    { query: "query($no: Boolean = false) { me { id ... @include(if: $no) { externalId } } }" },
    { query: "query($no: Boolean = false) { me @include(if: $no) { id } }" },
    { query: "query($v: Count) { me(atLeastVersion: $v) { id } }", variables: { v: 0 } },

    // Values that do not fit
    ...[{}, { n: null }, { n: "1" }, { n: 1.5 }, { n: 2 ** 31 }, { n: true }, { n: [1] }].map((variables) => ({
      query: "query($n: Int!) { me { ledger(first: $n) { nodes { id } } } }", variables,
    })),
    ...[{}, { ids: null }, { ids: [null] }, { ids: [true] }, { ids: [["x"]] }, { ids: 1.5 }].map((variables) => ({
      query: "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", variables,
    })),
    ...["OTHER", "standing", 0, [null], true].map((s) => ({
      query: "query($s: [AwardStatus!]) { me { awards(status: $s) { nodes { id } } } }", variables: { s },
    })),
    ...[{}, { id: "x", externalId: "y" }, { id: null }, { id: "x", externalId: null }, { other: "x" }, "x", null].map((by) => ({
      query: "query($by: CustomerBy!) { customer(by: $by) { id } }", variables: { by },
    })),
    ...["{}", "{ id: \"x\", externalId: \"y\" }", "{ id: null }", "{ other: 1 }", "\"x\"", "null"].map((by) => ({
      query: `{ customer(by: ${by}) { id } }`,
    })),
    ...["\"2\"", "1.0", "2147483648", "true", "[1]", "TWO", "{ n: 1 }"].map((first) => ({
      query: `{ me { ledger(first: ${first}) { nodes { id } } } }`,
    })),
    ...["null", "true", "1.5", "X", "[]"].map((id) => ({ query: `{ node(id: ${id}) { id } }` })),
    { query: "{ me { awards(status: \"STANDING\") { nodes { id } } } }" },
    { query: "query($b: Boolean! = true) { me { id @include(if: $b) } }", variables: { b: null } },
    { query: "query($b: Boolean!) { me { id @include(if: $b) } }" },
    { query: "query($id: ID = \"nothing\") { node(id: $id) { id } }", variables: {} },
    { query: "query($id: ID = \"nothing\") { node(id: $id) { id } }", variables: { id: null }, stricter: true },
    { query: "query($b: Boolean = true) { me { id externalId @include(if: $b) } }", variables: { b: null }, stricter: true },
    { query: "query($id: ID) { customer(by: { id: $id }) { id } }", variables: { id: "nothing" }, stricter: true },
    ...[-1, 1.5, "1", true].map((v) => ({
      query: "query($v: Count) { me(atLeastVersion: $v) { id } }", variables: { v },
    })),
    ...["-1", "\"1\"", "1.0", "true", "ONE", "[1]", "{ n: 1 }"].map((version) => ({
      query: `{ me(atLeastVersion: ${version}) { id } }`,
    })),
    { query: "query($v: Count = -1) { me(atLeastVersion: $v) { id } }" },
    ...[["total", "12.5"], ["total", "\"twelve\""], ["total", "TWELVE"], ["purchasedAt", "\"today\""], ["purchasedAt", "1"]].map(
      ([field, value]) => ({
        query: `mutation { recordPurchase(input: { externalId: "p", customerExternalId: "c", currency: "EUR",
          ${field === "total" ? "" : "total: \"1\""} ${field === "total" ? "purchasedAt: \"2026-11-02T12:00:00Z\"" : ""}
          ${field}: ${value} }) { replayed } }`,
      })),

    // Documents that are not valid
    ...[
      "# nothing", "{", "{ me { id }", "{ me { id } } }", "query", "{ me { id } } nonsense", "{ me { id: } }", "{ me { } }",
      "{ nonsense }", "{ me { nonsense } }", "{ me }", "{ me { id { x } } }", "{ me(nonsense: 1) { id } }",
      "{ node { id } }", "{ me { id @nonsense } }", "query @include(if: true) { me { id } }", "{ me { id @include } }",
      "{ me { id @include(if: true) @include(if: true) } }", "{ me { id @include(if: \"yes\") } }",
      "{ me { x: id x: externalId } }", "{ me { ledger(first: 1) { nodes { id } } ledger(first: 2) { nodes { id } } } }",
      "{ me { ledger { nodes { id } } ledger(first: 20) { nodes { id } } } }",
      "{ campaigns { nodes { goal { ... on PurchasesGoal { x: atLeast } ... on SpendGoal { x: amount { amount } } } } } }",
      "{ campaigns { nodes { goal { ... on EveryPurchaseGoal { x: atLeast } ... on StreakGoal { x: repeat } } } } }",
      "{ me { ...F } }", "{ me { id } } fragment F on Customer { id }", "{ me { ...F } } fragment F on Customer { ...F }",
      "{ me { ...F } } fragment F on Customer { ...G } fragment G on Customer { ...F }",
      "{ me { ...F } } fragment F on Nonsense { id }", "{ me { ...F } } fragment F on ID { id }",
      "{ me { ... on Award { id } } }", "{ me { ...F } } fragment F on Query { me { id } }",
      "{ me { ...F ...F } } fragment F on Customer { id } fragment F on Customer { externalId }",
      "{ node(id: 1) { externalId } }", "{ campaigns { nodes { window { gap } } } }",
      "{ me { id } } { me { id } }", "{ me { id } } query A { me { id } }", "query A { me { id } } query A { me { id } }",
      "query A { me { id } } query B { me { id } }",
      "query($a: Int) { me { id } }", "{ me { ledger(first: $a) { nodes { id } } } }",
      "query($a: Int, $a: Int) { me { ledger(first: $a) { nodes { id } } } }",
      "query($a: Customer) { me { id } }", "query($a: Nonsense) { me { id } }",
      "query($a: String) { me { ledger(first: $a) { nodes { id } } } }",
      "query($a: ID) { node(id: $a) { id } }", "query($a: [ID]!) { nodes(ids: $a) { id } }",
      "query($a: Int = \"1\") { me { ledger(first: $a) { nodes { id } } } }",
      "{ me { ledger(first: 1, first: 1) { nodes { id } } } }", "{ customer(by: { id: 1, id: 1 }) { id } }",
      "type Nonsense { id: ID } { me { id } }", "subscription { me { id } }", "mutation { me { id } }",
      "{ __type { name } }", "{ me { __schema { types { name } } } }",
    ].map((query) => ({ query })),
    { query: "query A { me { id } } query B { me { id } }", operationName: "C" },
    { query: "{ me { id } }", operationName: "C" },
  ];
}
