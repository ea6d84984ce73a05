"""Speaks the protocol by hand: one statement whose portal is fetched ten rows at a time, as drivers with a fetch size do."""
import socket
import struct
import sys

path, user = sys.argv[1], sys.argv[2]
s = socket.socket(socket.AF_UNIX)
s.connect(path)
start = struct.pack("!i", 196608) + b"user\0" + user.encode() + b"\0database\0postgres\0\0"
s.sendall(struct.pack("!i", len(start) + 4) + start)


def message(kind, body):
    return kind + struct.pack("!i", len(body) + 4) + body


def read(n):
    out = b""
    while len(out) < n:
        got = s.recv(n - len(out))
        if not got:
            sys.exit("closed")
        out += got
    return out


def until(*kinds):
    while True:
        kind, length = read(1), struct.unpack("!i", read(4))[0]
        body = read(length - 4)
        if kind == b"E":
            sys.exit(body)
        if kind in kinds:
            return kind


until(b"Z")
s.sendall(message(b"P", b"\0SELECT id FROM t WHERE id <= $1\0" + struct.pack("!hi", 1, 23))
          + message(b"B", b"c\0\0" + struct.pack("!hhi", 0, 1, 2) + b"95" + struct.pack("!h", 0)))
fetches = 0
while True:
    s.sendall(message(b"E", b"c\0" + struct.pack("!i", 10)) + message(b"H", b""))
    fetches += 1
    if until(b"s", b"C") == b"C":
        break
s.sendall(message(b"S", b""))
until(b"Z")
print(fetches, "fetches")
