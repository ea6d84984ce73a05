//! What maintaining an index costs.

use crate::model::{IndexDef, TableInfo};
use crate::size::Size;

/// Planner cost of putting one entry into a B-tree of one page: finding the place, changing a page, and writing the change to the
/// log. Half a sequential page read, the order of magnitude that inserting into an indexed and into a bare table differs by.
const ENTRY_COST: f64 = 0.5;
/// What it costs more each time the index has twice as many pages: a deeper search, and a page that is less likely in memory.
const DOUBLING_COST: f64 = 0.1;

/// Planner cost per hour of maintaining the index on its table as it is written to now:
///
/// entries per hour × (0.5 + 0.1 × log2(1 + pages))
///
/// An insert makes one entry, and so does an update that is not heap-only. A delete makes none (vacuum is not counted). An update
/// that was heap-only and sets a column of the index cannot be heap-only any more: it makes an entry here *and in every index that
/// the table has*. Of the updates that set the column, the same share is taken to be heap-only as of all updates; a column that an
/// existing index holds already takes nothing away.
pub fn write_cost(def: &IndexDef, size: &Size, table: &TableInfo) -> f64 {
    let writes = &table.writes;
    let hot = writes.hot_updates.clamp(0.0, writes.updates.max(0.0));
    let hot_share = if writes.updates > 0.0 { hot / writes.updates } else { 0.0 };
    let indexed = |column| table.indexes.iter().filter_map(|i| i.def.as_ref()).any(|d| d.columns().any(|c| c == column));
    let set: f64 =
        def.columns().filter(|c| !indexed(*c)).filter_map(|c| writes.updated_columns.get(&c)).map(|rate| rate.max(0.0)).sum();
    let lost = (set * hot_share).min(hot);
    let own = writes.inserts.max(0.0) + (writes.updates.max(0.0) - hot) + lost;
    let others: f64 = table.indexes.iter().map(|i| lost * entry_cost(i.bytes / crate::model::PAGE)).sum();
    own * entry_cost(size.pages) + others
}

fn entry_cost(pages: u64) -> f64 {
    ENTRY_COST + DOUBLING_COST * (1.0 + pages as f64).log2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::model::{Key, RelId};

    #[test]
    fn an_index_on_an_updated_column_pays_for_lost_heap_only_updates() {
        let mut table = fixture::table(1, "t", 1e6, &["a", "b", "c"]);
        table.writes.inserts = 10.0;
        table.writes.updates = 1000.0;
        table.writes.hot_updates = 1000.0;
        table.writes.updated_columns.insert(2, 1000.0);
        let a = IndexDef::new(RelId(1), vec![Key::asc(1)], []);
        let b = IndexDef::new(RelId(1), vec![Key::asc(1)], [2]);
        let size = crate::size::btree(&a, &table);
        let cheap = write_cost(&a, &size, &table);
        let dear = write_cost(&b, &size, &table);
        assert!((cheap * 101.0 - dear).abs() < 1e-6, "{cheap} {dear}");
        table.indexes.push(fixture::existing(7, a.clone()));
        assert!(write_cost(&b, &size, &table) > dear, "the other index gets entries too");
        table.indexes.push(fixture::existing(8, b.clone()));
        assert!((write_cost(&b, &size, &table) - cheap).abs() < 1e-9, "nothing is heap-only there any more");
    }
}
