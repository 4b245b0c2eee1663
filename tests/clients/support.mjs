// What all programs here share: environment variables, requests over HTTP, and a count of passes and failures.

/** The value of an environment variable that must be set. */
export function need(name) {
  const value = process.env[name];
  if (!value) {
    console.error(`the environment variable ${name} is not set`);
    process.exit(2);
  }
  return value;
}

/** Returns a function that sends requests with plain application/json. Without a token, the requests are anonymous. */
export function asker(url, token) {
  const headers = { accept: "application/json", "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  return async (query, variables, operationName) => {
    const body = JSON.stringify({ query, variables, operationName });
    const response = await fetch(url, { method: "POST", headers, body });
    return { status: response.status, ...(await response.json()) };
  };
}

/** Counts passes and failures, prints each failure, and ends the program with a line that has both numbers. */
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
