//! Settings of trials: how long an index stays hidden before it is dropped, and how many transactions try a new one.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::time::Duration;

// A week has every day of the week, and the reports that run on one of them.
static APPLY_OBSERVE: GucSetting<i32> = GucSetting::<i32>::new(7 * 24 * 60 * 60);

// Who wants caution says how much.
static APPLY_CANARY_PERCENT: GucSetting<f64> = GucSetting::<f64>::new(100.0);

/// Defines them. From [`super::init`].
pub(super) fn init() {
    GucRegistry::define_int_guc(
        c"indexpilot.apply_observe",
        c"Time for which an index is hidden before retire_index() drops it.",
        c"When a query becomes slower meanwhile, or somebody shows the index, it is not dropped.",
        &APPLY_OBSERVE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_float_guc(
        c"indexpilot.apply_canary_percent",
        c"Share of the transactions that see a newly built index at first.",
        c"The others are the control: the verdict compares both, and then all transactions see the index, or it is taken back. 100 shows it to all at once.",
        &APPLY_CANARY_PERCENT,
        0.01,
        100.0,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

pub fn apply_canary_percent() -> f64 {
    APPLY_CANARY_PERCENT.get()
}

pub fn apply_observe() -> Duration {
    Duration::from_secs(APPLY_OBSERVE.get() as u64)
}
