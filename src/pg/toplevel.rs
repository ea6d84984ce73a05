//! Running one utility command as if a client had sent it.
