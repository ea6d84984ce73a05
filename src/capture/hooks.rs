//! The hooks. Each calls the one before it in the chain, or the server's own function, in every case, exactly once.
//!
//! # Errors pass through untouched
//! What a hook calls may raise, and then jumps past it. pgrx's guards would turn the error into a Rust panic and raise a new one from
//! it, which loses the context lines, the position and the names of the constraint that the client should see. So these hooks
//! are not guarded: the outermost one of a statement notes the error as `PG_TRY` would ([`protect`]), puts its state right, and lets
//! the same error go on ([`sys::pg_re_throw`]); the others are jumped over. That is sound because no frame here has a destructor
//! while it calls on. Code of our own runs inside [`quiet`], from which nothing escapes.
//!
//! # Nesting
//! Only statements that a client sent are captured. `INSIDE` is set while one is planned, started, run or finished and while a
//! utility command runs, so what functions, triggers, DO blocks and procedures execute is passed through without further ado. A
//! statement that runs without an active portal was not sent by a client either: deferred triggers, input functions, workers.
//!
//! # Safety
//! The server alone calls the callbacks, in its main thread, with the arguments that their types promise.

use super::sample::{MAX_PARAMETERS, MAX_TEXT, MAX_VALUE, Refused, Ring, Value};
use super::table::{Execution, Key, RELATIONS, Table, Template, mix};
use super::{backend, value};
use crate::guc;
use crate::pg::compat::{self, RunArgs};
use pgrx::{pg_sys, varlena};
use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::io::{Cursor, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Instant;

mod sys {
    use super::pg_sys;
    use std::ffi::{c_char, c_int};
    // Without pgrx's wrappers, whose guards would replace the error (see above).
    unsafe extern "C-unwind" {
        pub fn standard_ExecutorStart(query: *mut pg_sys::QueryDesc, flags: c_int);
        pub fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
        pub fn standard_ExecutorEnd(query: *mut pg_sys::QueryDesc);
        pub fn standard_planner(
            parse: *mut pg_sys::Query,
            text: *const c_char,
            options: c_int,
            params: pg_sys::ParamListInfo,
        ) -> *mut pg_sys::PlannedStmt;
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            text: *const c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            params: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
        pub fn pg_re_throw() -> !;
        pub fn strnlen(text: *const c_char, limit: usize) -> usize;
    }
}

/// Range table entries and inheritance children of a plan that are looked at.
const MAX_ENTRIES: usize = 1024;
/// Statements that begin further into their string than this are not sampled: finding them would mean reading it all.
const MAX_OFFSET: usize = 1024 * 1024;
/// Longest search_path that is kept, in bytes.
const MAX_PATH: usize = 1024;

#[derive(Default)]
struct Previous {
    planner: pg_sys::planner_hook_type,
    start: pg_sys::ExecutorStart_hook_type,
    run: pg_sys::ExecutorRun_hook_type,
    finish: pg_sys::ExecutorFinish_hook_type,
    end: pg_sys::ExecutorEnd_hook_type,
    utility: pg_sys::ProcessUtility_hook_type,
}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();
static NONE: Previous = Previous { planner: None, start: None, run: None, finish: None, end: None, utility: None };

fn previous() -> &'static Previous {
    PREVIOUS.get().unwrap_or(&NONE)
}

thread_local! {
    /// Something that a client sent is being worked on.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// A utility command that contains a query (EXECUTE, COPY, ...) is being worked on.
    static UTILITY: Cell<bool> = const { Cell::new(false) };
}

/// Installs the hooks. From `_PG_init` of a preloaded library.
pub fn init() {
    // SAFETY: hook variables of the postmaster, read and written while it loads libraries, one after the other; the callbacks are
    // functions of this library, which is never unloaded.
    unsafe {
        // As pg_stat_statements does: with compute_query_id = auto, identifiers are computed when somebody asks for them.
        pg_sys::EnableQueryId();
        let before = Previous {
            planner: pg_sys::planner_hook,
            start: pg_sys::ExecutorStart_hook,
            run: pg_sys::ExecutorRun_hook,
            finish: pg_sys::ExecutorFinish_hook,
            end: pg_sys::ExecutorEnd_hook,
            utility: pg_sys::ProcessUtility_hook,
        };
        if PREVIOUS.set(before).is_err() {
            return;
        }
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

/// Calls on; false when that raised, and then the caller must pass the error on with `pg_re_throw` and do nothing that could raise.
///
/// # Safety
/// Neither `call` nor anything between it and the server's function may own something that must be dropped.
unsafe fn protect(call: impl FnOnce()) -> bool {
    // SAFETY: PG_TRY of elog.h: a new jump point while the call lasts, the old one afterwards.
    unsafe {
        let (exceptions, contexts) = (pg_sys::PG_exception_stack, pg_sys::error_context_stack);
        let jumped = cee_scape::call_with_sigsetjmp(false, |point| {
            pg_sys::PG_exception_stack = std::ptr::from_ref(point).cast_mut().cast();
            call();
            0
        });
        pg_sys::PG_exception_stack = exceptions;
        pg_sys::error_context_stack = contexts;
        jumped == 0
    }
}

/// Calls on with a flag set, and puts the flag right whatever happens. False when the call raised.
///
/// # Safety
/// As [`protect`].
unsafe fn flagged(flag: &'static std::thread::LocalKey<Cell<bool>>, call: impl FnOnce()) -> bool {
    flag.set(true);
    // SAFETY: as the caller promises.
    let fine = unsafe { protect(call) };
    flag.set(false);
    fine
}

/// Code of our own: whatever goes wrong in it stays in it.
fn quiet(f: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(f)).is_err() {
        backend::failure();
    }
}

/// What a client sent begins here, in a session that is captured.
fn outermost() -> bool {
    // SAFETY: reads variables of the backend.
    let (worker, database) = unsafe { (pg_sys::ParallelWorkerNumber, pg_sys::MyDatabaseId) };
    !INSIDE.get() && worker < 0 && backend::enabled(database.to_u32())
}

unsafe extern "C-unwind" fn planner(
    parse: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    params: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the arguments go on as they came.
    let next = || unsafe {
        match previous().planner {
            Some(hook) => hook(parse, text, options, params),
            None => sys::standard_planner(parse, text, options, params),
        }
    };
    if !outermost() {
        return next();
    }
    let mut plan = std::ptr::null_mut();
    // SAFETY: no destructors; an error goes on as it came.
    unsafe {
        if !flagged(&INSIDE, || plan = next()) {
            sys::pg_re_throw();
        }
    }
    plan
}

unsafe extern "C-unwind" fn executor_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the arguments go on as they came.
    let next = || unsafe {
        match previous().start {
            Some(hook) => hook(query, flags),
            None => sys::standard_ExecutorStart(query, flags),
        }
    };
    if !outermost() {
        return next();
    }
    // SAFETY: no destructors; an error goes on as it came. After a successful start the query is complete.
    unsafe {
        if !flagged(&INSIDE, next) {
            sys::pg_re_throw();
        }
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as c_int == 0 && !pg_sys::ActivePortal.is_null() {
            quiet(|| started(query));
        }
    }
}

// SAFETY: the body follows; ExecutorRun has one argument less from version 18 on.
compat::executor_run_hook!(executor_run, run);

unsafe fn run(query: *mut pg_sys::QueryDesc, args: RunArgs) {
    // SAFETY: the arguments go on as they came.
    let next = || unsafe { compat::executor_run(previous().run, query, args) };
    // SAFETY: as measured() wants; es_processed counts the rows of this run.
    unsafe { measured(query, next, || (*query).estate.as_ref().map_or(0, |e| e.es_processed)) }
}

unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the argument goes on as it came.
    let next = || unsafe {
        match previous().finish {
            Some(hook) => hook(query),
            None => sys::standard_ExecutorFinish(query),
        }
    };
    // SAFETY: as measured() wants.
    unsafe { measured(query, next, || 0) }
}

/// Runs a part of a statement and adds up what it cost, when the statement is tracked.
///
/// # Safety
/// `query` is the query that `next` was given; neither closure owns anything.
unsafe fn measured(query: *mut pg_sys::QueryDesc, next: impl FnOnce(), rows: impl FnOnce() -> u64) {
    if INSIDE.get() {
        return next();
    }
    let id = query.addr();
    let mut tracked = false;
    quiet(|| tracked = backend::resume(id));
    if !tracked && !outermost() {
        return next();
    }
    // SAFETY: no destructors; an error goes on as it came; the usage counters are plain variables of the backend.
    unsafe {
        let (buffers, wal, clock) = (pg_sys::pgBufferUsage, pg_sys::pgWalUsage.wal_bytes, Instant::now());
        let fine = flagged(&INSIDE, next);
        if tracked {
            quiet(|| {
                let ns = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let now = pg_sys::pgBufferUsage;
                let grown = |after: i64, before: i64| u64::try_from(after.saturating_sub(before)).unwrap_or(0);
                let temp = |b: &pg_sys::BufferUsage| b.temp_blks_read.saturating_add(b.temp_blks_written);
                let cost = Execution {
                    failed: !fine,
                    ns,
                    rows: if fine { rows() } else { 0 },
                    planner_cost: 0.0,
                    blocks_hit: grown(now.shared_blks_hit, buffers.shared_blks_hit),
                    blocks_read: grown(now.shared_blks_read, buffers.shared_blks_read),
                    blocks_temp: grown(temp(&now), temp(&buffers)),
                    wal_bytes: pg_sys::pgWalUsage.wal_bytes.saturating_sub(wal),
                };
                backend::pause(id, &cost);
            });
        }
        if !fine {
            sys::pg_re_throw();
        }
    }
}

unsafe extern "C-unwind" fn executor_end(query: *mut pg_sys::QueryDesc) {
    quiet(|| {
        if let Some((key, hash, template)) = backend::end(query.addr()) {
            // SAFETY: the query is still complete: the server's ExecutorEnd comes after this.
            unsafe { keep_sample(query, &key, hash, &template) };
        }
    });
    // SAFETY: the argument goes on as it came.
    unsafe {
        match previous().end {
            Some(hook) => hook(query),
            None => sys::standard_ExecutorEnd(query),
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
    // SAFETY: the arguments go on as they came.
    let next = || unsafe {
        match previous().utility {
            Some(hook) => hook(statement, text, read_only_tree, context, params, environment, destination, completion),
            None => {
                sys::standard_ProcessUtility(statement, text, read_only_tree, context, params, environment, destination, completion)
            }
        }
    };
    if !outermost() {
        return next();
    }
    // SAFETY: the statement is read before the call only (ROLLBACK frees it); no destructors; an error goes on as it came.
    unsafe {
        let flag = if contains_query((*statement).utilityStmt) { &UTILITY } else { &INSIDE };
        if !flagged(flag, next) {
            sys::pg_re_throw();
        }
    }
}

/// The command only plans, runs or continues a query of the client's, and executes nothing else.
///
/// # Safety
/// `command` is NULL or a parse node.
unsafe fn contains_query(command: *mut pg_sys::Node) -> bool {
    use pg_sys::NodeTag::*;
    // SAFETY: the tag says which structure it is.
    unsafe {
        match command.as_ref().map(|n| n.type_) {
            Some(T_ExecuteStmt | T_PrepareStmt | T_CreateTableAsStmt | T_DeclareCursorStmt | T_FetchStmt | T_ClosePortalStmt) => {
                true
            }
            Some(T_CopyStmt) => {
                let copy = command.cast::<pg_sys::CopyStmt>();
                !(*copy).is_from && !(*copy).query.is_null()
            }
            _ => false,
        }
    }
}

unsafe extern "C-unwind" fn transaction(event: pg_sys::XactEvent::Type, _: *mut c_void) {
    use pg_sys::XactEvent::*;
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) {
        quiet(backend::end_transaction);
    }
}

unsafe extern "C-unwind" fn subtransaction(
    event: pg_sys::SubXactEvent::Type,
    id: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _: *mut c_void,
) {
    quiet(|| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => backend::abort_subtransaction(id),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => backend::commit_subtransaction(id, parent),
        _ => (),
    });
}

/// The name of a `CmdType`, as `workload.command` has it.
pub fn command_name(command: u32) -> &'static str {
    use pg_sys::CmdType::*;
    match command {
        CMD_SELECT => "select",
        CMD_INSERT => "insert",
        CMD_UPDATE => "update",
        CMD_DELETE => "delete",
        CMD_UTILITY => "utility",
        c if c == compat::CMD_MERGE => "merge",
        _ => "unknown",
    }
}

/// # Safety
/// ExecutorStart has just succeeded for `query`.
unsafe fn started(query: *mut pg_sys::QueryDesc) {
    // SAFETY: a started query has its plan; the rest are variables of the backend.
    unsafe {
        let Some(plan) = (*query).plannedstmt.as_ref() else { return };
        let queryid = compat::query_id(plan);
        if queryid == 0 {
            // The query inside a utility command has no identifier of its own before version 18.
            if !UTILITY.get() {
                backend::without_queryid();
            }
            return;
        }
        let mut template = Template { command: plan.commandType, ..Template::EMPTY };
        let Some(relations_hash) = relations(plan, &mut template) else { return };
        let mut key = Key {
            database: pg_sys::MyDatabaseId.to_u32(),
            role: pg_sys::GetUserId().to_u32(),
            queryid,
            relations_hash,
            ..Key::EMPTY
        };
        key.tenant_len = guc::tenant_bytes(&mut key.tenant) as u8;
        let hash = key.hash();
        let cost = plan.planTree.as_ref().map_or(0.0, |p| p.total_cost);
        let cost = if cost.is_finite() { cost } else { 0.0 };
        if backend::start(query.addr(), pg_sys::GetCurrentSubTransactionId(), &key, hash, &template, cost) {
            keep_sample(query, &key, hash, &template);
        }
    }
}

/// Fills in the base tables of a plan: no views, no catalogs, and of an inheritance tree only the parent, since its children
/// depend on what the planner pruned. Returns their hash; `None` when the statement reads nothing but catalogs.
///
/// # Safety
/// `plan` is a plan of this backend.
unsafe fn relations(plan: &pg_sys::PlannedStmt, template: &mut Template) -> Option<u64> {
    let mut children = [0u64; MAX_ENTRIES / 64];
    // SAFETY: the lists of a plan hold nodes of these types (plannodes.h).
    unsafe {
        for i in 0..length(plan.appendRelations) {
            let child = (*plan.appendRelations).elements.add(i).cast::<*const pg_sys::AppendRelInfo>().read();
            // Without a parent table it is a branch of UNION ALL.
            if let Some(child) = child.as_ref().filter(|c| c.parent_reloid != pg_sys::InvalidOid)
                && let Some(word) = children.get_mut(child.child_relid as usize / 64)
            {
                *word |= 1 << (child.child_relid % 64);
            }
        }
        let mut catalogs = false;
        for i in 0..length(plan.rtable) {
            let entry = (*plan.rtable).elements.add(i).cast::<*const pg_sys::RangeTblEntry>().read();
            let Some(entry) = entry.as_ref().filter(|e| e.rtekind == pg_sys::RTEKind::RTE_RELATION) else { continue };
            let (index, oid) = (i + 1, entry.relid.to_u32());
            let kind = entry.relkind as u8;
            if kind == pg_sys::RELKIND_VIEW || children.get(index / 64).is_some_and(|w| w >> (index % 64) & 1 == 1) {
                continue;
            }
            if oid < pg_sys::FirstNormalObjectId {
                catalogs = true;
                continue;
            }
            insert(template, oid);
        }
        if catalogs && template.relation_count == 0 {
            return None;
        }
    }
    Some(template.relations.iter().take(template.relation_count as usize).fold(0, |h, oid| mix(h ^ u64::from(*oid))))
}

/// # Safety
/// `list` is NULL or a list.
unsafe fn length(list: *const pg_sys::List) -> usize {
    // SAFETY: as promised.
    unsafe { list.as_ref() }.map_or(0, |l| usize::try_from(l.length).unwrap_or(0)).min(MAX_ENTRIES)
}

/// Keeps the OIDs ascending and each once.
fn insert(template: &mut Template, oid: u32) {
    let count = template.relation_count as usize;
    let Err(at) = template.relations.get(..count).unwrap_or_default().binary_search(&oid) else { return };
    if count >= RELATIONS {
        template.truncated = true;
        return;
    }
    template.relations.copy_within(at..count, at + 1);
    if let Some(place) = template.relations.get_mut(at) {
        *place = oid;
        template.relation_count += 1;
    }
}

/// # Safety
/// `query` is between ExecutorStart and ExecutorEnd.
unsafe fn keep_sample(query: *mut pg_sys::QueryDesc, key: &Key, hash: u64, template: &Template) {
    let (Some(ring), Some(table)) = (Ring::get(), Table::get()) else { return };
    // SAFETY: as promised.
    match unsafe { write_sample(ring, query, key, template) } {
        Ok(()) => table.sampled(key, hash, 1),
        // It will not get shorter: as if it had been sampled often enough.
        Err(Refused::TooLong) => table.sampled(key, hash, u32::MAX / 2),
        Err(Refused::Full) => (),
    }
}

/// # Safety
/// As [`keep_sample`].
unsafe fn write_sample(ring: Ring, query: *mut pg_sys::QueryDesc, key: &Key, template: &Template) -> Result<(), Refused> {
    // SAFETY: a started query has its plan and its text; parameters without paramFetch are an array of numParams.
    unsafe {
        let Some(text) = statement_text(query) else { return Err(ring.too_long()) };
        let path = pg_sys::namespace_search_path;
        let path = if path.is_null() { &[] } else { bytes_of(path, sys::strnlen(path, MAX_PATH + 1)) };
        if path.len() > MAX_PATH {
            return Err(ring.too_long());
        }
        let literals = guc::capture_literals();
        let parameters = match (*query).params.as_ref() {
            Some(list) if list.paramFetch.is_none() => list.params.as_slice(usize::try_from(list.numParams).unwrap_or(0)),
            _ => &[],
        };
        if parameters.len() > MAX_PARAMETERS {
            return Err(ring.too_long());
        }
        let mut message = ring.begin(key, template, text, path, literals, parameters.len())?;
        for parameter in parameters {
            let mut buffer = [0u8; MAX_VALUE];
            let value = if !literals {
                Value::Unknown
            } else if parameter.isnull {
                Value::Null
            } else {
                let mut out = Cursor::new(&mut buffer[..]);
                match print(&mut out, parameter.ptype, parameter.value) {
                    Some(()) => {
                        let written = out.position() as usize;
                        buffer.get(..written).map_or(Value::Unknown, Value::Text)
                    }
                    None => Value::Unknown,
                }
            };
            if !message.parameter(parameter.ptype.to_u32(), &value) {
                return Err(message.give_up());
            }
        }
        message.publish();
        Ok(())
    }
}

/// The statement's own part of the text that was sent; `None` when it is too long.
///
/// # Safety
/// As [`keep_sample`].
unsafe fn statement_text<'a>(query: *mut pg_sys::QueryDesc) -> Option<&'a [u8]> {
    // SAFETY: sourceText is NUL-terminated and lives as long as the query; only what strnlen has seen is read.
    unsafe {
        let (source, plan) = ((*query).sourceText, (*query).plannedstmt.as_ref()?);
        if source.is_null() {
            return None;
        }
        let start = usize::try_from(plan.stmt_location).unwrap_or(0);
        if start > MAX_OFFSET {
            return None;
        }
        let rest = bytes_of(source, sys::strnlen(source, start + MAX_TEXT + 1)).get(start..)?;
        let text = match usize::try_from(plan.stmt_len) {
            Ok(length) if length > 0 => {
                if length > MAX_TEXT {
                    return None;
                }
                rest.get(..length.min(rest.len()))?
            }
            _ => rest,
        };
        (text.len() <= MAX_TEXT).then(|| text.trim_ascii())
    }
}

/// # Safety
/// `start` points to at least `length` bytes that live for `'a`.
unsafe fn bytes_of<'a>(start: *const c_char, length: usize) -> &'a [u8] {
    // SAFETY: as promised.
    unsafe { std::slice::from_raw_parts(start.cast(), length) }
}

/// Writes a value as text; `None` for types and values that are not known to be short and harmless.
///
/// # Safety
/// `datum` is a value of type `oid` that is not NULL.
unsafe fn print(out: &mut Cursor<&mut [u8]>, oid: pg_sys::Oid, datum: pg_sys::Datum) -> Option<()> {
    let word = datum.value();
    // SAFETY: the built-in types have these representations on 64-bit platforms (pg_type.dat); nothing is detoasted.
    unsafe {
        match oid {
            pg_sys::BOOLOID => write!(out, "{}", word & 0xFF != 0).ok(),
            pg_sys::INT2OID => write!(out, "{}", word as i16).ok(),
            pg_sys::INT4OID => write!(out, "{}", word as i32).ok(),
            pg_sys::INT8OID => write!(out, "{}", word as i64).ok(),
            pg_sys::OIDOID => write!(out, "{}", word as u32).ok(),
            pg_sys::FLOAT4OID => {
                let v = f32::from_bits(word as u32);
                value::float(out, f64::from(v), format_args!("{v}"))
            }
            pg_sys::FLOAT8OID => {
                let v = f64::from_bits(word as u64);
                value::float(out, v, format_args!("{v}"))
            }
            pg_sys::DATEOID => value::date(out, word as i32),
            pg_sys::TIMESTAMPOID => value::timestamp(out, word as i64, false),
            pg_sys::TIMESTAMPTZOID => value::timestamp(out, word as i64, true),
            pg_sys::UUIDOID => value::uuid(out, bytes_of(datum.cast_mut_ptr(), 16)),
            pg_sys::NAMEOID => {
                let name = datum.cast_mut_ptr::<c_char>();
                out.write_all(bytes_of(name, sys::strnlen(name, pg_sys::NAMEDATALEN as usize))).ok()
            }
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => {
                let text = plain(datum)?;
                out.write_all(bytes_of(varlena::vardata_any(text), varlena::varsize_any_exhdr(text))).ok()
            }
            pg_sys::NUMERICOID => {
                plain(datum)?;
                let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_NUMERIC_OUT), datum);
                let done = out.write_all(bytes_of(text, sys::strnlen(text, MAX_VALUE + 1))).ok();
                pg_sys::pfree(text.cast());
                done
            }
            _ => None,
        }
    }
}

/// The value, when it is short and lies here in full: neither compressed nor stored elsewhere.
///
/// # Safety
/// `datum` is a value of a type of variable length.
unsafe fn plain(datum: pg_sys::Datum) -> Option<*const pg_sys::varlena> {
    let pointer: *const pg_sys::varlena = datum.cast_mut_ptr();
    // SAFETY: the header says how it is stored.
    unsafe {
        (!pointer.is_null()
            && !varlena::varatt_is_1b_e(pointer)
            && !varlena::varatt_is_4b_c(pointer)
            && varlena::varsize_any_exhdr(pointer) <= MAX_VALUE)
            .then_some(pointer)
    }
}
