//! Tests inside a server.
