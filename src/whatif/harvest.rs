//! The prices of all scans of a query, taken from one planner call.
//!
//! While it prices, the planner asks every index what a scan would cost. A harvest notes each answer before the planner drops all but
//! the cheapest. With [`Harvest::prices_only`] the joins are not searched: they are what makes planning with many indexes slow.
//!
//! # Safety
//! As in [`super::hooks`], which calls the functions here.

use super::hooks;
use crate::pg::access::{self, Costed, Scan};
use crate::pg::node;
use pgrx::{pg_guard, pg_sys};
use std::cell::RefCell;

#[derive(Default)]
struct State {
    /// Asked for, and not yet read, since their costs are filled in later.
    costed: Vec<Costed>,
    /// The scans of a relation are being read, which prices some of them once more.
    reading: bool,
    /// The scans of each relation, in the order in which the planner comes to them.
    relations: Vec<Vec<Scan>>,
    /// The join search was replaced; what it was before.
    joins: Option<pg_sys::join_search_hook_type>,
}

thread_local! {
    static STATE: RefCell<Option<State>> = const { RefCell::new(None) };
}

/// While it lives, the scans of the planner calls of its session are noted.
pub struct Harvest<'a>(&'a hooks::Session);

impl<'a> Harvest<'a> {
    /// Notes the scans of a complete planner call.
    pub fn start(session: &'a hooks::Session) -> Self {
        STATE.set(Some(State::default()));
        Harvest(session)
    }

    /// Notes the scans, and has the planner join what is cheapest alone: its plan means nothing.
    pub fn prices_only(session: &'a hooks::Session) -> Self {
        // SAFETY: the hook is a variable of the server, read and set by its one thread; `end` puts it back, also after an error.
        let before = unsafe {
            let before = pg_sys::join_search_hook;
            pg_sys::join_search_hook = Some(join_search);
            before
        };
        STATE.set(Some(State { joins: Some(before), ..State::default() }));
        Harvest(session)
    }

    /// The scans of each relation of the query, in the order in which the planner came to them.
    pub fn relations(self) -> Vec<Vec<Scan>> {
        let _ = self.0;
        STATE.with_borrow_mut(|s| s.as_mut().map(|s| std::mem::take(&mut s.relations)).unwrap_or_default())
    }
}

impl Drop for Harvest<'_> {
    fn drop(&mut self) {
        end();
    }
}

/// Stops noting; called at the end of every session.
pub(super) fn end() {
    if let Some(State { joins: Some(before), .. }) = STATE.take() {
        // SAFETY: as in `prices_only`.
        unsafe { pg_sys::join_search_hook = before };
    }
}

/// The planner asks an index for the cost of a path.
///
/// # Safety
/// `path` is being priced in this very planner call.
pub(super) unsafe fn costed(path: *mut pg_sys::IndexPath, loops: f64) {
    STATE.with_borrow_mut(|s| {
        if let Some(state) = s.as_mut().filter(|s| !s.reading) {
            // SAFETY: the list holds no twins, and paths of this relation only, since it is emptied with each.
            let twin = state.costed.last().is_some_and(|(before, _)| unsafe { access::is_twin(path, *before) });
            if !twin {
                state.costed.push((path, loops));
            }
        }
    });
}

/// All paths of a relation have been made.
///
/// # Safety
/// The arguments are those of `set_rel_pathlist_hook`.
pub(super) unsafe fn relation(root: *mut pg_sys::PlannerInfo, rel: *mut pg_sys::RelOptInfo, rte: *mut pg_sys::RangeTblEntry) {
    let take = |s: &mut State| {
        s.reading = true;
        std::mem::take(&mut s.costed)
    };
    let Some(costed) = STATE.with_borrow_mut(|s| s.as_mut().map(take)) else { return };
    // SAFETY: the planner's own state for this relation.
    unsafe {
        if (*rte).rtekind == pg_sys::RTEKind::RTE_RELATION && !(*rte).inh {
            let scans = access::scans(root, rel, (*rte).relid, &costed);
            STATE.with_borrow_mut(|s| {
                if let Some(state) = s {
                    state.relations.push(scans);
                }
            });
        }
    }
    STATE.with_borrow_mut(|s| {
        if let Some(state) = s {
            state.reading = false;
        }
    });
}

/// Joins relations by their cheapest paths alone.
#[pg_guard]
unsafe extern "C-unwind" fn join_search(
    root: *mut pg_sys::PlannerInfo,
    levels: std::ffi::c_int,
    relations: *mut pg_sys::List,
) -> *mut pg_sys::RelOptInfo {
    // SAFETY: the arguments are those of the hook: relations that have their paths and whose cheapest ones are set. What depends on
    // other relations by LATERAL keeps its paths.
    unsafe {
        if hooks::outermost() {
            for rel in node::list::<pg_sys::RelOptInfo>(relations) {
                let cheapest = (*rel).cheapest_total_path;
                if (*rel).lateral_relids.is_null() && !cheapest.is_null() && (*cheapest).param_info.is_null() {
                    let alone = || pg_sys::lappend(std::ptr::null_mut(), cheapest.cast());
                    (*rel).pathlist = alone();
                    (*rel).cheapest_parameterized_paths = alone();
                    (*rel).cheapest_startup_path = cheapest;
                    (*rel).partial_pathlist = std::ptr::null_mut();
                }
            }
        }
        pg_sys::standard_join_search(root, levels, relations)
    }
}
