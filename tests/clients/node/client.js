// Talks to an echo backend with `ws` and prints what it saw, a JSON line an event. See client.py beside it: the same
// run directly and through the proxy must print the same lines.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const { once } = require("events");
const WebSocket = require("ws");

const [url, address, ca] = process.argv.slice(2);
const [host, port] = address.split(":");
const BIG = Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => (i * 7) % 251));

const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }));
const digest = (data) => crypto.createHash("sha256").update(data).digest("hex");

function open(query, protocols, options = {}) {
  // The name in the URL gives SNI and Host; the connection goes to `address`.
  const lookup = (_name, wish, done) => (wish.all ? done(null, [{ address: host, family: 4 }]) : done(null, host, 4));
  const target = new URL(url);
  target.port = port;
  const tls = ca ? { ca: fs.readFileSync(ca) } : {};
  const socket = new WebSocket(`${target}?quiet${query}`, protocols, { lookup, ...tls, ...options });
  socket.on("error", (error) => {
    say("error", { message: error.message });
    process.exit(1);
  });
  return socket;
}

// Sends one message and answers its echo.
async function echo(socket, send) {
  const back = once(socket, "message");
  send();
  const [data, binary] = await back;
  return { kind: binary ? "binary" : "text", bytes: data.length, sha256: digest(data) };
}

async function messages(name, options) {
  const socket = open("", [], options);
  await once(socket, "open");
  say("open", { case: name, extensions: socket.extensions });
  for (const message of ["text ✓", "", Buffer.alloc(0), Buffer.from([...Array(256).keys()]), "long ".repeat(20000), BIG]) {
    const back = await echo(socket, () => socket.send(message));
    say("echo", { ...back, same: back.sha256 === digest(message) });
  }
  const parts = ["one ", "two ", "", "three"];
  const fragments = await echo(socket, () => parts.forEach((part, i) => socket.send(part, { fin: i === parts.length - 1 })));
  say("echo of fragments", { ...fragments, same: fragments.sha256 === digest(parts.join("")) });
  const pong = once(socket, "pong");
  socket.ping("are you there");
  say("pong", { text: String((await pong)[0]) });
  const closed = once(socket, "close");
  socket.close(1000, "bye");
  const [code, reason] = await closed;
  say("closed", { case: name, code, reason: String(reason) });
}

async function closeFromHere(sent) {
  const socket = open("", []);
  await once(socket, "open");
  say("echo", await echo(socket, () => socket.send("before the close")));
  const closed = once(socket, "close");
  socket.close(sent, "from here");
  const [code, reason] = await closed;
  say("closed", { sent, code, reason: String(reason) });
}

async function closeFromThere(wanted) {
  const socket = open(`&close=${wanted}`, []);
  const [code, reason] = await once(socket, "close");
  say("closed", { wanted, code, reason: String(reason) });
}

async function subprotocol() {
  const socket = open("", ["chat.v1", "chat.v2"]);
  await once(socket, "open");
  say("open", { subprotocol: socket.protocol });
  say("echo", await echo(socket, () => socket.send("with a subprotocol")));
  const closed = once(socket, "close");
  socket.close(1000);
  await closed;
}

async function main() {
  await messages("plain", { perMessageDeflate: false });
  await messages("permessage-deflate offered", { perMessageDeflate: { threshold: 0 } });
  for (const code of [1000, 4001]) {
    await closeFromHere(code);
    await closeFromThere(code);
  }
  await subprotocol();
  say("done");
}

main().catch((error) => {
  say("error", { message: error.stack });
  process.exit(1);
});
