//! Query texts through libpg_query: normal form and fingerprint, off the hot path. It speaks the grammar of PostgreSQL 18 whatever
//! the server; what it cannot read is simply not normalised.

use indexpilot_core::template;

/// The text with its constants replaced by `$n` and without comments, which may hold anything; `None` when it cannot be parsed. Of
/// PREPARE and DECLARE only the statement inside is left, of CREATE … AS it is treated by itself: libpg_query replaces no constants in
/// utility commands.
pub fn normalise(query: &str) -> Option<String> {
    let text = template::without_comments(query);
    let (before, statement) = text.split_at_checked(template::inside(text.as_bytes()))?;
    let normal = pg_query::normalize(statement.trim()).ok()?;
    let creates = before.trim_start().get(..6).is_some_and(|word| word.eq_ignore_ascii_case("create"));
    Some(if creates { format!("{} {normal}", before.trim()) } else { normal })
}

/// Fingerprint that does not depend on names of constants, white space or the server's version; `None` when it cannot be parsed.
pub fn fingerprint(query: &str) -> Option<String> {
    pg_query::fingerprint(query, 0, 0u32).ok().map(|f| f.hex)
}

#[cfg(test)]
mod tests {
    use indexpilot_core::literal::{count_before, nth, number_at};
    use pg_query::protobuf::Token;

    /// Start and text of every literal as the server's own scanner sees them.
    fn scanned(query: &str) -> Vec<(usize, &str)> {
        let literal = [Token::Iconst, Token::Fconst, Token::Sconst, Token::Bconst, Token::Xconst, Token::Usconst];
        let tokens = pg_query::scan(query).unwrap().tokens;
        let of = |t: &pg_query::protobuf::ScanToken| (t.start as usize, &query[t.start as usize..t.end as usize]);
        tokens.iter().filter(|t| literal.contains(&t.token())).map(of).collect()
    }

    #[test]
    fn core_finds_the_literals_that_the_server_finds() {
        const PIECES: &str = "'a' 'it''s' E'\\nb''c' $$c'$$ $t$·$$·d·$t$ U&'\\0041' B'101' x'1F' N'n' 12 1.5 .5 1e-3 2. 0x1F $1 a1 \"i'1\" \
                              \"d\"\"2\" U&\"u'\" --·c·'3'¶ /*·'4'·/*·5·*/·*/ ¶ = - <= :: ( ) , int·'6' e a$b$c .";
        let pieces: Vec<String> = PIECES.split(' ').map(|p| p.replace('·', " ").replace('¶', "\n")).collect();
        // A plain congruential generator: the same statements at every run.
        let mut state = 42u64;
        let mut checked = 0;
        for _ in 0..20_000 {
            let mut query = String::new();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                query.push_str(&pieces[(state >> 33) as usize % pieces.len()]);
                query.push_str([" ", " ", " ", ""][(state >> 60) as usize % 4]);
            }
            if pg_query::scan(&query).is_err() {
                continue;
            }
            checked += 1;
            let wanted = scanned(&query);
            for (n, (start, text)) in wanted.iter().enumerate() {
                assert_eq!(number_at(query.as_bytes(), *start), u16::try_from(n).ok(), "{text} in {query}");
            }
            assert_eq!(count_before(query.as_bytes(), query.len()), wanted.len(), "{query}");
            assert!(nth(query.as_bytes(), 100).is_none());
        }
        assert!(checked > 1000, "{checked}");
    }
}
