// A WebSocket client for the tests: node client.cjs DIAL (JSON; see harness/outside.rs).
// Prints what it hears, one JSON object a line; sends each line of standard input as a message.
"use strict";

const fs = require("node:fs");
const WebSocket = require("ws");

const dial = JSON.parse(process.argv[2]);
const tell = (heard) => process.stdout.write(`${JSON.stringify(heard)}\n`);
const socket = new WebSocket(dial.url, dial.protocols, {
  ca: dial.ca ? fs.readFileSync(dial.ca) : undefined,
  headers: dial.headers,
  // By itself it leaves short messages as they are.
  perMessageDeflate: dial.deflate && { threshold: 0 },
});

let offered;
socket.on("upgrade", (response) => {
  offered = response.headers["sec-websocket-extensions"];
});
socket.on("open", () =>
  tell({ heard: "open", protocol: socket.protocol, extensions: offered ?? "" }),
);
socket.on("message", (data, isBinary) =>
  tell(isBinary ? { heard: "binary" } : { heard: "message", text: data.toString() }),
);
socket.on("unexpected-response", (_, response) => {
  tell({ heard: "refused", status: response.statusCode });
  process.exit(0);
});
socket.on("error", (error) => tell({ heard: "failed", why: error.message }));
socket.on("close", (code) => {
  tell({ heard: "closed", code });
  process.exit(0);
});

let rest = "";
process.stdin.on("data", (chunk) => {
  const lines = (rest + chunk).split("\n");
  rest = lines.pop();
  for (const line of lines) socket.send(line);
});
process.stdin.on("end", () => process.exit(0));
