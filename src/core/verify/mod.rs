//! verify: did the index help? Judged by what was measured before and after, never by what the planner promised.
//!
//! A query's change counts only when two tests agree that it is no accident: Welch's t-test, which sees the mean and is misled by
//! outliers, and the Mann–Whitney test, which sees the ranks and is not. The larger of both probabilities must lie below
//! `1 - confidence`, divided by the number of queries of the same role, because among a hundred unconcerned queries one would seem
//! to have changed by accident at 99 %.
//!
//! The verdict, first match:
//! 1. *Reverted* when a query fails significantly more often than before (an index can make writes fail: a row too wide for it).
//! 2. *Reverted* when a cited query became slower and no cited query became faster.
//! 3. *Reverted* when any queries became slower and the time lost since then exceeds the time saved. A write or an unconcerned
//!    query that became slower alone does not outweigh an index that pays; that is what an index costs.
//! 4. *Kept* when a cited query became faster.
//! 5. *Neutral* when the time is over: the index stays, and nothing is claimed.
//! 6. *Pending* otherwise.
//!
//! *Slower* means by more than `max_regression` and by at least [`MIN_LOSS_MS`] a call; *faster* by at least [`MIN_GAIN`].

mod stats;

use crate::histogram::Histogram;
use serde::Serialize;

/// Milliseconds a call by which a query must have become slower to count as slower: below it lies the noise of any server.
pub const MIN_LOSS_MS: f64 = 0.05;

/// Share by which a query must have become faster to count as faster.
pub const MIN_GAIN: f64 = 0.05;

/// Failures after the change that a verdict for failing needs at least, and the least rise of their share.
const MIN_ERRORS: u64 = 5;
const MIN_ERROR_RISE: f64 = 0.01;

/// What was measured of one query in one span of time. Durations in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// Executions that completed.
    pub calls: u64,
    /// Executions that ended in an error or a cancel; their times are not in the figures below.
    pub errors: u64,
    pub total_ms: f64,
    pub sum_squares_ms: f64,
    pub histogram: Histogram,
}

impl Window {
    /// Adds the figures of another span (or another tenant).
    pub fn merge(&mut self, other: &Window) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.total_ms += other.total_ms;
        self.sum_squares_ms += other.sum_squares_ms;
        self.histogram.merge(&other.histogram);
    }

    /// Mean time in milliseconds; `None` without calls.
    pub fn mean_ms(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.total_ms / self.calls as f64)
    }
}

/// Why a query is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The decision named it as one that the index serves.
    Cited,
    /// Another query on the same table.
    Other,
    /// It writes to the table.
    Write,
}

impl Role {
    /// As in `verifications.role`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Cited => "cited",
            Role::Other => "other",
            Role::Write => "write",
        }
    }
}

/// One query before and after the change.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub workload_id: i64,
    pub role: Role,
    pub before: Window,
    pub after: Window,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Calls that a query needs both before and after to count.
    pub min_calls: u64,
    /// Share by which a query may become slower, such as 0.1.
    pub max_regression: f64,
    /// Confidence of the tests, such as 0.99.
    pub confidence: f64,
    /// Seconds after which the verdict is neutral when nothing can be told.
    pub timeout_s: f64,
}

/// The verdict on an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Kept,
    Neutral,
    Reverted,
    Pending,
}

impl Verdict {
    /// As in `verifications.verdict`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Kept => "kept",
            Verdict::Neutral => "neutral",
            Verdict::Reverted => "reverted",
            Verdict::Pending => "pending",
        }
    }
}

/// What became of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    TooFewCalls,
    Same,
    Faster,
    Slower,
    /// It fails more often than before.
    Failing,
}

/// One query compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub workload_id: i64,
    pub role: Role,
    pub effect: Effect,
    pub calls_before: u64,
    pub calls_after: u64,
    pub mean_ms_before: Option<f64>,
    pub mean_ms_after: Option<f64>,
    pub p95_ms_before: Option<f64>,
    pub p95_ms_after: Option<f64>,
    /// Mean after divided by mean before; `None` when either is unknown or the first is zero.
    pub change_ratio: Option<f64>,
    /// The larger probability of both tests; `None` with too few calls.
    pub p_value: Option<f64>,
}

impl Comparison {
    /// Time saved (or, negative, lost) by the calls after the change, milliseconds; 0 unless the change is significant.
    fn saved_ms(&self) -> f64 {
        match (self.effect, self.mean_ms_before, self.mean_ms_after) {
            (Effect::Faster | Effect::Slower, Some(before), Some(after)) => (before - after) * self.calls_after as f64,
            _ => 0.0,
        }
    }

    /// `query 7 takes 0.42 ms instead of 31 ms (120 calls before, 40 after, p = 0.0002)`
    fn sentence(&self) -> String {
        let figure = |ms: Option<f64>| ms.map_or_else(|| "?".to_owned(), time);
        let p = self.p_value.map_or_else(String::new, |p| if p < 0.0001 { ", p < 0.0001".into() } else { format!(", p = {p:.4}") });
        format!(
            "query {} takes {} instead of {} ({} calls before, {} after{p})",
            self.workload_id,
            figure(self.mean_ms_after),
            figure(self.mean_ms_before),
            self.calls_before,
            self.calls_after
        )
    }
}

/// The verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judgement {
    pub verdict: Verdict,
    /// The verdict in words, with figures.
    pub reason: String,
    /// One for each query that was given, in the same order.
    pub rows: Vec<Comparison>,
    /// Time that significantly faster queries have saved since the change, milliseconds.
    pub saved_ms: f64,
    /// Time that significantly slower queries have lost since the change, milliseconds.
    pub lost_ms: f64,
}

/// Judges an index that has been watched for `watched_s` seconds. The rule is that at the head of this file.
pub fn judge(measured: &[Measured], watched_s: f64, config: &Config) -> Judgement {
    let counts = |m: &Measured| m.before.calls >= config.min_calls && m.after.calls >= config.min_calls;
    let of_role = |role: Role| measured.iter().filter(|m| m.role == role && counts(m)).count().max(1) as f64;
    let rows: Vec<Comparison> = measured
        .iter()
        .map(|m| compare(m, counts(m), (1.0 - config.confidence) / of_role(m.role), config.max_regression))
        .collect();
    let (mut saved_ms, mut lost_ms) = (0.0, 0.0);
    for row in &rows {
        let saved = row.saved_ms();
        if saved > 0.0 { saved_ms += saved } else { lost_ms -= saved }
    }
    let (verdict, reason) = decide(&rows, measured, saved_ms, lost_ms, watched_s, config);
    Judgement { verdict, reason, rows, saved_ms, lost_ms }
}

fn decide(
    rows: &[Comparison],
    measured: &[Measured],
    saved_ms: f64,
    lost_ms: f64,
    watched_s: f64,
    config: &Config,
) -> (Verdict, String) {
    if let Some((row, m)) = rows.iter().zip(measured).find(|(r, _)| r.effect == Effect::Failing) {
        let percent = |w: &Window| 100.0 * error_share(w);
        return (
            Verdict::Reverted,
            format!(
                "query {} fails in {:.1} % of its executions instead of {:.1} % ({} failures since the change)",
                row.workload_id,
                percent(&m.after),
                percent(&m.before),
                m.after.errors
            ),
        );
    }
    // The heaviest change stands for the others in the reason.
    let heaviest = |effect: Effect, cited_only: bool| {
        rows.iter()
            .filter(|r| r.effect == effect && (!cited_only || r.role == Role::Cited))
            .max_by(|a, b| a.saved_ms().abs().total_cmp(&b.saved_ms().abs()))
    };
    let faster_cited = heaviest(Effect::Faster, true);
    if let (Some(row), None) = (heaviest(Effect::Slower, true), faster_cited) {
        return (Verdict::Reverted, format!("{}; no query that the decision named became faster", row.sentence()));
    }
    if let Some(row) = heaviest(Effect::Slower, false)
        && lost_ms > saved_ms
    {
        let balance = format!("{} were lost since the change, {} saved", time(lost_ms), time(saved_ms));
        return (Verdict::Reverted, format!("{}; {balance}", row.sentence()));
    }
    if let Some(row) = faster_cited {
        let balance = format!("{} were saved since the change, {} lost", time(saved_ms), time(lost_ms));
        return (Verdict::Kept, format!("{}; {balance}", row.sentence()));
    }
    let cited = rows.iter().filter(|r| r.role == Role::Cited);
    let (known, all) = (cited.clone().filter(|r| r.effect != Effect::TooFewCalls).count(), cited.count());
    let so_far = format!(
        "{known} of {all} queries that the decision named have {} calls both before and after; none of them became faster or slower \
         beyond chance",
        config.min_calls
    );
    match watched_s >= config.timeout_s {
        true => (Verdict::Neutral, format!("after {}, {so_far}", span(watched_s))),
        false => (Verdict::Pending, format!("watched for {}: {so_far}", span(watched_s))),
    }
}

fn compare(m: &Measured, counts: bool, alpha: f64, max_regression: f64) -> Comparison {
    let (before, after) = (m.before.mean_ms(), m.after.mean_ms());
    let mut row = Comparison {
        workload_id: m.workload_id,
        role: m.role,
        effect: Effect::TooFewCalls,
        calls_before: m.before.calls,
        calls_after: m.after.calls,
        mean_ms_before: before,
        mean_ms_after: after,
        p95_ms_before: m.before.histogram.quantile_ms(0.95),
        p95_ms_after: m.after.histogram.quantile_ms(0.95),
        change_ratio: before.zip(after).and_then(|(b, a)| (b > 0.0).then(|| a / b)),
        p_value: None,
    };
    if fails_more(m, alpha) {
        row.effect = Effect::Failing;
        return row;
    }
    let (true, Some(before), Some(after)) = (counts, before, after) else { return row };
    let p = stats::p_value(&m.before, &m.after);
    row.p_value = Some(p);
    row.effect = if p >= alpha {
        Effect::Same
    } else if after > before * (1.0 + max_regression) && after - before >= MIN_LOSS_MS {
        Effect::Slower
    } else if after <= before * (1.0 - MIN_GAIN) {
        Effect::Faster
    } else {
        Effect::Same
    };
    row
}

fn error_share(w: &Window) -> f64 {
    let runs = w.calls + w.errors;
    if runs == 0 { 0.0 } else { w.errors as f64 / runs as f64 }
}

/// Compares shares of failures. A query that never ran before has nothing to compare with.
fn fails_more(m: &Measured, alpha: f64) -> bool {
    m.before.calls > 0
        && m.after.errors >= MIN_ERRORS
        && error_share(&m.after) - error_share(&m.before) >= MIN_ERROR_RISE
        && stats::proportions(m.before.errors, m.before.calls + m.before.errors, m.after.errors, m.after.calls + m.after.errors)
            < alpha
}

/// A time with a unit that suits it.
fn time(ms: f64) -> String {
    if ms >= 10_000.0 {
        format!("{:.1} s", ms / 1000.0)
    } else if ms >= 10.0 {
        format!("{ms:.0} ms")
    } else if ms >= 0.1 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.3} ms")
    }
}

fn span(s: f64) -> String {
    if s >= 7200.0 {
        format!("{:.1} h", s / 3600.0)
    } else if s >= 120.0 {
        format!("{:.0} min", s / 60.0)
    } else {
        format!("{s:.0} s")
    }
}

#[cfg(test)]
mod tests;
