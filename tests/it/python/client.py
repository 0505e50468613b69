"""A WebSocket client for the tests: python client.py DIAL (JSON; see harness/outside.rs).

Prints what it hears, one JSON object a line; sends each line of standard input as a message.
"""

import json
import os
import ssl
import sys
import threading

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

dial = json.loads(sys.argv[1])


def tell(**heard):
    print(json.dumps(heard), flush=True)


def say_what_comes(socket):
    for line in sys.stdin:
        socket.send(line.rstrip("\n"))
    os._exit(0)


try:
    socket = connect(
        dial["url"],
        additional_headers=dial["headers"],
        compression="deflate" if dial["deflate"] else None,
        max_size=None,
        proxy=None,
        ssl=ssl.create_default_context(cafile=dial["ca"]) if dial["ca"] else None,
        subprotocols=dial["protocols"] or None,
    )
except InvalidStatus as refused:
    tell(heard="refused", status=refused.response.status_code)
    sys.exit()
except ssl.SSLError as error:
    tell(heard="failed", why=error.reason)
    sys.exit()

tell(
    heard="open",
    protocol=socket.subprotocol or "",
    extensions=socket.response.headers.get("Sec-WebSocket-Extensions", ""),
)
threading.Thread(target=say_what_comes, args=[socket], daemon=True).start()
try:
    while True:
        message = socket.recv()
        if isinstance(message, str):
            tell(heard="message", text=message)
        else:
            tell(heard="binary")
except ConnectionClosed as closed:
    tell(heard="closed", code=closed.rcvd.code if closed.rcvd else 1006)
