//! The hooks. Each calls the one before it in the chain, or the server's own function, in every case, exactly once.
//!
//! # Errors pass through untouched
//! What a hook calls may raise, and then jumps past it to whoever catches. So these hooks own nothing, are not guarded by pgrx (whose
//! guards would raise a new error that lacks context lines, position and constraint names), and set no jump point of their own: what
//! an error leaves behind, the callbacks for aborted (sub)transactions put right (`backend.rs`), because whoever catches an error of
//! the server rolls one back. Code of our own runs inside [`quiet`], from which nothing escapes.
//!
//! # Nesting
//! The depth counts calls of the planner, the executor and utility commands within one another, as in pg_stat_statements; commands
//! that only plan, run or continue a query of the client's own (EXECUTE, COPY, …) do not count. A statement at depth zero with the
//! text of the active portal was sent by a client. Others ran inside functions, triggers, DO blocks and procedures, or without an
//! active portal: deferred triggers, workers.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::backend::{self, Begun, Memo, Wanted};
use super::entry::{Key, Template};
use super::local::Execution;
use super::sample::{MAX_PARAMETERS, MAX_PATH, MAX_TEXT, MAX_VALUE, Message, Refused, Ring, Use};
use super::table::Table;
use super::{databases, tenants, uses};
use crate::guc;
use crate::pg::compat::{self, RunArgs};
use crate::pg::single::Single;
use crate::pg::statement::{self, Extent, Relations, Value};
use crate::pg::{standard, variables, visibility};
use indexpilot_core::tenant::TenantSource;
use indexpilot_core::workload::relations_hash;
use indexpilot_core::{literal, template};
use pgrx::pg_sys;
use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Default)]
struct Previous {
    analysed: pg_sys::post_parse_analyze_hook_type,
    planner: pg_sys::planner_hook_type,
    start: pg_sys::ExecutorStart_hook_type,
    run: pg_sys::ExecutorRun_hook_type,
    finish: pg_sys::ExecutorFinish_hook_type,
    end: pg_sys::ExecutorEnd_hook_type,
    utility: pg_sys::ProcessUtility_hook_type,
}

struct Chain(UnsafeCell<Previous>);
// SAFETY: written once, in init(), by the postmaster, which has one thread; only read afterwards.
unsafe impl Sync for Chain {}

static PREVIOUS: Chain = Chain(UnsafeCell::new(Previous {
    analysed: None,
    planner: None,
    start: None,
    run: None,
    finish: None,
    end: None,
    utility: None,
}));

#[inline]
fn previous() -> &'static Previous {
    // SAFETY: nobody writes any more when hooks are called.
    unsafe { &*PREVIOUS.0.get() }
}

/// Installs the hooks. From `_PG_init` of a preloaded library.
pub fn init() {
    // SAFETY: hook variables of the postmaster, read and written while it loads libraries, one after the other; the callbacks are
    // functions of this library, which is never unloaded.
    unsafe {
        *PREVIOUS.0.get() = Previous {
            analysed: pg_sys::post_parse_analyze_hook,
            planner: pg_sys::planner_hook,
            start: pg_sys::ExecutorStart_hook,
            run: pg_sys::ExecutorRun_hook,
            finish: pg_sys::ExecutorFinish_hook,
            end: pg_sys::ExecutorEnd_hook,
            utility: pg_sys::ProcessUtility_hook,
        };
        pg_sys::post_parse_analyze_hook = Some(analysed);
        pg_sys::planner_hook = Some(planner);
        pg_sys::ExecutorStart_hook = Some(executor_start);
        pg_sys::ExecutorRun_hook = Some(executor_run);
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        pg_sys::ExecutorEnd_hook = Some(executor_end);
        pg_sys::ProcessUtility_hook = Some(process_utility);
        pg_sys::RegisterXactCallback(Some(transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction), std::ptr::null_mut());
    }
}

/// Code of our own: whatever goes wrong in it stays in it.
#[inline]
fn quiet(f: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(f)).is_err() {
        backend::failure();
    }
}

/// How deep the server is in functions, when what begins here is captured.
#[inline]
fn captured() -> Option<u32> {
    // SAFETY: reads variables of the backend.
    let (worker, database) = unsafe { (pg_sys::ParallelWorkerNumber, pg_sys::MyDatabaseId) };
    if worker >= 0 { None } else { backend::depth(database.to_u32()) }
}

#[inline]
fn no_portal() -> bool {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::ActivePortal.is_null() }
}

/// Gives the statement an identifier, unless the server or another extension has: the documented way for those who find the server's
/// own too costly (`compute_query_id`). With compute_query_id = off it gets none.
unsafe extern "C-unwind" fn analysed(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query, jumble: *mut pg_sys::JumbleState) {
    // SAFETY: the arguments go on as they came; the text is the one that was parsed.
    unsafe {
        if let Some(hook) = previous().analysed {
            hook(state, query, jumble);
        }
        if compat::parsed_query_id(&*query) == 0
            && (*query).commandType != pg_sys::CmdType::CMD_UTILITY
            && databases::captured_here(pg_sys::MyDatabaseId.to_u32())
        {
            quiet(|| {
                if let Some(id) =
                    identify((*state).p_sourcetext, Extent { location: (*query).stmt_location, length: (*query).stmt_len })
                {
                    compat::set_parsed_query_id(&mut *query, id);
                }
            });
        }
    }
}

/// Identifier of a statement that has none.
unsafe fn identify(text: *const c_char, extent: Extent) -> Option<u64> {
    // SAFETY: NULL or NUL-terminated.
    unsafe {
        if pg_sys::compute_query_id as u32 == pg_sys::ComputeQueryIdType::COMPUTE_QUERY_ID_OFF {
            return None;
        }
        let text = statement::part(text, extent.location, extent.length)?;
        (!text.is_empty()).then(|| template::identify(text))
    }
}

/// The query is the active portal's own, which a client opened: it has the portal's text. What runs below it, through SPI or in a SQL
/// function, has texts of its own, wherever it is called from.
#[inline]
unsafe fn portals_own(query: *const pg_sys::QueryDesc) -> bool {
    // SAFETY: a live portal, whose text is that of the QueryDesc that the server makes for it (pquery.c).
    unsafe {
        let Some(portal) = pg_sys::ActivePortal.as_ref() else { return false };
        // While a command runs, event triggers may open cursors; EXECUTE in it runs in a portal that nobody sees.
        let around = PORTAL.with(|p| *p).unwrap_or(0);
        std::ptr::eq(portal.sourceText, (*query).sourceText)
            && (around == 0 || around == pg_sys::ActivePortal.addr() || !portal.visible)
    }
}

unsafe extern "C-unwind" fn planner(
    parse: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the query is read before the planner scribbles on it; the arguments go on as they came.
    unsafe {
        if backend::inside() && captured().is_some() {
            find_variables(parse, text);
        }
        backend::nest(true);
        let plan = match previous().planner {
            Some(hook) => hook(parse, text, options, params),
            None => standard::standard_planner(parse, text, options, params),
        };
        backend::nest(false);
        plan
    }
}

/// Remembers where the variables of a function's statement stand in its text.
#[cold]
unsafe fn find_variables(parse: *mut pg_sys::Query, text: *const c_char) {
    // SAFETY: an analysed query and its text. The walk is not inside quiet(): an error of the server goes the way of all errors.
    unsafe {
        let id = match compat::parsed_query_id(&*parse) {
            0 => identify(text, command_extent()).unwrap_or(0),
            id => id,
        };
        let hash = statement::hash(text);
        if id != 0 && !uses::known(id, hash) {
            uses::remember(&variables::find(parse, id), hash);
        }
    }
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    let mut begun = None;
    if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0
        && let Some(depth) = captured()
    {
        // SAFETY: the query was made by CreateQueryDesc: it has its plan, text and parameters.
        quiet(|| begun = unsafe { begin(query, depth > 0 || !portals_own(query)) });
    }
    if begun.is_none() {
        backend::nobody_is(query.addr());
    }
    // Functions run in it, to choose among partitions.
    backend::nest(true);
    // SAFETY: the arguments go on as they came.
    unsafe {
        match previous().start {
            Some(hook) => hook(query, flags),
            None => standard::standard_ExecutorStart(query, flags),
        }
        backend::nest(false);
        let Some(sample) = begun else { return };
        if statement::temporary_tables_used() && statement::uses_temporary_table(query) {
            backend::forget(query.addr());
        } else if sample {
            quiet(|| first_sample(query));
        }
    }
}

/// Notes that the statement begins; `None` when it is not tracked, true when a sample of it is wanted now.
#[inline]
unsafe fn begin(query: *mut pg_sys::QueryDesc, nested: bool) -> Option<bool> {
    // SAFETY: as above.
    unsafe {
        let plan = (*query).plannedstmt.as_ref()?;
        let mut queryid = compat::query_id(plan);
        let mut extent = Extent { location: plan.stmt_location, length: plan.stmt_len };
        if queryid == 0 {
            if extent.length <= 0 {
                extent = command_extent();
            }
            queryid = unidentified(query, extent)?;
        }
        let (role, cost) = (statement::current_role(), (*plan.planTree).total_cost);
        let running = Begun { id: query.addr(), subtransaction: statement::current_subtransaction(), planner_cost: cost, extent };
        // A statement that was met before is known by what is at hand.
        let arm = visibility::arm();
        let memo = match !nested && !guc::has_tenant() && arm == 0 {
            true => statement::dependencies(plan).map(|dependencies| Memo { queryid, role, dependencies }),
            false => None,
        };
        if let Some(memo) = &memo
            && let Some(sample) = backend::start_again(&running, memo)
        {
            return Some(sample);
        }
        let Relations { oids, count, truncated } = statement::relations(plan)?;
        let relations_hash = relations_hash(oids.get(..count as usize).unwrap_or_default());
        let template = Template { command: plan.commandType, relations: oids, relation_count: count, truncated };
        let database = pg_sys::MyDatabaseId.to_u32();
        let mut key = Key { database, role, queryid, relations_hash, nested, arm: arm as u8, ..Key::EMPTY };
        if guc::has_tenant() {
            key.tenant_len = guc::tenant_bytes(&mut key.tenant) as u8;
        } else if nested {
            backend::outer_tenant(&mut key);
        } else if let Some(source) = tenants::lookup(database, queryid, relations_hash) {
            tenant_of(query, extent, source, &mut key);
        }
        // What the tenant was is not known from the memo.
        backend::start(&running, &key, &template, memo.filter(|_| key.tenant_len == 0))
    }
}

/// The query inside DECLARE CURSOR, CREATE TABLE AS and REFRESH has no identifier of its own before version 18, nor a place in the text:
/// it has the command's.
#[cold]
unsafe fn unidentified(query: *const pg_sys::QueryDesc, extent: Extent) -> Option<u64> {
    // SAFETY: as above.
    unsafe {
        if pg_sys::compute_query_id as u32 == pg_sys::ComputeQueryIdType::COMPUTE_QUERY_ID_OFF {
            backend::without_queryid();
        }
        identify((*query).sourceText, extent)
    }
}

/// The utility command that contains the query which is planned or started now.
static COMMAND: Single<Extent> = Single::new(Extent::ALL);

/// Address of the portal of the CREATE TABLE AS or REFRESH that runs now; 0 when there is none.
static PORTAL: Single<usize> = Single::new(0);

/// Whatever command it was, an error has ended it.
fn no_command() {
    PORTAL.with(|p| *p = 0);
    COMMAND.with(|e| *e = Extent::ALL);
}

fn command_extent() -> Extent {
    COMMAND.with(|e| *e).unwrap_or(Extent::ALL)
}

/// The tenant that the statement itself names: learned from its template, read from its parameters or its text.
#[cold]
unsafe fn tenant_of(query: *mut pg_sys::QueryDesc, extent: Extent, source: TenantSource, key: &mut Key) {
    // SAFETY: as above; without fetching, since the statement is a client's own.
    unsafe {
        key.tenant_len = match source {
            TenantSource::Parameter(number) => match statement::parameter(query, number as usize, &mut key.tenant).1 {
                Value::Text(length) => length as u8,
                _ => 0,
            },
            TenantSource::Literal(number) => {
                let Some((text, _)) = statement::text(query, extent, MAX_TEXT) else { return };
                let Some(tenant) = literal::compared(text, number).filter(|t| t.len() <= key.tenant.len()) else { return };
                for (to, from) in key.tenant.iter_mut().zip(tenant.iter()) {
                    *to = *from;
                }
                tenant.len() as u8
            }
        };
    }
}

// SAFETY: the body follows; ExecutorRun has one argument less from version 18 on.
compat::executor_run_hook!(executor_run, run);

unsafe fn run(query: *mut pg_sys::QueryDesc, args: RunArgs) {
    // SAFETY: the arguments go on as they came; es_processed counts the rows of this run; usage counters are the backend's own.
    unsafe {
        let before = Usage::now();
        let mut tracked = false;
        quiet(|| tracked = backend::resume(query.addr()));
        compat::executor_run(previous().run, query, args);
        let rows = if tracked { (*query).estate.as_ref().map_or(0, |e| e.es_processed) } else { 0 };
        quiet(|| after(query, tracked, before, rows));
    }
}

unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the argument goes on as it came.
    unsafe {
        // Only triggers and data-modifying WITH queries have something left to do.
        if (*query).operation == pg_sys::CmdType::CMD_SELECT && !(*(*query).plannedstmt).hasModifyingCTE {
            return finish(query);
        }
        let before = Usage::now();
        let mut tracked = false;
        quiet(|| tracked = backend::resume(query.addr()));
        finish(query);
        quiet(|| after(query, tracked, before, 0));
    }
}

#[inline]
unsafe fn finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the argument goes on as it came.
    unsafe {
        match previous().finish {
            Some(hook) => hook(query),
            None => standard::standard_ExecutorFinish(query),
        }
    }
}

/// Buffer and WAL usage of this process so far.
#[derive(Clone, Copy)]
struct Usage {
    hit: i64,
    read: i64,
    temp: i64,
    wal: u64,
}

impl Usage {
    #[inline]
    fn now() -> Usage {
        // SAFETY: reads variables of the backend.
        unsafe {
            let b = &raw const pg_sys::pgBufferUsage;
            Usage {
                hit: (*b).shared_blks_hit,
                read: (*b).shared_blks_read,
                temp: (*b).temp_blks_read.wrapping_add((*b).temp_blks_written),
                wal: pg_sys::pgWalUsage.wal_bytes,
            }
        }
    }
}

/// A part of a statement is over: adds up what it cost.
#[inline]
fn after(query: *mut pg_sys::QueryDesc, tracked: bool, before: Usage, rows: u64) {
    if !tracked {
        return backend::nest(false);
    }
    let now = Usage::now();
    // Counters of this process that only grow.
    let grown = |after: i64, before: i64| after.wrapping_sub(before) as u64;
    let cost = Execution {
        failed: false,
        ns: 0,
        rows,
        planner_cost: 0.0,
        blocks_hit: grown(now.hit, before.hit),
        blocks_read: grown(now.read, before.read),
        blocks_temp: grown(now.temp, before.temp),
        wal_bytes: now.wal.wrapping_sub(before.wal),
    };
    backend::pause(query.addr(), &cost);
}

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the query is still complete: the server's ExecutorEnd comes after this. The argument goes on as it came.
    unsafe {
        quiet(|| {
            if let Some(over) = backend::end(query.addr()) {
                keep_sample(query, &over);
            }
        });
        match previous().end {
            Some(hook) => hook(query),
            None => standard::standard_ExecutorEnd(query),
        }
    }
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: the statement is read before the call only (ROLLBACK frees it); the arguments go on as they came.
    unsafe {
        let kind = kind((*statement).utilityStmt);
        let around = if kind == Kind::Query { None } else { begin_command(kind, statement) };
        match previous().utility {
            Some(hook) => hook(statement, text, read_only_tree, context, params, environment, destination, completion),
            None => standard::standard_ProcessUtility(
                statement,
                text,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            ),
        }
        if kind != Kind::Query {
            end_command(kind, around);
        }
    }
}

/// Notes the command; what was noted of the one around it, if it contains a query.
unsafe fn begin_command(kind: Kind, statement: *const pg_sys::PlannedStmt) -> Option<(Extent, usize)> {
    match kind {
        Kind::Explain => backend::explain(true),
        Kind::Contains => {
            let around = (command_extent(), PORTAL.with(|p| *p).unwrap_or(0));
            // SAFETY: as above.
            unsafe {
                COMMAND.with(|e| *e = Extent { location: (*statement).stmt_location, length: (*statement).stmt_len });
                // DECLARE makes a portal of its own, and fires no event triggers.
                let declares = (*(*statement).utilityStmt).type_ == pg_sys::NodeTag::T_DeclareCursorStmt;
                PORTAL.with(|p| *p = if declares { 0 } else { pg_sys::ActivePortal.addr() });
            }
            return Some(around);
        }
        _ => backend::nest(true),
    }
    None
}

fn end_command(kind: Kind, around: Option<(Extent, usize)>) {
    match (kind, around) {
        (Kind::Explain, _) => backend::explain(false),
        (Kind::Contains, Some((extent, portal))) => {
            COMMAND.with(|e| *e = extent);
            PORTAL.with(|p| *p = portal);
        }
        _ => backend::nest(false),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It only plans, runs or continues a query of the client's, and executes nothing else.
    Query,
    /// The same, of a query that has no place of its own in the text.
    Contains,
    Explain,
    Other,
}

unsafe fn kind(command: *mut pg_sys::Node) -> Kind {
    use pg_sys::NodeTag::*;
    // SAFETY: NULL or a parse node, whose tag says which structure it is.
    unsafe {
        match command.as_ref().map(|n| n.type_) {
            Some(T_ExecuteStmt | T_PrepareStmt | T_FetchStmt | T_ClosePortalStmt) => Kind::Query,
            Some(T_CreateTableAsStmt | T_DeclareCursorStmt | T_RefreshMatViewStmt) => Kind::Contains,
            Some(T_CopyStmt) => {
                let copy = command.cast::<pg_sys::CopyStmt>();
                if !(*copy).is_from && !(*copy).query.is_null() { Kind::Query } else { Kind::Other }
            }
            Some(T_ExplainStmt) => Kind::Explain,
            _ => Kind::Other,
        }
    }
}

unsafe extern "C-unwind" fn transaction(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    use pg_sys::XactEvent::*;
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) {
        // A procedure commits and rolls back under the portal of its CALL; an error has left all portals when it gets here.
        quiet(|| {
            backend::end_transaction(no_portal());
            if event == XACT_EVENT_ABORT {
                no_command();
            }
        });
    }
}

unsafe extern "C-unwind" fn subtransaction(
    event: pg_sys::SubXactEvent::Type,
    id: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _: *mut c_void,
) {
    quiet(|| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_START_SUB => backend::start_subtransaction(statement::transaction_level()),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            backend::abort_subtransaction(id, statement::transaction_level(), no_portal());
            no_command();
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => backend::commit_subtransaction(id, parent),
        _ => (),
    });
}

/// The session ends.
///
/// # Safety
/// For `before_shmem_exit`.
pub unsafe extern "C-unwind" fn at_exit(_: i32, _: pg_sys::Datum) {
    quiet(|| backend::hand_in(true));
}

/// The server ends.
///
/// # Safety
/// For `on_shmem_exit`.
pub unsafe extern "C-unwind" fn at_server_exit(code: i32, _: pg_sys::Datum) {
    // Not after a crash, when the figures cannot be trusted.
    if code == 0 {
        quiet(super::dump::save);
    }
}

#[cold]
unsafe fn first_sample(query: *mut pg_sys::QueryDesc) {
    if let Some(begun) = backend::sampled_now(query.addr()) {
        // SAFETY: the query was just started.
        unsafe { keep_sample(query, &begun) };
    }
}

/// Puts the statement into the ring, where there is room.
#[cold]
unsafe fn keep_sample(query: *mut pg_sys::QueryDesc, wanted: &Wanted) {
    let (Some(ring), Some(table)) = (Ring::get(), Table::get()) else { return };
    if !databases::contains(wanted.key.database) {
        return;
    }
    // SAFETY: as above.
    let count = match unsafe { write_sample(ring, query, wanted) } {
        Ok(true) => 1,
        // The variables of a function's statement are not known here; the next planning will tell.
        Ok(false) | Err(Refused::Full) => return,
        // It never fits: counted as sampled often enough, so that nobody tries again at every execution.
        Err(Refused::TooLong) => backend::FIRST_SAMPLES,
    };
    table.sampled(&wanted.key, wanted.hash, count);
    backend::sampled(&wanted.key, wanted.hash);
}

unsafe fn write_sample(ring: Ring, query: *mut pg_sys::QueryDesc, wanted: &Wanted) -> Result<bool, Refused> {
    let Wanted { key, template, extent, .. } = wanted;
    // SAFETY: as above.
    unsafe {
        let Some((text, start)) = statement::text(query, *extent, MAX_TEXT) else { return Err(ring.too_long()) };
        if text.is_empty() {
            // A function with a parsed body (BEGIN ATOMIC) has no text.
            return Ok(false);
        }
        let Some(path) = statement::search_path(MAX_PATH) else { return Err(ring.too_long()) };
        let literals = guc::capture_literals();
        let given = statement::parameter_count(query);
        let value = |message: &mut Message, number: usize, known_type: u32| {
            let mut buffer = [0u8; MAX_VALUE];
            let (type_oid, value) = statement::parameter(query, number, &mut buffer);
            let value = if literals { value } else { Value::Unknown };
            message.parameter(if type_oid == 0 { known_type } else { type_oid }, &value, &buffer)
        };
        if !key.nested {
            if given > MAX_PARAMETERS {
                return Err(ring.too_long());
            }
            let mut message = ring.begin(key, template, text, path, literals, &[], given)?;
            if !(1..=given).all(|number| value(&mut message, number, 0)) {
                return Err(message.give_up());
            }
            message.publish();
            return Ok(true);
        }
        let Some(found) = uses::get(key.queryid, statement::hash((*query).sourceText)) else { return Ok(false) };
        if found.incomplete {
            return Err(ring.too_long());
        }
        let mut places = [Use::default(); variables::MAX_USES];
        let mut numbers = [(0u16, 0u32); variables::MAX_USES];
        let (mut used, mut distinct) = (0, 0);
        for u in found.iter() {
            // Uses in other statements of the same text (a function in SQL) are not this one's.
            let Some(offset) = (u.offset as usize).checked_sub(start).filter(|o| *o < text.len()) else { continue };
            let known = numbers.iter().take(distinct).position(|(number, _)| *number == u.parameter);
            let index = known.unwrap_or(distinct);
            if let (Some(place), Some(number)) = (places.get_mut(used), numbers.get_mut(index)) {
                *place = Use { offset: offset as u32, parameter: index as u32 + 1, fields: u32::from(u.fields) };
                *number = (u.parameter, u.type_oid);
                used += 1;
                distinct = distinct.max(index + 1);
            }
        }
        let mut message = ring.begin(key, template, text, path, literals, places.get(..used).unwrap_or_default(), distinct)?;
        if !numbers.iter().take(distinct).all(|(number, known)| value(&mut message, *number as usize, *known)) {
            return Err(message.give_up());
        }
        message.publish();
        Ok(true)
    }
}
