//! Rules about the pace: how many actions, how soon again after what went wrong, beside how much other work. All of them are derived
//! from what the actions' rows say, so they hold across restarts.
//!
//! A clock that was set back makes things happen in the future. What lies more than [`SKEW_S`] ahead is taken for long ago, so that
//! nothing waits until the clock has caught up.

use super::{Config, Facts, Finding, pass, wait};

const HOUR_S: f64 = 3600.0;
const DAY_S: f64 = 24.0 * HOUR_S;

/// Seconds by which a clock may be corrected without anything being forgotten.
pub const SKEW_S: f64 = 60.0;

/// A cool-down does not grow beyond a year.
const LONGEST_COOLDOWN_S: f64 = 365.0 * DAY_S;

/// How long ago something happened, by a clock that may have been set back: `None` is long ago.
fn ago(s: f64) -> Option<f64> {
    (s >= -SKEW_S).then_some(s.max(0.0))
}

/// What a bucket that holds `capacity` tokens, refills within `period_s` and was full once has left, after a token was taken that
/// many seconds ago for each of `ages`.
fn tokens(ages: &[f64], capacity: usize, period_s: f64) -> f64 {
    let capacity = capacity as f64;
    let mut ages: Vec<f64> = ages.iter().filter_map(|s| ago(*s)).collect();
    ages.sort_by(|a, b| b.total_cmp(a));
    let refilled = |level: f64, seconds: f64| (level + seconds * capacity / period_s).min(capacity);
    let (mut level, mut since) = (capacity, ages.first().copied().unwrap_or(0.0));
    for age in ages {
        level = (refilled(level, since - age) - 1.0).clamp(0.0, capacity);
        since = age;
    }
    refilled(level, since)
}

fn bucket(rule: &'static str, facts: &Facts, capacity: usize, period_s: f64, period: &str) -> Finding {
    if facts.reverts {
        return pass(rule, format!("it takes something back, which the limit of {capacity} actions per {period} leaves out"));
    }
    let left = if capacity == 0 { 0.0 } else { tokens(&facts.started_s_ago, capacity, period_s) };
    if left >= 1.0 {
        return pass(rule, format!("{left:.1} of {capacity} actions per {period} are left"));
    }
    if capacity == 0 {
        return wait(rule, format!("no actions are allowed per {period}"));
    }
    let pause = (1.0 - left) * period_s / capacity as f64;
    wait(rule, format!("the {capacity} actions per {period} are used up; the next may start in {pause:.0} s"))
}

/// Not too many actions an hour. What takes an action back is not counted: harm must not last for an hour.
pub(super) fn rate_limit(facts: &Facts, config: &Config) -> Finding {
    bucket("rate_limit", facts, config.max_actions_per_hour, HOUR_S, "hour")
}

/// The same for a day.
pub(super) fn rate_limit_day(facts: &Facts, config: &Config) -> Finding {
    bucket("rate_limit_day", facts, config.max_actions_per_day, DAY_S, "day")
}

/// What is taken back is not built again at once by the worker, and later each time; a person who asks for it has a reason.
pub(super) fn cooldown(facts: &Facts, config: &Config) -> Finding {
    let rule = "cooldown";
    let Some(ago) = facts.reverted_s_ago.and_then(ago) else {
        return pass(rule, "the same index was not taken back before");
    };
    let pause = cooldown_s(config.cooldown_s, facts.reverted_times);
    let detail = format!("the same index was taken back {ago:.0} s ago");
    let detail = match facts.reverted_times {
        0 | 1 => detail,
        n => format!("{detail}, {n} times by now"),
    };
    match facts.adds() && ago < pause {
        true if facts.explicit => pass(rule, format!("{detail}, but somebody asked for it by a call")),
        true => wait(rule, format!("{detail}; the cool-down ends in {:.0} s", pause - ago)),
        false => pass(rule, format!("{detail}, the cool-down is {pause:.0} s")),
    }
}

/// Twice as long each time that the same definition loses.
fn cooldown_s(base_s: f64, times: usize) -> f64 {
    let doublings = times.saturating_sub(1).min(20) as i32;
    (base_s * 2.0_f64.powi(doublings)).min(LONGEST_COOLDOWN_S.max(base_s))
}

/// How an earlier action went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It failed, or its index was taken back by its verdict.
    Bad,
    /// Its index stays, or it is done.
    Good,
    /// It runs, or its verdict is not given yet.
    Open,
}

/// An earlier action. What takes something back is none: it follows from another.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Past {
    pub outcome: Outcome,
    /// Seconds since it was started.
    pub started_s_ago: f64,
    /// Seconds since its outcome was known; of an open one, since it was started.
    pub settled_s_ago: f64,
}

/// The circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Breaker {
    /// All is well; so many actions in a row went wrong.
    Closed(usize),
    /// So many in a row went wrong; for so many seconds nothing is started.
    Open(usize, f64),
    /// The pause is over: one action may try.
    HalfOpen(usize),
    /// One action tries, and its outcome is awaited.
    Trying(usize),
}

/// The state of the circuit breaker, from the history: `limit` (0: never) bad outcomes in a row open it for `pause_s` seconds.
pub fn breaker(history: &[Past], limit: usize, pause_s: f64) -> Breaker {
    let mut settled: Vec<&Past> = history.iter().filter(|p| p.outcome != Outcome::Open).collect();
    settled.sort_by(|a, b| a.settled_s_ago.total_cmp(&b.settled_s_ago));
    let bad: Vec<&&Past> = settled.iter().take_while(|p| p.outcome == Outcome::Bad).collect();
    let Some(last) = bad.first().filter(|_| limit > 0 && bad.len() >= limit) else { return Breaker::Closed(bad.len()) };
    if let Some(ago) = ago(last.settled_s_ago).filter(|ago| *ago < pause_s) {
        return Breaker::Open(bad.len(), pause_s - ago);
    }
    match history.iter().any(|p| p.outcome == Outcome::Open && p.started_s_ago < last.settled_s_ago) {
        true => Breaker::Trying(bad.len()),
        false => Breaker::HalfOpen(bad.len()),
    }
}

/// After some bad outcomes in a row nothing is started for a time, then one action; what becomes of it decides. Whoever asks for an
/// action by a call has a reason, and it serves as the trial.
pub(super) fn circuit_breaker(facts: &Facts, config: &Config) -> Finding {
    let rule = "circuit_breaker";
    let in_a_row = |n| format!("{n} actions in a row failed or were taken back");
    let (objection, detail) = match breaker(&facts.history, config.breaker_failures, config.breaker_pause_s) {
        Breaker::Closed(n) => (false, in_a_row(n)),
        Breaker::HalfOpen(n) => (false, format!("{}; the pause is over, this one is the trial", in_a_row(n))),
        Breaker::Open(n, left) => (true, format!("{}; one may try again in {left:.0} s", in_a_row(n))),
        Breaker::Trying(n) => (true, format!("{}; the outcome of the one that tries is awaited", in_a_row(n))),
    };
    match objection && !facts.reverts {
        true if facts.explicit => pass(rule, format!("{detail}, but somebody asked for this one by a call")),
        true => wait(rule, detail),
        false => pass(rule, detail),
    }
}

/// Work for the processors stands in line beyond `indexpilot.guard_max_load`.
pub fn overloaded(facts: &Facts, config: &Config) -> bool {
    matches!((facts.load_per_core, config.max_load), (Some(load), Some(limit)) if load > limit)
}

/// Not while the machine is overloaded, nor shortly after it was. What takes an action back does not wait.
pub(super) fn load(facts: &Facts, config: &Config) -> Finding {
    let rule = "load";
    let Some(limit) = config.max_load else { return pass(rule, "there is no limit on the load") };
    let Some(load) = facts.load_per_core else { return pass(rule, "the load of the machine cannot be told") };
    let detail = format!("the load is {load:.2} per processor, the limit is {limit}");
    if facts.reverts {
        return pass(rule, detail);
    }
    if load > limit {
        return wait(rule, detail);
    }
    match facts.overloaded_s_ago.and_then(ago) {
        Some(ago) if ago < config.load_cooldown_s => {
            wait(rule, format!("{detail}; it was beyond that {ago:.0} s ago, the cool-down is {:.0} s", config.load_cooldown_s))
        }
        _ => pass(rule, detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bucket_empties_and_refills() {
        assert_eq!(tokens(&[], 4, 3600.0), 4.0);
        assert_eq!(tokens(&[0.0, 0.0, 0.0, 0.0], 4, 3600.0), 0.0);
        // A quarter of an hour later one is back.
        assert!((tokens(&[900.0; 4], 4, 3600.0) - 1.0).abs() < 1e-9);
        // Long ago does not matter.
        assert_eq!(tokens(&[1e6, 1e7], 4, 3600.0), 4.0);
    }

    #[test]
    fn a_clock_that_was_set_back_blocks_nothing() {
        assert_eq!(tokens(&[-1e6; 40], 4, 3600.0), 4.0);
        // A correction by seconds is not one by years.
        assert_eq!(tokens(&[-5.0; 4], 4, 3600.0), 0.0);
        let future = Past { outcome: Outcome::Bad, started_s_ago: -1e6, settled_s_ago: -1e6 };
        assert_eq!(breaker(&[future; 9], 3, 3600.0), Breaker::HalfOpen(9));
    }

    fn past(outcome: Outcome, settled_s_ago: f64) -> Past {
        Past { outcome, started_s_ago: settled_s_ago, settled_s_ago }
    }

    #[test]
    fn the_breaker_opens_tries_and_closes() {
        use Outcome::{Bad, Good, Open};
        let bad = |at: &[f64]| at.iter().map(|s| past(Bad, *s)).collect::<Vec<_>>();
        assert_eq!(breaker(&[], 3, 600.0), Breaker::Closed(0));
        assert_eq!(breaker(&bad(&[10.0, 20.0]), 3, 600.0), Breaker::Closed(2));
        assert_eq!(breaker(&bad(&[30.0, 10.0, 20.0]), 3, 600.0), Breaker::Open(3, 590.0));
        assert_eq!(breaker(&bad(&[30.0, 10.0, 20.0]), 0, 600.0), Breaker::Closed(3), "0 is never");
        let mut later = bad(&[620.0, 600.0, 610.0]);
        assert_eq!(breaker(&later, 3, 600.0), Breaker::HalfOpen(3));
        later.push(past(Open, 5.0));
        assert_eq!(breaker(&later, 3, 600.0), Breaker::Trying(3));
        // The trial fails: the pause begins again. It succeeds: all is well.
        let mut worse = later.clone();
        worse[3] = past(Bad, 1.0);
        assert_eq!(breaker(&worse, 3, 600.0), Breaker::Open(4, 599.0));
        later[3] = past(Good, 1.0);
        assert_eq!(breaker(&later, 3, 600.0), Breaker::Closed(0));
        // One that was under way before things went wrong is not the trial.
        let mut early = bad(&[620.0, 600.0, 610.0]);
        early.push(past(Open, 5000.0));
        assert_eq!(breaker(&early, 3, 600.0), Breaker::HalfOpen(3));
    }

    #[test]
    fn a_cool_down_doubles() {
        for (times, expected) in [(0, 60.0), (1, 60.0), (2, 120.0), (3, 240.0), (11, 61_440.0)] {
            assert_eq!(cooldown_s(60.0, times), expected, "{times}");
        }
        assert_eq!(cooldown_s(86_400.0, 1000), LONGEST_COOLDOWN_S);
        assert_eq!(cooldown_s(0.0, 5), 0.0);
    }

    proptest! {
        /// However starts are asked for, those that the bucket allows within any period are at most its capacity and what refills.
        #[test]
        fn a_bucket_keeps_its_promise(gaps in prop::collection::vec(0.0..400.0f64, 1..200), capacity in 1usize..8) {
            let (period, mut now, mut starts) = (3600.0, 0.0, Vec::<f64>::new());
            for gap in gaps {
                now += gap;
                let ages: Vec<f64> = starts.iter().map(|s| now - s).collect();
                if tokens(&ages, capacity, period) >= 1.0 {
                    starts.push(now);
                }
            }
            for (i, first) in starts.iter().enumerate() {
                let within = starts[i..].iter().filter(|s| **s - first < period).count();
                prop_assert!(within <= 2 * capacity, "{within} starts in a period, capacity {capacity}");
            }
            // And nobody waits for ever.
            let ages: Vec<f64> = starts.iter().map(|s| now + period / capacity as f64 + 1.0 - s).collect();
            prop_assert!(tokens(&ages, capacity, period) >= 1.0);
        }
    }
}
