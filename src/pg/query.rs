//! Reading an analysed and rewritten statement: what it writes, and which value names its tenant.
//!
//! # Safety
//! All functions are unsafe in the same way: the query is live, as the parser and the rewriter made it.

use super::compat;
use super::node::{cast, list};
use indexpilot_core::literal;
use indexpilot_core::model::{AttNum, RelId};
use indexpilot_core::profile::{FieldUse, Usage};
use indexpilot_core::tenant::TenantSource;
use pgrx::pg_sys::{self, CmdType, NodeTag as T};
use std::collections::{BTreeMap, BTreeSet};

/// B-tree strategy number of `=` (access/stratnum.h).
const EQUAL: i32 = 3;

/// Columns that say which tenant a row belongs to, by table.
pub type TenantKeys = BTreeMap<RelId, BTreeSet<AttNum>>;

/// The statement itself, and the queries of its WITH clause.
unsafe fn parts(query: *mut pg_sys::Query) -> Vec<*mut pg_sys::Query> {
    // SAFETY: CTEs hold queries once they are analysed.
    unsafe {
        let ctes = list::<pg_sys::CommonTableExpr>((*query).cteList);
        std::iter::once(query).chain(ctes.filter_map(|cte| cast((*cte).ctequery, T::T_Query))).collect()
    }
}

unsafe fn entry(query: *mut pg_sys::Query, rti: i32) -> Option<*mut pg_sys::RangeTblEntry> {
    // SAFETY: the range table holds RangeTblEntries.
    unsafe { list((*query).rtable).nth(usize::try_from(rti).ok()?.checked_sub(1)?) }
}

/// The table that a query itself writes to.
unsafe fn target(query: *mut pg_sys::Query) -> Option<RelId> {
    // SAFETY: resultRelation is an index into the range table, 0 when there is none.
    unsafe { entry(query, (*query).resultRelation).map(|e| RelId((*e).relid.to_u32())) }
}

/// Tables that the statement, or a data-modifying CTE of it, inserts into.
///
/// # Safety
/// As the module says.
pub unsafe fn insert_targets(query: *mut pg_sys::Query) -> Vec<RelId> {
    // SAFETY: as the module says.
    unsafe { parts(query).into_iter().filter(|q| (**q).commandType == CmdType::CMD_INSERT).filter_map(|q| target(q)).collect() }
}

/// Tables that are written to, and the fields that are set there.
///
/// # Safety
/// As the module says.
pub unsafe fn writes(query: *mut pg_sys::Query) -> (Vec<RelId>, Vec<FieldUse>) {
    let (mut tables, mut fields) = (Vec::new(), Vec::new());
    // SAFETY: as the module says; only MERGE has actions.
    unsafe {
        for part in parts(query) {
            let Some(rel) = target(part) else { continue };
            tables.push(rel);
            set(rel, (*part).commandType, (*part).targetList, &mut fields);
            if let Some(conflict) = (*part).onConflict.as_ref() {
                set(rel, CmdType::CMD_UPDATE, conflict.onConflictSet, &mut fields);
            }
            for action in list::<pg_sys::MergeAction>((*part).mergeActionList) {
                set(rel, (*action).commandType, (*action).targetList, &mut fields);
            }
        }
    }
    (tables, fields)
}

/// Fields that the target list of an INSERT or UPDATE sets: the rewriter has put them under the numbers of their columns.
unsafe fn set(rel: RelId, command: CmdType::Type, targets: *mut pg_sys::List, fields: &mut Vec<FieldUse>) {
    let usage = match command {
        CmdType::CMD_INSERT => Usage::Insert,
        CmdType::CMD_UPDATE => Usage::Update,
        _ => return,
    };
    // SAFETY: target lists hold TargetEntries.
    for target in unsafe { list::<pg_sys::TargetEntry>(targets) } {
        // SAFETY: as above.
        let (column, junk) = unsafe { ((*target).resno, (*target).resjunk) };
        let field = FieldUse::plain(rel, column, usage);
        if !junk && column > 0 && !fields.contains(&field) {
            fields.push(field);
        }
    }
}

/// The value that names the tenant: see [`super::planner::Prepared::tenant`].
///
/// # Safety
/// As the module says.
pub unsafe fn tenant(query: *mut pg_sys::Query, text: &[u8], keys: &TenantKeys, parameters: usize) -> Option<TenantSource> {
    if keys.is_empty() {
        return None;
    }
    // SAFETY: as the module says.
    unsafe { Search { text, keys, parameters }.query(query) }
}

struct Search<'a> {
    text: &'a [u8],
    keys: &'a TenantKeys,
    parameters: usize,
}

impl Search<'_> {
    /// A query's own conditions come before those of its subqueries and CTEs.
    unsafe fn query(&self, query: *mut pg_sys::Query) -> Option<TenantSource> {
        // SAFETY: the join tree, and the queries in range table and WITH clause, are the analysed ones. What a view or a policy
        // brought in has no positions in our text and no parameters, so it names nothing.
        unsafe {
            let own = if (*query).commandType == CmdType::CMD_INSERT {
                self.new_row(query)
            } else {
                self.joined(query, (*query).jointree.cast())
            };
            own.or_else(|| {
                list::<pg_sys::RangeTblEntry>((*query).rtable)
                    .filter(|e| (**e).rtekind == pg_sys::RTEKind::RTE_SUBQUERY && !(**e).subquery.is_null())
                    .find_map(|e| self.query((*e).subquery))
            })
            .or_else(|| parts(query).into_iter().skip(1).find_map(|q| self.query(q)))
        }
    }

    /// The value that the tenant column of one new row is given. Of literals nothing in the text would tell that it is still this one.
    unsafe fn new_row(&self, query: *mut pg_sys::Query) -> Option<TenantSource> {
        // SAFETY: target lists hold TargetEntries.
        unsafe {
            let keys = self.keys.get(&target(query)?)?;
            list::<pg_sys::TargetEntry>((*query).targetList)
                .filter(|t| keys.contains(&(**t).resno))
                .find_map(|t| self.source((*t).expr.cast()).filter(|s| matches!(s, TenantSource::Parameter(_))))
        }
    }

    /// Conditions of WHERE and of inner joins, all of which every row of the result fulfils.
    unsafe fn joined(&self, query: *mut pg_sys::Query, node: *mut pg_sys::Node) -> Option<TenantSource> {
        // SAFETY: a join tree consists of these nodes and of RangeTblRefs.
        unsafe {
            if let Some(from) = cast::<pg_sys::FromExpr>(node, T::T_FromExpr) {
                let own = self.conditions(query, (*from).quals);
                return own.or_else(|| list::<pg_sys::Node>((*from).fromlist).find_map(|n| self.joined(query, n)));
            }
            let join = cast::<pg_sys::JoinExpr>(node, T::T_JoinExpr)?;
            let own = match (*join).jointype {
                pg_sys::JoinType::JOIN_INNER => self.conditions(query, (*join).quals),
                _ => None,
            };
            own.or_else(|| self.joined(query, (*join).larg)).or_else(|| self.joined(query, (*join).rarg))
        }
    }

    unsafe fn conditions(&self, query: *mut pg_sys::Query, quals: *mut pg_sys::Node) -> Option<TenantSource> {
        // SAFETY: conditions are expressions; an implicit AND is a list of them.
        unsafe {
            if let Some(all) = cast::<pg_sys::List>(quals, T::T_List) {
                return list::<pg_sys::Node>(all).find_map(|q| self.conditions(query, q));
            }
            if let Some(parts) = cast::<pg_sys::BoolExpr>(quals, T::T_BoolExpr) {
                let all = (*parts).boolop == pg_sys::BoolExprType::AND_EXPR;
                return all.then(|| list::<pg_sys::Node>((*parts).args).find_map(|q| self.conditions(query, q))).flatten();
            }
            let op = cast::<pg_sys::OpExpr>(quals, T::T_OpExpr)?;
            let mut args = list::<pg_sys::Node>((*op).args);
            let (left, right) = (args.next()?, args.next()?);
            if !compat::btree_strategies((*op).opno).iter().any(|(_, strategy)| *strategy == EQUAL) {
                return None;
            }
            if self.is_key(query, left) {
                self.source(right)
            } else if self.is_key(query, right) {
                self.source(left)
            } else {
                None
            }
        }
    }

    /// The expression is a tenant column, perhaps through subqueries, views and joins.
    unsafe fn is_key(&self, mut query: *mut pg_sys::Query, mut node: *mut pg_sys::Node) -> bool {
        use pg_sys::RTEKind as K;
        // SAFETY: a Var names an entry of its query's range table, and a column of it by its number from 1.
        unsafe {
            loop {
                let Some(var) = cast::<pg_sys::Var>(bare(node), T::T_Var).filter(|v| (**v).varlevelsup == 0) else { return false };
                let Some(entry) = entry(query, (*var).varno) else { return false };
                let Some(nth) = usize::try_from((*var).varattno).ok().and_then(|n| n.checked_sub(1)) else { return false };
                match (*entry).rtekind {
                    K::RTE_RELATION => {
                        let keys = self.keys.get(&RelId((*entry).relid.to_u32()));
                        return keys.is_some_and(|keys| keys.contains(&(*var).varattno));
                    }
                    K::RTE_SUBQUERY if !(*entry).subquery.is_null() => {
                        query = (*entry).subquery;
                        let Some(column) = list::<pg_sys::TargetEntry>((*query).targetList).nth(nth) else { return false };
                        node = (*column).expr.cast();
                    }
                    K::RTE_JOIN => {
                        let Some(column) = list::<pg_sys::Node>((*entry).joinaliasvars).nth(nth) else { return false };
                        node = column;
                    }
                    _ => return false,
                }
            }
        }
    }

    /// Where capture finds the value of an expression: a parameter that every run has, or a literal that is known by its place.
    unsafe fn source(&self, node: *mut pg_sys::Node) -> Option<TenantSource> {
        // SAFETY: as the tags say.
        unsafe {
            let node = bare(node);
            if let Some(param) = cast::<pg_sys::Param>(node, T::T_Param) {
                let number = usize::try_from((*param).paramid).ok().filter(|n| (1..=self.parameters).contains(n))?;
                let external = (*param).paramkind == pg_sys::ParamKind::PARAM_EXTERN;
                return external.then(|| u16::try_from(number).ok()).flatten().map(TenantSource::Parameter);
            }
            let constant = cast::<pg_sys::Const>(node, T::T_Const).filter(|c| !(**c).constisnull)?;
            let number = literal::number_at(self.text, usize::try_from((*constant).location).ok()?)?;
            literal::compared(self.text, number).map(|_| TenantSource::Literal(number))
        }
    }
}

/// Without the casts around it.
unsafe fn bare(mut node: *mut pg_sys::Node) -> *mut pg_sys::Node {
    // SAFETY: as the tags say; the first argument of a cast is what it casts.
    unsafe {
        loop {
            let inner = if let Some(relabel) = cast::<pg_sys::RelabelType>(node, T::T_RelabelType) {
                (*relabel).arg.cast()
            } else if let Some(io) = cast::<pg_sys::CoerceViaIO>(node, T::T_CoerceViaIO) {
                (*io).arg.cast()
            } else if let Some(domain) = cast::<pg_sys::CoerceToDomain>(node, T::T_CoerceToDomain) {
                (*domain).arg.cast()
            } else if let Some(call) = cast::<pg_sys::FuncExpr>(node, T::T_FuncExpr) {
                use pg_sys::CoercionForm as F;
                match (*call).funcformat {
                    F::COERCE_EXPLICIT_CAST | F::COERCE_IMPLICIT_CAST => list((*call).args).next().unwrap_or(std::ptr::null_mut()),
                    _ => return node,
                }
            } else {
                return node;
            };
            node = inner;
        }
    }
}
