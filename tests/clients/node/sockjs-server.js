// A SockJS server that echoes, and closes when told to: `sockjs-server.js ADDRESS`.
"use strict";
const http = require("http");
const sockjs = require("sockjs");

const echo = sockjs.createServer({ prefix: "/echo", log: () => {} });
echo.on("connection", (connection) => {
  console.log(`began with ${connection.protocol}`);
  connection.on("data", (data) => {
    if (data === "close") {
      connection.close(4001, "asked for");
    } else {
      connection.write(data);
    }
  });
});
const server = http.createServer();
echo.installHandlers(server);
server.listen(0, process.argv[2], () => console.log(`listening on ${server.address().address}:${server.address().port}`));
