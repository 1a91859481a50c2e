// A Socket.IO server: echoes with and without an acknowledgement, and says over which transport each client came:
// `socketio-server.js ADDRESS`.
"use strict";
const http = require("http");
const { Server } = require("socket.io");

// Nothing is set here: Node ends an idle connection after 5 s, and whoever keeps connections to it must know that.
const server = http.createServer((_request, response) => response.writeHead(404).end());
const io = new Server(server, { maxHttpBufferSize: 4 << 20 });
io.on("connection", (socket) => {
  console.log(`began with ${socket.conn.transport.name}`);
  socket.conn.on("upgrade", (transport) => console.log(`upgraded to ${transport.name}`));
  socket.on("echo", (data, answer) => answer(data, socket.conn.transport.name));
  socket.on("say", (text) => io.emit("said", text));
  socket.on("leave", () => socket.disconnect(true));
  socket.on("disconnect", (reason) => console.log(`ended by ${reason}`));
});
server.listen(0, process.argv[2], () => console.log(`listening on ${server.address().address}:${server.address().port}`));
