//! apply: the life of an action, and what to do with one whose process died.
//!
//! ```text
//! queued ──start──► building ──built──► built ──watch──► verifying ──keep──► kept
//!   ▲ │  ▲            │ │ │ └──done──► done  └───────────────┴──revert──► reverted ◄── (kept)
//!   │ │  └───retry────┘ │ └───fail───► failed
//!   │ └─block─► blocked │
//!   └──unblock──┘ └─────┴──cancel──► cancelled
//!
//! queued ──observe──► observing ──release──► queued
//!                         └──cancel──► cancelled
//! ```
//!
//! A drop can be observed first: its index is hidden, and whoever misses it cancels the drop.
//!
//! The crash argument: `building` and the number of the attempt are committed before any DDL, and what the DDL did shows in the
//! catalog. So a row and the catalog together always say how far a dead process had come ([`reconcile`]), wherever it died.
//! What is left over is removed before the row changes, so dying between the two only repeats the removal.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What an action does to its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Create,
    Drop,
    Reindex,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Create, Kind::Drop, Kind::Reindex];

    /// As in `actions.kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Create => "create",
            Kind::Drop => "drop",
            Kind::Reindex => "reindex",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }
}

/// Where an action stands (`actions.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its turn, for `not_before`, or for a guard rule to pass. Next: building, blocked, failed, cancelled.
    Queued,
    /// A drop whose index is hidden already, to see whether anybody misses it. Next: queued, cancelled.
    Observing,
    /// A process runs its DDL, or died doing so. Next: built, done, queued, blocked, failed, cancelled.
    Building,
    /// The index exists and is valid. Next: verifying, kept, reverted.
    Built,
    /// The index is being measured. Next: kept, reverted.
    Verifying,
    /// The index stays. Next: reverted, when a person takes it back.
    Kept,
    /// The index was taken back, or somebody else removed it.
    Reverted,
    /// A drop or a rebuild was carried out.
    Done,
    /// Given up; nothing is left over.
    Failed,
    /// A guard rule refuses it, or a right is missing. Next: queued, failed, cancelled.
    Blocked,
    /// Called off before it had any effect.
    Cancelled,
}

impl State {
    pub const ALL: [State; 11] = [
        State::Queued,
        State::Observing,
        State::Building,
        State::Built,
        State::Verifying,
        State::Kept,
        State::Reverted,
        State::Done,
        State::Failed,
        State::Blocked,
        State::Cancelled,
    ];

    /// As in `actions.state`.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Observing => "observing",
            State::Building => "building",
            State::Built => "built",
            State::Verifying => "verifying",
            State::Kept => "kept",
            State::Reverted => "reverted",
            State::Done => "done",
            State::Failed => "failed",
            State::Blocked => "blocked",
            State::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    /// The DDL is over, or will never run: nobody needs to wait for the action any longer.
    pub fn settled(self) -> bool {
        !matches!(self, State::Queued | State::Building | State::Blocked)
    }
}

/// What happens to an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// An attempt begins: committed, with the attempt counted, before the DDL.
    Start,
    /// The index was created and is valid.
    Built,
    /// The drop or the rebuild was carried out.
    Done,
    /// The attempt failed, nothing is left over, and another is allowed.
    Retry,
    /// Given up.
    Fail,
    /// A guard rule refuses it, or a right is missing.
    Block,
    /// What blocked it is gone.
    Unblock,
    /// Called off.
    Cancel,
    /// The index of a drop is hidden, and its queries are measured.
    Observe,
    /// Nobody has missed it.
    Release,
    /// Measuring begins.
    Watch,
    /// The index stays.
    Keep,
    /// The index is taken back, or was found gone.
    Revert,
}

impl Event {
    pub const ALL: [Event; 13] = [
        Event::Start,
        Event::Built,
        Event::Done,
        Event::Retry,
        Event::Fail,
        Event::Block,
        Event::Unblock,
        Event::Cancel,
        Event::Observe,
        Event::Release,
        Event::Watch,
        Event::Keep,
        Event::Revert,
    ];
}

/// An event that cannot happen in that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Illegal {
    pub state: State,
    pub event: Event,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an action that is {} cannot take the event {:?}", self.state.as_str(), self.event)
    }
}

impl std::error::Error for Illegal {}

/// The state after an event.
///
/// # Errors
/// When the event cannot happen in that state.
pub fn next(state: State, event: Event) -> Result<State, Illegal> {
    use Event as E;
    use State as S;
    match (state, event) {
        (S::Queued, E::Start) => Ok(S::Building),
        (S::Queued | S::Building, E::Block) => Ok(S::Blocked),
        (S::Queued, E::Observe) => Ok(S::Observing),
        (S::Blocked, E::Unblock) | (S::Building, E::Retry) | (S::Observing, E::Release) => Ok(S::Queued),
        (S::Queued | S::Observing | S::Blocked | S::Building, E::Cancel) => Ok(S::Cancelled),
        (S::Queued | S::Blocked | S::Building, E::Fail) => Ok(S::Failed),
        (S::Building, E::Built) => Ok(S::Built),
        (S::Building, E::Done) => Ok(S::Done),
        (S::Built, E::Watch) => Ok(S::Verifying),
        (S::Built | S::Verifying, E::Keep) => Ok(S::Kept),
        (S::Built | S::Verifying | S::Kept, E::Revert) => Ok(S::Reverted),
        _ => Err(Illegal { state, event }),
    }
}

/// What the catalog says of an action's index, known by the tag in its comment (or by name, for an index that was there before).
///
/// For a rebuild the question is how far it came: `Valid` when the index under its name is another relation than the one that the
/// action began with, `Invalid` when a half-built copy (`_ccnew`) or a half-dropped original (`_ccold`) stands beside it, `Absent`
/// when neither is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnDisk {
    Absent,
    /// Exists, but the planner may not use it: a build or a drop was interrupted.
    Invalid,
    Valid,
}

/// What to do with an action that no process works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Only the row is behind: record the event.
    Record(Event),
    /// Remove the unusable index; the row stays as it is.
    Remove,
    /// Remove the unusable index, then record the event.
    RemoveThen(Event),
}

/// Compares a row with the catalog. To be called for an action that no process works on: at the start of the worker, and after
/// every attempt that ended in an error.
///
/// | kind | state | absent | invalid | valid |
/// |---|---|---|---|---|
/// | create | building | retry or fail | remove, then retry or fail | built |
/// | drop | building | done | retry, however often | retry or fail |
/// | reindex | building | retry or fail | remove, then retry or fail | done |
/// | create | built, verifying, kept | reverted | – | – |
/// | create, reindex | failed, cancelled | – | remove | – |
///
/// `attempts` counts those that were started, the last one included; at `max_attempts` the action fails.
pub fn reconcile(kind: Kind, state: State, on_disk: OnDisk, attempts: u32, max_attempts: u32) -> Step {
    let again = if attempts < max_attempts { Event::Retry } else { Event::Fail };
    match (kind, state, on_disk) {
        (Kind::Create, State::Building, OnDisk::Valid) => Step::Record(Event::Built),
        (Kind::Drop, State::Building, OnDisk::Absent) | (Kind::Reindex, State::Building, OnDisk::Valid) => {
            Step::Record(Event::Done)
        }
        (Kind::Create | Kind::Reindex, State::Building, OnDisk::Invalid) => Step::RemoveThen(again),
        // No plan can use it any more, and only a build could bring it back.
        (Kind::Drop, State::Building, OnDisk::Invalid) => Step::Record(Event::Retry),
        (_, State::Building, _) => Step::Record(again),
        (Kind::Create, State::Built | State::Verifying | State::Kept, OnDisk::Absent) => Step::Record(Event::Revert),
        (Kind::Create | Kind::Reindex, State::Failed | State::Cancelled, OnDisk::Invalid) => Step::Remove,
        _ => Step::Nothing,
    }
}

/// Seconds to wait before the next attempt, after so many were started: half a minute, then four times as long each time, at most
/// an hour.
pub fn backoff_s(attempts: u32) -> f64 {
    (30.0 * 4.0_f64.powi(attempts.saturating_sub(1).min(8) as i32)).min(3600.0)
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
