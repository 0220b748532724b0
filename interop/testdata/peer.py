"""A TLS client or server on Python's ssl: peer.py client|server PORT, the rest from the environment."""

import os
import socket
import ssl
import sys

role, port = sys.argv[1], int(sys.argv[2])
env = os.environ.get

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "client" else ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[env("TLS")]
if env("CA"):
    context.load_verify_locations(env("CA"))
    context.verify_mode = ssl.CERT_REQUIRED
if env("CRL"):
    context.load_verify_locations(env("CRL"))
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
if env("CERT"):
    context.load_cert_chain(env("CERT"), env("KEY"))
if env("ALPN"):
    context.set_alpn_protocols([env("ALPN")])


def client():
    session = None
    for _ in range(int(env("CONNECTIONS"))):
        try:
            with socket.create_connection(("127.0.0.1", port)) as raw:
                with context.wrap_socket(raw, server_hostname="localhost", session=session) as conn:
                    conn.sendall(b"hello\n")
                    print("echo:", conn.recv(100).decode(), end="", flush=True)
                    session = conn.session
                    conn.unwrap()
        except OSError as error:
            print("refused:", error, flush=True)


def server():
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            raw, _ = listener.accept()
            try:
                with context.wrap_socket(raw, server_side=True) as conn:
                    while data := conn.recv(100):
                        conn.sendall(data)
            except OSError as error:
                print("refused:", error, flush=True)


client() if role == "client" else server()
