//! How long it takes to build an index, and what the build needs on the disk meanwhile.
//!
//! A build reads the table, sorts or collects its entries and writes the index. `CREATE INDEX CONCURRENTLY` reads the table twice and
//! sorts the places of all rows once more, to find what was written meanwhile. The work is counted in bytes; how many bytes the server
//! gets done in a millisecond comes from the builds that it has finished, else from a cautious figure.

use crate::model::{AccessMethod, Bytes, ColumnInfo, IndexDef, TableInfo};
use crate::size::Size;

/// Bytes of work in a millisecond where no build was measured: one process and a disk that reads 300 MB in a second. Where all is in
/// memory, a build is about twice as fast.
const DEFAULT_RATE: f64 = 300_000.0;
/// What each build takes however small: planning, locks, catalogs, waiting for transactions that are just ending.
const FIXED_MS: f64 = 20.0;
/// A build of less work than this says more of [`FIXED_MS`] than of the rate.
const TELLING: f64 = 16.0 * 1024.0 * 1024.0;
/// So many builds must have been measured before they replace the default.
const ENOUGH: usize = 3;
/// What an entry takes in the memory of a sort beside itself: the sort's own record and the allocator's header (tuplesort.c).
const SORT_OVERHEAD: f64 = 40.0;
/// What it takes on a tape beside itself: its length.
const TAPE_OVERHEAD: f64 = 4.0;
/// Sorting the places of rows: the record in memory, and value and length on the tape.
const PLACE_IN_MEMORY: f64 = 24.0;
const PLACE_ON_TAPE: f64 = 12.0;

/// How an index is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `CREATE INDEX CONCURRENTLY`
    Concurrently,
    /// `CREATE INDEX`, which blocks writes
    InTransaction,
}

/// A build that was finished.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Past {
    pub table_bytes: Bytes,
    pub index_bytes: Bytes,
    pub method: AccessMethod,
    pub way: Way,
    pub ms: f64,
}

/// How fast this server builds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub bytes_per_ms: f64,
    /// Builds that it was taken from; 0 for the default.
    pub builds: usize,
}

/// What a build will take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub ms: f64,
    /// Most temporary space at one time.
    pub temp_bytes: Bytes,
}

/// Bytes of work: each byte of the table is read, and each byte of the index costs as much as several of them: measured on a million and
/// a half rows, of which a hash index puts each into its own page, and a gin index many keys each.
fn work(table_bytes: Bytes, index_bytes: Bytes, method: AccessMethod, way: Way) -> f64 {
    let per_byte = match method {
        AccessMethod::Brin => 1.0,
        AccessMethod::Btree => 6.0,
        AccessMethod::Hash | AccessMethod::Gin => 40.0,
        AccessMethod::Gist | AccessMethod::Spgist => 20.0,
    };
    let scans = if way == Way::Concurrently { 2.0 } else { 1.0 };
    scans * table_bytes as f64 + per_byte * index_bytes as f64
}

/// The rate of the builds that say something: their median, so that one that waited for a lock does not count.
pub fn rate(past: &[Past]) -> Rate {
    let mut rates: Vec<f64> = past
        .iter()
        .map(|p| (work(p.table_bytes, p.index_bytes, p.method, p.way), p.ms - FIXED_MS))
        .filter(|(work, ms)| *work >= TELLING && *ms > 0.0)
        .map(|(work, ms)| work / ms)
        .collect();
    if rates.len() < ENOUGH {
        return Rate { bytes_per_ms: DEFAULT_RATE, builds: 0 };
    }
    rates.sort_by(f64::total_cmp);
    let middle = rates.len() / 2;
    let median = if rates.len() % 2 == 1 { rates[middle] } else { (rates[middle - 1] + rates[middle]) / 2.0 };
    Rate { bytes_per_ms: median, builds: rates.len() }
}

/// Time and temporary space for building `def`, of which the size is known, with `memory` bytes for sorting.
pub fn estimate(def: &IndexDef, size: &Size, table: &TableInfo, way: Way, rate: Rate, memory: Bytes) -> Estimate {
    let ms = FIXED_MS + work(table.bytes, size.bytes, def.method, way) / rate.bytes_per_ms;
    let memory = memory as f64;
    let entry = match def.method {
        AccessMethod::Btree => {
            let width: f64 = def.columns().filter_map(|c| table.column(c)).map(|c| f64::from(c.avg_width.max(1))).sum();
            Some(((8.0 + width) / 8.0).ceil() * 8.0)
        }
        // Sorted only when its buckets do not fit into memory (hash.c).
        AccessMethod::Hash => (size.bytes as f64 > memory).then_some(16.0),
        // They are filled row by row, and what does not fit into memory goes to the index itself.
        AccessMethod::Gin | AccessMethod::Gist | AccessMethod::Spgist | AccessMethod::Brin => None,
    };
    let spills = |n: f64, in_memory: f64, on_tape: f64| if n * in_memory > memory { n * on_tape } else { 0.0 };
    let sort = entry.map_or(0.0, |bytes| spills(size.tuples, bytes + SORT_OVERHEAD, bytes + TAPE_OVERHEAD));
    // A gin index names a row once for each of its keys.
    let keys = |column: &ColumnInfo| column.search.iter().find(|s| s.method == AccessMethod::Gin).map_or(1.0, |s| s.per_row);
    let places = match def.method {
        AccessMethod::Gin => size.tuples * def.columns().filter_map(|c| table.column(c)).map(keys).sum::<f64>().max(1.0),
        _ => size.tuples,
    };
    let validate = if way == Way::Concurrently { spills(places, PLACE_IN_MEMORY, PLACE_ON_TAPE) } else { 0.0 };
    Estimate { ms, temp_bytes: sort.max(validate) as Bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::model::{Key, RelId};

    const MB: Bytes = 1024 * 1024;

    fn past(ms: f64) -> Past {
        Past { table_bytes: 100 * MB, index_bytes: 20 * MB, method: AccessMethod::Btree, way: Way::InTransaction, ms }
    }

    #[test]
    fn measured_builds_replace_the_default_once_there_are_enough() {
        assert_eq!(rate(&[past(1020.0), past(2020.0)]).builds, 0);
        let measured = rate(&[past(1020.0), past(2020.0), past(90_000.0)]);
        assert_eq!(measured, Rate { bytes_per_ms: (220 * MB) as f64 / 2000.0, builds: 3 });
        let small = Past { table_bytes: MB, index_bytes: MB / 4, ..past(500.0) };
        assert_eq!(rate(&[small; 5]).builds, 0, "small ones say nothing");
    }

    #[test]
    fn the_estimate_gives_back_what_was_measured() {
        let mut table = fixture::table(1, "t", 1e6, &["a"]);
        table.bytes = 100 * MB;
        let def = IndexDef::new(RelId(1), vec![Key::asc(1)], []);
        let size = Size { pages: 2560, bytes: 20 * MB, tuples: 1e6, height: 2 };
        let rate = rate(&[past(2020.0); 3]);
        let plain = estimate(&def, &size, &table, Way::InTransaction, rate, 64 * MB);
        assert!((plain.ms - 2020.0).abs() < 1.0, "{plain:?}");
        let slow = estimate(&def, &size, &table, Way::Concurrently, rate, 64 * MB);
        assert!((slow.ms - 2929.0).abs() < 1.0, "one more scan of the table: {slow:?}");
        assert_eq!(plain.temp_bytes, 0, "a million entries fit into 64 MB");
        assert_eq!(estimate(&def, &size, &table, Way::InTransaction, rate, 16 * MB).temp_bytes, 20_000_000);
        let brin = def.by(AccessMethod::Brin);
        assert_eq!(estimate(&brin, &size, &table, Way::InTransaction, rate, MB).temp_bytes, 0);
        assert_eq!(estimate(&brin, &size, &table, Way::Concurrently, rate, MB).temp_bytes, 12_000_000, "the places of the rows");
    }
}
