// Sends many random messages over one socket, while it reads their echoes, and fails at the first that differs. See
// conversation.py beside it.
"use strict";
const fs = require("fs");
const { once } = require("events");
const WebSocket = require("ws");

const [url, address, ca, seed, count] = process.argv.slice(2);
const [host, port] = address.split(":");
// Sends run ahead of their echoes by this many messages.
const WINDOW = 64;

// mulberry32: small, and the same everywhere.
let state = Number(BigInt(seed) & 0xffffffffn);
function random(below) {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
}

function size(number) {
  if (number % 2500 === 1000) return 1 << 20;
  if (random(10) < 7) return random(126);
  return random(3) < 2 ? random(4000) : random(70001);
}

function message(number) {
  const data = Buffer.alloc(size(number));
  for (let at = 0; at + 4 <= data.length; at += 4) data.writeUInt32LE(random(0xffffffff), at);
  return random(2) === 0 ? data : data.toString("base64").slice(0, data.length);
}

async function main() {
  const lookup = (_name, wish, done) => (wish.all ? done(null, [{ address: host, family: 4 }]) : done(null, host, 4));
  const target = new URL(url);
  target.port = port;
  const socket = new WebSocket(target, { lookup, ca: fs.readFileSync(ca), perMessageDeflate: false });
  const underway = [];
  let [echoes, total, goOn] = [0, 0, () => {}];
  socket.on("error", (error) => fail(error.message));
  socket.on("message", (data, binary) => {
    const sent = underway.shift();
    const same = binary === Buffer.isBuffer(sent) && data.equals(Buffer.from(sent));
    if (!same) fail(`echo ${echoes} differs: ${data.length} bytes for ${sent.length}`);
    echoes += 1;
    total += data.length;
    goOn();
  });
  socket.on("close", (code) => echoes === Number(count) || fail(`closed with ${code} after ${echoes} echoes`));
  await once(socket, "open");
  const echo = () => new Promise((resolve) => (goOn = resolve));
  for (let number = 0; number < Number(count); number += 1) {
    while (underway.length >= WINDOW) await echo();
    const sent = message(number);
    underway.push(sent);
    socket.send(sent);
  }
  while (underway.length > 0) await echo();
  socket.close(1000);
  await once(socket, "close");
  console.log(`done: ${echoes} messages, ${total} bytes`);
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

main().catch((error) => fail(error.stack));
