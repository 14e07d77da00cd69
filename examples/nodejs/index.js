// Reads a secret through thaw in each invocation.
"use strict";

// Where thaw listens. A test names another address.
const thaw = () => process.env.SECRETS_ADDR ?? "http://127.0.0.1:8200";

/** The data of a secret in KV version 2, as it is at this invocation. */
async function read(path, requestId) {
  const response = await fetch(`${thaw()}/v1/${path}`, { headers: { "Lambda-Runtime-Aws-Request-Id": requestId } });
  const body = await response.json();
  if (!response.ok) throw new Error(`read ${path}: status ${response.status}: ${body.errors?.join("; ")}`);
  return body.data.data;
}

exports.handler = async (event, context) => {
  // Off unless the function has this variable: what thaw knows, for the event {"thaw": "status"}. It names paths, and no secret.
  if (event.thaw === "status" && process.env.SHOW_THAW_STATUS === "true") {
    return (await fetch(`${thaw()}/proxy/v1/status`)).json();
  }
  const secret = await read("secret/data/app", context.awsRequestId);
  // Use it here. What is returned, and logged, must not have it.
  return { user: secret.user, passwordLength: secret.password.length };
};
