// Starts GraphiQL on this server. A token can come in the page's fragment (#token=…), which never leaves the browser.
"use strict";

const token = new URLSearchParams(location.hash.slice(1)).get("token");

const QUERY = `# Ctrl-Enter runs what stands here.
# The token belongs in Headers, below:
# { "Authorization": "Bearer …" }
{
  me {
    balance { available lifetime }
    progress {
      campaign { name }
      state current target unit
    }
    ledger(first: 5) {
      nodes {
        points balanceAfter createdAt
        award { campaign { name } }
      }
    }
  }
}
`;

/** Yields the answers of a stream of server-sent events (GraphQL over SSE, distinct connections mode). */
async function* answers(response) {
  let text = "";
  for await (const chunk of chunks(response.body.pipeThrough(new TextDecoderStream()))) {
    text += chunk;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const data = text.slice(0, end).split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice("data: ".length));
    }
  }
}

/** Not every browser iterates streams by itself. When the caller stops, the request does. */
async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let read; !(read = await reader.read()).done; ) yield read.value;
  } finally {
    reader.cancel();
  }
}

function isSubscription({ operationName }, { documentAST }) {
  return documentAST?.definitions.some((definition) =>
    definition.operation === "subscription" && (!operationName || definition.name?.value === operationName));
}

async function* fetcher(request, options) {
  const live = isSubscription(request, options ?? {});
  const response = await fetch("graphql", {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Accept: live ? "text/event-stream" : "application/graphql-response+json, application/json",
      ...options?.headers,
    },
    body: JSON.stringify(request),
  });
  if (response.headers.get("Content-Type")?.startsWith("text/event-stream")) yield* answers(response);
  else yield await response.json();
}

ReactDOM.createRoot(document.getElementById("graphiql")).render(
  React.createElement(GraphiQL, {
    fetcher,
    defaultQuery: QUERY,
    defaultHeaders: token ? JSON.stringify({ Authorization: `Bearer ${token}` }, null, 2) : undefined,
    isHeadersEditorEnabled: true,
    shouldPersistHeaders: false,
  }),
);
