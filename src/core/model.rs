//! The nouns that the stages hand to one another: tables, columns, indexes, queries, costs.
//!
//! Everything here is owned data. A table is known by its OID and its name at the time of the snapshot, a column by its attribute
//! number; nothing in this crate looks anything up.

use crate::size::RowSample;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

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

/// From this number on, a [`ColumnInfo`] is not a column of the table but an expression over its columns, numbered by the snapshot. A
/// table has at most 1600 columns (`MaxHeapAttributeNumber`).
pub const FIRST_EXPRESSION: AttNum = 2001;

/// How an index is organised (`pg_am.amname`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessMethod {
    #[default]
    Btree,
    Hash,
    Gin,
    Gist,
    Spgist,
    Brin,
}

impl AccessMethod {
    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            AccessMethod::Btree => "btree",
            AccessMethod::Hash => "hash",
            AccessMethod::Gin => "gin",
            AccessMethod::Gist => "gist",
            AccessMethod::Spgist => "spgist",
            AccessMethod::Brin => "brin",
        }
    }
}

/// The operator class of a key, as far as it is not the default one of the column's type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpClass {
    #[default]
    Default,
    /// Compares bytes, so that it serves `LIKE 'x%'` in every collation: by the type of the column.
    TextPattern,
    VarcharPattern,
    BpcharPattern,
    /// Trigrams, of the extension pg_trgm, for gin and gist.
    GinTrigram,
    GistTrigram,
    /// `jsonb_path_ops`: containment only, and smaller.
    JsonbPath,
}

impl OpClass {
    /// The class of that name, if it is one of these.
    pub fn named(name: &str) -> Option<OpClass> {
        use OpClass as O;
        let all = [O::TextPattern, O::VarcharPattern, O::BpcharPattern, O::GinTrigram, O::GistTrigram, O::JsonbPath];
        all.into_iter().find(|o| o.name() == Some(name))
    }

    /// It belongs to pg_trgm, which may be in any schema.
    pub fn of_trigrams(self) -> bool {
        matches!(self, OpClass::GinTrigram | OpClass::GistTrigram)
    }

    /// Its name in SQL; `None` for the default, which is not written down.
    pub fn name(self) -> Option<&'static str> {
        match self {
            OpClass::Default => None,
            OpClass::TextPattern => Some("text_pattern_ops"),
            OpClass::VarcharPattern => Some("varchar_pattern_ops"),
            OpClass::BpcharPattern => Some("bpchar_pattern_ops"),
            OpClass::GinTrigram => Some("gin_trgm_ops"),
            OpClass::GistTrigram => Some("gist_trgm_ops"),
            OpClass::JsonbPath => Some("jsonb_path_ops"),
        }
    }
}

/// One key of an index: a column (or expression), its direction and its operator class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub column: AttNum,
    pub descending: bool,
    pub nulls_first: bool,
    #[serde(default)]
    pub opclass: OpClass,
}

impl Key {
    /// Ascending, nulls last: what `CREATE INDEX` does when nothing is said.
    pub fn asc(column: AttNum) -> Self {
        Key { column, descending: false, nulls_first: false, opclass: OpClass::Default }
    }

    /// Descending, nulls first: what `DESC` alone means.
    pub fn desc(column: AttNum) -> Self {
        Key { column, descending: true, nulls_first: true, opclass: OpClass::Default }
    }

    /// The key with an operator class.
    pub fn with(self, opclass: OpClass) -> Self {
        Key { opclass, ..self }
    }
}

/// An index: the definition, not an object in a database. Equal definitions are equal values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndexDef {
    pub table: RelId,
    pub keys: Vec<Key>,
    /// INCLUDE columns, ascending and without the key columns.
    pub include: Vec<AttNum>,
    #[serde(default)]
    pub method: AccessMethod,
    /// The condition of a partial index, in SQL as the server prints it.
    #[serde(default)]
    pub predicate: Option<String>,
}

impl IndexDef {
    /// A B-tree of the whole table in canonical form: INCLUDE columns sorted, without duplicates and without key columns.
    pub fn new(table: RelId, keys: Vec<Key>, include: impl IntoIterator<Item = AttNum>) -> Self {
        let mut include: Vec<AttNum> = include.into_iter().filter(|c| keys.iter().all(|k| k.column != *c)).collect();
        include.sort_unstable();
        include.dedup();
        IndexDef { table, keys, include, method: AccessMethod::Btree, predicate: None }
    }

    /// The same index organised in another way.
    pub fn by(self, method: AccessMethod) -> Self {
        IndexDef { method, ..self }
    }

    /// The same index of those rows only that pass the condition.
    pub fn partial(self, predicate: &str) -> Self {
        IndexDef { predicate: Some(predicate.to_owned()), ..self }
    }

    /// All columns the index stores, keys first.
    pub fn columns(&self) -> impl Iterator<Item = AttNum> + '_ {
        self.keys.iter().map(|k| k.column).chain(self.include.iter().copied())
    }

    /// True when every scan that `other` can serve, this index can serve too: of B-trees, `other`'s keys are a prefix of ours (in the
    /// same or in the wholly reversed direction) and its INCLUDE columns are stored here; of others, the keys are the same. A partial
    /// index serves only what has its condition.
    pub fn covers(&self, other: &IndexDef) -> bool {
        let whole = self.predicate.is_none() || self.predicate == other.predicate;
        if self.table != other.table || self.method != other.method || !whole || other.keys.len() > self.keys.len() {
            return false;
        }
        if self.method != AccessMethod::Btree {
            return self.keys == other.keys;
        }
        let same = self.keys.iter().zip(&other.keys).all(|(a, b)| a == b);
        let reversed = self.keys.iter().zip(&other.keys).all(|(a, b)| {
            (a.column, a.opclass) == (b.column, b.opclass) && a.descending != b.descending && a.nulls_first != b.nulls_first
        });
        (same || reversed) && other.include.iter().all(|c| self.columns().any(|d| d == *c))
    }
}

/// What the planner's statistics say of one column, or of an expression over columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnInfo {
    /// From [`FIRST_EXPRESSION`] on, an expression.
    pub attnum: AttNum,
    /// Of an expression: its text in SQL, as the server prints it.
    pub name: String,
    /// The columns that an expression reads; empty for a column.
    pub reads: Vec<AttNum>,
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
    /// It says whose row it is: the tenant's key, by the genome.
    #[serde(default)]
    pub tenant: bool,
    /// What a gin, gist or spgist index would hold of it, found by sampling; only where a query could use one.
    pub search: Vec<SearchKeys>,
}

/// What an index that is not ordered by the values themselves holds of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SearchKeys {
    pub method: AccessMethod,
    pub opclass: OpClass,
    /// Keys of a row, on average: the elements of an array, the words of a text.
    pub per_row: f64,
    /// Different keys in the whole table.
    pub distinct: f64,
    /// Average width of a key in bytes, as the index stores it.
    pub width: f64,
    /// How far the keys come in their order when the table is read from its beginning, 0 to 1.
    #[serde(default)]
    pub in_order: f64,
    /// How the rows are spread over the keys: so many keys that so many rows have each. Empty when not known; then all alike.
    #[serde(default)]
    pub classes: Vec<(f64, f64)>,
}

/// An index that exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExistingIndex {
    pub oid: u32,
    pub name: String,
    /// The definition; `None` when it cannot be written as an [`IndexDef`] (an operator class or collation of its own, an expression
    /// that the workload does not have).
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

/// A reference from this table to another: what is deleted or gets another key there is looked for here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForeignKey {
    /// The referencing columns, in the order of the constraint.
    pub columns: Vec<AttNum>,
    /// Deletes and changes of keys of the referenced table per hour.
    pub checks: f64,
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
    /// Conditions that a partial index may have, in SQL, and the share of rows (0 to 1) that pass each.
    pub conditions: BTreeMap<String, f64>,
    /// Where pg_trgm is, if it is installed: its operator classes are named with their schema.
    #[serde(default)]
    pub trigram_schema: Option<String>,
    /// Its foreign keys.
    #[serde(default)]
    pub foreign_keys: Vec<ForeignKey>,
    /// Partitions that hold its rows, each of which gets an index of its own; 0 for an ordinary table.
    #[serde(default)]
    pub parts: u32,
    /// Why no index may be made on it (temporary, foreign, catalog, extension's, ...); `None` when one may.
    pub refused: Option<String>,
    /// Some of its rows, for sizes; `None` when there was no need or no way to look at them.
    #[serde(skip)]
    pub sample: Option<Arc<RowSample>>,
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
    /// `LIKE 'x%'` and the like: a range of a B-tree whose operator class is named in [`Predicate::by`]
    Prefix,
    /// What a B-tree cannot search: containment, overlap, full text, parts of texts; [`Predicate::by`] says what can
    Search,
}

/// One indexable restriction of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicate {
    pub column: AttNum,
    pub kind: PredicateKind,
    /// Share of the table's rows that pass (0 to 1); for a join, one over the number of distinct values.
    pub selectivity: f64,
    /// The access methods and operator classes that serve it, where a B-tree of the default class does not.
    #[serde(default)]
    pub by: Vec<(AccessMethod, OpClass)>,
}

/// A condition of a query on one table that has no parameter in it, so that a partial index may have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// In SQL, as the server prints it.
    pub sql: String,
    /// The columns it reads, ascending.
    pub columns: Vec<AttNum>,
    /// Share of the table's rows that pass (0 to 1).
    pub selectivity: f64,
}

/// How one query uses one relation. A self-join has two of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelationUse {
    pub rel: RelId,
    pub predicates: Vec<Predicate>,
    /// Its conditions without parameters, each one of the query's ANDed conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
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
