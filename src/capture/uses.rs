//! The variables of the statements that this session planned inside functions, until samples of them are kept.
//!
//! A small cache, direct-mapped by query identifier: a statement is planned just before it runs for the first time. What was
//! overwritten comes back with the next planning. The same statement may stand in several functions with variables in other places,
//! so the text itself counts too (as a hash: a cursor has a copy of it).

use crate::pg::single::Single;
use crate::pg::variables::Uses;

const PLACES: usize = 64;

static CACHE: Single<[(u64, Uses); PLACES]> = Single::new([(0, Uses::NONE); PLACES]);

fn place(queryid: u64) -> usize {
    indexpilot_core::workload::mix(queryid) as usize % PLACES
}

/// The variables of the statement in that text are remembered.
pub fn known(queryid: u64, text: u64) -> bool {
    CACHE.with(|c| c.get(place(queryid)).is_some_and(|(at, u)| u.queryid == queryid && *at == text)).unwrap_or(true)
}

/// Remembers them.
pub fn remember(uses: &Uses, text: u64) {
    CACHE.with(|c| c.get_mut(place(uses.queryid)).into_iter().for_each(|place| *place = (text, *uses)));
}

/// What is remembered of the statement in that text.
pub fn get(queryid: u64, text: u64) -> Option<Uses> {
    CACHE.with(|c| c.get(place(queryid)).filter(|(at, u)| u.queryid == queryid && *at == text).map(|(_, u)| *u)).flatten()
}
