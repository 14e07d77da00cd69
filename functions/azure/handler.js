// The function's own handler: plain Node, nothing to install. thaw-azure starts
// it, gives it a port in FUNCTIONS_CUSTOMHANDLER_PORT as the host would, and
// serves secrets at VAULT_ADDR (http://127.0.0.1:8200). Every read here is as
// new as this invocation: thaw has asked Vault since the invocation began.
"use strict";
const http = require("node:http");

const vault = process.env.VAULT_ADDR || "http://127.0.0.1:8200";
const path = process.env.SECRET_PATH || "secret/data/app";

// readSecret gets a secret's fields from localhost, without a token: thaw logs in.
function readSecret(path) {
  return new Promise((resolve, reject) => {
    http.get(`${vault}/v1/${path}`, (res) => {
      const parts = [];
      res.on("data", (d) => parts.push(d));
      res.on("end", () => {
        const text = Buffer.concat(parts).toString();
        if (res.statusCode !== 200) {
          reject(new Error(`${res.statusCode} ${text}`));
          return;
        }
        const { data } = JSON.parse(text);
        resolve({ fields: data.metadata ? data.data : data, cache: res.headers["cache-status"] });
      });
    }).on("error", reject);
  });
}

async function hello(res) {
  const secret = await readSecret(path);
  res.setHeader("Content-Type", "application/json");
  // The names of the fields, and where they came from. Never the values.
  res.end(JSON.stringify({ secret: path, fields: Object.keys(secret.fields), cache: secret.cache }) + "\n");
}

const server = http.createServer((req, res) => {
  const done = new URL(req.url, "http://app").pathname === "/api/hello" ? hello(res) : Promise.reject(Object.assign(new Error("no such function"), { status: 404 }));
  done.catch((err) => {
    console.error(err.message);
    res.statusCode = err.status || 502;
    res.end(err.status === 404 ? "no such function\n" : "the secret could not be read\n");
  });
});
server.listen(Number(process.env.FUNCTIONS_CUSTOMHANDLER_PORT), "127.0.0.1");
process.on("SIGTERM", () => server.close());
