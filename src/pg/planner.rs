//! Planning a stored statement safely.
