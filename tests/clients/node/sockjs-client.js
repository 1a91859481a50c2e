// A SockJS client that prints what it saw over each transport, a JSON line an event: `sockjs-client.js URL`. See
// socketio-client.js beside it.
"use strict";
require("./loopback");
const SockJS = require("sockjs-client");

const [url] = process.argv.slice(2);
const say = (event, facts = {}) => console.log(JSON.stringify({ event, ...facts }));
const BIG = "long ✓ ".repeat(20000);

// Resolves with the next event of one of these kinds.
function next(socket, ...kinds) {
  return new Promise((done) => {
    for (const kind of kinds) {
      socket[`on${kind}`] = (event) => done({ kind, event });
    }
  });
}

async function run(transport) {
  const socket = new SockJS(`${url}echo`, null, { transports: [transport], timeout: 10000 });
  const opened = await next(socket, "open", "close");
  say(opened.kind, { wanted: transport, transport: socket.transport, code: opened.event.code, reason: opened.event.reason });
  for (const message of ["text ✓", "", "\u0000\u001f\"\\", BIG]) {
    const back = next(socket, "message", "close");
    socket.send(message);
    const { kind, event } = await back;
    say(kind, { transport, length: event.data?.length, same: event.data === message });
  }
  // Several at once, in order.
  const sent = Array.from({ length: 50 }, (_, i) => `message ${i}`);
  const got = [];
  const all = new Promise((done) => {
    socket.onmessage = ({ data }) => got.push(data) === sent.length && done();
  });
  sent.forEach((message) => socket.send(message));
  await all;
  say("all", { transport, same: JSON.stringify(got) === JSON.stringify(sent) });
  const closed = next(socket, "close");
  socket.send("close");
  const { event } = await closed;
  say("closed", { transport, code: event.code, reason: event.reason, clean: event.wasClean });
}

async function main() {
  for (const transport of ["websocket", "xhr-streaming", "eventsource", "xhr-polling"]) {
    await run(transport);
  }
  say("done");
  process.exit(0);
}

main().catch((error) => {
  say("error", { message: error.stack });
  process.exit(1);
});
