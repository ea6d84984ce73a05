//! Every setting of IndexPilot: its static, why it has its default, and a typed getter. No other file reads a setting.
//!
//! Names are `indexpilot.<stage>_<what>`. Contexts: `Postmaster` for what sizes shared memory, `Sighup` for workers and guards,
//! `Suset` for what decides what is captured, `Userset` for what only shapes the caller's own analysis.

mod guard;
mod trial;

pub use guard::*;
pub use trial::{apply_canary_percent, apply_observe};

use crate::pg::setting;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use std::ffi::CString;
use std::time::Duration;

/// What IndexPilot may do by itself. An explicit call of a function acts in every mode but `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, PostgresGucEnum)]
pub enum Mode {
    /// Hooks pass everything through; no worker does anything.
    #[name = c"off"]
    Off,
    /// Capture only.
    #[name = c"observe"]
    Observe,
    /// Capture, and analyse from time to time: recommendations, no changes.
    #[name = c"advise"]
    Advise,
    /// The whole loop, without being asked.
    #[name = c"apply"]
    Apply,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::Observe => "observe",
            Mode::Advise => "advise",
            Mode::Apply => "apply",
        }
    }
}

static MODE: GucSetting<Mode> = GucSetting::<Mode>::new(Mode::Advise);
static STARTUP_BYPASS: GucSetting<bool> = GucSetting::<bool>::new(false);

static CAPTURE: GucSetting<bool> = GucSetting::<bool>::new(true);
static CAPTURE_LITERALS: GucSetting<bool> = GucSetting::<bool>::new(true);
// As pg_stat_statements.max: twice the templates that a large application has.
static CAPTURE_MAX_QUERIES: GucSetting<i32> = GucSetting::<i32>::new(5000);
// A slot holds one statement on its way to the worker, which empties all of them every worker_interval.
static CAPTURE_TRACK: GucSetting<Track> = GucSetting::<Track>::new(Track::All);
static CAPTURE_MAX_TENANTS: GucSetting<i32> = GucSetting::<i32>::new(20);
static CAPTURE_MAX_SAMPLES: GucSetting<i32> = GucSetting::<i32>::new(256);
static CAPTURE_BUCKET: GucSetting<i32> = GucSetting::<i32>::new(300);
static CAPTURE_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 60);
// Room for a large application with many roles; each takes a few kilobytes with its samples.
static CAPTURE_MAX_TEMPLATES: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static TENANT_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

static CANDIDATE_MAX_COLUMNS: GucSetting<i32> = GucSetting::<i32>::new(3);
// 8 pages: below that no index helps. A small table that is joined often is worth its kilobytes.
static CANDIDATE_MIN_TABLE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64);
static CANDIDATE_MIN_USAGE: GucSetting<f64> = GucSetting::<f64>::new(0.01);
static CANDIDATE_MIN_EXPRESSION: GucSetting<f64> = GucSetting::<f64>::new(0.05);

// Planning a long join with all candidates takes up to a second; what takes longer is left out and said so.
static WHATIF_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5000);
// Long enough for somebody who tries one thing after the other; short enough for a table that grows.
static WHATIF_CACHE_TTL: GucSetting<i32> = GucSetting::<i32>::new(300);
// Some ten thousand plans without their texts.
static WHATIF_CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);

static SELECT: GucSetting<bool> = GucSetting::<bool>::new(true);
static SELECT_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(12 * 60);
static SELECT_STORAGE_BUDGET: GucSetting<i32> = GucSetting::<i32>::new(-1);
// Indexes on a table rarely pay beyond half of its size; what pays most takes far less.
static SELECT_STORAGE_SHARE: GucSetting<f64> = GucSetting::<f64>::new(0.5);
static SELECT_TIME_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static SELECT_MIN_GAIN: GucSetting<f64> = GucSetting::<f64>::new(0.01);
// An index can raise the planner's estimate of a query that does not get slower (the estimates of two plans do not agree), so a tight
// bound forbids good sets; what really gets slower is found and taken back by verify.
static SELECT_MAX_REGRESSION: GucSetting<f64> = GucSetting::<f64>::new(0.25);

static APPLY: GucSetting<bool> = GucSetting::<bool>::new(true);
static APPLY_LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5 * 60 * 1000);
static APPLY_BUILD_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(6 * 60 * 60 * 1000);
static APPLY_MAINTENANCE_WORK_MEM: GucSetting<i32> = GucSetting::<i32>::new(256 * 1024);
// Parallel builds take CPU from the users' queries.
static APPLY_PARALLEL_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(0);

// What is attached cannot be dropped alone any more, so harm on one partition could not be taken back there.
static APPLY_ATTACH_PARTITIONS: GucSetting<bool> = GucSetting::<bool>::new(false);

static WORKER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// Which statements are captured (`indexpilot.capture_track`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Track {
    #[name = c"top"]
    Top,
    #[name = c"all"]
    All,
}

/// Defines all settings and reserves the prefix. Called once, from `_PG_init`.
pub fn init() {
    use GucContext::{Postmaster, Sighup, Suset, Userset};
    let none = GucFlags::default();
    let (kb, mb, ms, s, min) = (GucFlags::UNIT_KB, GucFlags::UNIT_MB, GucFlags::UNIT_MS, GucFlags::UNIT_S, GucFlags::UNIT_MIN);

    GucRegistry::define_enum_guc(c"indexpilot.mode", c"What IndexPilot may do by itself.",
        c"off: nothing. observe: capture the workload. advise: analyse it too, and recommend. apply: build, verify and revert too. An explicit function call acts in every mode but off.",
        &MODE, Sighup, none);

    // The server accepts settings of this kind from a preloaded library only; another load would end the session. They keep their
    // defaults then, and mean nothing.
    if crate::pg::startup::preloading() {
        GucRegistry::define_bool_guc(
            c"indexpilot.startup_bypass",
            c"Starts the server without IndexPilot.",
            c"When on, the preloaded library takes no shared memory, installs no hook and starts no worker.",
            &STARTUP_BYPASS,
            Postmaster,
            none,
        );
        GucRegistry::define_int_guc(
            c"indexpilot.capture_max_queries",
            c"Query templates that shared memory has room for.",
            c"Each takes about 1 kB. When it is full, further templates are not counted until the worker has made room.",
            &CAPTURE_MAX_QUERIES,
            100,
            1_000_000,
            Postmaster,
            none,
        );
        GucRegistry::define_int_guc(
            c"indexpilot.capture_max_samples",
            c"Sampled statements that wait for the worker in shared memory.",
            c"Each takes 16 kB. When all are taken, further samples are dropped and counted.",
            &CAPTURE_MAX_SAMPLES,
            8,
            65_536,
            Postmaster,
            none,
        );
    }

    GucRegistry::define_bool_guc(
        c"indexpilot.capture",
        c"Captures the statements of this session.",
        c"When off, executions are neither counted nor sampled.",
        &CAPTURE,
        Suset,
        none,
    );
    GucRegistry::define_enum_guc(
        c"indexpilot.capture_track",
        c"Which statements are captured.",
        c"top: those that clients send. all: those inside functions, procedures and triggers too, as templates of their own.",
        &CAPTURE_TRACK,
        Suset,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.capture_max_tenants",
        c"Tenants of each query template that are counted separately.",
        c"Those that run it most come to have counters of their own; what the others run is counted without a tenant.",
        &CAPTURE_MAX_TENANTS,
        0,
        1000,
        Sighup,
        none,
    );
    GucRegistry::define_bool_guc(c"indexpilot.capture_literals", c"Keeps parameter values and constants of sampled statements.",
        c"They make what-if plans true for skewed data. When off, prepared statements are kept without their parameter values, and other statements with their constants replaced.",
        &CAPTURE_LITERALS, Suset, none);
    GucRegistry::define_int_guc(
        c"indexpilot.capture_bucket",
        c"Time that one row of workload_stats spans.",
        c"A new span also begins whenever an index appears or goes.",
        &CAPTURE_BUCKET,
        1,
        86_400,
        Sighup,
        s,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.capture_retention",
        c"Time after which rows of workload_stats are deleted.",
        c"Templates that were not seen for that long are deleted too.",
        &CAPTURE_RETENTION,
        1,
        525_600,
        Sighup,
        min,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.capture_max_templates",
        c"Query templates that are kept in a database.",
        c"When there are more, those with the least execution time are given up.",
        &CAPTURE_MAX_TEMPLATES,
        10,
        1_000_000,
        Sighup,
        none,
    );
    GucRegistry::define_string_guc(
        c"indexpilot.tenant_id",
        c"Tenant that the session works for.",
        c"Statements are counted for this tenant, and the session sees this tenant only. Only superusers may set it, and roles that were granted SET on it. RESET ALL and DISCARD ALL, which anybody may run, take back what was set in the session, and a session without a tenant sees all tenants of its roles. What ALTER ROLE ... SET has set, they leave.",
        &TENANT_ID,
        Suset,
        none,
    );

    GucRegistry::define_int_guc(
        c"indexpilot.candidate_max_columns",
        c"Key columns that a candidate index may have.",
        c"INCLUDE columns do not count.",
        &CANDIDATE_MAX_COLUMNS,
        1,
        8,
        Userset,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.candidate_min_table_size",
        c"Tables smaller than this get no index.",
        c"0 considers tables of every size.",
        &CANDIDATE_MIN_TABLE_SIZE,
        0,
        i32::MAX,
        Userset,
        kb,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.candidate_min_usage",
        c"Share of a table's calls or time that must use a field before it is indexed.",
        c"A field is rarely used when both its share of the calls and its share of the execution time lie below this.",
        &CANDIDATE_MIN_USAGE,
        0.0,
        1.0,
        Userset,
        none,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.candidate_min_expression",
        c"Share of the tenants that must express a field before it is indexed.",
        c"Taken from the genome (expression_profile); a field that it says nothing of counts as expressed.",
        &CANDIDATE_MIN_EXPRESSION,
        0.0,
        1.0,
        Userset,
        none,
    );

    GucRegistry::define_int_guc(
        c"indexpilot.whatif_timeout",
        c"Longest time for planning one stored query.",
        c"A query that takes longer to plan is left out of the analysis and shown as unplannable.",
        &WHATIF_TIMEOUT,
        10,
        600_000,
        Userset,
        ms,
    );

    GucRegistry::define_int_guc(
        c"indexpilot.whatif_cache_ttl",
        c"Time for which a session remembers what the planner said.",
        c"Changes of tables, indexes, statistics and settings are noticed at once; this is for tables that only grow. 0 remembers nothing.",
        &WHATIF_CACHE_TTL,
        0,
        86_400,
        Userset,
        s,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.whatif_cache_size",
        c"Memory of a session for what the planner said.",
        c"What was used longest ago is forgotten first. 0 remembers nothing.",
        &WHATIF_CACHE_SIZE,
        0,
        1024 * 1024,
        Userset,
        kb,
    );

    GucRegistry::define_bool_guc(
        c"indexpilot.select",
        c"Lets the worker analyse the workload.",
        c"Explicit calls analyse even when this is off.",
        &SELECT,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.select_interval",
        c"Time between two analyses by the worker.",
        c"Used in modes advise and apply.",
        &SELECT_INTERVAL,
        1,
        525_600,
        Sighup,
        min,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.select_storage_budget",
        c"Storage that all chosen indexes together may take.",
        c"-1 stands for indexpilot.select_storage_share of the size of the tables under analysis.",
        &SELECT_STORAGE_BUDGET,
        -1,
        i32::MAX,
        Userset,
        mb,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.select_storage_share",
        c"Storage that all chosen indexes together may take, as a share of the size of the tables under analysis.",
        c"0.25 stands for a quarter. Used where indexpilot.select_storage_budget is -1.",
        &SELECT_STORAGE_SHARE,
        0.0,
        100.0,
        Userset,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.select_time_limit",
        c"Longest time for choosing indexes.",
        c"When it is over, the best choice found so far is returned with its proven gap.",
        &SELECT_TIME_LIMIT,
        100,
        3_600_000,
        Userset,
        ms,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.select_min_gain",
        c"Share of a query's cost that an index must save before it is chosen for it.",
        c"Smaller gains drown in the planner's own error; of a costly query even one hundredth is worth more than the whole of others.",
        &SELECT_MIN_GAIN,
        0.0,
        1.0,
        Userset,
        none,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.select_max_regression",
        c"Share by which the chosen set may raise the cost of any one query.",
        c"A set that would raise it further is not returned.",
        &SELECT_MAX_REGRESSION,
        0.0,
        10.0,
        Userset,
        none,
    );

    GucRegistry::define_bool_guc(
        c"indexpilot.apply",
        c"Lets the worker start actions.",
        c"When off, queued actions wait.",
        &APPLY,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.apply_lock_timeout",
        c"Longest wait of an action for any one lock.",
        c"Then the action is given up, what it left is removed, and it is retried once.",
        &APPLY_LOCK_TIMEOUT,
        100,
        i32::MAX,
        Sighup,
        ms,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.apply_build_timeout",
        c"Longest time for one action.",
        c"Then the action is given up and what it left is removed.",
        &APPLY_BUILD_TIMEOUT,
        1000,
        i32::MAX,
        Sighup,
        ms,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.apply_maintenance_work_mem",
        c"Memory for the sort of one build.",
        c"Takes the place of maintenance_work_mem in IndexPilot's own builds.",
        &APPLY_MAINTENANCE_WORK_MEM,
        1024,
        i32::MAX,
        Sighup,
        kb,
    );
    GucRegistry::define_bool_guc(
        c"indexpilot.apply_attach_partitions",
        c"Makes the indexes of partitions parts of one of their table.",
        c"When all of a decision were kept. New partitions then come with the index, and none can be dropped any more but all together, which locks the whole table.",
        &APPLY_ATTACH_PARTITIONS,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.apply_parallel_workers",
        c"Parallel workers of one build.",
        c"Takes the place of max_parallel_maintenance_workers in IndexPilot's own builds.",
        &APPLY_PARALLEL_WORKERS,
        0,
        1024,
        Sighup,
        none,
    );

    trial::init();

    GucRegistry::define_int_guc(
        c"indexpilot.worker_interval",
        c"Time between two visits of the worker to a database.",
        c"Each visit flushes what was captured, looks at queued actions and judges built indexes.",
        &WORKER_INTERVAL,
        100,
        3_600_000,
        Sighup,
        ms,
    );
    guard::define();
    // Otherwise those three, set in postgresql.conf, would be taken for misspelt.
    if crate::pg::startup::preloading() {
        crate::pg::compat::reserve_guc_prefix(c"indexpilot");
    }
}

fn ms(v: &GucSetting<i32>) -> Duration {
    Duration::from_millis(v.get().max(0) as u64)
}

pub fn mode() -> Mode {
    MODE.get()
}
pub fn startup_bypass() -> bool {
    STARTUP_BYPASS.get()
}
/// Whether this session's executions are captured.
#[inline]
pub fn capture() -> bool {
    setting::read(&CAPTURE) && setting::read(&MODE) != Mode::Off
}
/// Whether statements inside functions are captured.
#[inline]
pub fn capture_nested() -> bool {
    setting::read(&CAPTURE_TRACK) == Track::All
}
/// For each template.
pub fn capture_max_tenants() -> u32 {
    CAPTURE_MAX_TENANTS.get() as u32
}
pub fn capture_literals() -> bool {
    CAPTURE_LITERALS.get()
}
pub fn capture_max_queries() -> usize {
    CAPTURE_MAX_QUERIES.get() as usize
}
pub fn capture_max_samples() -> usize {
    CAPTURE_MAX_SAMPLES.get() as usize
}
pub fn capture_bucket() -> Duration {
    Duration::from_secs(CAPTURE_BUCKET.get() as u64)
}
pub fn capture_retention() -> Duration {
    Duration::from_secs(60 * CAPTURE_RETENTION.get() as u64)
}
pub fn capture_max_templates() -> usize {
    CAPTURE_MAX_TEMPLATES.get() as usize
}
/// The session works for a tenant.
#[inline]
pub fn has_tenant() -> bool {
    setting::is_set(&TENANT_ID)
}
/// Copies the session's tenant into `buffer`, cut to its length, and returns how many bytes it has (0: none). Allocates nothing.
pub fn tenant_bytes(buffer: &mut [u8]) -> usize {
    setting::copy_string(&TENANT_ID, buffer)
}
pub fn candidate_max_columns() -> usize {
    CANDIDATE_MAX_COLUMNS.get() as usize
}
/// In bytes.
pub fn candidate_min_table_size() -> u64 {
    1024 * CANDIDATE_MIN_TABLE_SIZE.get() as u64
}
pub fn candidate_min_usage() -> f64 {
    CANDIDATE_MIN_USAGE.get()
}
pub fn candidate_min_expression() -> f64 {
    CANDIDATE_MIN_EXPRESSION.get()
}
pub fn whatif_timeout() -> Duration {
    ms(&WHATIF_TIMEOUT)
}
/// Zero for none.
pub fn whatif_cache_ttl() -> Duration {
    Duration::from_secs(WHATIF_CACHE_TTL.get().max(0) as u64)
}
/// In bytes; zero for none.
pub fn whatif_cache_size() -> usize {
    1024 * WHATIF_CACHE_SIZE.get().max(0) as usize
}
pub fn select() -> bool {
    SELECT.get()
}
pub fn select_interval() -> Duration {
    Duration::from_secs(60 * SELECT_INTERVAL.get() as u64)
}
/// In bytes; `None` stands for [`select_storage_share`] of the size of the tables under analysis.
pub fn select_storage_budget() -> Option<u64> {
    u64::try_from(SELECT_STORAGE_BUDGET.get()).ok().map(|mb| mb * 1024 * 1024)
}
pub fn select_storage_share() -> f64 {
    SELECT_STORAGE_SHARE.get()
}
pub fn select_time_limit() -> Duration {
    ms(&SELECT_TIME_LIMIT)
}
pub fn select_min_gain() -> f64 {
    SELECT_MIN_GAIN.get()
}
pub fn select_max_regression() -> f64 {
    SELECT_MAX_REGRESSION.get()
}
pub fn apply() -> bool {
    APPLY.get()
}
pub fn apply_lock_timeout() -> Duration {
    ms(&APPLY_LOCK_TIMEOUT)
}
pub fn apply_build_timeout() -> Duration {
    ms(&APPLY_BUILD_TIMEOUT)
}
/// In kilobytes, as `maintenance_work_mem` wants it.
pub fn apply_maintenance_work_mem() -> i32 {
    APPLY_MAINTENANCE_WORK_MEM.get()
}
pub fn apply_attach_partitions() -> bool {
    APPLY_ATTACH_PARTITIONS.get()
}
pub fn apply_parallel_workers() -> i32 {
    APPLY_PARALLEL_WORKERS.get()
}
pub fn worker_interval() -> Duration {
    ms(&WORKER_INTERVAL)
}
