// What all programs here share: the environment, asking over HTTP, and counting.

/** The value of an environment variable that must be set. */
export function need(name) {
  const value = process.env[name];
  if (!value) {
    console.error(`the environment variable ${name} is not set`);
    process.exit(2);
  }
  return value;
}

/** Asks the server in plain application/json. Without a token nobody asks. */
export function asker(url, token) {
  const headers = { accept: "application/json", "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  return async (query, variables, operationName) => {
    const body = JSON.stringify({ query, variables, operationName });
    const response = await fetch(url, { method: "POST", headers, body });
    return { status: response.status, ...(await response.json()) };
  };
}

/** Counts what passes, tells what does not, and ends with a line that says how many of each there were. */
export class Tally {
  passed = 0;
  failed = 0;

  pass() {
    this.passed++;
  }

  fail(told) {
    this.failed++;
    console.error(`FAILED ${told}`);
  }

  end() {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    process.exit(this.failed || !this.passed ? 1 : 0);
  }
}
