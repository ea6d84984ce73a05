//! The settings of guard and verify.

use super::{GucContext, GucFlags, GucRegistry, GucSetting};
use crate::pg::setting::{self, TextCheck};
use indexpilot_core::guard::{Window, parse_days, parse_time};
use std::ffi::CString;
use std::time::Duration;

static GUARD_WINDOW_START: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static GUARD_WINDOW_END: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static GUARD_WINDOW_DAYS: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static GUARD_WINDOW_TIMEZONE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static GUARD_MAX_INDEXES_PER_TABLE: GucSetting<i32> = GucSetting::<i32>::new(12);
// More than a person can look through; fewer than a schema has that was made for it.
static GUARD_MAX_INDEXES: GucSetting<i32> = GucSetting::<i32>::new(500);
// A table with many narrow indexes has less than this; what goes beyond is rarely all in use.
static GUARD_MAX_INDEX_SHARE: GucSetting<f64> = GucSetting::<f64>::new(3.0);
// What selection weighs by cost it weighs better; this stops what nobody reads.
static GUARD_MAX_WRITES_PER_READ: GucSetting<f64> = GucSetting::<f64>::new(1000.0);
static GUARD_MAX_ACTIONS_PER_HOUR: GucSetting<i32> = GucSetting::<i32>::new(30);
static GUARD_MAX_ACTIONS_PER_DAY: GucSetting<i32> = GucSetting::<i32>::new(200);
static GUARD_BREAKER_FAILURES: GucSetting<i32> = GucSetting::<i32>::new(5);
static GUARD_BREAKER_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(60 * 60);
// A server that works hard has one or two; at four everything takes four times as long.
static GUARD_MAX_LOAD: GucSetting<f64> = GucSetting::<f64>::new(4.0);
static GUARD_LOAD_COOLDOWN: GucSetting<i32> = GucSetting::<i32>::new(60);
// What a replica makes good within seconds.
static GUARD_MAX_REPLICA_LAG: GucSetting<i32> = GucSetting::<i32>::new(1024);
// The rule knows the releases with defects by itself.
static GUARD_MIN_SERVER_VERSION: GucSetting<i32> = GucSetting::<i32>::new(0);
// CREATE INDEX CONCURRENTLY waits for every older snapshot of the database: starting beside a long one only holds back xmin longer.
static GUARD_MAX_TRANSACTION_AGE: GucSetting<i32> = GucSetting::<i32>::new(60);
static GUARD_COOLDOWN: GucSetting<i32> = GucSetting::<i32>::new(24 * 60);
static GUARD_FREE_DISK_FACTOR: GucSetting<f64> = GucSetting::<f64>::new(2.0);

static VERIFY: GucSetting<bool> = GucSetting::<bool>::new(true);
static VERIFY_DELAY: GucSetting<i32> = GucSetting::<i32>::new(30 * 60);
static VERIFY_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(72 * 60 * 60);
// An index on a column that updates set costs this much of them at least; what it gives is weighed beside it.
static VERIFY_MAX_HOT_LOSS: GucSetting<f64> = GucSetting::<f64>::new(0.2);
static VERIFY_MIN_CALLS: GucSetting<i32> = GucSetting::<i32>::new(20);
static VERIFY_MAX_REGRESSION: GucSetting<f64> = GucSetting::<f64>::new(0.10);
static VERIFY_CONFIDENCE: GucSetting<f64> = GucSetting::<f64>::new(0.99);

/// `22:00`, or empty.
struct Time;
impl TextCheck for Time {
    const DETAIL: &'static std::ffi::CStr = c"A time of day is wanted, such as 22:00.";
    fn valid(text: &str) -> bool {
        text.is_empty() || parse_time(text).is_some()
    }
}

/// `mon-fri`, or empty.
struct Days;
impl TextCheck for Days {
    const DETAIL: &'static std::ffi::CStr = c"Days are wanted, such as mon-fri or sat, sun.";
    fn valid(text: &str) -> bool {
        text.is_empty() || parse_days(text).is_some()
    }
}

/// A time zone that the server knows, or empty.
struct Zone;
impl TextCheck for Zone {
    const DETAIL: &'static std::ffi::CStr = c"The name of a time zone is wanted, as in pg_timezone_names.";
    fn valid(text: &str) -> bool {
        text.is_empty() || crate::pg::time::zone_exists(text)
    }
}

/// Defines them. Called once, from `_PG_init`.
pub(super) fn define() {
    use GucContext::Sighup;
    let none = GucFlags::default();
    let (mb, s, min) = (GucFlags::UNIT_MB, GucFlags::UNIT_S, GucFlags::UNIT_MIN);

    setting::define_checked_text::<Time>(
        c"indexpilot.guard_window_start",
        c"When the maintenance window begins.",
        c"Actions are started only within it, such as from 22:00 to 06:00; what takes a harmful index back does not wait for it. Empty: midnight.",
        &GUARD_WINDOW_START,
        Sighup,
    );
    setting::define_checked_text::<Time>(
        c"indexpilot.guard_window_end",
        c"When the maintenance window ends.",
        c"An end that is not after the start lies on the next day. Empty: midnight.",
        &GUARD_WINDOW_END,
        Sighup,
    );
    setting::define_checked_text::<Days>(
        c"indexpilot.guard_window_days",
        c"Days on which the maintenance window begins.",
        c"Such as mon-fri, or sat, sun. Empty: every day.",
        &GUARD_WINDOW_DAYS,
        Sighup,
    );
    setting::define_checked_text::<Zone>(
        c"indexpilot.guard_window_timezone",
        c"Time zone of the maintenance window.",
        c"Such as Europe/Berlin. Empty: the time zone of the server.",
        &GUARD_WINDOW_TIMEZONE,
        Sighup,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_max_indexes_per_table",
        c"Indexes that a table may have in all.",
        c"Counts every index of the table, not only those that IndexPilot made.",
        &GUARD_MAX_INDEXES_PER_TABLE,
        0,
        1000,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_max_actions_per_hour",
        c"Actions that may be started per hour in a database.",
        c"Up to so many may start in a row, then they come as evenly. What takes a harmful index back does not count.",
        &GUARD_MAX_ACTIONS_PER_HOUR,
        0,
        100_000,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_max_transaction_age",
        c"Age of an open transaction that holds back an action.",
        c"A concurrent build waits for every older snapshot of the database, so it is not started beside a transaction this old.",
        &GUARD_MAX_TRANSACTION_AGE,
        1,
        86_400,
        Sighup,
        s,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_cooldown",
        c"Time for which an index that was taken back is not built again.",
        c"Counts from the revert or the rollback, and doubles each time that the same definition is taken back.",
        &GUARD_COOLDOWN,
        0,
        525_600,
        Sighup,
        min,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.guard_free_disk_factor",
        c"Free disk space that a build needs, as a multiple of the index's estimated size.",
        c"The tablespace must have this much room, because sort runs and the index exist side by side.",
        &GUARD_FREE_DISK_FACTOR,
        1.0,
        100.0,
        Sighup,
        none,
    );

    GucRegistry::define_int_guc(
        c"indexpilot.guard_max_indexes",
        c"Indexes that IndexPilot may have in a database.",
        c"Further ones are refused.",
        &GUARD_MAX_INDEXES,
        0,
        1_000_000,
        Sighup,
        none,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.guard_max_index_share",
        c"Size that the indexes of a table may have together, as a multiple of the size of the table.",
        c"Counts every index of the table. Indexes that are together smaller than 16 MB are always allowed.",
        &GUARD_MAX_INDEX_SHARE,
        0.0,
        1000.0,
        Sighup,
        none,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.guard_max_writes_per_read",
        c"Statements that write to a table for each that reads it, up to which it gets indexes.",
        c"Taken from the captured workload. Tables that are hardly ever read gain nothing from an index.",
        &GUARD_MAX_WRITES_PER_READ,
        0.0,
        1e9,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_max_actions_per_day",
        c"Actions that may be started per day in a database.",
        c"Up to so many may start in a row, then they come as evenly. What takes a harmful index back does not count.",
        &GUARD_MAX_ACTIONS_PER_DAY,
        0,
        1_000_000,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_breaker_failures",
        c"Actions in a row that fail or are taken back, after which no more are started.",
        c"After indexpilot.guard_breaker_pause one may try, and what becomes of it decides. 0: never.",
        &GUARD_BREAKER_FAILURES,
        0,
        10_000,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_breaker_pause",
        c"Time for which no actions are started after too many went wrong.",
        c"Counts from the last one that went wrong.",
        &GUARD_BREAKER_PAUSE,
        1,
        31_536_000,
        Sighup,
        s,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.guard_max_load",
        c"Load average for each processor beyond which no actions are started.",
        c"The load of the last minute, as the operating system tells it. 0: it does not matter.",
        &GUARD_MAX_LOAD,
        0.0,
        10_000.0,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_load_cooldown",
        c"Time for which no actions are started after the load was too high.",
        c"Counts from the last look at which it was.",
        &GUARD_LOAD_COOLDOWN,
        0,
        86_400,
        Sighup,
        s,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_max_replica_lag",
        c"Lag of a replica beyond which nothing is built.",
        c"The write-ahead log that a connected replica has not applied yet. A build that runs is given up and tried again later. -1: it does not matter.",
        &GUARD_MAX_REPLICA_LAG,
        -1,
        i32::MAX,
        Sighup,
        mb,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.guard_min_server_version",
        c"Oldest version of the server on which indexes are built.",
        c"As in server_version_num, such as 150009. Releases with known defects of concurrent builds are refused in any case.",
        &GUARD_MIN_SERVER_VERSION,
        0,
        999_999,
        Sighup,
        none,
    );

    GucRegistry::define_bool_guc(
        c"indexpilot.verify",
        c"Lets the worker judge built indexes and take back those that do harm.",
        c"When off, built indexes are kept without a verdict.",
        &VERIFY,
        Sighup,
        none,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.verify_delay",
        c"Time for which a new index is watched before it is judged.",
        c"Further looks come at growing distances, for as long as its queries take to be called often enough, and at most indexpilot.verify_timeout.",
        &VERIFY_DELAY,
        0,
        604_800,
        Sighup,
        s,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.verify_timeout",
        c"Time after which an index is judged even when its queries were rarely called.",
        c"Then the verdict is neutral, and the index stays.",
        &VERIFY_TIMEOUT,
        1,
        31_536_000,
        Sighup,
        s,
    );
    GucRegistry::define_int_guc(
        c"indexpilot.verify_min_calls",
        c"Executions of a query, before and after, that a verdict needs.",
        c"Queries with fewer executions do not count.",
        &VERIFY_MIN_CALLS,
        2,
        1_000_000,
        Sighup,
        none,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.verify_max_regression",
        c"Share by which a query may get slower before the index is taken back.",
        c"Only when the difference is also statistically significant.",
        &VERIFY_MAX_REGRESSION,
        0.0,
        100.0,
        Sighup,
        none,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.verify_max_hot_loss",
        c"Share of a table's updates that may stop being heap-only before an index is doubted.",
        c"0.2 stands for a fifth. Beyond it, an index that saves less than the writes lose is taken back, however little each one loses.",
        &VERIFY_MAX_HOT_LOSS,
        0.0,
        1.0,
        Sighup,
        none,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.verify_confidence",
        c"Confidence that a measured difference must reach.",
        c"0.99 means that chance alone would show such a difference once in a hundred times.",
        &VERIFY_CONFIDENCE,
        0.5,
        0.999999,
        Sighup,
        none,
    );
}

pub fn guard_max_indexes_per_table() -> usize {
    GUARD_MAX_INDEXES_PER_TABLE.get() as usize
}
pub fn guard_max_actions_per_hour() -> usize {
    GUARD_MAX_ACTIONS_PER_HOUR.get() as usize
}
pub fn guard_max_transaction_age() -> Duration {
    Duration::from_secs(GUARD_MAX_TRANSACTION_AGE.get() as u64)
}
pub fn guard_cooldown() -> Duration {
    Duration::from_secs(60 * GUARD_COOLDOWN.get() as u64)
}
pub fn guard_free_disk_factor() -> f64 {
    GUARD_FREE_DISK_FACTOR.get()
}
pub fn guard_max_indexes() -> usize {
    GUARD_MAX_INDEXES.get().max(0) as usize
}
pub fn guard_max_index_share() -> f64 {
    GUARD_MAX_INDEX_SHARE.get()
}
pub fn guard_max_writes_per_read() -> f64 {
    GUARD_MAX_WRITES_PER_READ.get()
}
pub fn guard_max_actions_per_day() -> usize {
    GUARD_MAX_ACTIONS_PER_DAY.get().max(0) as usize
}
/// 0 for never.
pub fn guard_breaker_failures() -> usize {
    GUARD_BREAKER_FAILURES.get().max(0) as usize
}
pub fn guard_breaker_pause() -> Duration {
    Duration::from_secs(GUARD_BREAKER_PAUSE.get() as u64)
}
/// For each processor; `None` when it does not matter.
pub fn guard_max_load() -> Option<f64> {
    Some(GUARD_MAX_LOAD.get()).filter(|load| *load > 0.0)
}
pub fn guard_load_cooldown() -> Duration {
    Duration::from_secs(GUARD_LOAD_COOLDOWN.get() as u64)
}
/// In bytes; `None` when it does not matter.
pub fn guard_max_replica_lag() -> Option<u64> {
    u64::try_from(GUARD_MAX_REPLICA_LAG.get()).ok().map(|mb| mb * 1024 * 1024)
}
/// As `server_version_num`; 0 for any.
pub fn guard_min_server_version() -> u32 {
    GUARD_MIN_SERVER_VERSION.get().max(0) as u32
}
/// `None`: at any time.
pub fn guard_window() -> Option<Window> {
    let text = |setting: &GucSetting<Option<CString>>| setting.get().map_or_else(String::new, |t| t.to_string_lossy().into_owned());
    Window::new(&text(&GUARD_WINDOW_START), &text(&GUARD_WINDOW_END), &text(&GUARD_WINDOW_DAYS))
}
/// `None`: the session's.
pub fn guard_window_timezone() -> Option<String> {
    GUARD_WINDOW_TIMEZONE.get().map(|t| t.to_string_lossy().into_owned()).filter(|t| !t.is_empty())
}
pub fn verify() -> bool {
    VERIFY.get()
}
pub fn verify_delay() -> Duration {
    Duration::from_secs(VERIFY_DELAY.get() as u64)
}
pub fn verify_timeout() -> Duration {
    Duration::from_secs(VERIFY_TIMEOUT.get() as u64)
}
pub fn verify_min_calls() -> u64 {
    VERIFY_MIN_CALLS.get() as u64
}
pub fn verify_max_regression() -> f64 {
    VERIFY_MAX_REGRESSION.get()
}
pub fn verify_max_hot_loss() -> f64 {
    VERIFY_MAX_HOT_LOSS.get()
}
pub fn verify_confidence() -> f64 {
    VERIFY_CONFIDENCE.get()
}
