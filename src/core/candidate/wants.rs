//! What one use of a relation restricts, as an index of a given kind can make use of it.

use super::partial::Rules;
use crate::model::{
    AccessMethod, AttNum, Catalog, IndexDef, Key, OpClass, Predicate, PredicateKind, Query, RelationUse, TableInfo,
};
use std::collections::{BTreeMap, BTreeSet};

/// A use with its restrictions sorted out.
pub(super) struct Wants<'u> {
    pub usage: &'u RelationUse,
    pub table: &'u TableInfo,
    /// What a B-tree of the default operator classes can search: the strongest restriction of each column that is not a join, an
    /// equality before a range. A prefix that such a B-tree serves is a range.
    pub plain: BTreeMap<AttNum, (PredicateKind, f64)>,
    /// Columns that are joined by equality, ascending, and their selectivity. A column may be restricted as well.
    pub joins: BTreeMap<AttNum, f64>,
    /// Rows that are probably at hand when a join looks for partners here.
    pub outer: f64,
}

impl<'u> Wants<'u> {
    /// The use `number` of the query.
    pub(super) fn of(query: &'u Query, number: usize, catalog: &'u Catalog) -> Option<Self> {
        let usage = query.shape.relations.get(number)?;
        let table = catalog.table(usage.rel)?;
        let others = query.shape.relations.iter().enumerate().filter(|(n, u)| *n != number && joined(u) && !u.target);
        let outer = others.map(|(_, u)| u.rows.max(1.0)).fold(f64::INFINITY, f64::min);
        Some(Self::alone(usage, table, if outer.is_finite() { outer } else { 1.0 }))
    }

    pub(super) fn alone(usage: &'u RelationUse, table: &'u TableInfo, outer: f64) -> Self {
        let mut plain: BTreeMap<AttNum, (PredicateKind, f64)> = BTreeMap::new();
        let mut joins: BTreeMap<AttNum, f64> = BTreeMap::new();
        for p in usage.predicates.iter().filter(|p| p.by.is_empty()) {
            let rank = |k: PredicateKind| match k {
                PredicateKind::Equal => 0,
                PredicateKind::In => 1,
                _ => 2,
            };
            match p.kind {
                PredicateKind::Join => {
                    let join = joins.entry(p.column).or_insert(p.selectivity);
                    *join = join.min(p.selectivity);
                }
                PredicateKind::Search => {}
                kind => {
                    let kind = if kind == PredicateKind::Prefix { PredicateKind::Range } else { kind };
                    let entry = plain.entry(p.column).or_insert((kind, p.selectivity));
                    if rank(kind) < rank(entry.0) {
                        entry.0 = kind;
                    }
                    entry.1 = entry.1.min(p.selectivity);
                }
            }
        }
        Wants { usage, table, plain, joins, outer }
    }

    /// Restrictions that only the named access methods and operator classes serve.
    pub(super) fn special(&self) -> impl Iterator<Item = &'u Predicate> + use<'u> {
        self.usage.predicates.iter().filter(|p| !p.by.is_empty())
    }

    /// How the use restricts this key of such an index, joins left aside.
    pub(super) fn restriction(&self, method: AccessMethod, key: &Key) -> Option<(PredicateKind, f64)> {
        let served = self.special().filter(|p| p.column == key.column && p.by.contains(&(method, key.opclass)));
        let special = served.map(|p| p.selectivity).min_by(f64::total_cmp);
        let special =
            special.map(|s| (if method == AccessMethod::Btree { PredicateKind::Range } else { PredicateKind::Search }, s));
        let plain = || self.plain.get(&key.column).copied();
        match (method, key.opclass) {
            (AccessMethod::Btree | AccessMethod::Brin, OpClass::Default) => plain(),
            // The operator classes that compare bytes know equality too.
            (AccessMethod::Btree, _) => plain().filter(|(k, _)| is_equal(*k)).or(special),
            (AccessMethod::Hash, _) => plain().filter(|(k, _)| *k == PredicateKind::Equal),
            _ => special,
        }
    }

    /// Columns that one value each is wanted of, the most selective first.
    pub(super) fn columns(&self, kinds: &[PredicateKind]) -> Vec<AttNum> {
        let mut columns: Vec<(f64, AttNum)> =
            self.plain.iter().filter(|(_, (k, _))| kinds.contains(k)).map(|(c, (_, s))| (*s, *c)).collect();
        columns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        columns.into_iter().map(|(_, c)| c).collect()
    }

    /// The column has one value in all rows that are wanted.
    pub(super) fn constant(&self, column: AttNum) -> bool {
        matches!(self.plain.get(&column), Some((PredicateKind::Equal, _)))
    }

    /// True when the planner could have a use for the index: its first column is searched, sorted or grouped by, or the index holds
    /// all that the query needs of the table; and its condition is one of the query's.
    pub(super) fn may_use(&self, def: &IndexDef, rules: &Rules) -> bool {
        let Some(first) = def.keys.first() else { return false };
        let usage = self.usage;
        if !def.predicate.as_deref().is_none_or(|p| rules.implied(p, usage)) {
            return false;
        }
        if def.method != AccessMethod::Btree {
            return def.keys.iter().any(|k| self.restriction(def.method, k).is_some())
                || (def.method == AccessMethod::Hash && self.joins.contains_key(&first.column));
        }
        self.restriction(def.method, first).is_some()
            || self.joins.contains_key(&first.column)
            || usage.order.first().is_some_and(|k| k.column == first.column)
            || usage.group.contains(&first.column)
            || (def.predicate.is_some() && !usage.target)
            || super::covering::holds_all(def, usage)
    }
}

pub(super) fn is_equal(kind: PredicateKind) -> bool {
    matches!(kind, PredicateKind::Equal | PredicateKind::In)
}

fn joined(usage: &RelationUse) -> bool {
    usage.predicates.iter().any(|p| p.kind == PredicateKind::Join)
}

/// Every column that an index on the relation could search, sort or group by.
pub(super) fn searched(usage: &RelationUse) -> BTreeSet<AttNum> {
    let predicates = usage.predicates.iter().map(|p| p.column);
    predicates.chain(usage.order.iter().map(|k| k.column)).chain(usage.group.iter().copied()).collect()
}
