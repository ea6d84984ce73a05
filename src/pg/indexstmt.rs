//! Reading the text of a CREATE INDEX through the server's own parser.
//!
//! # Safety
//! The functions that read trees are given what the server's parser returned, which lives as long as the memory context of the call.

use super::error::{Error, Kind, Result};
use super::{node, subxact};
use pgrx::pg_sys;
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

/// One key as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenKey {
    pub column: String,
    pub descending: bool,
    /// As said, or as the direction implies.
    pub nulls_first: bool,
}

/// A CREATE INDEX of a plain B-tree as it was written; nothing in it was looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenIndex {
    pub schema: Option<String>,
    pub table: String,
    pub keys: Vec<WrittenKey>,
    pub include: Vec<String>,
}

/// Parses one CREATE INDEX statement.
///
/// # Errors
/// The server's syntax error; `Syntax` for anything but one CREATE INDEX; `NotSupported` for forms that cannot be planned with yet,
/// naming the form.
pub fn parse(text: &str) -> Result<WrittenIndex> {
    let text = CString::new(text).map_err(|_| Error::new(Kind::InvalidParameter, "index definition contains a zero byte"))?;
    // In a subtransaction, because a syntax error is an error of the server.
    subxact::discard(AssertUnwindSafe(|| {
        // SAFETY: raw parsing looks nothing up; its result is a list of RawStmt.
        let statements: Vec<*mut pg_sys::RawStmt> = unsafe { node::list(pg_sys::pg_parse_query(text.as_ptr())).collect() };
        let [raw] = statements[..] else {
            return Err(not_an_index(format!("The text holds {} statements.", statements.len())));
        };
        // SAFETY: a RawStmt holds a parse node.
        match unsafe { node::cast::<pg_sys::IndexStmt>((*raw).stmt, pg_sys::NodeTag::T_IndexStmt) } {
            // SAFETY: the tag says that it is one.
            Some(stmt) => unsafe { read(&*stmt) },
            None => Err(not_an_index("The statement is of another kind.".to_owned())),
        }
    }))
}

fn not_an_index(detail: String) -> Error {
    Error::new(Kind::Syntax, "definition is not one CREATE INDEX statement")
        .detail(detail)
        .hint("Write it like CREATE INDEX ON orders (customer_id, created_at DESC) INCLUDE (total).")
}

fn unsupported(what: &str) -> Error {
    Error::new(Kind::NotSupported, format!("cannot plan with a hypothetical index that has {what}"))
        .detail("Only B-tree indexes on plain columns, with directions and INCLUDE, can be planned with.")
}

unsafe fn read(stmt: &pg_sys::IndexStmt) -> Result<WrittenIndex> {
    use pg_sys::{SortByDir as D, SortByNulls as N};
    // SAFETY: fields of a raw IndexStmt: strings are NUL-terminated or null, lists hold IndexElem.
    unsafe {
        let method = node::text(stmt.accessMethod).unwrap_or_default();
        if method != "btree" {
            return Err(unsupported(&format!("the access method {method}")));
        }
        for (present, what) in [
            (!stmt.whereClause.is_null(), "a predicate"),
            (stmt.unique, "a uniqueness constraint"),
            (!stmt.options.is_null(), "storage parameters"),
            (!stmt.tableSpace.is_null(), "a tablespace of its own"),
        ] {
            if present {
                return Err(unsupported(what));
            }
        }
        let column = |element: *mut pg_sys::IndexElem| {
            for (present, what) in [
                (!(*element).expr.is_null(), "an expression"),
                (!(*element).collation.is_null(), "a collation of its own"),
                (!(*element).opclass.is_null(), "an operator class"),
            ] {
                if present {
                    return Err(unsupported(what));
                }
            }
            node::text((*element).name).ok_or_else(|| unsupported("a key without a name"))
        };
        let mut keys = Vec::new();
        for element in node::list::<pg_sys::IndexElem>(stmt.indexParams) {
            let descending = (*element).ordering == D::SORTBY_DESC;
            let nulls_first = match (*element).nulls_ordering {
                N::SORTBY_NULLS_FIRST => true,
                N::SORTBY_NULLS_LAST => false,
                _ => descending,
            };
            keys.push(WrittenKey { column: column(element)?, descending, nulls_first });
        }
        let include = node::list::<pg_sys::IndexElem>(stmt.indexIncludingParams).map(column).collect::<Result<Vec<String>>>()?;
        let relation = stmt.relation;
        if relation.is_null() {
            return Err(not_an_index("It names no table.".to_owned()));
        }
        Ok(WrittenIndex {
            schema: node::text((*relation).schemaname),
            table: node::text((*relation).relname).unwrap_or_default(),
            keys,
            include,
        })
    }
}
