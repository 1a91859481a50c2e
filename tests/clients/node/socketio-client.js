// A Socket.IO client that prints what it saw, a JSON line an event: `socketio-client.js URL`. The same run directly and through
// the proxy must print the same lines. The name in the URL leads to 127.0.0.1; NODE_EXTRA_CA_CERTS names the authority.
"use strict";
const crypto = require("crypto");
const { once } = require("events");
require("./loopback");
const { io } = require("socket.io-client");

const [url] = process.argv.slice(2);
const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }));
const BIG = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => (i * 7) % 251));

function open(transports) {
  const socket = io(url, { transports, reconnection: false, forceNew: true, timeout: 10000 });
  socket.on("connect_error", (error) => {
    say("error", { message: error.message });
    process.exit(1);
  });
  return socket;
}

async function exchange(socket, name) {
  for (const message of ["text ✓", "", { nested: [1, { deep: true }] }, Buffer.from([0, 255, 10, 13]), BIG]) {
    const [back, transport] = await new Promise((done) => socket.emit("echo", message, (...answer) => done(answer)));
    const same = Buffer.isBuffer(message) ? message.equals(back) : JSON.stringify(message) === JSON.stringify(back);
    const bytes = Buffer.isBuffer(back) ? back.length : undefined;
    say("echo", { name, transport, same, bytes, digest: bytes && crypto.createHash("sha256").update(back).digest("hex") });
  }
}

async function run(name, transports, upgrades) {
  const socket = open(transports);
  const upgraded = new Promise((done) => socket.io.once("open", () => socket.io.engine.once("upgrade", done)));
  await once(socket, "connect");
  say("connected", { name, transport: upgrades ? "polling" : socket.io.engine.transport.name });
  if (upgrades) {
    say("upgraded", { name, transport: (await upgraded).name });
  }
  await exchange(socket, name);
  // What the server says by itself reaches a client that polls, too.
  const other = open(transports);
  await once(other, "connect");
  const heard = once(other, "said");
  socket.emit("say", `hello from ${name}`);
  say("said", { name, text: (await heard)[0] });
  other.disconnect();
  const ended = once(socket, "disconnect");
  socket.emit("leave");
  say("ended", { name, reason: (await ended)[0] });
}

async function main() {
  await run("polling, then upgraded", ["polling", "websocket"], true);
  await run("polling alone", ["polling"], false);
  await run("websocket alone", ["websocket"], false);
  say("done");
  process.exit(0);
}

main().catch((error) => {
  say("error", { message: error.stack });
  process.exit(1);
});
