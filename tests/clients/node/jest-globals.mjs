// Lets hashi-vault-js's own tests, written for jest, run under node's test
// runner: they need no more of jest than this.
import assert from "node:assert/strict";
import { test } from "node:test";

globalThis.test = test;
globalThis.expect = (value) => ({ toBeDefined: () => assert.notEqual(value, undefined) });
