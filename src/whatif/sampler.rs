//! What samples of tables tell of expressions and of the keys of search indexes, each looked at once in an analysis.

use super::definition::{Hypothetical, OWN_PATH};
use crate::guc;
use crate::pg::indexstmt::{self, Author, ResolvedIndex};
use crate::pg::sampling::{self, Statistics, Subject};
use crate::pg::{catalog, role, trust};
use indexpilot_core::ddl;
use indexpilot_core::model::{
    AccessMethod, AttNum, Catalog, FIRST_EXPRESSION, IndexDef, Key, OpClass, PAGE, PredicateKind, Query, RelId, SearchKeys,
    TableInfo,
};
use pgrx::pg_sys;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Samples that one analysis takes at most: each reads some pages of a table.
const MOST_SAMPLES: usize = 500;
const MOST_TIME: Duration = Duration::from_secs(3);
/// Rows that an analysis looks at for one expression; a caller's own index may take as many as ANALYZE does.
const ROWS: f64 = 10_000.0;

/// What was found, by table and text in SQL; and by operator class.
#[derive(Default)]
pub struct Sampler {
    statistics: HashMap<(RelId, String), Option<Rc<Statistics>>>,
    search: HashMap<(RelId, String, u32), Option<SearchKeys>>,
    /// What the planner is to know of the expressions whether an index has them or not, so that plans differ by indexes alone.
    known: Vec<Rc<Hypothetical>>,
    /// When the first sample was taken.
    start: Option<Instant>,
}

/// As whom and how the sample of an index is read.
pub(super) struct Reader {
    pub role: pg_sys::Oid,
    most: f64,
}

impl Reader {
    /// For a statement of the caller's. What a privileged role reads is read as the owner of the table, who may be made to run no
    /// code of others.
    pub fn for_caller(index: &ResolvedIndex) -> Option<Self> {
        let caller = role::current();
        if !trust::is_privileged(caller) {
            return Some(Reader { role: caller, most: f64::INFINITY });
        }
        Self::as_owner(index, f64::INFINITY)
    }

    /// For a statement of ours.
    pub fn for_owner(index: &ResolvedIndex) -> Option<Self> {
        Self::as_owner(index, ROWS)
    }

    /// Costs and sizes tell of the values, so the caller himself must be allowed to read them.
    fn as_owner(index: &ResolvedIndex, most: f64) -> Option<Self> {
        let plain = index.columns.iter().map(|c| c.attnum).filter(|c| *c != 0);
        let columns: BTreeSet<AttNum> = plain.chain(index.reads.iter().map(|(c, _)| *c)).collect();
        let readable = role::readable(index.table, columns.iter().copied()) == columns;
        catalog::owner(index.table).filter(|_| index.owner_may_run && readable).map(|role| Reader { role, most })
    }
}

impl Sampler {
    /// Statistics of the expression that is key number `key` of an index, and its text in SQL; `None` when they cannot be had.
    pub(super) fn expression(
        &mut self,
        index: &ResolvedIndex,
        key: usize,
        sql: &str,
        table: &TableInfo,
        reader: &Reader,
    ) -> Option<Rc<Statistics>> {
        let collation = index.keys.get(key)?.collation;
        let known = (index.table, sql.to_owned());
        if !self.statistics.contains_key(&known) && self.may_go_on() {
            let subject = subject(sql, true, table, 32.0, reader);
            let found = sampling::statistics(&subject, collation, guc::whatif_timeout());
            let found = found.unwrap_or_else(|error| {
                pgrx::debug1!("indexpilot: whatif: no sample of {sql}: {error}");
                None
            });
            self.statistics.insert(known.clone(), found.map(Rc::new));
        }
        self.statistics.get(&known).cloned().flatten()
    }

    /// What an index would hold of its key number `key`, whose text in SQL is `sql`.
    pub(super) fn search(
        &mut self,
        index: &ResolvedIndex,
        key: usize,
        sql: &str,
        table: &TableInfo,
        opclass: OpClass,
        reader: &Reader,
    ) -> Option<SearchKeys> {
        let resolved = index.keys.get(key)?;
        let known = (index.table, sql.to_owned(), resolved.opclass.to_u32());
        if !self.search.contains_key(&known) && self.may_go_on() {
            let attnum = index.columns.get(key).map_or(0, |c| c.attnum);
            let width = table.column(attnum).map_or(64.0, |c| f64::from(c.avg_width));
            let subject = subject(sql, attnum == 0, table, width, reader);
            let found = sampling::search_keys(&subject, index.method, resolved, opclass, guc::whatif_timeout());
            let found = found.unwrap_or_else(|error| {
                pgrx::debug1!("indexpilot: whatif: no sample of {sql}: {error}");
                None
            });
            self.search.insert(known.clone(), found);
        }
        self.search.get(&known).cloned().flatten()
    }

    fn may_go_on(&mut self) -> bool {
        let start = *self.start.get_or_insert_with(Instant::now);
        self.statistics.len() + self.search.len() < MOST_SAMPLES && start.elapsed() < MOST_TIME
    }

    /// The statistics of all expressions that were measured, for the planner.
    pub(super) fn known(&self) -> &[Rc<Hypothetical>] {
        &self.known
    }

    /// Fills the snapshot with what only samples tell: statistics of the expressions, and what search indexes would hold where the queries
    /// could use one.
    pub fn measure(&mut self, catalog: &mut Catalog, queries: &[Query]) {
        for table in catalog.tables.values_mut().filter(|t| t.refused.is_none()) {
            let expressions: Vec<AttNum> = table.columns.iter().map(|c| c.attnum).filter(|c| *c >= FIRST_EXPRESSION).collect();
            for attnum in expressions {
                self.measure_expression(table, attnum);
            }
        }
        let mut wanted: BTreeSet<(RelId, AttNum, AccessMethod, OpClass)> = BTreeSet::new();
        for relation in queries.iter().flat_map(|q| &q.shape.relations) {
            for predicate in relation.predicates.iter().filter(|p| p.kind == PredicateKind::Search) {
                wanted.extend(predicate.by.iter().map(|(method, opclass)| (relation.rel, predicate.column, *method, *opclass)));
            }
        }
        for (rel, column, method, opclass) in wanted {
            if let Some(table) = catalog.tables.get_mut(&rel).filter(|t| t.refused.is_none()) {
                self.measure_search(table, column, method, opclass);
            }
        }
    }

    fn measure_expression(&mut self, table: &mut TableInfo, attnum: AttNum) -> Option<()> {
        let sortable = table.column(attnum).is_some_and(|c| c.sortable);
        let method = if sortable { AccessMethod::Btree } else { AccessMethod::Hash };
        let def = IndexDef::new(table.rel, vec![Key::asc(attnum)], []).by(method);
        let index = resolve(&def, table)?;
        let sql = index.expression_texts.first()?;
        let found = self.expression(&index, 0, sql, table, &Reader::for_owner(&index)?)?;
        let column = table.columns.iter_mut().find(|c| c.attnum == attnum)?;
        column.avg_width = found.width;
        column.n_distinct = found.n_distinct;
        column.null_frac = found.null_frac;
        column.correlation = found.correlation;
        self.known.push(Hypothetical::statistics_of(index, def, table, found));
        Some(())
    }

    fn measure_search(&mut self, table: &mut TableInfo, attnum: AttNum, method: AccessMethod, opclass: OpClass) -> Option<()> {
        let index = resolve(&IndexDef::new(table.rel, vec![Key::asc(attnum).with(opclass)], []).by(method), table)?;
        let sql = key_sql(&index, 0)?;
        let found = self.search(&index, 0, &sql, table, opclass, &Reader::for_owner(&index)?)?;
        let column = table.columns.iter_mut().find(|c| c.attnum == attnum)?;
        column.search.retain(|s| (s.method, s.opclass) != (method, opclass));
        column.search.push(found);
        Some(())
    }
}

fn subject<'a>(sql: &'a str, computed: bool, table: &TableInfo, width: f64, reader: &Reader) -> Subject<'a> {
    Subject {
        table: table.rel,
        sql,
        computed,
        role: reader.role,
        most: reader.most,
        rows: table.rows,
        pages: table.bytes as f64 / PAGE as f64,
        width,
    }
}

/// The key number `key` of an index in SQL.
pub(super) fn key_sql(index: &ResolvedIndex, key: usize) -> Option<String> {
    let expressions_before = index.columns.iter().take(key).filter(|c| c.attnum == 0).count();
    match index.columns.get(key)?.attnum {
        0 => index.expression_texts.get(expressions_before).cloned(),
        attnum => sampling::column_sql(index.table, attnum),
    }
}

/// An index of ours, as the owner of its table would make it; `None` when he could not.
fn resolve(def: &IndexDef, table: &TableInfo) -> Option<ResolvedIndex> {
    let statement = ddl::create_index(def, table, &catalog::quote, false);
    let owner = catalog::owner(def.table)?;
    match indexstmt::resolve(&statement, owner, Author::Others, OWN_PATH, guc::whatif_timeout()) {
        Ok(index) => Some(index),
        Err(error) => {
            pgrx::debug1!("indexpilot: whatif: no sample for {}: {error}", ddl::describe(def, table));
            None
        }
    }
}
