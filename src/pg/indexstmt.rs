//! What a CREATE INDEX statement means: parsed, analysed and looked up by the server's own functions, as DefineIndex does it
//! (indexcmds.c), but nothing is made. What is found are owned values that outlive the memory and the locks of the look-up; trees are kept
//! in the text form in which the catalogs keep them.
//!
//! # Safety
//! The functions that read trees are given what the server's parser returned, which lives as long as the memory context of the call.

use super::error::{Error, Kind, Result};
use super::{analyse, catalog, compat, deparse, node, planner, relinfo, trust};
use indexpilot_core::model::{AccessMethod, AttNum, RelId};
use pgrx::{pg_guard, pg_sys};
use std::ffi::{CStr, CString, c_char, c_void};
use std::time::Duration;

/// First OID of objects that users make (access/transam.h).
const FIRST_NORMAL_OID: u32 = 16384;
/// Support functions of GiST and SP-GiST operator classes (gist.h, spgist.h).
const GIST_COMPRESS: i16 = 3;
const GIST_FETCH: i16 = 9;
const SPGIST_CONFIG: i16 = 1;

mod sys {
    use super::{c_char, pg_sys};
    unsafe extern "C-unwind" {
        // Not in pgrx's bindings (parse_utilcmd.h).
        pub fn transformIndexStmt(table: pg_sys::Oid, stmt: *mut pg_sys::IndexStmt, text: *const c_char) -> *mut pg_sys::IndexStmt;
    }

    /// What SP-GiST's config function is told and tells (spgist.h).
    #[repr(C)]
    pub struct SpgConfigIn {
        pub type_oid: pg_sys::Oid,
    }
    #[repr(C)]
    pub struct SpgConfigOut {
        pub prefix: pg_sys::Oid,
        pub label: pg_sys::Oid,
        pub leaf: pg_sys::Oid,
        pub can_return_data: bool,
        pub long_values: bool,
    }
}

/// Who wrote the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The role that it is looked up for: what it runs, the role could run anyway.
    Role,
    /// Others: the expressions come from their queries.
    Others,
}

/// A column of an index: of its table, or an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexColumn {
    /// 0 for an expression.
    pub attnum: AttNum,
    pub type_oid: pg_sys::Oid,
    pub typmod: i32,
    /// Of the table's column or the expression; the key may have another one.
    pub collation: pg_sys::Oid,
    /// The access method can give the value back.
    pub returns: bool,
}

/// How a key is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexKey {
    pub opclass: pg_sys::Oid,
    pub family: pg_sys::Oid,
    pub input: pg_sys::Oid,
    pub collation: pg_sys::Oid,
    pub descending: bool,
    /// As said, or as the direction implies.
    pub nulls_first: bool,
    /// The operator class is not the default one of the type: its name.
    pub opclass_name: Option<String>,
}

/// An index that does not exist, as the server understands its statement.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedIndex {
    pub table: RelId,
    pub method: AccessMethod,
    pub am: pg_sys::Oid,
    /// Keys first.
    pub columns: Vec<IndexColumn>,
    pub keys: Vec<IndexKey>,
    /// The expressions among the keys, in their order: a list in the form of `pg_index.indexprs`, and each in SQL.
    pub expressions: Option<CString>,
    pub expression_texts: Vec<String>,
    /// The condition: a list in the form of `pg_index.indpred`, and in SQL.
    pub predicate: Option<CString>,
    pub predicate_text: Option<String>,
    /// Share of the table's rows that pass the condition.
    pub share: f64,
    /// Columns that expressions and condition read, with their types.
    pub reads: Vec<(AttNum, pg_sys::Oid)>,
    /// The code in it is the server's, a superuser's or the table owner's.
    pub owner_may_run: bool,
}

/// Looks up what the statement means to `role` with names looked up in `path`. Expressions are evaluated as far as they are constant, so it
/// is done as planning is: restricted, read-only, within `limit`.
///
/// # Errors
/// `Syntax` for anything but one CREATE INDEX; `UndefinedTable`, `WrongObject`; `NotSupported` for forms that cannot be planned with,
/// naming the form; `Privilege` when an expression runs code that is neither the server's, a superuser's nor the role's own, or reads
/// what the role may not read; the server's own errors.
pub fn resolve(text: &str, role: pg_sys::Oid, author: Author, path: &CStr, limit: Duration) -> Result<ResolvedIndex> {
    let text = super::encoding::to_server(text)
        .map_err(|_| Error::new(Kind::InvalidParameter, "index definition contains a zero byte"))?;
    planner::restricted(role, path, limit, || {
        // SAFETY: raw parsing looks nothing up; its result is a list of RawStmt.
        let statements: Vec<*mut pg_sys::RawStmt> = unsafe { node::list(pg_sys::pg_parse_query(text.as_ptr())).collect() };
        let [raw] = statements[..] else {
            return Err(not_an_index(format!("The text holds {} statements.", statements.len())));
        };
        // SAFETY: a RawStmt holds a parse node, and the tag says which.
        unsafe {
            match node::cast::<pg_sys::IndexStmt>((*raw).stmt, pg_sys::NodeTag::T_IndexStmt) {
                Some(stmt) => Resolver::new(stmt, &text, role, author)?.resolve(),
                None => Err(not_an_index("The statement is of another kind.".to_owned())),
            }
        }
    })
}

/// The expression, which is given away, can give another result another time: contain_mutable_functions_after_planning, which early
/// minor versions do not have.
///
/// # Safety
/// A live copy of an expression.
unsafe fn mutable(expression: *mut pg_sys::Expr) -> bool {
    // SAFETY: as promised; planning inlines functions and fills in defaults, as index_create's caller has it (indexcmds.c).
    unsafe { pg_sys::contain_mutable_functions(pg_sys::expression_planner(expression).cast()) }
}

fn not_an_index(detail: String) -> Error {
    Error::new(Kind::Syntax, "definition is not one CREATE INDEX statement")
        .detail(detail)
        .hint("Write it like CREATE INDEX ON orders (customer_id, created_at DESC) INCLUDE (total).")
}

fn unsupported(what: &str) -> Error {
    Error::new(Kind::NotSupported, format!("cannot plan with a hypothetical index that has {what}"))
}

struct Resolver<'a> {
    stmt: *mut pg_sys::IndexStmt,
    text: &'a CStr,
    role: pg_sys::Oid,
    author: Author,
    table: pg_sys::Oid,
    method: AccessMethod,
    am: pg_sys::Oid,
    routine: *mut pg_sys::IndexAmRoutine,
}

impl<'a> Resolver<'a> {
    /// # Safety
    /// `stmt` is a raw IndexStmt.
    unsafe fn new(stmt: *mut pg_sys::IndexStmt, text: &'a CStr, role: pg_sys::Oid, author: Author) -> Result<Self> {
        // SAFETY: fields of a raw IndexStmt: strings are NUL-terminated or null, lists hold IndexElem; catalog look-ups by name.
        unsafe {
            let name = node::text((*stmt).accessMethod).unwrap_or_default();
            let method = [
                AccessMethod::Btree,
                AccessMethod::Hash,
                AccessMethod::Gin,
                AccessMethod::Gist,
                AccessMethod::Spgist,
                AccessMethod::Brin,
            ]
            .into_iter()
            .find(|m| m.name() == name);
            // Raises when there is no such access method.
            let am = pg_sys::get_index_am_oid((*stmt).accessMethod, false);
            let Some(method) = method.filter(|_| am.to_u32() < FIRST_NORMAL_OID) else {
                return Err(unsupported(&format!("the access method {name}"))
                    .detail("The access methods that can be planned with are btree, hash, gin, gist, spgist and brin."));
            };
            for (present, what, detail) in [
                ((*stmt).unique, "a uniqueness constraint", "Whether it could be built depends on the rows, not on the planner."),
                (!(*stmt).excludeOpNames.is_null(), "an exclusion constraint", "Only plain indexes can be planned with."),
                (!(*stmt).options.is_null(), "storage parameters", "Sizes and costs are those of the default parameters."),
                (!(*stmt).tableSpace.is_null(), "a tablespace of its own", "Costs are those of the tablespace of the table."),
            ] {
                if present {
                    return Err(unsupported(what).detail(detail));
                }
            }
            let table = relation(stmt)?;
            let routine = pg_sys::GetIndexAmRoutineByAmId(am, false);
            Ok(Resolver { stmt, text, role, author, table, method, am, routine })
        }
    }

    /// # Safety
    /// As for `new`.
    unsafe fn resolve(self) -> Result<ResolvedIndex> {
        // SAFETY: the table is opened with a lock, as transformIndexStmt wants it; the end of the subtransaction gives both back. The
        // statement was parsed, and is transformed here, so that its expressions are analysed trees over relation 1.
        unsafe {
            let relation = pg_sys::table_open(self.table, pg_sys::AccessShareLock as i32);
            pg_sys::ffi::pg_guard_ffi_boundary(|| sys::transformIndexStmt(self.table, self.stmt, self.text.as_ptr()));
            let found = self.columns();
            pg_sys::table_close(relation, pg_sys::NoLock as i32);
            found
        }
    }

    /// # Safety
    /// The statement is transformed and its table locked.
    unsafe fn columns(&self) -> Result<ResolvedIndex> {
        // SAFETY: lists of IndexElem; trees of a transformed statement; what is read of the routine is set by its access method.
        unsafe {
            let elements: Vec<*mut pg_sys::IndexElem> = node::list((*self.stmt).indexParams).collect();
            let include: Vec<*mut pg_sys::IndexElem> = node::list((*self.stmt).indexIncludingParams).collect();
            let routine = &*self.routine;
            let name = self.method.name();
            if !include.is_empty() && !routine.amcaninclude {
                return Err(self.incapable(&format!("access method \"{name}\" does not support included columns")));
            }
            if elements.len() > 1 && !routine.amcanmulticol {
                return Err(self.incapable(&format!("access method \"{name}\" does not support multicolumn indexes")));
            }
            if elements.is_empty() || elements.len() + include.len() > pg_sys::INDEX_MAX_KEYS as usize {
                return Err(self.incapable(&format!("an index has 1 to {} columns", pg_sys::INDEX_MAX_KEYS)));
            }
            let (mut columns, mut keys) = (Vec::new(), Vec::new());
            let mut expressions: *mut pg_sys::List = std::ptr::null_mut();
            let mut reads: *mut pg_sys::Bitmapset = std::ptr::null_mut();
            let mut owner_may_run = true;
            for element in elements {
                let (mut column, expression) = self.column(element)?;
                let key = self.key(element, &column)?;
                column.returns = self.returns(&key, columns.is_empty());
                if !expression.is_null() {
                    expressions = pg_sys::lappend(expressions, expression.cast());
                    owner_may_run &= self.check_code(expression)?;
                    if mutable(pg_sys::copyObjectImpl(expression.cast()).cast()) {
                        return Err(self.incapable("functions in index expression must be marked IMMUTABLE"));
                    }
                    pg_sys::pull_varattnos(expression, 1, &mut reads);
                }
                columns.push(column);
                keys.push(key);
            }
            for element in include {
                if !(*element).expr.is_null() {
                    return Err(self.incapable("expressions are not supported in included columns"));
                }
                let (column, _) = self.column(element)?;
                // GiST and SP-GiST keep included columns as they are, as B-trees do (gistcanreturn, spgcanreturn).
                columns.push(IndexColumn { returns: true, ..column });
            }
            let predicate = (*self.stmt).whereClause;
            if !predicate.is_null() {
                owner_may_run &= self.check_code(predicate)?;
                if mutable(pg_sys::copyObjectImpl(predicate.cast()).cast()) {
                    return Err(self.incapable("functions in index predicate must be marked IMMUTABLE"));
                }
                pg_sys::pull_varattnos(predicate, 1, &mut reads);
            }
            let reads = self.readable(reads)?;
            let texts = node::list::<pg_sys::Node>(expressions).map(|e| self.sql(e)).collect();
            let predicate_text = (!predicate.is_null()).then(|| self.sql(predicate));
            let share = if predicate.is_null() { 1.0 } else { self.share(predicate)? };
            Ok(ResolvedIndex {
                table: RelId(self.table.to_u32()),
                method: self.method,
                am: self.am,
                columns,
                keys,
                expressions: (!expressions.is_null()).then(|| stored(prepared(expressions))),
                expression_texts: texts,
                predicate: (!predicate.is_null()).then(|| stored(implicit_ands(predicate))),
                predicate_text,
                share,
                reads,
                owner_may_run,
            })
        }
    }

    fn incapable(&self, message: &str) -> Error {
        Error::new(Kind::NotSupported, message)
    }

    /// The column or expression that an element names; null for a column.
    ///
    /// # Safety
    /// `element` is transformed.
    unsafe fn column(&self, element: *mut pg_sys::IndexElem) -> Result<(IndexColumn, *mut pg_sys::Node)> {
        // SAFETY: as in ComputeIndexAttrs: an element has a name or an expression; look-ups return 0 for what is not there.
        unsafe {
            let attnum = if (*element).expr.is_null() {
                let table = RelId(self.table.to_u32());
                let name = node::text((*element).name).unwrap_or_default();
                catalog::attribute(table, &name)?.ok_or_else(|| {
                    let shown = catalog::relation_name(table).unwrap_or_default();
                    let columns = catalog::column_names(table).join(", ");
                    Error::new(Kind::UndefinedColumn, format!("column \"{name}\" of relation \"{shown}\" does not exist"))
                        .hint(format!("Columns of the table are listed in pg_attribute: {columns}."))
                })?
            } else {
                // "(column)" and "(column COLLATE x)" are the column.
                let mut bare = (*element).expr;
                while let Some(collate) = node::cast::<pg_sys::CollateExpr>(bare, pg_sys::NodeTag::T_CollateExpr) {
                    bare = (*collate).arg.cast();
                }
                match node::cast::<pg_sys::Var>(bare, pg_sys::NodeTag::T_Var) {
                    Some(var) if (*var).varattno != 0 => {
                        let column = IndexColumn { attnum: (*var).varattno, ..described((*element).expr) };
                        return Ok((column, std::ptr::null_mut()));
                    }
                    _ => return Ok((described((*element).expr), bare)),
                }
            };
            let (type_oid, typmod, collation) = relinfo::column(self.table, attnum)
                .ok_or_else(|| Error::internal("a column vanished while its table was locked"))?;
            Ok((IndexColumn { attnum, type_oid, typmod, collation, returns: false }, std::ptr::null_mut()))
        }
    }

    /// How a key is compared.
    ///
    /// # Safety
    /// `element` is transformed.
    unsafe fn key(&self, element: *mut pg_sys::IndexElem, column: &IndexColumn) -> Result<IndexKey> {
        use pg_sys::{SortByDir as D, SortByNulls as N};
        // SAFETY: as in ComputeIndexAttrs: lists of names are null or as the parser made them.
        unsafe {
            if !(*element).opclassopts.is_null() {
                return Err(unsupported("parameters of an operator class").detail("Costs are those of the default parameters."));
            }
            let collation = if (*element).collation.is_null() {
                column.collation
            } else {
                pg_sys::get_collation_oid((*element).collation, false)
            };
            let collatable = pg_sys::type_is_collatable(column.type_oid);
            if collatable && collation == pg_sys::InvalidOid {
                return Err(Error::new(Kind::Syntax, "could not determine which collation to use for index expression")
                    .hint("Use the COLLATE clause to set the collation explicitly."));
            }
            if !collatable && collation != pg_sys::InvalidOid {
                let name = node::text(pg_sys::format_type_be(column.type_oid)).unwrap_or_default();
                return Err(Error::new(Kind::WrongObject, format!("collations are not supported by type {name}")));
            }
            let ordered = (*self.routine).amcanorder;
            let said = (*element).ordering != D::SORTBY_DEFAULT || (*element).nulls_ordering != N::SORTBY_NULLS_DEFAULT;
            if said && !ordered {
                let name = self.method.name();
                return Err(
                    self.incapable(&format!("access method \"{name}\" does not support ASC/DESC and NULLS FIRST/LAST options"))
                );
            }
            let opclass = self.opclass(element, column.type_oid)?;
            let descending = (*element).ordering == D::SORTBY_DESC;
            let nulls_first = match (*element).nulls_ordering {
                N::SORTBY_NULLS_FIRST => true,
                N::SORTBY_NULLS_LAST => false,
                _ => descending,
            };
            let default = pg_sys::GetDefaultOpClass(column.type_oid, self.am);
            Ok(IndexKey {
                opclass,
                family: pg_sys::get_opclass_family(opclass),
                input: pg_sys::get_opclass_input_type(opclass),
                collation,
                descending,
                nulls_first,
                opclass_name: (opclass != default).then(|| opclass_name(opclass)).flatten(),
            })
        }
    }

    /// The operator class that is named, or the default one.
    ///
    /// # Safety
    /// `element` is transformed.
    unsafe fn opclass(&self, element: *mut pg_sys::IndexElem, type_oid: pg_sys::Oid) -> Result<pg_sys::Oid> {
        // SAFETY: ResolveOpClass is what CREATE INDEX calls; it raises when there is none. The look-up without a name returns InvalidOid.
        unsafe {
            if (*element).opclass.is_null() && pg_sys::GetDefaultOpClass(type_oid, self.am) == pg_sys::InvalidOid {
                let what = match node::text((*element).name) {
                    Some(name) => format!("column \"{name}\""),
                    None => "the expression".to_owned(),
                };
                let type_name = node::text(pg_sys::format_type_be(type_oid)).unwrap_or_default();
                let method = self.method.name();
                return Err(self
                    .incapable(&format!("{what} cannot be the key of an index of access method {method}"))
                    .detail(format!("Type {type_name} has no default operator class for access method {method}."))
                    .hint("Name an operator class, as in CREATE INDEX ON articles USING gin (title gin_trgm_ops)."));
            }
            let method = CString::new(self.method.name()).unwrap_or_default();
            Ok(pg_sys::ResolveOpClass((*element).opclass, type_oid, method.as_ptr(), self.am))
        }
    }

    /// The access method can give the key's value back.
    fn returns(&self, key: &IndexKey, first: bool) -> bool {
        // SAFETY: catalog look-ups, InvalidOid for what is not there. The config function of an SP-GiST class takes these two structs
        // (spgist.h), whatever the class.
        unsafe {
            let function = |number| pg_sys::get_opfamily_proc(key.family, key.input, key.input, number);
            match self.method {
                AccessMethod::Btree => true,
                AccessMethod::Hash | AccessMethod::Gin | AccessMethod::Brin => false,
                AccessMethod::Gist => function(GIST_FETCH) != pg_sys::InvalidOid || function(GIST_COMPRESS) == pg_sys::InvalidOid,
                AccessMethod::Spgist => {
                    let config = function(SPGIST_CONFIG);
                    if !first || config == pg_sys::InvalidOid {
                        return !first;
                    }
                    let mut input = sys::SpgConfigIn { type_oid: key.input };
                    let mut out = sys::SpgConfigOut {
                        prefix: pg_sys::InvalidOid,
                        label: pg_sys::InvalidOid,
                        leaf: pg_sys::InvalidOid,
                        can_return_data: false,
                        long_values: false,
                    };
                    let datum = |p: *mut c_void| pg_sys::Datum::from(p);
                    pg_sys::OidFunctionCall2Coll(
                        config,
                        key.collation,
                        datum((&raw mut input).cast()),
                        datum((&raw mut out).cast()),
                    );
                    out.can_return_data
                }
            }
        }
    }

    /// Code in an expression that is neither the server's, a superuser's nor the role's own.
    ///
    /// # Safety
    /// `tree` is an analysed expression.
    unsafe fn foreign_code(&self, tree: *mut pg_sys::Node, role: pg_sys::Oid) -> Option<pg_sys::Oid> {
        let mut search = Foreign { role, function: None };
        // SAFETY: the walker calls back with nodes of the tree.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| visit_code(tree, (&raw mut search).cast())) };
        search.function
    }

    /// Refuses such code when the role did not write the statement itself. Says whether the table's owner may be made to run it.
    ///
    /// # Safety
    /// As above.
    unsafe fn check_code(&self, tree: *mut pg_sys::Node) -> Result<bool> {
        // SAFETY: as the caller promises.
        unsafe {
            if self.author == Author::Role {
                let owner = catalog::owner(RelId(self.table.to_u32()));
                return Ok(owner.is_some_and(|owner| self.foreign_code(tree, owner).is_none()));
            }
            let Some(function) = self.foreign_code(tree, self.role) else { return Ok(true) };
            let name = node::text(pg_sys::get_func_name(function)).unwrap_or_else(|| function.to_u32().to_string());
            Err(Error::new(Kind::Privilege, format!("function {name} may not be run to plan with a hypothetical index"))
                .detail("Its owner is neither a superuser nor the role that the index would be made for."))
        }
    }

    /// The columns that trees read, with their types; the role must be allowed to read them, since estimates tell of their values.
    ///
    /// # Safety
    /// `set` is as `pull_varattnos` makes it.
    unsafe fn readable(&self, set: *mut pg_sys::Bitmapset) -> Result<Vec<(AttNum, pg_sys::Oid)>> {
        let mut reads = Vec::new();
        // SAFETY: the members are attribute numbers, shifted to be positive (var.c); ACL look-ups of a locked table.
        unsafe {
            let whole = pg_sys::pg_class_aclcheck(self.table, self.role, pg_sys::ACL_SELECT) == pg_sys::AclResult::ACLCHECK_OK;
            for member in node::members(set) {
                let attnum = (member + pg_sys::FirstLowInvalidHeapAttributeNumber) as AttNum;
                if attnum <= 0 {
                    return Err(unsupported("an expression over whole rows or system columns"));
                }
                let allowed = || {
                    pg_sys::pg_attribute_aclcheck(self.table, attnum, self.role, pg_sys::ACL_SELECT)
                        == pg_sys::AclResult::ACLCHECK_OK
                };
                if !whole && !allowed() {
                    let name = node::text(pg_sys::get_rel_name(self.table)).unwrap_or_default();
                    return Err(Error::new(Kind::Privilege, format!("permission denied for table {name}"))
                        .detail("Estimates for an expression or a condition tell of the values in it."));
                }
                reads.push((attnum, pg_sys::get_atttype(self.table, attnum)));
            }
        }
        Ok(reads)
    }

    /// A tree in SQL. The text is evaluated as other roles, who would find other objects under the same names in the search path: a
    /// schema that they may not use is left out of it, and `$user` is another one.
    ///
    /// # Safety
    /// `tree` is an analysed expression over relation 1, the table.
    unsafe fn sql(&self, tree: *mut pg_sys::Node) -> String {
        // SAFETY: as pg_get_expr does it (ruleutils.c).
        unsafe {
            let _settings = deparse::spelling();
            let context = pg_sys::deparse_context_for(pg_sys::get_rel_name(self.table), self.table);
            node::text(pg_sys::deparse_expression(tree, context, false, false)).unwrap_or_default()
        }
    }

    /// Share of the table's rows that the planner expects to pass the condition, as the role sees them.
    ///
    /// # Safety
    /// `predicate` is an analysed condition over relation 1, the table.
    unsafe fn share(&self, predicate: *mut pg_sys::Node) -> Result<f64> {
        // SAFETY: the names are the server's, and quoted. The query has one relation, number 1, so that the condition fits as its WHERE
        // clause; the planner scribbles on its input, hence the copies.
        unsafe {
            let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(self.table));
            let name = pg_sys::quote_qualified_identifier(schema, pg_sys::get_rel_name(self.table));
            // The rows of a partitioned table are in its partitions.
            let from: &[u8] = if catalog::is_table(RelId(self.table.to_u32())) { b"SELECT FROM ONLY " } else { b"SELECT FROM " };
            let text = [from, CStr::from_ptr(name).to_bytes()].concat();
            let text = CString::new(text).map_err(|_| Error::internal("name contains a zero byte"))?;
            let query = analyse::analyse(&text, &[])?;
            let rows = |query: *mut pg_sys::Query| {
                let copy = pg_sys::copyObjectImpl(query.cast()).cast();
                let plan = pg_sys::planner(copy, text.as_ptr(), 0, std::ptr::null_mut());
                (*(*plan).planTree).plan_rows
            };
            let all = rows(query).max(1.0);
            (*(*query).jointree).quals = pg_sys::copyObjectImpl(predicate.cast()).cast();
            Ok((rows(query) / all).clamp(0.0, 1.0))
        }
    }
}

/// Type, type modifier and collation of an expression.
///
/// # Safety
/// `tree` is an analysed expression.
unsafe fn described(tree: *mut pg_sys::Node) -> IndexColumn {
    // SAFETY: reads the tree (nodeFuncs.c).
    unsafe {
        IndexColumn {
            attnum: 0,
            type_oid: pg_sys::exprType(tree),
            typmod: pg_sys::exprTypmod(tree),
            collation: pg_sys::exprCollation(tree),
            returns: false,
        }
    }
}

/// The table that the statement names.
///
/// # Safety
/// `stmt` is a raw IndexStmt.
unsafe fn relation(stmt: *mut pg_sys::IndexStmt) -> Result<pg_sys::Oid> {
    // SAFETY: the relation of a raw statement, when there is one, has a name.
    unsafe {
        let range = (*stmt).relation;
        if range.is_null() {
            return Err(not_an_index("It names no table.".to_owned()));
        }
        let name = node::text((*range).relname).unwrap_or_default();
        let shown = node::text((*range).schemaname).map_or_else(|| name.clone(), |schema| format!("{schema}.{name}"));
        let table = catalog::relation(node::text((*range).schemaname).as_deref(), &name)?.ok_or_else(|| {
            Error::new(Kind::UndefinedTable, format!("relation \"{shown}\" does not exist"))
                .hint("Write the table's schema before its name, or add it to search_path.")
        })?;
        if !catalog::is_table_or_partitioned(table) {
            return Err(Error::new(Kind::WrongObject, format!("\"{shown}\" is not a table"))
                .detail("Only tables and materialized views have indexes."));
        }
        Ok(pg_sys::Oid::from(table.0))
    }
}

/// Name of an operator class; `None` when it is gone.
///
/// # Safety
/// None beyond a running transaction.
unsafe fn opclass_name(opclass: pg_sys::Oid) -> Option<String> {
    // SAFETY: the cache's tuple has this form, and is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::CLAOID as i32, pg_sys::Datum::from(opclass));
        if tuple.is_null() {
            return None;
        }
        let name = node::text((*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_opclass>()).opcname.data.as_ptr());
        pg_sys::ReleaseSysCache(tuple);
        name
    }
}

/// The expressions as the relation cache prepares those of a real index (RelationGetIndexExpressions).
///
/// # Safety
/// `list` is a list of analysed expressions.
unsafe fn prepared(list: *mut pg_sys::List) -> *mut c_void {
    // SAFETY: on a copy, since folding constants scribbles.
    unsafe {
        let tree = pg_sys::eval_const_expressions(std::ptr::null_mut(), pg_sys::copyObjectImpl(list.cast()).cast());
        pg_sys::fix_opfuncids(tree);
        tree.cast()
    }
}

/// The condition as the relation cache prepares that of a real index (RelationGetIndexPredicate).
///
/// # Safety
/// `tree` is an analysed condition.
unsafe fn implicit_ands(tree: *mut pg_sys::Node) -> *mut c_void {
    // SAFETY: on a copy, since folding constants scribbles.
    unsafe {
        let tree = pg_sys::eval_const_expressions(std::ptr::null_mut(), pg_sys::copyObjectImpl(tree.cast()).cast());
        let list = pg_sys::make_ands_implicit(pg_sys::canonicalize_qual(tree.cast(), false));
        pg_sys::fix_opfuncids(list.cast());
        list.cast()
    }
}

/// A tree in the text form of the catalogs.
///
/// # Safety
/// `tree` is a live node.
unsafe fn stored(tree: *mut c_void) -> CString {
    // SAFETY: nodeToString returns a NUL-terminated text.
    unsafe { CStr::from_ptr(pg_sys::nodeToString(tree)).to_owned() }
}

/// What the walk over an expression looks for: code that may not run as the role.
struct Foreign {
    role: pg_sys::Oid,
    function: Option<pg_sys::Oid>,
}

/// # Safety
/// Called by the tree walkers, with null or a node. `context` is a [`Foreign`]. It owns nothing, so an error may jump across it.
#[pg_guard]
unsafe extern "C-unwind" fn visit_code(tree: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: as the tags say; the walkers call this function for everything below. Constraints of a domain are its owner's code.
    unsafe {
        if tree.is_null() {
            return false;
        }
        if let Some(domain) = node::cast::<pg_sys::CoerceToDomain>(tree, pg_sys::NodeTag::T_CoerceToDomain)
            && (*domain).resulttype.to_u32() >= FIRST_NORMAL_OID
        {
            (*context.cast::<Foreign>()).function = Some(pg_sys::Oid::from(pg_sys::F_DOMAIN_IN));
            return true;
        }
        pg_sys::check_functions_in_node(tree, Some(is_foreign), context)
            || compat::walk::expression_tree_walker(tree, visit_code, context)
    }
}

/// # Safety
/// Called by `check_functions_in_node` with the OID of a function that the node calls. `context` is a [`Foreign`].
#[pg_guard]
unsafe extern "C-unwind" fn is_foreign(function: pg_sys::Oid, context: *mut c_void) -> bool {
    // SAFETY: the context that the walk was given.
    let search = unsafe { &mut *context.cast::<Foreign>() };
    if !trust::may_run(function, search.role) {
        search.function = Some(function);
    }
    search.function.is_some()
}
