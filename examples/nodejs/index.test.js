// A function's behaviour when a secret is rotated, and when Vault is down. Needs thaw-dev: see ../README.md.
"use strict";

const { spawn } = require("node:child_process");
const { randomUUID } = require("node:crypto");
const { mkdtempSync, rmSync, writeFileSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const readline = require("node:readline");
const { handler } = require("./index.js");

const invocation = () => handler({}, { awsRequestId: randomUUID() });

let folder, dev, lines;

const set = (password) => writeFileSync(join(folder, "secrets.json"), JSON.stringify({ "secret/data/app": { user: "app", password } }));

/** Waits for a line of thaw-dev, and returns what the pattern found. */
async function line(pattern) {
  for (;;) {
    const { value, done } = await lines.next();
    if (done) throw new Error("thaw-dev ended");
    const found = pattern.exec(value);
    if (found) return found;
  }
}

const control = (what) => fetch(`${process.env.SECRETS_ADDR}/dev/${what}`, { method: "POST" });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "secrets-"));
  set("one");
  dev = spawn("thaw-dev", ["-listen", "127.0.0.1:0", join(folder, "secrets.json")], { stdio: ["ignore", "pipe", "inherit"] });
  lines = readline.createInterface({ input: dev.stdout })[Symbol.asyncIterator]();
  process.env.SECRETS_ADDR = (await line(/VAULT_ADDR=(http:\/\/\S+)/))[1];
});

afterEach(async () => {
  const ended = new Promise((resolve) => dev.once("exit", resolve));
  dev.kill();
  await ended;
  rmSync(folder, { recursive: true });
});

test("the next invocation sees a rotation", async () => {
  expect(await invocation()).toEqual({ user: "app", passwordLength: 3 });
  set("longer");
  await line(/^rotated/);
  expect(await invocation()).toEqual({ user: "app", passwordLength: 6 });
});

test("an outage does not stop the function", async () => {
  const before = await invocation();
  await control("down");
  expect(await invocation()).toEqual(before);
});

test("the status is shown where it is switched on", async () => {
  const status = () => handler({ thaw: "status" }, { awsRequestId: randomUUID() });
  expect(await status()).toEqual({ user: "app", passwordLength: 3 });
  process.env.SHOW_THAW_STATUS = "true";
  expect((await status()).cache.entries).toBe(1);
  delete process.env.SHOW_THAW_STATUS;
});

test("without Vault a new function fails", async () => {
  await control("down");
  await expect(invocation()).rejects.toThrow("status 502");
});
