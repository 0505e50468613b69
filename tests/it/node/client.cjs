// A WebSocket client for the tests: node client.cjs URL PROTOCOLS OPTIONS (the last two JSON).
// Prints what it hears, one JSON object a line; sends each line of standard input as a message.
"use strict";

const WebSocket = require("ws");

const [url, protocols, options] = process.argv.slice(2);
const print = (heard) => process.stdout.write(`${JSON.stringify(heard)}\n`);
const socket = new WebSocket(url, JSON.parse(protocols), JSON.parse(options));

// Whoever started this waits for a line: nothing in time is an answer too.
const patience = setTimeout(() => {
  print({ heard: "nothing in time" });
  process.exit(1);
}, 10_000);

socket.on("open", () =>
  print({ heard: "open", protocol: socket.protocol, extensions: socket.extensions }),
);
socket.on("message", (data, isBinary) => {
  patience.refresh();
  print({ heard: isBinary ? "binary" : "message", text: data.toString() });
});
socket.on("unexpected-response", (_, response) => {
  print({ heard: "refused", status: response.statusCode });
  process.exit(0);
});
socket.on("error", (error) => print({ heard: `error: ${error.message}` }));
socket.on("close", (code) => {
  print({ heard: "closed", code });
  process.exit(0);
});

let rest = "";
process.stdin.on("data", (chunk) => {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  for (const line of lines) socket.send(line);
});
