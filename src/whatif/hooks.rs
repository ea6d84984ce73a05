//! The planner hooks of what-if. They do nothing but for the planner call that a [`Session`] surrounds, and there only at nesting
//! depth 1: what immutable functions plan while it runs sees the database as it is.
//!
//! A session ends with its value, also while an error unwinds; the end of the transaction ends it in any case.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::{Hypothetical, harvest};
use crate::pg::error::{Error, Kind, Result};
use crate::pg::hook::Previous;
use crate::pg::shape::{self, Wanted};
use crate::pg::{relinfo, standard, trust, usage, visibility};
use indexpilot_core::profile::FieldUse;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// A session is running in this backend. All that the hooks look at otherwise.
static ACTIVE: AtomicBool = AtomicBool::new(false);
/// Planner calls that are running since the session began.
static DEPTH: AtomicU32 = AtomicU32::new(0);

static PLANNER: Previous<PlannerHook> = Previous::new();
static RELATION_INFO: Previous<RelationInfoHook> = Previous::new();
static REL_PATHLIST: Previous<RelPathlistHook> = Previous::new();
static INDEX_NAME: Previous<IndexNameHook> = Previous::new();
static INDEX_STATS: Previous<IndexStatsHook> = Previous::new();
static INSTALLED: AtomicBool = AtomicBool::new(false);

type PlannerHook = unsafe extern "C-unwind" fn(
    *mut pg_sys::Query,
    *const c_char,
    std::ffi::c_int,
    pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt;
type RelationInfoHook = unsafe extern "C-unwind" fn(*mut pg_sys::PlannerInfo, pg_sys::Oid, bool, *mut pg_sys::RelOptInfo);
type RelPathlistHook =
    unsafe extern "C-unwind" fn(*mut pg_sys::PlannerInfo, *mut pg_sys::RelOptInfo, pg_sys::Index, *mut pg_sys::RangeTblEntry);
type IndexStatsHook =
    unsafe extern "C-unwind" fn(*mut pg_sys::PlannerInfo, pg_sys::Oid, pg_sys::AttrNumber, *mut pg_sys::VariableStatData) -> bool;
type IndexNameHook = unsafe extern "C-unwind" fn(pg_sys::Oid) -> *const c_char;

/// An index that is to be planned with although it does not exist.
struct Injected {
    oid: pg_sys::Oid,
    index: Rc<Hypothetical>,
    /// The planner asked what scanning it would cost.
    considered: bool,
}

#[derive(Default)]
struct State {
    injected: Vec<Injected>,
    hidden: Vec<pg_sys::Oid>,
    /// Filled when the shape is asked for.
    relations: Option<Vec<Wanted>>,
    /// Filled when the use of fields is asked for too.
    fields: Option<Vec<FieldUse>>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State::default());
}

/// While it lives, planner calls of this backend at depth 1 see the database as it was told.
pub struct Session(());

impl Session {
    /// Plans with `with` added and `hide` taken away.
    ///
    /// # Errors
    /// `Prerequisite` when the hooks are not installed, `InUse` when a session is running.
    pub fn start(with: &[Rc<Hypothetical>], hide: &[pg_sys::Oid]) -> Result<Self> {
        let injected = with
            .iter()
            .zip(relinfo::fake_oids(with.len()))
            .map(|(index, oid)| Injected { oid, index: index.clone(), considered: false })
            .collect();
        Self::begin(State { injected, hidden: hide.to_vec(), ..State::default() })
    }

    /// Plans with the database as it is, and records what the query wants of each relation.
    ///
    /// # Errors
    /// As for [`Session::start`].
    pub fn record() -> Result<Self> {
        Self::begin(State { relations: Some(Vec::new()), ..State::default() })
    }

    /// As [`Session::record`], and records what the query uses each field for.
    ///
    /// # Errors
    /// As for [`Session::start`].
    pub fn record_fields() -> Result<Self> {
        Self::begin(State { relations: Some(Vec::new()), fields: Some(Vec::new()), ..State::default() })
    }

    fn begin(state: State) -> Result<Self> {
        if !INSTALLED.load(Relaxed) {
            return Err(Error::new(Kind::Prerequisite, "what-if planning is not available")
                .detail("The server was started with indexpilot.startup_bypass, so no planner hook is installed."));
        }
        if ACTIVE.load(Relaxed) {
            return Err(Error::new(Kind::InUse, "what-if planning is already running in this session")
                .detail("A function that is evaluated while a statement is planned called it again."));
        }
        STATE.set(state);
        DEPTH.store(0, Relaxed);
        ACTIVE.store(true, Relaxed);
        Ok(Session(()))
    }

    /// Positions in `with` of the indexes that have the given OIDs in the plan.
    pub fn positions(&self, oids: &[pg_sys::Oid]) -> Vec<usize> {
        STATE.with_borrow(|s| (0..s.injected.len()).filter(|i| oids.contains(&s.injected[*i].oid)).collect())
    }

    /// Position in `with` of the index that has the given OID.
    pub fn position(&self, oid: pg_sys::Oid) -> Option<usize> {
        STATE.with_borrow(|s| s.injected.iter().position(|i| i.oid == oid))
    }

    /// Positions in `with` of the indexes whose cost the planner asked for.
    pub fn considered(&self) -> Vec<usize> {
        STATE.with_borrow(|s| (0..s.injected.len()).filter(|i| s.injected[*i].considered).collect())
    }

    /// The names that the hypothetical indexes have in EXPLAIN.
    pub fn names(&self) -> Vec<String> {
        STATE.with_borrow(|s| s.injected.iter().map(|i| i.index.name.to_string_lossy().into_owned()).collect())
    }

    /// What was recorded.
    pub fn relations(self) -> Vec<Wanted> {
        self.recorded().0
    }

    /// What was recorded of relations and of fields.
    pub fn recorded(self) -> (Vec<Wanted>, Vec<FieldUse>) {
        STATE.with_borrow_mut(|s| (s.relations.take().unwrap_or_default(), s.fields.take().unwrap_or_default()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        reset();
    }
}

fn reset() {
    ACTIVE.store(false, Relaxed);
    DEPTH.store(0, Relaxed);
    STATE.take();
    harvest::end();
}

/// The planner call that a session surrounds is running, and none inside it.
pub(super) fn outermost() -> bool {
    ACTIVE.load(Relaxed) && DEPTH.load(Relaxed) == 1
}

/// Installs the hooks. Called once, from `_PG_init`.
pub fn init() {
    if INSTALLED.swap(true, Relaxed) {
        return;
    }
    trust::init();
    // SAFETY: the library is being loaded, nothing else runs. Hooks are variables of the server; the previous ones are kept and
    // called. The callback is a function, which stays.
    unsafe {
        if let Some(hook) = pg_sys::planner_hook {
            PLANNER.set(hook);
        }
        pg_sys::planner_hook = Some(planner);
        if let Some(hook) = pg_sys::get_relation_info_hook {
            RELATION_INFO.set(hook);
        }
        pg_sys::get_relation_info_hook = Some(relation_info);
        if let Some(hook) = pg_sys::set_rel_pathlist_hook {
            REL_PATHLIST.set(hook);
        }
        pg_sys::set_rel_pathlist_hook = Some(rel_pathlist);
        if let Some(hook) = pg_sys::explain_get_index_name_hook {
            INDEX_NAME.set(hook);
        }
        pg_sys::explain_get_index_name_hook = Some(index_name);
        if let Some(hook) = pg_sys::get_index_stats_hook {
            INDEX_STATS.set(hook);
        }
        pg_sys::get_index_stats_hook = Some(index_stats);
        pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut());
    }
}

/// One more planner call is running, until it is dropped.
struct Nested;

impl Nested {
    fn enter() -> Option<Self> {
        ACTIVE.load(Relaxed).then(|| {
            DEPTH.fetch_add(1, Relaxed);
            Nested
        })
    }
}

impl Drop for Nested {
    fn drop(&mut self) {
        // A transaction's end may have reset it in between; it never wraps.
        let _ = DEPTH.fetch_update(Relaxed, Relaxed, |d| Some(d.saturating_sub(1)));
    }
}

// The hooks themselves are not guarded: pgrx's guard rebuilds an error without its context, position and constraint. They own nothing,
// so an error of the server may jump across them. What happens in a session of ours is guarded.

unsafe extern "C-unwind" fn planner(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: std::ffi::c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: passes on what the server handed in.
    unsafe {
        match PLANNER.get() {
            _ if ACTIVE.load(Relaxed) => planner_in_session(query, text, options, params),
            Some(previous) => previous(query, text, options, params),
            None => standard::standard_planner(query, text, options, params),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn planner_in_session(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: std::ffi::c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    let _nested = Nested::enter();
    // SAFETY: passes on what the server handed in; errors come through the boundary as unwinding, which drops `_nested`.
    unsafe {
        match PLANNER.get() {
            Some(previous) => pg_sys::ffi::pg_guard_ffi_boundary(|| previous(query, text, options, params)),
            None => pg_sys::standard_planner(query, text, options, params),
        }
    }
}

unsafe extern "C-unwind" fn relation_info(
    root: *mut pg_sys::PlannerInfo,
    table: pg_sys::Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: passes on what the server handed in. First, so that other extensions never meet our OIDs here.
    unsafe {
        if let Some(previous) = RELATION_INFO.get() {
            previous(root, table, inhparent, rel);
        }
        if visibility::any() {
            visibility::hide_from(rel, table, ACTIVE.load(Relaxed));
        }
        if outermost() {
            change_indexes(root, table, inhparent, rel);
        }
    }
}

/// Adds the hypothetical indexes of a table, and of those that it is a partition of, and takes the hidden ones away.
#[pg_guard]
unsafe extern "C-unwind" fn change_indexes(
    root: *mut pg_sys::PlannerInfo,
    table: pg_sys::Oid,
    inhparent: bool,
    rel: *mut pg_sys::RelOptInfo,
) {
    // SAFETY: passes on what the server handed in.
    let standings = unsafe { relinfo::standings(root, rel, table) };
    let (hidden, injected) = STATE.with_borrow(|state| {
        let here = |i: &Injected| standings.iter().find(|s| s.table.to_u32() == i.index.def.table.0);
        let injected: Vec<_> = state.injected.iter().filter_map(|i| Some((i.oid, i.index.clone(), here(i)?))).collect();
        (state.hidden.clone(), injected)
    });
    // SAFETY: `rel` is the planner's relation for `table`; what is built lives in the planner's memory context, which is current.
    // Appended, so that a real index wins a tie.
    unsafe {
        if !hidden.is_empty() {
            relinfo::hide(rel, &hidden);
        }
        if inhparent || (*rel).rtekind != pg_sys::RTEKind::RTE_RELATION {
            return;
        }
        for (oid, index, at) in injected {
            let share = if at.is_part() { f64::from((*rel).pages) / index.table_pages } else { 1.0 };
            if let Some(info) = relinfo::hypothetical((root, rel), at, &index.index, (&index.size, share), oid, cost) {
                if index.only_statistics {
                    relinfo::make_unusable(info);
                }
                (*rel).indexlist = pg_sys::lappend((*rel).indexlist, info.cast());
            }
        }
    }
}

/// `amcostestimate` of a hypothetical index: its access method's own, noting that it was asked.
#[expect(clippy::too_many_arguments, reason = "the server's signature")]
#[pg_guard]
unsafe extern "C-unwind" fn cost(
    root: *mut pg_sys::PlannerInfo,
    path: *mut pg_sys::IndexPath,
    loops: f64,
    startup: *mut pg_sys::Cost,
    total: *mut pg_sys::Cost,
    selectivity: *mut pg_sys::Selectivity,
    correlation: *mut f64,
    pages: *mut f64,
) {
    // SAFETY: the path is being priced.
    unsafe { harvest::costed(path, loops) };
    // SAFETY: the path names its index.
    let (oid, of_part) = unsafe { ((*(*path).indexinfo).indexoid, (*(*path).indexinfo).pages) };
    let entry_pages = STATE.with_borrow_mut(|state| {
        let index = state.injected.iter_mut().find(|i| i.oid == oid)?;
        index.considered = true;
        Some(index.index.entry_pages? * (f64::from(of_part) / index.index.size.pages.max(1) as f64))
    });
    // SAFETY: passes on what the planner handed in.
    unsafe { relinfo::am_cost(entry_pages, root, path, loops, startup, total, selectivity, correlation, pages) };
}

unsafe extern "C-unwind" fn index_stats(
    root: *mut pg_sys::PlannerInfo,
    index: pg_sys::Oid,
    key: pg_sys::AttrNumber,
    found: *mut pg_sys::VariableStatData,
) -> bool {
    // SAFETY: passes on what the server handed in.
    unsafe {
        if outermost() && hypothetical_stats(root, index, key, found) {
            return true;
        }
        INDEX_STATS.get().is_some_and(|previous| previous(root, index, key, found))
    }
}

/// Statistics of an expression of a hypothetical index; false for any other index.
#[pg_guard]
unsafe extern "C-unwind" fn hypothetical_stats(
    root: *mut pg_sys::PlannerInfo,
    index: pg_sys::Oid,
    key: pg_sys::AttrNumber,
    found: *mut pg_sys::VariableStatData,
) -> bool {
    let Some(hypothetical) = STATE.with_borrow(|s| s.injected.iter().find(|i| i.oid == index).map(|i| i.index.clone())) else {
        return false;
    };
    // SAFETY: the arguments of this very hook.
    unsafe { relinfo::give_statistics(root, &hypothetical.index, hypothetical.statistics(key), found) };
    true
}

unsafe extern "C-unwind" fn rel_pathlist(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: passes on what the server handed in.
    unsafe {
        if let Some(previous) = REL_PATHLIST.get() {
            previous(root, rel, rti, rte);
        }
        if outermost() {
            read_relation(root, rel, rti, rte);
        }
    }
}

/// Notes how the query uses a relation, when that was asked for.
#[pg_guard]
unsafe extern "C-unwind" fn read_relation(
    root: *mut pg_sys::PlannerInfo,
    rel: *mut pg_sys::RelOptInfo,
    rti: pg_sys::Index,
    rte: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the arguments of this very hook.
    unsafe { harvest::relation(root, rel, rte) };
    let (relations, fields) = STATE.with_borrow(|s| (s.relations.is_some(), s.fields.is_some()));
    if !relations {
        return;
    }
    // SAFETY: the arguments of this very hook. The state is not borrowed meanwhile: reading selectivities can run functions.
    let (relation, uses) = unsafe {
        let uses = if fields { usage::read(root, rel, rti, rte) } else { Vec::new() };
        (shape::read(root, rel, rti, rte), uses)
    };
    STATE.with_borrow_mut(|s| {
        s.relations.get_or_insert_default().extend(relation);
        if let Some(all) = &mut s.fields {
            all.extend(uses);
        }
    });
}

unsafe extern "C-unwind" fn index_name(oid: pg_sys::Oid) -> *const c_char {
    // SAFETY: passes on what the server handed in; null means that nothing special is known of the index.
    unsafe {
        let ours = if ACTIVE.load(Relaxed) { hypothetical_name(oid) } else { std::ptr::null() };
        match INDEX_NAME.get() {
            _ if !ours.is_null() => ours,
            Some(previous) => previous(oid),
            None => std::ptr::null(),
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn hypothetical_name(oid: pg_sys::Oid) -> *const c_char {
    let ours = STATE.with_borrow(|s| s.injected.iter().find(|i| i.oid == oid).map(|i| i.index.name.clone()));
    // SAFETY: copies the name into the current memory context, as get_rel_name would.
    ours.map_or(std::ptr::null(), |name| unsafe { pg_sys::pstrdup(name.as_ptr()) })
}

// Not guarded, since every transaction ends here; what could fail is.
unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent as E;
    let over = matches!(
        event,
        E::XACT_EVENT_ABORT
            | E::XACT_EVENT_COMMIT
            | E::XACT_EVENT_PREPARE
            | E::XACT_EVENT_PARALLEL_ABORT
            | E::XACT_EVENT_PARALLEL_COMMIT
    );
    if over {
        trust::transaction_over();
        visibility::transaction_over();
        if ACTIVE.load(Relaxed) {
            end_session();
        }
    }
}

#[pg_guard]
extern "C-unwind" fn end_session() {
    reset();
}
