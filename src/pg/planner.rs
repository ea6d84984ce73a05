//! Planning a stored statement safely.
//!
//! Planning runs other people's code: immutable functions are executed, casts and row security policies are evaluated. So a
//! statement is planned as the role that ran it, restricted, read-only, with a time limit, and in a subtransaction that is always
//! rolled back, which also gives back every lock and setting. For a privileged role only superusers' code is run (see [`trust`]).
//! Nothing goes through the plan cache.

use super::error::{Error, Kind, Result};
use super::role::RoleScope;
use super::spi::SettingScope;
use super::time::TimeoutScope;
use super::{access, analyse, compat, encoding, node, query, setting, statement, subxact, trust};
use indexpilot_core::model::RelId;
use indexpilot_core::profile::FieldUse;
use indexpilot_core::tenant::TenantSource;
use pgrx::pg_sys;
use std::collections::{BTreeSet, HashSet};
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

pub use super::query::TenantKeys;

/// First OID of objects that users make (access/transam.h).
const FIRST_NORMAL_OID: u32 = 16384;
/// Number of the last parameter that a statement may have in the protocol.
const MAX_PARAMETERS: usize = 65_535;

/// One parameter (`$n`) of a stored statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its type; `InvalidOid` when it was not known.
    pub type_oid: pg_sys::Oid,
    /// Its value in text form; `None` is NULL when `known`.
    pub value: Option<String>,
    /// The value was captured. Otherwise the statement is planned for any value, as a generic plan is.
    pub known: bool,
}

/// A statement as it was run, with all that its plan depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub text: String,
    /// `search_path` in force, in the form of the setting.
    pub search_path: String,
    /// Role it ran as.
    pub role: pg_sys::Oid,
    pub parameters: Vec<Parameter>,
}

/// A statement that was parsed, analysed and rewritten; lives only inside [`with_statement`].
pub struct Prepared<'a> {
    query: *mut pg_sys::Query,
    text: &'a CStr,
    params: pg_sys::ParamListInfo,
}

/// What a statement is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// As in pg_stat_statements; 0 when the server computes none.
    pub queryid: u64,
    /// As in `workload.command`.
    pub command: &'static str,
    /// Base tables, ascending: no catalogs, no views, and of an inheritance tree only the parent.
    pub tables: Vec<u32>,
    /// It reads no table of a user.
    pub only_catalogs: bool,
}

/// A finished plan; lives only inside [`with_statement`].
pub struct Plan<'a> {
    stmt: *mut pg_sys::PlannedStmt,
    prepared: &'a Prepared<'a>,
}

/// Parses the sample and hands it to `f`; whatever happens is rolled back afterwards. Errors of the server come back as values,
/// except that a cancel and a termination go on upwards. `limit` bounds the whole, unless a statement timeout is running already.
///
/// # Errors
/// `NotSupported` when it is not one plannable statement; `UndefinedObject` when the role is gone; `Privilege` when a privileged role's
/// statement would run code of others; the server's own errors.
pub fn with_statement<T>(sample: &Sample, limit: Duration, f: impl FnOnce(&Prepared<'_>) -> Result<T>) -> Result<T> {
    let text =
        encoding::to_server(&sample.text).map_err(|_| Error::new(Kind::InvalidParameter, "statement contains a zero byte"))?;
    let path = encoding::to_server(&sample.search_path)
        .map_err(|_| Error::new(Kind::InvalidParameter, "search_path contains a zero byte"))?;
    if sample.parameters.len() > MAX_PARAMETERS {
        return Err(Error::new(Kind::InvalidParameter, "statement has too many parameters"));
    }
    restricted(sample.role, &path, limit, || {
        let query = analyse::analyse(&text, &sample.parameters)?;
        let prepared = Prepared { query, text: &text, params: bind(&sample.parameters) };
        f(&prepared)
    })
}

/// Runs `f` as `role`, restricted, read-only, with a time limit, names looked up in `path`, and without code of others when the role
/// is privileged; whatever happens is rolled back afterwards. What `f` allocates lives no longer.
///
/// # Errors
/// `UndefinedObject` when the role is gone; those of `f`, and the server's own.
pub(super) fn restricted<T>(role: pg_sys::Oid, path: &CStr, limit: Duration, f: impl FnOnce() -> Result<T>) -> Result<T> {
    // The closure owns nothing that an unwinding error could leave half changed: all of it is discarded.
    subxact::discard(AssertUnwindSafe(|| {
        let _arena = Arena::new();
        if !role_exists(role) {
            return Err(Error::new(Kind::UndefinedObject, format!("role with OID {} does not exist", role.to_u32()))
                .detail("The statement was captured as it ran under this role, which has been dropped since."));
        }
        // Workers switch policies off for themselves, which would make an error of every table that has some.
        let _settings =
            SettingScope::new(&[(c"search_path", path), (c"row_security", c"on"), (c"lock_timeout", c"100ms"), (c"geqo", c"off")]);
        // Hints in the text would bend the costs, and pg_hint_plan knows nothing of indexes that do not exist.
        const HINTS: &CStr = c"pg_hint_plan.enable_hint";
        let _hints = setting::exists(HINTS).then(|| SettingScope::new(&[(HINTS, c"off")]));
        let _trust = trust::Guard::new(role)?;
        let _role = RoleScope::new(role, true);
        let _timeout = TimeoutScope::new(limit);
        // SAFETY: makes the subtransaction read-only; its end restores what was (xact.c).
        unsafe { pg_sys::XactReadOnly = true };
        let _snapshot = Snapshot::new();
        f()
    }))
}

impl Prepared<'_> {
    /// Plans it, through every installed planner hook. What the role may not run has no plan, since its costs would tell of the data.
    /// Server errors are raised, and caught by [`with_statement`].
    pub fn plan(&self) -> Plan<'_> {
        // SAFETY: the planner scribbles on its input, hence the copy; query, text and parameters live in our arena.
        let stmt = unsafe {
            let copy = pg_sys::copyObjectImpl(self.query.cast()).cast();
            let stmt = pg_sys::planner(copy, self.text.as_ptr(), pg_sys::CURSOR_OPT_PARALLEL_OK as i32, self.params);
            compat::check_permissions(stmt);
            stmt
        };
        Plan { stmt, prepared: self }
    }

    /// Tables that the statement, or a data-modifying CTE of it, inserts into.
    pub fn insert_targets(&self) -> Vec<RelId> {
        // SAFETY: an analysed query.
        unsafe { query::insert_targets(self.query) }
    }

    /// Tables that the statement writes to, and the fields that it sets there.
    pub fn writes(&self) -> (Vec<RelId>, Vec<FieldUse>) {
        // SAFETY: an analysed and rewritten query.
        unsafe { query::writes(self.query) }
    }

    /// The value that names the tenant: one that a column of `keys` (by table) is compared with, or set to in a new row. `parameters`
    /// is the number of parameters that the statement was run with.
    pub fn tenant(&self, keys: &TenantKeys, parameters: usize) -> Option<TenantSource> {
        // SAFETY: an analysed query, and the text it was made from.
        unsafe { query::tenant(self.query, self.text.to_bytes(), keys, parameters) }
    }
}

impl Plan<'_> {
    /// Total cost of the plan's top node.
    pub fn cost(&self) -> f64 {
        // SAFETY: a finished plan has a top node.
        unsafe { (*(*self.stmt).planTree).total_cost }
    }

    /// What capture knows the statement by.
    pub fn identity(&self) -> Identity {
        // SAFETY: the lists of a finished plan hold nodes of these types (plannodes.h).
        unsafe {
            let plan = &*self.stmt;
            let children: HashSet<u32> = node::list::<pg_sys::AppendRelInfo>(plan.appendRelations)
                .filter(|child| (**child).parent_reloid != pg_sys::InvalidOid)
                .map(|child| (*child).child_relid)
                .collect();
            let tables: BTreeSet<u32> = node::list::<pg_sys::RangeTblEntry>(plan.rtable)
                .zip(1..)
                .filter(|(entry, at)| {
                    (**entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                        && (**entry).relkind as u8 != pg_sys::RELKIND_VIEW
                        && !children.contains(at)
                })
                .map(|(entry, _)| (*entry).relid.to_u32())
                .collect();
            Identity {
                queryid: compat::query_id(plan),
                command: statement::command_name(plan.commandType),
                only_catalogs: tables.iter().all(|oid| *oid < FIRST_NORMAL_OID),
                tables: tables.into_iter().filter(|oid| *oid >= FIRST_NORMAL_OID).collect(),
            }
        }
    }

    /// OIDs of the indexes it scans, each once.
    pub fn indexes(&self) -> Vec<pg_sys::Oid> {
        // SAFETY: a finished plan.
        unsafe { node::scanned_indexes(self.stmt) }
    }

    /// Every relation that it depends on, views and children too.
    pub fn relations(&self) -> Vec<u32> {
        // SAFETY: a finished plan has a list of OIDs, or null.
        unsafe {
            let Some(list) = (*self.stmt).relationOids.as_ref() else { return Vec::new() };
            (0..list.length as usize).map(|i| (*list.elements.add(i)).oid_value.to_u32()).collect()
        }
    }

    /// Its scans, with how often each is run.
    pub fn leaves(&self) -> Vec<access::Leaf> {
        // SAFETY: a finished plan.
        unsafe { access::leaves(self.stmt) }
    }

    /// The plan as EXPLAIN shows it.
    pub fn explain(&self) -> String {
        // SAFETY: EXPLAIN starts the executor in a mode that opens no index and reads no table; a snapshot is active.
        unsafe {
            let state = pg_sys::NewExplainState();
            (*state).costs = true;
            pg_sys::ExplainBeginOutput(state);
            compat::explain_one_plan(self.stmt, state, self.prepared.text, self.prepared.params);
            pg_sys::ExplainEndOutput(state);
            node::text((*(*state).str_).data).unwrap_or_default().trim_end().to_owned()
        }
    }
}

/// `search_path` of the session, in the form of the setting.
pub fn search_path() -> String {
    // SAFETY: the string variable behind the setting (namespace.c) is never NULL after start.
    unsafe { CStr::from_ptr(pg_sys::namespace_search_path) }.to_string_lossy().into_owned()
}

/// The captured values, as a custom plan gets them. Values of types that users made are left out: their input functions are
/// users' code. Those parameters, and unknown ones, stay parameters.
fn bind(parameters: &[Parameter]) -> pg_sys::ParamListInfo {
    let usable = |p: &Parameter| p.known && p.type_oid != pg_sys::InvalidOid && p.type_oid.to_u32() < FIRST_NORMAL_OID;
    if !parameters.iter().any(usable) {
        return std::ptr::null_mut();
    }
    // SAFETY: makeParamList allocates room for that many; an invalid ptype makes the planner leave the parameter as it is
    // (eval_const_expressions). Input functions get a NUL-terminated copy.
    unsafe {
        let list = pg_sys::makeParamList(parameters.len() as i32);
        let slots = (*list).params.as_mut_ptr();
        for (i, parameter) in parameters.iter().enumerate() {
            let slot = &mut *slots.add(i);
            *slot = pg_sys::ParamExternData {
                value: pg_sys::Datum::from(0usize),
                isnull: true,
                pflags: pg_sys::PARAM_FLAG_CONST as u16,
                ptype: pg_sys::InvalidOid,
            };
            if !usable(parameter) {
                continue;
            }
            slot.ptype = parameter.type_oid;
            if let Some(value) = parameter.value.as_deref().and_then(|v| encoding::to_server(v).ok()) {
                let (mut input, mut io_param) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
                pg_sys::getTypeInputInfo(parameter.type_oid, &mut input, &mut io_param);
                slot.value = pg_sys::OidInputFunctionCall(input, value.as_ptr().cast_mut(), io_param, -1);
                slot.isnull = false;
            }
        }
        list
    }
}

fn role_exists(role: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup that returns null for an unknown role when told not to raise.
    role != pg_sys::InvalidOid && !unsafe { pg_sys::GetUserNameFromId(role, true) }.is_null()
}

/// Memory of one planning. After an error it goes with the subtransaction's memory, of which it is a child.
struct Arena {
    own: pg_sys::MemoryContext,
    callers: pg_sys::MemoryContext,
}

impl Arena {
    fn new() -> Self {
        // SAFETY: creates a context below the running subtransaction's; the name is a constant.
        unsafe {
            let own = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurTransactionContext,
                c"IndexPilot what-if".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            Arena { own, callers: pg_sys::MemoryContextSwitchTo(own) }
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: switches back before the context is deleted; nothing of it is used any more.
            unsafe {
                pg_sys::MemoryContextSwitchTo(self.callers);
                pg_sys::MemoryContextDelete(self.own);
            }
        }
    }
}

/// An active snapshot; after an error the aborting (sub)transaction pops it.
pub struct Snapshot;

impl Snapshot {
    pub fn new() -> Self {
        // SAFETY: the (sub)transaction runs inside a transaction, so a snapshot can be taken.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Snapshot
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: pops what new() pushed.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
