//! Calling the previous hook of a chain.
