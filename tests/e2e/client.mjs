// The JavaScript side of the contract, with the official client.
//
//   node client.mjs SCENARIO URL polling|websocket|upgrade [OPTIONS as JSON]
//   node client.mjs --lines
//   node client.mjs --list
//
// Prints JSON lines; the last one says {"ok": true}. Ends with 1 and a message on stderr when the contract is broken.
// With --lines, each line of stdin is [SCENARIO, URL, TRANSPORT, OPTIONS]; they are run one after the other, and each is
// answered with a line, which has the message of a failure as "error".
// OPTIONS: parser ("msgpack"), strict (events must be handled one after another), limit (seconds for the whole run),
// headers (of every request), withCredentials (keep cookies).

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { NodeWebSocket, NodeXHR } from "engine.io-client";
import { io } from "socket.io-client";
import msgpackParser from "socket.io-msgpack-parser";

let name, url, mode, options, reached; // of the scenario that runs; "reached" is the transport that it must end on
const TRANSPORTS = { polling: ["polling"], websocket: ["websocket"], upgrade: ["polling", "websocket"] };
const WAIT = 10_000; // milliseconds for any single event

let sockets = [];

// Helpers

function print(line) {
  process.stdout.write(JSON.stringify(line) + "\n");
}

function open({ namespace = "/", who = randomUUID(), ...extra } = {}) {
  const socket = io(url + namespace, {
    transports: TRANSPORTS[mode],
    forceNew: true,
    reconnection: false,
    query: { who },
    ...(options.parser === "msgpack" ? { parser: msgpackParser } : {}),
    ...(options.headers ? { extraHeaders: options.headers } : {}),
    withCredentials: options.withCredentials ?? false,
    ...extra,
  });
  socket.who = who;
  sockets.push(socket);
  return socket;
}

function until(emitter, event, what = event, limit = WAIT) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`waited ${limit} ms in vain for ${what}`)), limit);
    emitter.once(event, (...args) => {
      clearTimeout(timer);
      resolve(args);
    });
  });
}

async function connected(socket) {
  if (socket.connected) return socket;
  const failed = new Promise((_, reject) =>
    socket.once("connect_error", (error) => reject(new Error(`connect_error: ${error.message}`))),
  );
  failed.catch(() => {});
  await Promise.race([until(socket, "connect"), failed]);
  return socket;
}

// Resolves with all values of the acknowledgement.
function ask(socket, event, ...args) {
  return new Promise((resolve, reject) => {
    socket.timeout(WAIT).emit(event, ...args, (error, ...answer) => {
      if (error) reject(new Error(`no acknowledgement of "${event}" in ${WAIT} ms`));
      else resolve(answer);
    });
  });
}

// Ends the connection with all its namespaces.
async function close(socket) {
  socket.io.reconnection(false);
  const engine = socket.io.engine;
  if (!engine || engine.readyState === "closed") return;
  const closed = until(engine, "close", "the end of the connection");
  engine.close();
  await closed;
}

async function upgraded(socket) {
  const engine = socket.io.engine;
  if (engine.transport.name !== reached) await until(engine, "upgrade", "the upgrade to WebSocket");
  assert.equal(engine.transport.name, reached);
}

// Runs the body at once (which is while upgrading, in that mode) and again after the upgrade.
async function rounds(socket, body) {
  await body();
  if (mode === "upgrade") {
    await upgraded(socket);
    await body();
  }
}

async function eventually(read, accept, what) {
  const end = Date.now() + WAIT;
  for (;;) {
    const value = await read();
    if (accept(value)) return value;
    if (Date.now() > end) throw new Error(`waited ${WAIT} ms in vain for ${what}; last: ${JSON.stringify(value)}`);
    await pause(20);
  }
}

async function page(path) {
  let response;
  for (let left = 5; !response; left--) {
    try {
      response = await fetch(url + path, { headers: options.headers });
    } catch (error) {
      // It keeps connections, and meets one that the server is just closing.
      if (!left) throw error;
    }
  }
  assert.equal(response.status, 200, `GET ${path} was answered ${response.status}`);
  return response;
}

async function journal(who) {
  return (await page(`/journal/${who}`)).json();
}

// The reasons of all disconnects of a client, once there are `count` of them.
async function endings(who, count = 1) {
  const read = async () => (await journal(who)).filter(([, event]) => event === "disconnect");
  const found = await eventually(read, (entries) => entries.length >= count, `${count} disconnect in the journal`);
  return found.map(([namespace, , reason]) => [namespace, reason]);
}

// A client that comes and goes: whatever was going to happen late for an earlier one has had its chance.
async function passerby() {
  const other = await connected(open());
  await ask(other, "sync");
  const { who } = other;
  other.disconnect();
  await endings(who);
}

// Buffers, typed arrays and ArrayBuffers as Buffers, so that deepEqual compares bytes.
function plain(value) {
  if (value instanceof ArrayBuffer) return Buffer.from(value);
  if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
  }
  return value;
}

function same(actual, expected, message) {
  assert.deepStrictEqual(plain(actual), plain(expected), message);
}

function bytes(size, seed = 0) {
  const buffer = Buffer.allocUnsafe(size);
  for (let i = 0; i < size; i++) buffer[i] = (i * 31 + (i >> 8) + seed) & 255;
  return buffer;
}

function nest(depth, leaf) {
  return depth === 0 ? leaf : depth % 2 ? { deeper: nest(depth - 1, leaf) } : [nest(depth - 1, leaf)];
}

const jsonValues = () => [
  true,
  false,
  0,
  1,
  -1,
  1.5,
  -2.5e-7,
  ...(options.parser === "msgpack" ? [] : [1e21]), // notepack.io writes it as a wrong integer
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  "",
  "plain",
  "zażółć gęślą jaźń — ελληνικά — 日本語 — עברית",
  "😀 👩‍👩‍👧 🏳️‍🌈",
  'quotes " \\ / \b\f\n\r\t',
  "control \u0000 \u0001 \u001e \u001f \u007f \u2028 \u2029 \ufeff \uffff",
  "4 0{} 42[] 451-[] b64 \u001e4x",
  [],
  {},
  [null],
  [[], [[]], {}],
  { a: null, "": 1, "ключ": "😀", "😀": [1, { b: false }] },
  { _placeholder: "no", num: 0 },
  nest(60, "bottom"),
];

async function echoes(socket, ...values) {
  const [answer] = await ask(socket, "echo", ...values);
  same(answer, values);
}

// Scenarios

const scenarios = {
  async connect_with_auth() {
    const auth = { token: "t-1", nested: { list: [1, "ü😀", null] } };
    const socket = await connected(open({ auth, extraHeaders: { "X-Contract": "kept" } }));
    const [me] = await ask(socket, "whoami");
    same(me.auth, auth);
    assert.equal(me.sid, socket.id);
    assert.match(socket.id, /^[A-Za-z0-9_-]{22}$/);
    assert.notEqual(socket.id, socket.io.engine.id, "the public id must not be the session's secret");
    assert.equal(me.namespace, "/");
    assert.equal(me.event, "whoami");
    assert.equal(me.header, "kept");
    assert.equal(me.query.who, socket.who);
    assert.ok(me.rooms.includes(socket.id));

    const asked = await connected(open({ auth: (answer) => answer({ token: "asked" }) }));
    same((await ask(asked, "whoami"))[0].auth, { token: "asked" });

    const without = await connected(open());
    assert.equal((await ask(without, "whoami"))[0].auth, null);
  },

  async refused() {
    const cases = [
      [{ refuse: ["no entry"] }, "no entry", undefined],
      [{ refuse: ["why", { code: 7, list: ["ü😀"] }] }, "why", { code: 7, list: ["ü😀"] }],
      [{ refuse: ["many", 1, "two"] }, "many", [1, "two"]],
    ];
    for (const [auth, message, data] of cases) {
      const socket = open({ auth });
      const [error] = await until(socket, "connect_error");
      assert.equal(error.message, message);
      same(error.data, data);
      assert.equal(socket.connected, false);
      assert.equal(socket.id, undefined);
      same(await journal(socket.who), [["/", "refused", null]], "a refused client gets no disconnect");
    }
    const rejected = open({ auth: { reject: true } });
    const [error] = await until(rejected, "connect_error");
    assert.ok(error.message.length > 0, "a reason is given");

    // The refusal of one namespace leaves the others alone.
    const main = await connected(open());
    const refused = main.io.socket("/custom", { auth: { refuse: ["not here"] } });
    assert.equal((await until(refused, "connect_error"))[0].message, "not here");
    await echoes(main, "still here");
  },

  // A handler that fails lets nobody in.
  async connect_crash() {
    const socket = open({ auth: { crash: true } });
    const [error] = await until(socket, "connect_error");
    assert.equal(typeof error.message, "string");
    assert.ok(!/told to fail|KeyError/.test(error.message), "the failure's text stays in the server");
    assert.equal(socket.connected, false);
    same(await journal(socket.who), [["/", "crashed", null]]);
    await connected(open());
  },

  async unknown_namespace() {
    const main = await connected(open());
    const socket = main.io.socket("/nowhere");
    const [error] = await until(socket, "connect_error");
    assert.equal(error.message, "Invalid namespace");
    assert.equal(error.data, undefined);
    assert.equal(socket.connected, false);
    await echoes(main, "still here");

    const [alone] = await until(open({ namespace: "/nowhere" }), "connect_error");
    assert.equal(alone.message, "Invalid namespace");
  },

  async namespaces() {
    const custom = await connected(open({ namespace: "/custom", auth: { only: "custom" } }));
    const [me] = await ask(custom, "whoami");
    assert.equal(me.namespace, "/custom");
    assert.equal(me.sid, custom.id);
    same(me.auth, { only: "custom" });
    await rounds(custom, () => echoes(custom, "a", { b: Buffer.from([1, 2]) }));
    same(await journal(custom.who), [["/custom", "connect", null]], "nobody joined / unasked");

    // Several namespaces share a connection and nothing else.
    const main = await connected(open());
    const side = await connected(main.io.socket("/custom", { auth: { side: true } }));
    const classy = await connected(main.io.socket("/class"));
    assert.equal(new Set([main.id, side.id, classy.id]).size, 3);
    const heard = [];
    for (const socket of [main, side, classy]) socket.on("news", (data) => heard.push([socket.nsp, data]));
    await ask(side, "cast", "to custom", { broadcast: true });
    await ask(main, "cast", "to main", { broadcast: true });
    await Promise.all([ask(main, "sync"), ask(side, "sync")]);
    same(heard.sort(), [["/", "to main"], ["/custom", "to custom"]]);

    // A class-based namespace.
    await echoes(classy, 1, "two");
    const shouted = until(classy, "shouted");
    classy.emit("shout", "loud");
    same(await shouted, ["LOUD"]);

    // Leaving one keeps the others, and it can be joined again.
    const before = side.id;
    side.disconnect();
    same(await endings(main.who), [["/custom", "client disconnect"]]);
    await echoes(main, "still here");
    side.connect();
    await connected(side);
    assert.notEqual(side.id, before);
    await echoes(side, "again");
  },

  async catch_all() {
    const socket = await connected(open({ namespace: "/any" }));
    const names = ["surprise", "with blank", "ünï😀", "on_echo", "message"];
    for (const event of names) {
      const caught = until(socket, "caught");
      same(await ask(socket, event, 1, { two: Buffer.from([2]) }), [event, 2]);
      same(await caught, [event, [1, { two: Buffer.from([2]) }]]);
    }
    const caught = until(socket, "caught");
    socket.emit("bare");
    same(await caught, ["bare", []]);
  },

  async echo() {
    const socket = await connected(open());
    await rounds(socket, async () => {
      for (const value of jsonValues()) await echoes(socket, value);
      await echoes(socket, ...jsonValues());
      await echoes(socket);
      await echoes(socket, null, null);
      for (const value of jsonValues()) {
        const echoed = until(socket, "echoed");
        socket.emit("echo_event", value, "and", value);
        same(await echoed, [value, "and", value]);
      }
    });
    // Half of a surrogate pair is legal JSON; it harms nobody.
    // (notepack.io writes it as bytes that are no UTF-8.)
    if (options.parser !== "msgpack") await echoes(socket, "a\ud83d", { "\udc00": 1 });
    await echoes(socket, "still here");
  },

  async send() {
    const socket = await connected(open());
    await rounds(socket, async () => {
      for (const value of ["text", { a: [1, "😀"] }]) {
        const message = until(socket, "message");
        const json = until(socket, "json");
        socket.emit("bounce", value);
        same(await message, [value]);
        same(await json, [value]);
      }
      const back = await new Promise((resolve) => socket.send("hello", (...answer) => resolve(answer)));
      same(back, [["message", "hello"]]);
      same(await ask(socket, "json", { a: 1 }), [["json", { a: 1 }]]);
    });
  },

  async ack_from_server() {
    const socket = await connected(open());
    await rounds(socket, async () => {
      same(await ask(socket, "ack_none"), []);
      same(await ask(socket, "ack_one"), ["one"]);
      same(await ask(socket, "ack_several"), [1, "two", { three: [3] }, Buffer.from([4])]);
      same(await ask(socket, "ack_list"), [[1, "two"]]);
      // Many at once: each gets its own.
      const many = Array.from({ length: 100 }, (_, n) => ask(socket, "echo", n));
      same(await Promise.all(many), Array.from({ length: 100 }, (_, n) => [[n]]));
    });
    // Nobody handles it: nobody acknowledges it.
    await assert.rejects(socket.timeout(300).emitWithAck("nobody_handles_this", 1), /timed out/);
    await echoes(socket, "still here");
  },

  async ack_from_client() {
    const socket = await connected(open());
    const answers = {
      none: [],
      one: ["one"],
      several: [1, "two", { three: [3] }, Buffer.from([4])],
      list: [[1, "two"]],
      nothing: [null],
    };
    socket.on("question", (kind, ...rest) => {
      const answer = rest.pop();
      if (kind === "given") answer(...rest);
      else if (kind !== "silence") answer(...answers[kind]);
    });
    await rounds(socket, async () => {
      for (const kind of Object.keys(answers)) {
        const answered = until(socket, "answered");
        socket.emit("ask", kind);
        same(await answered, [answers[kind]], `callback, ${kind}`);
      }
      same(await ask(socket, "ask_call", 5, "none"), ["value", null]);
      same(await ask(socket, "ask_call", 5, "one"), ["value", "one"]);
      same(await ask(socket, "ask_call", 5, "several"), ["tuple", answers.several]);
      same(await ask(socket, "ask_call", 5, "list"), ["value", [1, "two"]]);
      same(await ask(socket, "ask_socketio_call", 5, "one"), ["value", "one"]);
      const data = { deep: [Buffer.from([9, 8]), "ü"] };
      same(await ask(socket, "ask_call", 5, "given", data), ["value", data]);
      // Several at once.
      const many = [1, 2, 3].map((n) => ask(socket, "ask_call", 5, "given", n));
      same(await Promise.all(many), [1, 2, 3].map((n) => ["value", n]));
    });
    same(await ask(socket, "ask_call", 0.2, "silence"), ["failed", "TimeoutError"]);
    await echoes(socket, "still here");
  },

  async binary() {
    const socket = await connected(open());
    const all = bytes(256);
    // notepack.io writes the whole buffer behind a view.
    const view = options.parser === "msgpack" ? bytes(16) : Uint8Array.from(bytes(64)).subarray(16, 32);
    const exact = new Uint8Array([5, 6, 7]).buffer;
    await rounds(socket, async () => {
      for (const value of [all, Buffer.alloc(0), Buffer.from([0]), bytes(70_000), view, exact]) {
        await echoes(socket, value);
        await echoes(socket, "before", value, "after");
        await echoes(socket, { list: [{ here: value }] });
      }
      await echoes(socket, nest(25, Buffer.from("deep")), nest(12, bytes(10)));
      await echoes(socket, ...Array.from({ length: 10 }, (_, n) => bytes(n * 100, n)));
      await echoes(socket, { a: [bytes(3), { b: bytes(4) }], c: bytes(5), d: "text", e: null }, [bytes(6), [bytes(7)]]);
      const placeholder = { _placeholder: false, num: 0 };
      await echoes(socket, placeholder, bytes(3));

      const echoed = until(socket, "echoed");
      socket.emit("echo_event", all, { inside: [all] });
      same(await echoed, [all, { inside: [all] }]);

      same(await ask(socket, "make_binary", 1000), [Buffer.from(Array.from({ length: 1000 }, (_, n) => (n < 768 ? n & 255 : 0)))]);
      same(await ask(socket, "measure", all), ["bytes", 256]);

      // Binary and text in turns keep their order.
      const got = [];
      socket.on("echoed", (value) => got.push(value));
      const sent = Array.from({ length: 40 }, (_, n) => (n % 2 ? n : bytes(n, n)));
      for (const value of sent) socket.emit("echo_event", value);
      await eventually(() => got.length, (count) => count >= sent.length, "40 echoes");
      socket.off("echoed");
      const key = (value) => (typeof value === "number" ? value : plain(value).length);
      if (!options.strict) got.sort((a, b) => key(a) - key(b));
      same(got, sent);
    });
  },

  async binary_in_tuples() {
    const socket = await connected(open());
    const [value] = await ask(socket, "make_tuples");
    same(value, { inside: [1, [Buffer.from([1]), { deeper: [Buffer.from([2])] }]] });
  },

  async rooms() {
    const clients = await Promise.all([1, 2, 3].map(() => connected(open())));
    const [a, b, c] = clients;
    const heard = new Map(clients.map((socket) => [socket, []]));
    for (const socket of clients) socket.on("news", (data) => heard.get(socket).push(data));
    let number = 0;
    const expect = async (sender, target, receivers, note) => {
      const data = { number: number++, note };
      await ask(sender, "cast", data, target);
      await Promise.all(clients.map((socket) => ask(socket, "sync")));
      for (const socket of clients) {
        const expected = receivers.includes(socket) ? [data] : [];
        same(heard.get(socket), expected, `${note}: client ${"abc"[clients.indexOf(socket)]}`);
        heard.set(socket, []);
      }
    };
    const body = async () => {
      await expect(a, {}, [a], "the default is the sender");
      await expect(a, { broadcast: true }, [a, b, c], "broadcast");
      await expect(a, { broadcast: true, include_self: false }, [b, c], "broadcast without the sender");
      await expect(a, { to: b.id }, [b], "to one client");
      await expect(a, { room: b.id }, [b], "room= is to=");

      await ask(a, "join", "red");
      await ask(b, "join", "red");
      await ask(b, "join", "blue 😀");
      await expect(c, { to: "red" }, [a, b], "to a room from outside");
      await expect(a, { to: "red" }, [a, b], "to a room from inside");
      await expect(a, { to: "red", include_self: false }, [b], "to a room without the sender");
      await expect(a, { to: "blue 😀" }, [b], "to the other room");
      await expect(a, { to: ["red", "blue 😀"] }, [a, b], "to two rooms, each client once");
      await expect(a, { to: ["blue 😀", c.id] }, [b, c], "to a room and a client");
      await expect(a, { to: "nobody" }, [], "to an empty room");
      await expect(a, { broadcast: true, skip_sid: b.id }, [a, c], "skip one");
      await expect(a, { broadcast: true, skip_sid: [a.id, b.id] }, [c], "skip two");
      assert.ok((await ask(b, "whoami"))[0].rooms.includes("blue 😀"));

      await ask(b, "leave", "red");
      await expect(c, { to: "red" }, [a], "after leaving");
      await ask(b, "join", "red");
      await ask(c, "close_room", "red");
      await expect(a, { to: "red" }, [], "after closing the room");
      await ask(b, "leave", "blue 😀");
    };
    await body();
    if (mode === "upgrade") {
      await Promise.all(clients.map(upgraded));
      await body();
    }
    // A client that is gone is in no room.
    await ask(b, "join", "red");
    b.disconnect();
    await endings(b.who);
    clients.splice(1, 1);
    await expect(a, { to: "red" }, [], "after a disconnect");
    await ask(a, "join", "red");
    await expect(c, { to: "red", skip_sid: [a.id], include_self: false }, [], "skip from outside");
    await expect(a, { broadcast: true, skip_sid: [c.id], include_self: false }, [], "skip and not self");
  },

  async emit_elsewhere() {
    const socket = await connected(open());
    const other = await connected(open());
    await rounds(socket, async () => {
      for (const [path, event] of [["/emit", "from_route"], ["/emit_later", "from_task"]]) {
        const one = until(socket, event);
        other.once(event, (data) => assert.equal(data, "all", "an event for somebody else"));
        await page(`${path}?to=${socket.id}&data=one`);
        same(await one, ["one"]);
        await ask(other, "sync");
        const all = [until(socket, event), until(other, event)];
        await page(`${path}?data=all`);
        same(await Promise.all(all), [["all"], ["all"]]);
      }
    });
  },

  async server_disconnect() {
    const socket = await connected(open({ reconnection: true, reconnectionDelay: 10 }));
    const left = until(socket, "disconnect");
    socket.emit("kick");
    assert.equal((await left)[0], "io server disconnect");
    assert.equal(socket.active, false, "it does not reconnect");
    same(await endings(socket.who), [["/", "server disconnect"]]);
    await passerby();
    same(await endings(socket.who), [["/", "server disconnect"]]);

    // One namespace of several.
    const main = await connected(open());
    const side = await connected(main.io.socket("/custom"));
    const sideLeft = until(side, "disconnect");
    side.emit("kick");
    assert.equal((await sideLeft)[0], "io server disconnect");
    await echoes(main, "still here");
    same(await endings(main.who), [["/custom", "server disconnect"]]);
    side.connect();
    await connected(side);
    await echoes(side, "again");
  },

  async client_disconnect() {
    for (const wait of [false, true]) {
      const socket = await connected(open());
      if (wait) await upgraded(socket);
      const left = until(socket, "disconnect");
      socket.disconnect();
      assert.equal((await left)[0], "io client disconnect");
      same(await endings(socket.who), [["/", "client disconnect"]]);
      await passerby();
      same(await endings(socket.who), [["/", "client disconnect"]]);
    }
    // With two namespaces each hears of it once.
    const main = await connected(open());
    await connected(main.io.socket("/custom"));
    await close(main);
    const two = await endings(main.who, 2);
    same(two.map(([namespace]) => namespace).sort(), ["/", "/custom"]);
    await passerby();
    assert.equal((await endings(main.who, 2)).length, 2);
  },

  async large() {
    const socket = await connected(open());
    await upgraded(socket);
    // Binary in a request body is base64, four bytes for three, and the body must stay below the limit of 1,000,000.
    const binarySize = mode === "polling" ? 740_000 : 900_000;
    const textSize = options.parser === "msgpack" ? binarySize : 900_000;
    await echoes(socket, "x".repeat(textSize));
    await echoes(socket, "€".repeat(Math.floor(textSize / 3)));
    await echoes(socket, bytes(binarySize));
    same((await ask(socket, "make_binary", 900_000))[0].length, 900_000);
    await echoes(socket, "still here");
    await endsAlive(socket);
  },

  async megabyte() {
    const socket = await connected(open());
    await rounds(socket, async () => {
      await echoes(socket, "x".repeat(1024 * 1024));
      await echoes(socket, "😀".repeat(256 * 1024));
      await echoes(socket, bytes(1024 * 1024));
      await echoes(socket, bytes(1024 * 1024), "x".repeat(1024 * 1024), { more: bytes(1024 * 1024) });
    });
    await echoes(socket, bytes(3_500_000));
    await endsAlive(socket);
  },

  // 1,000 messages each way, beginning on the first transport, while the upgrade goes on.
  async order() {
    const total = 1000;
    // The server is quick: without this the upgrade could be over before the first message is sent.
    let beginUpgrade;
    const underWay = new Promise((resolve) => (beginUpgrade = resolve));
    class LateWebSocket extends NodeWebSocket {
      doOpen() {
        underWay.then(() => super.doOpen());
      }
    }
    const socket = open(mode === "upgrade" ? { transports: [NodeXHR, LateWebSocket] } : {});
    const ticks = [];
    const carriers = new Set();
    socket.on("tick", (number, attachment) => {
      ticks.push(number);
      if (number % 25 === 0) same(attachment, Buffer.from([number & 255]), `attachment of tick ${number}`);
    });
    socket.emit("stream", total); // buffered by the client, sent as soon as it is connected
    await connected(socket);
    for (let number = 0; number < total; number++) {
      if (number % 25 === 0) socket.emit("numbered", number, bytes(number % 300));
      else socket.emit("numbered", number);
      carriers.add(socket.io.engine.transport.name);
      if (number % 4 === 0) await pause(1);
      if (number === total / 4) beginUpgrade();
      if (number === total * 0.75) await upgraded(socket);
    }
    const expected = Array.from({ length: total }, (_, number) => number);
    const numbers = await eventually(
      async () => (await ask(socket, "numbers"))[0],
      (list) => list.length >= total,
      "1,000 numbers at the server",
    );
    await eventually(() => ticks.length, (count) => count >= total, "1,000 ticks at the client");
    await ask(socket, "sync");
    // Handlers that run side by side may note their numbers in another order than they were started in.
    if (!options.strict) numbers.sort((a, b) => a - b);
    same(numbers, expected, "client to server");
    same(ticks, expected, "server to client");
    same([...carriers].sort(), TRANSPORTS[mode].toSorted(), "transports that carried messages");
  },

  async reconnect() {
    const socket = await connected(open({ reconnection: true, reconnectionDelay: 20, randomizationFactor: 0 }));
    for (let round = 1; round <= 3; round++) {
      if (round > 1) await upgraded(socket);
      const before = socket.id;
      const left = until(socket, "disconnect");
      const back = until(socket, "connect", "the reconnection");
      socket.emit("close_engine", socket.io.engine.id);
      assert.match((await left)[0], /^transport (close|error)$/);
      socket.emit("numbered", round); // buffered while away
      await back;
      assert.notEqual(socket.id, before);
      same(await ask(socket, "numbers"), [[round]]);
      assert.equal((await endings(socket.who, round)).length, round);
    }
  },

  // The parent restarts the server when it reads "ready".
  async restart() {
    const socket = open({ reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200, timeout: 3000 });
    await connected(socket);
    await upgraded(socket);
    await echoes(socket, "before");
    const before = socket.id;
    const left = new Promise((resolve) => socket.once("disconnect", resolve));
    const lines = createInterface({ input: process.stdin });
    const restarted = until(lines, "line", "the word of the parent", 3 * WAIT);
    print({ event: "ready" });
    assert.match(await left, /^transport (close|error)$/);
    print({ event: "disconnected" });
    await restarted;
    lines.close();
    const end = Date.now() + WAIT;
    while (!socket.connected) {
      assert.ok(Date.now() < end, "no reconnection after the restart");
      await pause(20);
    }
    assert.notEqual(socket.id, before);
    await echoes(socket, "after", bytes(10));
  },

  async many_clients() {
    const clients = await Promise.all(Array.from({ length: 20 }, () => connected(open())));
    const heard = clients.map(() => []);
    clients.forEach((socket, n) => socket.on("news", (data) => heard[n].push(data)));
    const casts = 10;
    for (let number = 0; number < casts; number++) {
      await ask(clients[number], "cast", { number, blob: bytes(number) }, { broadcast: true });
    }
    await Promise.all(clients.map((socket) => ask(socket, "sync")));
    const expected = Array.from({ length: casts }, (_, number) => ({ number, blob: bytes(number) }));
    heard.forEach((list, n) => same(list, expected, `client ${n}`));
    await Promise.all(clients.map(upgraded));
    await ask(clients[0], "cast", "after", { broadcast: true });
    await Promise.all(clients.map((socket) => ask(socket, "sync")));
    heard.forEach((list, n) => same(list.slice(casts), ["after"], `client ${n}`));
  },

  async heartbeat() {
    const socket = await connected(open());
    const engine = socket.io.engine;
    assert.equal(engine._pingInterval, 300);
    assert.equal(engine._pingTimeout, 1500);
    let pings = 0;
    engine.on("ping", () => pings++);
    await eventually(() => pings, (count) => count >= 5, "5 pings");
    await echoes(socket, "still here");
    same(await journal(socket.who), [["/", "connect", null]]);
  },

  async silent() {
    const socket = await connected(open());
    const engine = socket.io.engine;
    await upgraded(socket);
    await until(engine, "ping");
    const send = engine._sendPacket;
    assert.equal(typeof send, "function", "engine.io-client sends its packets by another method now");
    engine._sendPacket = function (type, ...rest) {
      if (type !== "pong") send.call(this, type, ...rest);
    };
    const left = until(socket, "disconnect");
    await until(engine, "ping");
    same(await endings(socket.who), [["/", "ping timeout"]]);
    await left;
    await passerby();
    same(await endings(socket.who), [["/", "ping timeout"]]);
  },
};

// The connection that the scenario began with is the one it ends with.
async function endsAlive(socket) {
  assert.equal(socket.connected, true);
  same(await journal(socket.who), [["/", "connect", null]]);
}

// Runs one scenario to its end.
async function perform(scenario, address, transport, given = {}) {
  [name, url, mode, sockets] = [scenario, address, transport, []];
  options = { limit: 30, ...given };
  reached = mode === "polling" ? "polling" : "websocket";
  let overall;
  const late = new Promise((_, reject) => {
    const error = new Error(`the scenario did not end in ${options.limit} s`);
    overall = setTimeout(reject, options.limit * 1000, error);
  });
  try {
    assert.ok(Object.hasOwn(scenarios, name), `no scenario ${name}`);
    assert.ok(Object.hasOwn(TRANSPORTS, mode), `no transport ${mode}`);
    await Promise.race([late, stray.promise, scenarios[name]()]);
    for (const socket of sockets.filter((item) => item.connected)) await upgraded(socket);
    await Promise.all(sockets.map(close));
  } finally {
    clearTimeout(overall);
  }
  return { ok: true, scenario: name, transport: mode };
}

function report(error) {
  const lines = sockets.map((socket) => {
    const transport = socket.io.engine?.transport?.name;
    return `\n  client ${socket.who}: connected=${socket.connected} transport=${transport}`;
  });
  return `${name} over ${mode}: ${error.stack ?? error}${lines.join("")}`;
}

// What is thrown where nobody waits for it.
const stray = {};
stray.promise = new Promise((_, reject) => (stray.reject = reject));
stray.promise.catch(() => {});
process.on("uncaughtException", stray.reject);
process.on("unhandledRejection", stray.reject);

const [first, ...rest] = process.argv.slice(2);
if (first === "--list") {
  Object.keys(scenarios).forEach((scenario) => console.log(scenario));
} else if (first === "--lines") {
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      print(await perform(...JSON.parse(line)));
    } catch (error) {
      print({ ok: false, error: report(error) });
      break; // whatever goes on in this process might disturb the next one
    }
  }
} else {
  try {
    print(await perform(first, rest[0], rest[1], JSON.parse(rest[2] ?? "{}")));
  } catch (error) {
    process.stderr.write(`${report(error)}\n`);
    process.exit(1);
  }
}
process.exit(0); // connections that fetch() keeps alive would hold the process for seconds
