//! verify: did the index help? Judged by what was measured before and after, never by what the planner promised.
//!
//! A query's change counts only when two tests agree that it is no accident: Welch's t-test, which sees the mean and is misled by
//! outliers, and the Mann–Whitney test, which sees the ranks and is not. The larger of both probabilities must lie below
//! `1 - confidence`, divided by the number of queries of the same role, because among a hundred unconcerned queries one would seem
//! to have changed by accident at 99 %. An index is looked at several times ([`look_number`]), and whoever looks often enough finds
//! an accident: what speaks against it must convince more at each look ([`Circumstances::look`]). Between the looks only failures
//! count, and only what can hardly be an accident ([`ALARM`]): statements that fail cannot wait for half an hour.
//!
//! When the queries that have nothing to do with the table became slower too, the server did, and not because of the index: that
//! much ([`drift`]) is taken off before anything is said to be slower, and in the same way before it is said to be faster. What takes no
//! longer than before is never slower, whatever became of the others: nobody would understand why its index goes.
//!
//! The verdict, first match:
//! 1. *Reverted* when a query fails significantly more often than before, and the index can be why: it can make writes fail whose rows are
//!    too wide for it or whose values its expressions cannot take, reads only when plans use it, and neither when the same happens to
//!    queries that have nothing to do with the table.
//! 2. *Reverted* when a cited query became slower and no cited query became faster.
//! 3. *Reverted* when any queries became slower and the time lost since then exceeds the time saved. A write or an unconcerned
//!    query that became slower alone does not outweigh an index that pays; that is what an index costs.
//! 4. *Reverted* when updates are no longer heap-only, and the writes that became slower at all, by however little, lost more than
//!    was saved.
//! 5. *Kept* when a cited query became faster, some plan used the index, and all cited queries were seen or the time of observing
//!    ([`observation_s`]) is over. For 6, that time is over only when enough updates were seen too, where there were any before.
//! 6. That time being over: *reverted* when updates are no longer heap-only or cited queries became slower, and nothing became
//!    faster; else *neutral*: the index stays, and nothing is claimed.
//! 7. *Pending* otherwise. A query that seems slower, or a cited one that seems faster, though not beyond chance, is watched for as
//!    long as there is.
//!
//! An index that no plan has used slows no reads: 2 and 3 wait for the end of the time then. What it does to writes counts at once. Nor
//! does it save anything: at the end of the time, nothing that became faster speaks for it.
//!
//! *Slower* means by more than `max_regression` and by at least [`MIN_LOSS_MS`] a call; *faster* by at least [`MIN_GAIN`].

mod compare;
mod schedule;
mod stats;

pub use compare::{drift, fails_more_elsewhere};
pub use schedule::{look_number, observation_s};

use crate::histogram::Histogram;
use compare::{compare, error_share};
use serde::Serialize;

/// Milliseconds a call by which a query must have become slower to count as slower: below it lies the noise of any server.
pub const MIN_LOSS_MS: f64 = 0.05;

/// Share by which a query must have become faster to count as faster.
pub const MIN_GAIN: f64 = 0.05;

/// Share of the chance for an accident that each glance between the looks may take. In three days there are 4320 of them, one a minute.
const ALARM: f64 = 1e-6;

/// Updates of the table, before and after, below which nothing is said of heap-only ones.
const MIN_UPDATES: u64 = 100;

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
    /// Share of the updates that may stop being heap-only, such as 0.2.
    pub max_hot_loss: f64,
    /// Seconds after which the verdict is neutral when nothing can be told.
    pub timeout_s: f64,
}

/// Updates of the table, and those of them that touched no index, before and after the change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Updates {
    pub before: u64,
    pub hot_before: u64,
    pub after: u64,
    pub hot_after: u64,
}

/// What is known beside the queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Circumstances {
    /// Seconds since the change.
    pub watched_s: f64,
    /// Seconds after which the verdict is given when all cited queries were seen; see [`observation_s`].
    pub observation_s: f64,
    /// Which look at the index this is, from 1: see [`look_number`]. 0 is a glance between the looks, for failures alone.
    pub look: u32,
    /// How often a plan used the index; `None` when that is not known.
    pub scans: Option<u64>,
    /// `None` when it is not known.
    pub updates: Option<Updates>,
    /// How many times as long as before everything takes, whatever the change did; 1 when that is not known. See [`drift`].
    pub drift: f64,
    /// The index can make a write fail: by code in it, or by a value that is too long for an entry.
    pub writes_may_fail: bool,
    /// Queries that have nothing to do with the table fail more often too. See [`fails_more_elsewhere`].
    pub all_fail: bool,
    /// Reads are compared with transactions of the same time that did not see the index, so the drift concerns writes only.
    pub beside_control: bool,
}

impl Circumstances {
    /// The first look after so many seconds, when nothing else is known.
    pub fn after(watched_s: f64) -> Self {
        Circumstances {
            watched_s,
            observation_s: f64::INFINITY,
            look: 1,
            scans: None,
            updates: None,
            drift: 1.0,
            writes_may_fail: true,
            all_fail: false,
            beside_control: false,
        }
    }
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
    /// Mean before, with the drift of everything else, from which the effect is counted.
    #[serde(skip)]
    expected_ms: Option<f64>,
    /// It became slower beyond chance, by however little.
    #[serde(skip)]
    slower_at_all: bool,
    /// It seems to be slower, or faster, and more calls may show it.
    #[serde(skip)]
    unsettled: bool,
}

impl Comparison {
    /// Time saved (or, negative, lost) by the calls after the change, milliseconds; 0 unless the change is significant.
    fn saved_ms(&self) -> f64 {
        if matches!(self.effect, Effect::Faster | Effect::Slower) { self.change_ms() } else { 0.0 }
    }

    /// The same, whether or not it is significant.
    fn change_ms(&self) -> f64 {
        self.expected_ms.zip(self.mean_ms_after).map_or(0.0, |(before, after)| (before - after) * self.calls_after as f64)
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

/// Judges an index. The rule is that at the head of this file.
pub fn judge(measured: &[Measured], seen: &Circumstances, config: &Config) -> Judgement {
    let counts = |m: &Measured| m.before.calls >= config.min_calls && m.after.calls >= config.min_calls;
    let of_role = |role: Role| measured.iter().filter(|m| m.role == role && counts(m)).count().max(1) as f64;
    let chance = 1.0 - config.confidence;
    // The chances of all looks together, chance / (1 * 2) + chance / (2 * 3) + ..., are no more than that of one.
    let look = f64::from(seen.look);
    let share = if seen.look == 0 { ALARM } else { 1.0 / (look * (look + 1.0)) };
    let rows: Vec<Comparison> = measured
        .iter()
        .map(|m| {
            let chance = chance / of_role(m.role);
            let drift = if seen.beside_control && m.role != Role::Write { 1.0 } else { seen.drift };
            let to_blame = !seen.all_fail && if m.role == Role::Write { seen.writes_may_fail } else { seen.scans != Some(0) };
            let failing = to_blame.then_some(config.min_calls);
            compare(m, counts(m), failing, [chance, chance * share], drift, config.max_regression)
        })
        .collect();
    let (mut saved_ms, mut lost_ms) = (0.0, 0.0);
    for row in &rows {
        let saved = row.saved_ms();
        if saved > 0.0 { saved_ms += saved } else { lost_ms -= saved }
    }
    let (verdict, reason) = Case { rows: &rows, measured, saved_ms, lost_ms, seen, config }.decide();
    Judgement { verdict, reason, rows, saved_ms, lost_ms }
}

/// Everything that a verdict is made of.
struct Case<'a> {
    rows: &'a [Comparison],
    measured: &'a [Measured],
    saved_ms: f64,
    lost_ms: f64,
    seen: &'a Circumstances,
    config: &'a Config,
}

impl Case<'_> {
    fn decide(&self) -> (Verdict, String) {
        if let Some(reason) = self.failing() {
            return (Verdict::Reverted, reason);
        }
        if self.seen.look == 0 {
            return (Verdict::Pending, "nothing fails more often than before".into());
        }
        let unused = self.seen.scans == Some(0);
        let cited = self.rows.iter().filter(|r| r.role == Role::Cited);
        let (known, all) = (cited.clone().filter(|r| r.effect != Effect::TooFewCalls).count(), cited.count());
        let out_of_time = self.seen.watched_s >= self.config.timeout_s;
        let updates_awaited = self.seen.updates.is_some_and(|u| u.before >= MIN_UPDATES && u.after < MIN_UPDATES);
        let observed = known == all && all > 0 && self.seen.watched_s >= self.seen.observation_s;
        let over = out_of_time || (observed && !updates_awaited);
        let faster_cited = self.heaviest(Effect::Faster, |r| r.role == Role::Cited);
        let unsettled = self.rows.iter().any(|r| r.unsettled && (r.role != Role::Cited || !unused));
        // The server may be late to tell that a plan used it, but not as late as that.
        let useless = unused && over;
        let gain = faster_cited.filter(|_| !useless);
        let saved_ms = if useless { 0.0 } else { self.saved_ms };
        // What an index that no plan uses does to reads is an accident, until time is over and it is of no use anyway.
        let counts = |r: &Comparison| r.role == Role::Write || !unused || over;
        if let (Some(row), None) = (self.heaviest(Effect::Slower, |r| r.role == Role::Cited && counts(r)), gain) {
            return (Verdict::Reverted, format!("{}; no query that the decision named became faster", row.sentence()));
        }
        if let Some(row) = self.heaviest(Effect::Slower, counts)
            && self.lost_ms > saved_ms
        {
            let balance = format!("{} were lost since the change, {} saved", time(self.lost_ms), time(saved_ms));
            return (Verdict::Reverted, format!("{}; {balance}", row.sentence()));
        }
        let hot = self.hot_loss();
        if let Some(loss) = &hot {
            // A write does more for each update that is not heap-only: no slowness is too small to be believed then.
            let lost: f64 = self.rows.iter().filter(|r| r.role == Role::Write && r.slower_at_all).map(|r| -r.change_ms()).sum();
            if lost > saved_ms {
                let balance = format!("writes lost {} since the change, {} were saved", time(lost), time(saved_ms));
                return (Verdict::Reverted, format!("{loss}; {balance}"));
            }
        }
        if let Some(row) = faster_cited
            && !unused
            && (known == all || over || self.seen.watched_s >= self.seen.observation_s)
        {
            let balance = format!("{} were saved since the change, {} lost", time(self.saved_ms), time(self.lost_ms));
            return (Verdict::Kept, format!("{}; {balance}", row.sentence()));
        }
        if over
            && gain.is_none()
            && let Some(loss) = hot
        {
            return (Verdict::Reverted, format!("{loss}; no query that the decision named became faster"));
        }
        let so_far = match (faster_cited, unused) {
            (Some(row), true) => format!("{}, but no plan has used the index", row.sentence()),
            (Some(row), false) => format!("{}; {known} of {all} queries that the decision named have enough calls", row.sentence()),
            (None, _) => format!(
                "{known} of {all} queries that the decision named have {} calls both before and after; none of them became faster \
                 or slower beyond chance{}",
                self.config.min_calls,
                if unused { "; no plan has used the index" } else { "" }
            ),
        };
        match out_of_time || (over && !unsettled) {
            true => (Verdict::Neutral, format!("after {}, {so_far}", span(self.seen.watched_s))),
            false => (Verdict::Pending, format!("watched for {}: {so_far}", span(self.seen.watched_s))),
        }
    }

    fn failing(&self) -> Option<String> {
        let (row, m) = self.rows.iter().zip(self.measured).find(|(r, _)| r.effect == Effect::Failing)?;
        let percent = |w: &Window| 100.0 * error_share(w);
        Some(format!(
            "query {} fails in {:.1} % of its executions instead of {:.1} % ({} failures since the change)",
            row.workload_id,
            percent(&m.after),
            percent(&m.before),
            m.after.errors
        ))
    }

    /// The heaviest change stands for the others in the reason.
    fn heaviest(&self, effect: Effect, of: impl Fn(&Comparison) -> bool) -> Option<&Comparison> {
        let rows = self.rows.iter().filter(|r| r.effect == effect && of(r));
        rows.max_by(|a, b| a.saved_ms().abs().total_cmp(&b.saved_ms().abs()))
    }

    /// Updates that were heap-only no longer are, beyond chance and beyond what is allowed; in words.
    fn hot_loss(&self) -> Option<String> {
        let u = self.seen.updates.filter(|u| u.before >= MIN_UPDATES && u.after >= MIN_UPDATES)?;
        let (before, after) = (u.hot_before as f64 / u.before as f64, u.hot_after as f64 / u.after as f64);
        let chance = stats::proportions(u.hot_before, u.before, u.hot_after, u.after);
        (before - after > self.config.max_hot_loss && chance < 1.0 - self.config.confidence).then(|| {
            format!(
                "{:.0} % of the updates are heap-only instead of {:.0} % ({} since the change)",
                100.0 * after,
                100.0 * before,
                u.after
            )
        })
    }
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
mod power;
#[cfg(test)]
mod tests;
