// Many clients in one process, which does what it is told: each line of stdin is a command, answered with a line.
//
//   node fleet.mjs URL
//
//   ["open", COUNT, MS]  COUNT clients, each with an address of its own, every other one over polling, which wait about
//                        so many milliseconds before they connect again; they join a room that is called as their
//                        transport. Answered when all are there.
//   ["talk", FILE, MS]   from now on each emits the event "mark" with the file, its own number and the event's, again
//                        and again after so many milliseconds, and sends it once more when no acknowledgement came
//   ["hush"]             no longer; answered with the numbers that were acknowledged to each when all are
//   ["connected"]        answered with their ids when all are connected
//   ["heard", NUMBER]    answered with what each has heard when all have heard so many events at least
//   ["mark", TEXT]       answered with what each has heard before the event "mark" with this text, which is forgotten

import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const url = process.argv[2];
const WAIT = 90_000; // milliseconds for what a command waits for
const clients = [];
let waiting = () => {};

function open(number, delay) {
  const transport = number % 2 ? "polling" : "websocket";
  const socket = io(url, {
    transports: [transport],
    forceNew: true,
    extraHeaders: { "X-Forwarded-For": `10.${number}.${(number * 7) % 256}.7` },
    reconnectionDelay: delay,
    reconnectionDelayMax: 5 * delay,
    retries: 10,
    ackTimeout: 10_000,
  });
  const client = { socket, transport, heard: [], connects: [], disconnects: 0, sids: [], said: 0, acknowledged: [] };
  socket.on("connect", () => {
    client.connects.push(Date.now());
    client.sids.push(socket.id);
    waiting();
  });
  socket.on("disconnect", () => client.disconnects++);
  socket.onAny((event, ...values) => {
    client.heard.push([event, ...values]);
    waiting();
  });
  clients.push(client);
}

// Resolves when something is true of all clients.
function all(condition, what) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      const left = clients.filter((client) => !condition(client));
      const seen = left.slice(0, 3).map(({ socket, transport, connects, disconnects, heard }) => JSON.stringify({
        transport, connected: socket.connected, connects, disconnects, heard: heard.length, last: heard.slice(-2),
      }));
      const now = `at ${Date.now()}, for example ${seen}`;
      reject(new Error(`${left.length} of ${clients.length} clients did not get to: ${what}; ${now}`));
    }, WAIT);
    waiting = () => {
      if (!clients.every(condition)) return;
      clearTimeout(late);
      waiting = () => {};
      resolve();
    };
    waiting();
  });
}

const report = (take) =>
  clients.map((client) => {
    const { transport, connects, disconnects, sids } = client;
    return { transport, connects, disconnects, sids, heard: take(client) };
  });

const place = (client, text) => client.heard.findLastIndex(([event, mark]) => event === "mark" && mark === text);

const commands = {
  async open(count, delay) {
    for (let number = 0; number < count; number++) open(number, delay);
    await all((client) => client.socket.connected, "a connection");
    const join = ({ socket, transport }) => socket.timeout(WAIT).emitWithAck("join", transport);
    await Promise.all(clients.map(join));
  },

  async talk(file, pause) {
    clients.forEach((client, who) => {
      const say = async () => {
        const number = client.said++;
        client.acknowledged.push(await client.socket.emitWithAck("mark", file, who, number));
        waiting();
      };
      const start = () => {
        say();
        client.talk = setInterval(say, pause);
      };
      client.talk = setTimeout(start, (who / clients.length) * pause);
    });
  },

  async hush() {
    for (const client of clients) clearInterval(client.talk);
    await all((client) => client.acknowledged.length === client.said, "all acknowledgements");
    return clients.map((client) => client.acknowledged);
  },

  async connected() {
    await all((client) => client.socket.connected, "a connection");
    return clients.map((client) => client.socket.id);
  },

  async heard(number) {
    await all((client) => client.heard.length >= number, `${number} events`);
  },

  async mark(text) {
    await all((client) => place(client, text) >= 0, `the mark ${text}`);
    return report((client) => client.heard.splice(0, place(client, text) + 1).slice(0, -1));
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...values] = JSON.parse(line);
  try {
    process.stdout.write(JSON.stringify({ answer: (await commands[name](...values)) ?? null }) + "\n");
  } catch (error) {
    process.stdout.write(JSON.stringify({ error: error.message }) + "\n");
  }
}
process.exit(0);
