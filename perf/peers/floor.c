/*
 * The floor: what the kernel alone costs.
 *
 * One thread and epoll. Who asks for /ws?topic=uN is put on the list of topic N; each text message
 * on /pub?topic=uN is given the header of an unmasked frame, once, and sent to every socket on that
 * list. There are no tokens, no history, no pings, no limits and no queues: nothing but send().
 * A server that fans out has to make the same calls, so what it takes beyond this is its own.
 *
 *   cc -O2 -o floor floor.c              one send() for each message and subscriber
 *   cc -O2 -DCOALESCE -o floor floor.c   one send() for all messages of one read and subscriber:
 *                                        the floor where messages come faster than sends go
 *
 *   ./floor [PORT]                       listens on 127.0.0.1; without PORT the system picks one
 *
 * It trusts its peers: a request comes in one read, a message from a publisher is one masked frame
 * of less than 64 KiB. A full socket is waited for, which holds up everybody: nothing is lost, and
 * a floor that cannot keep up falls behind for all to see.
 *
 * Source: RFC 6455 (WebSocket), RFC 3174 (SHA-1), RFC 4648 (base64).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 65536, /* descriptors from 0 */
    TOPICS_MAX = 65536,
    EVENTS_MAX = 1024,
    READ_BYTES = 64 * 1024,
    HEADER_BYTES_MAX = 4,
};

enum role { UPGRADING, SUBSCRIBER, PUBLISHER };

struct connection {
    enum role role;
    unsigned topic;
    /* Of a publisher: the beginning of a frame whose end has not come. */
    unsigned char *partial;
    size_t partial_bytes;
};

/* The descriptors of those who get a topic's messages. */
struct topic {
    int *subscribers;
    size_t count, capacity;
};

static struct connection connections[CONNECTIONS_MAX];
static struct topic topics[TOPICS_MAX];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *grow(void *memory, size_t bytes) {
    void *grown = realloc(memory, bytes);
    if (!grown)
        die("realloc");
    return grown;
}

/* ---- The answer to an upgrade ---- */

static uint32_t rotate(uint32_t word, int bits) {
    return word << bits | word >> (32 - bits);
}

static void sha1_block(uint32_t state[5], const unsigned char block[64]) {
    uint32_t w[80], a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f, k;
        if (i < 20)
            f = (b & c) | (~b & d), k = 0x5A827999;
        else if (i < 40)
            f = b ^ c ^ d, k = 0x6ED9EBA1;
        else if (i < 60)
            f = (b & c) | (b & d) | (c & d), k = 0x8F1BBCDC;
        else
            f = b ^ c ^ d, k = 0xCA62C1D6;
        uint32_t next = rotate(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e;
}

/* `bytes` is at most 119: two blocks with the padding. */
static void sha1(const char *text, size_t bytes, unsigned char digest[20]) {
    uint32_t state[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    unsigned char padded[128] = {0};
    size_t end = bytes < 56 ? 64 : 128;
    memcpy(padded, text, bytes);
    padded[bytes] = 0x80;
    padded[end - 2] = bytes * 8 >> 8;
    padded[end - 1] = bytes * 8;
    for (size_t at = 0; at < end; at += 64)
        sha1_block(state, padded + at);
    for (int i = 0; i < 20; i++)
        digest[i] = state[i / 4] >> (24 - 8 * (i % 4));
}

/* The 20 bytes of a digest are 27 signs and one for what is missing to three bytes. */
static void base64(const unsigned char digest[20], char out[29]) {
    static const char signs[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char bytes[21] = {0};
    memcpy(bytes, digest, 20);
    for (int i = 0, at = 0; i < 21; i += 3) {
        uint32_t three = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
        for (int shift = 18; shift >= 0; shift -= 6)
            out[at++] = signs[three >> shift & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

/* ---- Sending ---- */

/* Sends all of it, however long the socket takes. A subscriber that is gone is found out by epoll. */
static void send_all(int fd, const unsigned char *bytes, size_t count) {
    while (count > 0) {
        ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            bytes += sent;
            count -= (size_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            poll(&writable, 1, -1);
        } else if (errno != EINTR) {
            return;
        }
    }
}

static void send_to_topic(unsigned topic, const unsigned char *bytes, size_t count) {
    const struct topic *to = &topics[topic];
    for (size_t i = 0; i < to->count; i++)
        send_all(to->subscribers[i], bytes, count);
}

/* Writes the header of an unmasked, final text frame; returns its bytes. */
static size_t write_header(unsigned char *out, size_t payload_bytes) {
    out[0] = 0x81;
    if (payload_bytes < 126) {
        out[1] = payload_bytes;
        return 2;
    }
    out[1] = 126;
    out[2] = payload_bytes >> 8;
    out[3] = payload_bytes;
    return 4;
}

/* ---- Connections ---- */

static void close_connection(int fd) {
    struct connection *connection = &connections[fd];
    if (connection->role == SUBSCRIBER) {
        struct topic *from = &topics[connection->topic];
        for (size_t i = 0; i < from->count; i++) {
            if (from->subscribers[i] == fd) {
                from->subscribers[i] = from->subscribers[--from->count];
                break;
            }
        }
    }
    free(connection->partial);
    memset(connection, 0, sizeof *connection);
    close(fd);
}

static void accept_all(int listener, int epoll) {
    for (;;) {
        int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        if (fd >= CONNECTIONS_MAX) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void subscribe(int fd, unsigned topic) {
    struct topic *to = &topics[topic];
    if (to->count == to->capacity) {
        to->capacity = to->capacity ? to->capacity * 2 : 4;
        to->subscribers = grow(to->subscribers, to->capacity * sizeof *to->subscribers);
    }
    to->subscribers[to->count++] = fd;
}

/* Answers the request, which ends in a 0. */
static void upgrade(int fd, const char *request) {
    static const char name[] = "Sec-WebSocket-Key: ", guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const char *key = strcasestr(request, name), *topic = strstr(request, "topic=u");
    unsigned long number = topic ? strtoul(topic + strlen("topic=u"), NULL, 10) : TOPICS_MAX;
    size_t key_bytes = key ? strcspn(key += strlen(name), "\r") : 0;
    if (key_bytes != 24 || number >= TOPICS_MAX) {
        close_connection(fd);
        return;
    }
    char keyed[64], answer[256], accept[29];
    unsigned char digest[20];
    int bytes = snprintf(keyed, sizeof keyed, "%.24s%s", key, guid);
    sha1(keyed, (size_t)bytes, digest);
    base64(digest, accept);
    bytes = snprintf(answer, sizeof answer,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
                     accept);
    struct connection *connection = &connections[fd];
    connection->topic = (unsigned)number;
    connection->role = strncmp(request, "GET /pub", strlen("GET /pub")) ? SUBSCRIBER : PUBLISHER;
    if (connection->role == SUBSCRIBER)
        subscribe(fd, connection->topic);
    send_all(fd, (const unsigned char *)answer, (size_t)bytes);
}

/* Unmasks the frame at the front of `in` into an unmasked one at `out`, which has room for as much
 * as there is. Returns the bytes of the first, 0 until all of it is there, and in `out_bytes` those
 * of the second. */
static size_t turn_frame(const unsigned char *in, size_t count, unsigned char *out,
                         size_t *out_bytes) {
    if (count < 4)
        return 0;
    size_t payload_bytes = in[1] & 127, header = 2;
    if (payload_bytes == 126) {
        payload_bytes = (size_t)in[2] << 8 | in[3];
        header = 4;
    }
    size_t end = header + 4 + payload_bytes;
    if (count < end)
        return 0;
    const unsigned char *mask = in + header, *payload = mask + 4;
    size_t start = write_header(out, payload_bytes);
    for (size_t i = 0; i < payload_bytes; i++)
        out[start + i] = payload[i] ^ mask[i & 3];
    *out_bytes = start + payload_bytes;
    return end;
}

/* Sends on the messages at the front of `in`; returns how many bytes are done with. */
static size_t pass_on(unsigned topic, const unsigned char *in, size_t count) {
    /* A frame loses its mask, so that what goes out is no longer than what came: what a frame cut
     * before has left, and one read. */
    static unsigned char out[2 * READ_BYTES + HEADER_BYTES_MAX + 4];
    size_t done = 0, held = 0, frame, frame_bytes;
    while ((frame = turn_frame(in + done, count - done, out + held, &frame_bytes)) > 0) {
        done += frame;
#ifdef COALESCE
        held += frame_bytes;
#else
        send_to_topic(topic, out, frame_bytes);
#endif
    }
    if (held > 0)
        send_to_topic(topic, out, held);
    return done;
}

/* Takes what a publisher sent. */
static void publish(int fd, const unsigned char *bytes, size_t count) {
    struct connection *connection = &connections[fd];
    if (connection->partial_bytes > 0) {
        connection->partial = grow(connection->partial, connection->partial_bytes + count);
        memcpy(connection->partial + connection->partial_bytes, bytes, count);
        bytes = connection->partial;
        count += connection->partial_bytes;
    }
    size_t done = pass_on(connection->topic, bytes, count);
    size_t left = count - done;
    if (left > 0) {
        if (bytes != connection->partial)
            connection->partial = grow(connection->partial, left);
        memmove(connection->partial, bytes + done, left);
    }
    connection->partial_bytes = left;
}

static void handle_readable(int fd) {
    static unsigned char buffer[READ_BYTES + 1];
    ssize_t count = recv(fd, buffer, READ_BYTES, 0);
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (count <= 0) {
        close_connection(fd);
        return;
    }
    switch (connections[fd].role) {
    case UPGRADING:
        buffer[count] = 0;
        upgrade(fd, (const char *)buffer);
        break;
    case PUBLISHER:
        publish(fd, buffer, (size_t)count);
        break;
    case SUBSCRIBER:
        break;
    }
}

static int listen_at(uint16_t port) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0)
        die("socket");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, bytes) || listen(listener, 4096))
        die("bind");
    if (getsockname(listener, (struct sockaddr *)&address, &bytes))
        die("getsockname");
    fprintf(stderr, "listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    return listener;
}

int main(int count, char **arguments) {
    int listener = listen_at((uint16_t)(count > 1 ? atoi(arguments[1]) : 0));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[EVENTS_MAX];
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event))
        die("epoll");
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_MAX, -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener, epoll);
            else
                handle_readable(fd);
        }
    }
}
