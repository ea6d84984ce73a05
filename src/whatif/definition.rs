//! Indexes that do not exist: what a CREATE INDEX statement means, and how big the index would be.

use super::sampler::{Reader, Sampler, key_sql};
use crate::guc;
use crate::pg::error::{Error, Kind, Result};
use crate::pg::indexstmt::{self, Author, ResolvedIndex};
use crate::pg::sampling::Statistics;
use crate::pg::{catalog, planner, role, rows};
use indexpilot_core::ddl;
use indexpilot_core::model::{AccessMethod, AttNum, ColumnInfo, FIRST_EXPRESSION, IndexDef, Key, OpClass, PAGE, RelId, TableInfo};
use indexpilot_core::size::{self, Size};
use std::ffi::CString;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

/// Longest identifier in bytes (`NAMEDATALEN` - 1).
const MAX_NAME: usize = 63;
/// Where names of statements that we write ourselves are looked up: all that is not the server's own is qualified in them.
pub(super) const OWN_PATH: &std::ffi::CStr = c"pg_catalog, pg_temp";

/// An index that does not exist and can be planned with.
#[derive(Clone, Debug)]
pub struct Hypothetical {
    pub index: ResolvedIndex,
    pub def: IndexDef,
    pub size: Size,
    /// Pages of the table, by which the index of a partition is told from those of all.
    pub table_pages: f64,
    /// Pages of a gin index without its posting trees; `None` for the other access methods.
    pub entry_pages: Option<f64>,
    /// Of the keys that are expressions, as far as they could be sampled.
    statistics: Vec<Option<Rc<Statistics>>>,
    /// It cannot be scanned: the planner gets its statistics, and nothing else of it.
    pub only_statistics: bool,
    /// The definition for messages, as `ddl::describe` writes it.
    pub description: String,
    /// The name under which EXPLAIN shows it.
    pub name: CString,
}

impl Hypothetical {
    /// What a CREATE INDEX statement of the caller means, its names looked up in the caller's search path.
    ///
    /// # Errors
    /// As [`indexstmt::resolve`].
    pub fn parse(statement: &str) -> Result<Rc<Self>> {
        let path = CString::new(planner::search_path()).map_err(|_| Error::internal("search_path contains a zero byte"))?;
        let index = indexstmt::resolve(statement, role::current(), Author::Role, &path, guc::whatif_timeout())?;
        let reader = Reader::for_caller(&index);
        Self::read(index, reader.as_ref())
    }

    /// What the CREATE INDEX statement of a decision about `table` means. The caller did not write it, and its expressions come from
    /// queries of others: it is what the table's owner could make of it.
    ///
    /// # Errors
    /// As [`indexstmt::resolve`].
    pub fn decided(statement: &str, table: RelId) -> Result<Rc<Self>> {
        let index = resolve_for_owner(statement, table)?;
        let reader = Reader::for_owner(&index);
        Self::read(index, reader.as_ref())
    }

    /// With what the rows tell of it.
    fn read(index: ResolvedIndex, reader: Option<&Reader>) -> Result<Rc<Self>> {
        let tables = catalog::snapshot(&[index.table])?;
        let table = tables.table(index.table).ok_or_else(|| gone(index.table))?;
        let (def, mut table) = definition(&index, table.clone());
        let condition: Vec<&str> = index.predicate_text.iter().map(String::as_str).collect();
        table.sample = rows::sample(&table, &def.columns().collect(), &condition, rows::PATIENCE).map(Arc::new);
        let mut sampler = Sampler::default();
        let statistics = reader.map(|reader| sampled(&index, &def, &mut table, &mut sampler, reader)).unwrap_or_default();
        Ok(Rc::new(Hypothetical::new(index, def, &table, statistics)))
    }

    /// The index `def` of a snapshot, as the owner of its table would make it.
    ///
    /// # Errors
    /// As [`indexstmt::resolve`].
    pub fn of(def: &IndexDef, table: &TableInfo, sampler: &mut Sampler) -> Result<Rc<Self>> {
        let statement = ddl::create_index(def, table, &catalog::quote, false);
        let index = resolve_for_owner(&statement, def.table)?;
        let reader = Reader::for_owner(&index);
        let expressions = |reader: &Reader| {
            (0..index.keys.len())
                .map(|key| {
                    let sql = key_sql(&index, key).filter(|_| index.columns[key].attnum == 0)?;
                    sampler.expression(&index, key, &sql, table, reader)
                })
                .collect()
        };
        let statistics = reader.as_ref().map(expressions).unwrap_or_default();
        Ok(Rc::new(Hypothetical::new(index, def.clone(), table, statistics)))
    }

    /// Hashes what the planner is told of the expressions.
    pub(super) fn hash_statistics(&self, hash: &mut impl Hasher) {
        self.statistics.iter().flatten().for_each(|s| s.image().hash(hash));
    }

    /// The statistics of an expression, which is the only key of `index`.
    pub(super) fn statistics_of(index: ResolvedIndex, def: IndexDef, table: &TableInfo, found: Rc<Statistics>) -> Rc<Self> {
        Rc::new(Hypothetical { only_statistics: true, ..Hypothetical::new(index, def, table, vec![Some(found)]) })
    }

    /// Statistics of the key number `key` (from 1), if it is an expression that was sampled.
    pub fn statistics(&self, key: AttNum) -> Option<&Statistics> {
        self.statistics.get(usize::try_from(key).ok()?.checked_sub(1)?)?.as_deref()
    }

    fn new(index: ResolvedIndex, def: IndexDef, table: &TableInfo, statistics: Vec<Option<Rc<Statistics>>>) -> Self {
        let index = ResolvedIndex { share: size::sampled_share(&def, table).unwrap_or(index.share), ..index };
        Hypothetical {
            size: size::of(&def, table),
            table_pages: (table.bytes as f64 / PAGE as f64).max(1.0),
            entry_pages: size::entry_pages(&def, table),
            statistics,
            only_statistics: false,
            description: ddl::describe(&def, table),
            name: hypothetical_name(&def, table),
            index,
            def,
        }
    }
}

/// What a statement on `table` that its owner did not write means to him.
fn resolve_for_owner(statement: &str, table: RelId) -> Result<ResolvedIndex> {
    let owner = catalog::owner(table).ok_or_else(|| gone(table))?;
    let index = indexstmt::resolve(statement, owner, Author::Others, OWN_PATH, guc::whatif_timeout())?;
    if index.table == table { Ok(index) } else { Err(gone(table)) }
}

fn gone(table: RelId) -> Error {
    Error::new(Kind::UndefinedTable, format!("table with OID {} does not exist", table.0))
        .detail("It was dropped or renamed while it was looked at.")
}

/// Samples what the statistics of the table do not tell, and writes it into the snapshot. Returns the statistics of the expressions.
fn sampled(
    index: &ResolvedIndex,
    def: &IndexDef,
    table: &mut TableInfo,
    sampler: &mut Sampler,
    reader: &Reader,
) -> Vec<Option<Rc<Statistics>>> {
    let mut all = Vec::with_capacity(def.keys.len());
    for (at, key) in def.keys.iter().enumerate() {
        let Some(sql) = key_sql(index, at) else { continue };
        let found = if key.column >= FIRST_EXPRESSION { sampler.expression(index, at, &sql, table, reader) } else { None };
        let searched = matches!(def.method, AccessMethod::Gin | AccessMethod::Gist | AccessMethod::Spgist);
        let search = if searched { sampler.search(index, at, &sql, table, key.opclass, reader) } else { None };
        if let Some(column) = table.columns.iter_mut().find(|c| c.attnum == key.column) {
            if let Some(found) = &found {
                column.avg_width = found.width;
                column.n_distinct = found.n_distinct;
                column.null_frac = found.null_frac;
                column.correlation = found.correlation;
            }
            column.search.extend(search);
        }
        all.push(found);
    }
    all
}

/// The resolved index as a definition over the snapshot, to which its expressions and its condition are added.
fn definition(index: &ResolvedIndex, mut table: TableInfo) -> (IndexDef, TableInfo) {
    let mut texts = index.expression_texts.iter();
    let mut next = table.columns.iter().map(|c| c.attnum + 1).max().unwrap_or(1).max(FIRST_EXPRESSION);
    let mut columns = Vec::with_capacity(index.columns.len());
    for column in &index.columns {
        let mut attnum = column.attnum;
        if attnum == 0 {
            attnum = next;
            next += 1;
            let reads: Vec<AttNum> = index.reads.iter().map(|(attnum, _)| *attnum).collect();
            let (width, align, sortable, dedup) = catalog::type_layout(column.type_oid, column.typmod, column.collation);
            table.columns.push(ColumnInfo {
                attnum,
                name: texts.next().cloned().unwrap_or_default(),
                reads,
                type_name: catalog::type_name(column.type_oid, column.typmod),
                avg_width: width,
                align,
                n_distinct: table.rows.max(1.0),
                null_frac: 0.0,
                correlation: 0.0,
                sortable,
                dedup,
                expressed: None,
                tenant: false,
                search: Vec::new(),
            });
        }
        columns.push(attnum);
    }
    let keys = index.keys.iter().zip(&columns).map(|(key, column)| Key {
        column: *column,
        descending: key.descending,
        nulls_first: key.nulls_first,
        opclass: key.opclass_name.as_deref().and_then(OpClass::named).unwrap_or_default(),
    });
    let mut def = IndexDef::new(index.table, keys.collect(), columns.iter().skip(index.keys.len()).copied()).by(index.method);
    if let Some(predicate) = &index.predicate_text {
        table.conditions.insert(predicate.clone(), index.share);
        def = def.partial(predicate);
    }
    (def, table)
}

/// The name under which EXPLAIN shows an index that does not exist: `ip_<table>_<columns> (hypothetical)`.
fn hypothetical_name(def: &IndexDef, table: &TableInfo) -> CString {
    const MARK: &str = " (hypothetical)";
    let mut name = format!("ip_{}", table.name);
    for key in &def.keys {
        name.push('_');
        name.push_str(&if key.column >= FIRST_EXPRESSION { "expr".to_owned() } else { table.column_name(key.column) });
    }
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.truncate(end);
    name.push_str(MARK);
    CString::new(name).unwrap_or_default()
}
