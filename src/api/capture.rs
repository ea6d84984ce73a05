//! SQL functions about capture.

use crate::capture;
use pgrx::prelude::*;

#[pg_schema]
mod indexpilot {
    use super::*;

    /// How capture is doing on this server, as names and values; no rows without preload.
    #[pg_extern(volatile, parallel_restricted)]
    fn capture_status() -> TableIterator<'static, (name!(name, String), name!(value, i64))> {
        let s = capture::status();
        let figures = [
            ("entries", s.entries),
            ("capacity", s.capacity),
            ("dropped", s.dropped),
            ("evicted", s.evicted),
            ("samples", s.samples),
            ("samples_capacity", s.samples_capacity),
            ("samples_dropped", s.samples_dropped),
            ("samples_too_long", s.samples_too_long),
            ("without_queryid", s.without_queryid),
            ("untracked", s.untracked),
            ("failures", s.failures),
            ("shared_memory_bytes", s.bytes),
            ("databases", s.databases.len() as u64),
            ("epoch_us", s.epoch),
        ];
        let rows: Vec<(String, i64)> = if s.active {
            figures.into_iter().map(|(name, value)| (name.to_owned(), i64::try_from(value).unwrap_or(i64::MAX))).collect()
        } else {
            Vec::new()
        };
        TableIterator::new(rows)
    }
}
