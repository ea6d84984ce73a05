//! The nouns that the stages hand to one another: tables, columns, indexes, queries, costs.
//!
//! Everything here is owned data. A table is known by its OID and its name at the time of the snapshot, a column by its attribute
//! number; nothing in this crate looks anything up.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// OID of a table (`pg_class.oid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelId(pub u32);

/// Attribute number of a table's column (`pg_attribute.attnum`), from 1.
pub type AttNum = i16;

/// Position of a query in the workload under study.
pub type QueryIdx = usize;

/// Position of a candidate in the list that [`crate::candidate::generate`] returned.
pub type CandidateIdx = usize;

/// Planner cost, in PostgreSQL's own units (1.0 = one sequential page).
pub type Cost = f64;

/// Size on disk, in bytes.
pub type Bytes = u64;

/// Seconds since the Unix epoch; stages never read a clock, they are given the time.
pub type Timestamp = f64;

/// Size of a page, as PostgreSQL is built by every distribution (`BLCKSZ`).
pub const PAGE: Bytes = 8192;

/// One key of a B-tree index: a column and its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub column: AttNum,
    pub descending: bool,
    pub nulls_first: bool,
}

impl Key {
    /// Ascending, nulls last: what `CREATE INDEX` does when nothing is said.
    pub fn asc(column: AttNum) -> Self {
        Key { column, descending: false, nulls_first: false }
    }

    /// Descending, nulls first: what `DESC` alone means.
    pub fn desc(column: AttNum) -> Self {
        Key { column, descending: true, nulls_first: true }
    }
}

/// A plain B-tree index: the definition, not an object in a database. Equal definitions are equal values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndexDef {
    pub table: RelId,
    pub keys: Vec<Key>,
    /// INCLUDE columns, ascending and without the key columns.
    pub include: Vec<AttNum>,
}

impl IndexDef {
    /// The definition in canonical form: INCLUDE columns sorted, without duplicates and without key columns.
    pub fn new(table: RelId, keys: Vec<Key>, include: impl IntoIterator<Item = AttNum>) -> Self {
        let mut include: Vec<AttNum> = include.into_iter().filter(|c| keys.iter().all(|k| k.column != *c)).collect();
        include.sort_unstable();
        include.dedup();
        IndexDef { table, keys, include }
    }

    /// All columns the index stores, keys first.
    pub fn columns(&self) -> impl Iterator<Item = AttNum> + '_ {
        self.keys.iter().map(|k| k.column).chain(self.include.iter().copied())
    }

    /// True when every scan that `other` can serve, this index can serve too: `other`'s keys are a prefix of ours (in the same
    /// or in the wholly reversed direction) and its INCLUDE columns are stored here.
    pub fn covers(&self, other: &IndexDef) -> bool {
        if self.table != other.table || other.keys.len() > self.keys.len() {
            return false;
        }
        let same = self.keys.iter().zip(&other.keys).all(|(a, b)| a == b);
        let reversed = self
            .keys
            .iter()
            .zip(&other.keys)
            .all(|(a, b)| a.column == b.column && a.descending != b.descending && a.nulls_first != b.nulls_first);
        (same || reversed) && other.include.iter().all(|c| self.columns().any(|d| d == *c))
    }
}

/// What the planner's statistics say of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnInfo {
    pub attnum: AttNum,
    pub name: String,
    /// Name of the type, for messages.
    pub type_name: String,
    /// Average stored width in bytes, not aligned.
    pub avg_width: u32,
    /// Alignment of the type in bytes (1, 2, 4 or 8).
    pub align: u8,
    /// Estimated number of distinct values in the whole table, at least 1.
    pub n_distinct: f64,
    /// Share of NULLs, 0 to 1.
    pub null_frac: f64,
    /// Physical order against logical order, -1 to 1; 0 when unknown.
    pub correlation: f64,
    /// The type has a default B-tree operator class, so the column can be an index key.
    pub sortable: bool,
    /// B-tree deduplication is safe for the type (not numeric, not float, deterministic collation).
    pub dedup: bool,
    /// Share of the tenants (0 to 1) that express this field, from the genome; `None` when the genome says nothing of it.
    pub expressed: Option<f64>,
}

/// An index that exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExistingIndex {
    pub oid: u32,
    pub name: String,
    /// The definition when it is a plain B-tree without predicate, expression or foreign operator class; otherwise `None`.
    pub def: Option<IndexDef>,
    pub unique: bool,
    /// Valid, ready and live: the planner may use it.
    pub valid: bool,
    pub bytes: Bytes,
}

/// Writes on a table per hour, from the statistics collector and from captured updates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WriteRates {
    pub inserts: f64,
    pub deletes: f64,
    pub updates: f64,
    /// Updates that were heap-only (no index was touched).
    pub hot_updates: f64,
    /// Updates per hour that set the column, where known.
    pub updated_columns: BTreeMap<AttNum, f64>,
}

/// A snapshot of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableInfo {
    pub rel: RelId,
    pub schema: String,
    pub name: String,
    pub rows: f64,
    pub bytes: Bytes,
    pub columns: Vec<ColumnInfo>,
    pub indexes: Vec<ExistingIndex>,
    pub writes: WriteRates,
    /// Why no index may be made on it (partitioned, temporary, foreign, catalog, extension's, ...); `None` when one may.
    pub refused: Option<String>,
}

impl TableInfo {
    pub fn column(&self, attnum: AttNum) -> Option<&ColumnInfo> {
        self.columns.iter().find(|c| c.attnum == attnum)
    }

    /// Names of the columns, for messages and DDL; a column that is gone is shown by its number.
    pub fn column_name(&self, attnum: AttNum) -> String {
        self.column(attnum).map_or_else(|| format!("#{attnum}"), |c| c.name.clone())
    }
}

/// All tables that the workload touches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    pub tables: BTreeMap<RelId, TableInfo>,
}

impl Catalog {
    pub fn table(&self, rel: RelId) -> Option<&TableInfo> {
        self.tables.get(&rel)
    }
}

/// How a query restricts a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PredicateKind {
    /// `column = constant or parameter`, or `column IS NULL`
    Equal,
    /// `column IN (...)` or `column = ANY (...)`
    In,
    /// `<`, `<=`, `>`, `>=`, BETWEEN
    Range,
    /// `column = column of another relation`: an equality once that relation has been read
    Join,
}

/// One indexable restriction of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicate {
    pub column: AttNum,
    pub kind: PredicateKind,
    /// Share of the table's rows that pass (0 to 1); for a join, one over the number of distinct values.
    pub selectivity: f64,
}

/// How one query uses one relation. A self-join has two of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelationUse {
    pub rel: RelId,
    pub predicates: Vec<Predicate>,
    /// The leading part of the wanted sort order (ORDER BY, GROUP BY, DISTINCT, merge join) that lies in this relation.
    pub order: Vec<Key>,
    /// The query stops after a few rows in that order (LIMIT).
    pub limited: bool,
    /// Columns grouped by, in any order.
    pub group: Vec<AttNum>,
    /// Every column that the query reads of the relation; empty when it needs whole rows (`SELECT t`, FOR UPDATE, UPDATE target).
    pub needed: Vec<AttNum>,
    /// Whole rows are needed, so no index-only scan is possible.
    pub whole_row: bool,
    /// The relation is the target of INSERT, UPDATE or DELETE.
    pub target: bool,
    /// Estimated rows left after the restrictions.
    pub rows: f64,
}

/// What the planner said of a query when it planned it as the database is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryShape {
    pub relations: Vec<RelationUse>,
    /// Cost of the best plan with the indexes that exist.
    pub base_cost: Cost,
}

/// A query template with its weight: the unit of the workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// `workload.id`, or the position in `advise(queries)`, from 1.
    pub id: i64,
    /// Normalised text, for explanations.
    pub text: String,
    /// Calls in the time that the workload spans (or the caller's weight).
    pub calls: f64,
    /// Measured execution time of these calls in milliseconds; 0 when nothing was measured.
    pub total_ms: f64,
    pub shape: QueryShape,
}

impl Query {
    /// Milliseconds that one unit of planner cost was measured to take for this query; `None` when nothing was measured.
    pub fn ms_per_cost(&self) -> Option<f64> {
        let planned = self.calls * self.shape.base_cost;
        (self.total_ms > 0.0 && planned > 0.0).then(|| self.total_ms / planned)
    }

    /// [`Self::weight`] for a query among others: what was not measured is taken to be as fast per unit of planner cost as the
    /// rest of the workload (`mean` from [`mean_ms_per_cost`]), so that all weights have one unit.
    pub fn weight_among(&self, mean: Option<f64>) -> f64 {
        self.ms_per_cost().or(mean).unwrap_or(1.0) * self.calls
    }

    /// What one unit of this query's planner cost weighs in the objective: measured milliseconds where there are any (so that the
    /// objective is time), else calls.
    pub fn weight(&self) -> f64 {
        self.ms_per_cost().map_or(self.calls, |ms| ms * self.calls)
    }
}

/// Milliseconds that one unit of planner cost takes on average over the measured queries; `None` when none was measured.
pub fn mean_ms_per_cost(queries: &[Query]) -> Option<f64> {
    let measured = || queries.iter().filter(|q| q.ms_per_cost().is_some());
    // Sorted, so that the sum does not depend on the order of the queries.
    let sum = |value: &dyn Fn(&Query) -> f64| {
        let mut values: Vec<f64> = measured().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.iter().sum::<f64>()
    };
    let planned = sum(&|q| q.calls * q.shape.base_cost);
    (planned > 0.0).then(|| sum(&|q| q.total_ms) / planned)
}

/// Why something was not done. The text is what users see in `reason` columns; it never changes once released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The index pays: it is recommended.
    Gain,
    /// An index that exists already serves these scans.
    AlreadyExists,
    /// The table is smaller than `indexpilot.candidate_min_table_size`.
    TableSmall,
    /// The genome says that no tenant, or too few tenants, express the field.
    NotExpressed,
    /// Too small a share of the table's queries use the field.
    RarelyUsed,
    /// The planner would not use the index, or it would not make any query cheaper by enough.
    NoGain,
    /// It pays, but maintaining it costs more than it saves.
    WriteCost,
    /// It pays, but others pay more within the storage budget.
    Budget,
    /// The table has, or would have, too many indexes.
    TableCap,
    /// No index may be made on this table.
    Refused,
    /// An index that was chosen serves these scans too.
    #[serde(rename = "covered_by_chosen")]
    Covered,
    /// The column's type has no B-tree order.
    Unsortable,
}

impl Reason {
    pub fn code(self) -> &'static str {
        match self {
            Reason::Gain => "gain",
            Reason::AlreadyExists => "already_exists",
            Reason::TableSmall => "table_small",
            Reason::NotExpressed => "not_expressed",
            Reason::RarelyUsed => "rarely_used",
            Reason::NoGain => "no_gain",
            Reason::WriteCost => "write_cost",
            Reason::Budget => "budget",
            Reason::TableCap => "table_cap",
            Reason::Refused => "refused",
            Reason::Covered => "covered_by_chosen",
            Reason::Unsortable => "unsortable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(keys: &[Key], include: &[AttNum]) -> IndexDef {
        IndexDef::new(RelId(1), keys.to_vec(), include.iter().copied())
    }

    #[test]
    fn an_index_covers_its_prefixes_in_either_direction() {
        let ab = index(&[Key::asc(1), Key::asc(2)], &[3]);
        assert!(ab.covers(&index(&[Key::asc(1)], &[])));
        assert!(ab.covers(&index(&[Key::desc(1)], &[])));
        assert!(ab.covers(&index(&[Key::asc(1)], &[2, 3])));
        assert!(!ab.covers(&index(&[Key::asc(2)], &[])));
        assert!(!ab.covers(&index(&[Key::asc(1), Key::desc(2)], &[])));
        assert!(!ab.covers(&index(&[Key::asc(1)], &[4])));
    }

    #[test]
    fn include_columns_are_canonical() {
        assert_eq!(index(&[Key::asc(1)], &[3, 1, 2, 3]).include, vec![2, 3]);
    }
}
