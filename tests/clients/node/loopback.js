// Every name leads to 127.0.0.1, for libraries that take no address beside the name.
"use strict";
const dns = require("dns");

dns.lookup = (_name, wish, done) => {
  const answer = done ?? wish;
  setImmediate(() => (wish.all ? answer(null, [{ address: "127.0.0.1", family: 4 }]) : answer(null, "127.0.0.1", 4)));
};
