// Node with `ws`, as a peer: a user's connections in a map, and one JSON.stringify for each of
// them, which is how a gateway is most often begun.
//
//   JWT_SECRET=SECRET node server.mjs
//
// /ws?token= gets the events of the token's `sub`; what comes as text on /pub?token= goes to the
// event's `user_id`. It listens on 127.0.0.1, on a port that the system picks.
import { createServer } from 'node:http';
import jwt from 'jsonwebtoken';
import { WebSocket, WebSocketServer } from 'ws';

const secret = process.env.JWT_SECRET;
/** @type {Map<string, Set<WebSocket>>} */
const users = new Map();

/** Whether a request has a token of ours; notes what it is for. */
function verifyClient({ req }) {
  const url = new URL(req.url, 'ws://127.0.0.1');
  try {
    req.userId = jwt.verify(url.searchParams.get('token'), secret, { algorithms: ['HS256'] }).sub;
  } catch {
    return false;
  }
  req.isPublisher = url.pathname === '/pub';
  return true;
}

function subscribe(socket, userId) {
  let sockets = users.get(userId);
  if (!sockets) users.set(userId, (sockets = new Set()));
  sockets.add(socket);
  socket.on('close', () => sockets.delete(socket));
  const timestamp = new Date().toISOString();
  socket.send(JSON.stringify({ event_type: 'connection_established', timestamp, data: {} }));
}

function publish(text) {
  const { user_id, event_type, session_id, timestamp, data } = JSON.parse(text.toString());
  for (const socket of users.get(user_id) ?? []) {
    if (socket.readyState !== WebSocket.OPEN) continue;
    socket.send(JSON.stringify({ event_type, session_id, timestamp, data }));
  }
}

const server = createServer();
const sockets = new WebSocketServer({
  server,
  verifyClient,
  clientTracking: true,
  perMessageDeflate: false,
  maxPayload: 16 * 1024,
});
sockets.on('connection', (socket, request) => {
  if (request.isPublisher) socket.on('message', publish);
  else subscribe(socket, request.userId);
});
server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  console.error(`listening on 127.0.0.1:${server.address().port}`);
});
