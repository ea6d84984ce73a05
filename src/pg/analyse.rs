//! From the text of a stored statement to the query that the planner takes.

use super::error::{Error, Kind, Result};
use super::planner::Parameter;
use super::{compat, node};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, c_void};

/// Number of a parameter that no statement has (the protocol counts them in 16 bits), so its value is never known.
const UNKNOWN: i32 = 1 << 16;

/// Parses, checks, analyses and rewrites: exactly one plannable query comes out.
pub fn analyse(text: &CStr, parameters: &[Parameter]) -> Result<*mut pg_sys::Query> {
    use pg_sys::NodeTag as T;
    // SAFETY: raw parsing looks nothing up; its result is a list of RawStmt.
    let (count, raw) = unsafe {
        let mut statements = node::list::<pg_sys::RawStmt>(pg_sys::pg_parse_query(text.as_ptr()));
        let first = statements.next();
        (usize::from(first.is_some()) + statements.count(), first)
    };
    let Some(raw) = raw.filter(|_| count == 1) else {
        return Err(Error::new(Kind::NotSupported, format!("cannot plan a text of {count} statements"))
            .hint("Give one statement at a time."));
    };
    // SAFETY: a RawStmt holds a parse node, whose tag says what it is.
    let tag = unsafe {
        (*raw).stmt = inner((*raw).stmt)?;
        (*(*raw).stmt).type_
    };
    if !matches!(tag, T::T_SelectStmt | T::T_InsertStmt | T::T_UpdateStmt | T::T_DeleteStmt | T::T_MergeStmt) {
        return Err(not_plannable());
    }
    // SAFETY: the array is palloc'd because the parser enlarges it with repalloc for parameters beyond it.
    let queries = unsafe {
        let mut count = parameters.len() as i32;
        let mut types = pg_sys::palloc0(std::mem::size_of::<pg_sys::Oid>() * parameters.len().max(1)).cast::<pg_sys::Oid>();
        for (i, parameter) in parameters.iter().enumerate() {
            *types.add(i) = parameter.type_oid;
        }
        let list = pg_sys::pg_analyze_and_rewrite_varparams(raw, text.as_ptr(), &mut types, &mut count, std::ptr::null_mut());
        node::list::<pg_sys::Query>(list).collect::<Vec<_>>()
    };
    match queries[..] {
        // SAFETY: a live query.
        [query] if unsafe { (*query).commandType } == pg_sys::CmdType::CMD_UTILITY => Err(not_plannable()),
        [query] => {
            // SAFETY: a live query.
            unsafe { generalise(query) };
            Ok(query)
        }
        _ => Err(Error::new(Kind::NotSupported, "cannot plan a statement that rules turn into several")
            .detail(format!("Rewriting made {} statements of it.", queries.len()))),
    }
}

/// The statement inside PREPARE, DECLARE CURSOR, CREATE TABLE AS, EXPLAIN and COPY (query) TO, and the query of a materialised view that
/// is refreshed; others are returned as they are.
///
/// # Safety
/// `stmt` is a raw parse node.
unsafe fn inner(stmt: *mut pg_sys::Node) -> Result<*mut pg_sys::Node> {
    use pg_sys::NodeTag as T;
    // SAFETY: the tag says which struct it is (parsenodes.h); each field is the raw parse tree of the statement inside.
    unsafe {
        let inside = match (*stmt).type_ {
            T::T_PrepareStmt => (*stmt.cast::<pg_sys::PrepareStmt>()).query,
            T::T_DeclareCursorStmt => (*stmt.cast::<pg_sys::DeclareCursorStmt>()).query,
            T::T_CreateTableAsStmt => (*stmt.cast::<pg_sys::CreateTableAsStmt>()).query,
            T::T_ExplainStmt => (*stmt.cast::<pg_sys::ExplainStmt>()).query,
            T::T_CopyStmt => (*stmt.cast::<pg_sys::CopyStmt>()).query,
            T::T_RefreshMatViewStmt => view_query((*stmt.cast::<pg_sys::RefreshMatViewStmt>()).relation)?,
            _ => stmt,
        };
        Ok(if inside.is_null() { stmt } else { inside })
    }
}

fn not_plannable() -> Error {
    Error::new(Kind::NotSupported, "cannot plan this kind of statement")
        .detail("Only SELECT, INSERT, UPDATE, DELETE and MERGE have plans that indexes can change.")
}

/// The query of a materialised view, parsed anew.
///
/// # Safety
/// `view` is the relation of a raw parse node.
unsafe fn view_query(view: *mut pg_sys::RangeVar) -> Result<*mut pg_sys::Node> {
    // SAFETY: looks the name up without a lock, and raises when it leads nowhere; pg_get_viewdef takes the OID of any relation and
    // returns NULL-terminated text that the parser reads, or raises.
    unsafe {
        let oid = pg_sys::RangeVarGetRelidExtended(view, pg_sys::NoLock as i32, 0, None, std::ptr::null_mut());
        if pg_sys::get_rel_relkind(oid) as u8 != pg_sys::RELKIND_MATVIEW {
            return Err(not_plannable());
        }
        let text = pg_sys::OidFunctionCall1Coll(pg_sys::F_PG_GET_VIEWDEF_OID, pg_sys::InvalidOid, pg_sys::Datum::from(oid));
        let text = pg_sys::text_to_cstring(text.cast_mut_ptr());
        let raw = node::list::<pg_sys::RawStmt>(pg_sys::pg_parse_query(text)).next();
        raw.map(|raw| (*raw).stmt).ok_or_else(not_plannable)
    }
}

/// Makes the statement one for any value of the settings that its session had and ours has not: policies compare columns with such
/// settings, and the planner, which evaluates them for its estimates, would fail.
///
/// # Safety
/// `query` is a live query.
unsafe fn generalise(query: *mut pg_sys::Query) {
    // SAFETY: the walker calls back with nodes of the query. One guard is enough for the whole walk, because the visitor owns nothing: an
    // error may jump across it.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| visit(query.cast(), std::ptr::null_mut())) };
}

/// # Safety
/// Called by the tree walkers, with null or a node, inside one guard for all. It neither owns anything nor panics.
unsafe extern "C-unwind" fn visit(tree: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: as the tags say; the walkers call this function for everything below.
    unsafe {
        if let Some(query) = node::cast::<pg_sys::Query>(tree, pg_sys::NodeTag::T_Query) {
            return compat::walk::query_tree_walker(query, visit, context, 0);
        }
        if let Some(call) = node::cast::<pg_sys::FuncExpr>(tree, pg_sys::NodeTag::T_FuncExpr)
            && matches!((*call).funcid.to_u32(), pg_sys::F_CURRENT_SETTING_TEXT | pg_sys::F_CURRENT_SETTING_TEXT_BOOL)
        {
            forget_setting(call);
        }
        !tree.is_null() && compat::walk::expression_tree_walker(tree, visit, context)
    }
}

/// Replaces the name that `current_setting` is called with, when this session has no such setting.
///
/// # Safety
/// `call` is a live call of that function.
#[pg_guard]
unsafe extern "C-unwind" fn forget_setting(call: *mut pg_sys::FuncExpr) {
    // SAFETY: as the tags say; the function's first argument is a text.
    unsafe {
        if let Some(name) = node::list::<pg_sys::Node>((*call).args).next()
            && let Some(name) = node::cast::<pg_sys::Const>(name, pg_sys::NodeTag::T_Const)
            && !is_set(&*name)
        {
            (*(*(*call).args).elements).ptr_value = unknown_text().cast();
        }
    }
}

/// The setting of that name exists in this session.
///
/// # Safety
/// `name` is a constant of type text.
unsafe fn is_set(name: &pg_sys::Const) -> bool {
    if name.constisnull {
        return true;
    }
    // SAFETY: as above; an unknown setting gives NULL, because it may be missing.
    unsafe { !pg_sys::GetConfigOption(pg_sys::text_to_cstring(name.constvalue.cast_mut_ptr()), true, false).is_null() }
}

/// A text of which nothing is known.
fn unknown_text() -> *mut pg_sys::Param {
    // SAFETY: a zeroed node with its tag, in the memory of this planning.
    unsafe {
        let param = pg_sys::palloc0(std::mem::size_of::<pg_sys::Param>()).cast::<pg_sys::Param>();
        (*param).xpr.type_ = pg_sys::NodeTag::T_Param;
        (*param).paramkind = pg_sys::ParamKind::PARAM_EXTERN;
        (*param).paramid = UNKNOWN;
        (*param).paramtype = pg_sys::TEXTOID;
        (*param).paramtypmod = -1;
        (*param).paramcollid = pg_sys::DEFAULT_COLLATION_OID;
        (*param).location = -1;
        param
    }
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use super::super::planner::{Sample, with_statement};
    use super::super::role;
    use pgrx::pg_sys;
    use pgrx::prelude::*;
    use std::time::{Duration, Instant};

    #[pg_test]
    fn a_deeply_nested_expression_takes_no_time_and_breaks_nothing() {
        // SAFETY: reads a variable of the backend.
        let level = || unsafe { pg_sys::GetCurrentTransactionNestLevel() };
        let before = level();
        for terms in [500, 6000, 60_000] {
            let text = format!("SELECT 1{}", "+1".repeat(terms));
            let sample = Sample { text, search_path: "public".into(), role: role::current(), parameters: Vec::new() };
            let start = Instant::now();
            let result = with_statement(&sample, Duration::from_secs(60), |s| Ok(s.plan().cost()));
            assert!(start.elapsed() < Duration::from_secs(2), "{terms}: {:?}", start.elapsed());
            if let Err(e) = result {
                assert_eq!(e.sqlstate(), "54001", "{terms}: {e}");
            }
            assert_eq!(level(), before, "{terms}");
            assert_eq!(Spi::get_one::<i32>("SELECT 1"), Ok(Some(1)), "{terms}");
        }
    }
}
