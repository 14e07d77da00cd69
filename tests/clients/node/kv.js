// Uses npm's node-vault as a program would, against the address and token that
// are given: kv.js <address> <token> <KV v2 mount> <KV v1 mount>. Prints "ok".
// An empty token is one that the client does not send.
const assert = require("node:assert/strict");
const [address, token, kv, kv1, mode] = process.argv.slice(2);
const vault = require("node-vault")({ endpoint: address, token: token || undefined });

async function read() {
  const r = await vault.read(`${kv}/data/node/read`);
  assert.deepEqual(r.data.data, { v: "kept" });
  assert.equal(r.data.metadata.version, 1);
}

async function everything() {
  await vault.write(`${kv}/data/node/read`, { data: { v: "kept" } });
  await read();
  await read();

  await vault.write(`${kv}/data/node/a`, { data: { v: "1" } });
  await vault.update(`${kv}/data/node/a`, { data: { w: "2" } });
  assert.deepEqual((await vault.read(`${kv}/data/node/a`)).data.data, { v: "1", w: "2" });
  await vault.write(`${kv}/data/node/a`, { data: { v: "3" } });
  assert.deepEqual((await vault.read(`${kv}/data/node/a`)).data.data, { v: "3" });
  assert.deepEqual((await vault.read(`${kv}/data/node/a?version=2`)).data.data, { v: "1", w: "2" });
  assert.deepEqual((await vault.list(`${kv}/metadata/node`)).data.keys, ["a", "read"]);
  await vault.delete(`${kv}/data/node/a`);
  await assert.rejects(vault.read(`${kv}/data/node/a`), (e) => e.response.statusCode === 404);
  await vault.delete(`${kv}/metadata/node/a`);
  assert.deepEqual((await vault.list(`${kv}/metadata/node`)).data.keys, ["read"]);

  await vault.write(`${kv1}/node/b`, { v: "one" });
  assert.equal((await vault.read(`${kv1}/node/b`)).data.v, "one");
  await vault.write(`${kv1}/node/b`, { v: "two" });
  assert.equal((await vault.read(`${kv1}/node/b`)).data.v, "two");
  await vault.delete(`${kv1}/node/b`);
  await assert.rejects(vault.read(`${kv1}/node/b`), (e) => e.response.statusCode === 404);

  const health = await vault.health();
  assert.equal(health.initialized, true);
  assert.ok((await vault.tokenLookupSelf()).data.policies.length > 0);
  await assert.rejects(vault.read("nowhere/at/all"), (e) => /permission denied|no handler/.test(e.message));
}

(mode === "read" ? read() : everything()).then(
  () => console.log("ok"),
  (err) => { console.error(err); process.exit(1); },
);
