//! Query texts through libpg_query: normal form and fingerprint, off the hot path. It speaks the grammar of PostgreSQL 18 whatever
//! the server; what it cannot read is simply not normalised.

/// The text with its constants replaced by `$n`; `None` when it cannot be parsed.
pub fn normalise(query: &str) -> Option<String> {
    pg_query::normalize(query).ok()
}

/// Fingerprint that does not depend on names of constants, white space or the server's version; `None` when it cannot be parsed.
pub fn fingerprint(query: &str) -> Option<String> {
    pg_query::fingerprint(query, 0, 0u32).ok().map(|f| f.hex)
}
