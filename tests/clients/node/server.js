// An echo backend on `ws` that agrees to permessage-deflate and to the subprotocol chat.v2: `server.js ADDRESS`.
"use strict";
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({
  host: process.argv[2],
  port: 0,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has("chat.v2") ? "chat.v2" : false),
});
server.on("listening", () => console.log(`listening on ${server.address().address}:${server.address().port}`));
server.on("connection", (socket, request) => {
  const close = new URL(request.url, "http://localhost").searchParams.get("close");
  if (close) {
    socket.close(Number(close), "asked for");
    return;
  }
  socket.on("message", (data, binary) => socket.send(data, { binary }));
  socket.on("error", () => {});
});
