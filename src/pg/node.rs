//! Reading the server's parse and plan trees.
