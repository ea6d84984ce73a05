//! The state machine against a model of the worker, its builders and the catalog, with processes that die at any point.

use super::*;
use proptest::prelude::*;

const MAX_ATTEMPTS: u32 = 2;

#[test]
fn names_are_those_of_the_table() {
    let sql = include_str!("../../sql/install/10_tables.sql");
    for state in State::ALL {
        assert!(sql.contains(&format!("'{}'", state.as_str())), "{state:?}");
        assert_eq!(State::parse(state.as_str()), Some(state));
    }
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(State::parse("unheard of"), None);
}

#[test]
fn final_states_take_no_event() {
    for state in [State::Reverted, State::Done, State::Failed, State::Cancelled] {
        for event in Event::ALL {
            assert_eq!(next(state, event), Err(Illegal { state, event }));
        }
    }
}

#[test]
fn every_state_can_be_reached() {
    let mut seen = vec![State::Queued];
    let mut at = 0;
    while at < seen.len() {
        for event in Event::ALL {
            if let Ok(state) = next(seen[at], event)
                && !seen.contains(&state)
            {
                seen.push(state);
            }
        }
        at += 1;
    }
    assert_eq!(seen.len(), State::ALL.len());
}

#[test]
fn what_reconcile_records_is_always_legal() {
    for kind in Kind::ALL {
        for state in State::ALL {
            for on_disk in [OnDisk::Absent, OnDisk::Invalid, OnDisk::Valid] {
                for attempts in 0..=MAX_ATTEMPTS {
                    if let Step::Record(event) | Step::RemoveThen(event) = reconcile(kind, state, on_disk, attempts, MAX_ATTEMPTS) {
                        assert!(next(state, event).is_ok(), "{kind:?} {state:?} {on_disk:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn backing_off_grows_and_ends() {
    assert_eq!([1, 2, 3, 4, 5, 100].map(backoff_s), [30.0, 120.0, 480.0, 1920.0, 3600.0, 3600.0]);
    assert_eq!(backoff_s(0), 30.0);
}

/// What a model of the whole system does next.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// The worker visits the database.
    Tick,
    /// The builder's DDL commits its next internal transaction.
    Progress,
    /// The builder's DDL fails with an error; the builder reconciles and ends.
    Error,
    /// Every process dies (kill -9, power cut); what was committed stays.
    Crash,
    /// A person calls it off.
    Cancel,
    /// Removing what is left over does not get its lock.
    RemoveFails,
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        6 => Just(Move::Tick),
        6 => Just(Move::Progress),
        2 => Just(Move::Error),
        2 => Just(Move::Crash),
        1 => Just(Move::Cancel),
        1 => Just(Move::RemoveFails),
    ]
}

struct World {
    kind: Kind,
    state: State,
    attempts: u32,
    on_disk: OnDisk,
    builder: bool,
    remove_fails: bool,
}

impl World {
    fn new(kind: Kind) -> Self {
        let on_disk = if kind == Kind::Drop { OnDisk::Valid } else { OnDisk::Absent };
        World { kind, state: State::Queued, attempts: 0, on_disk, builder: false, remove_fails: false }
    }

    fn record(&mut self, event: Event) {
        self.state = next(self.state, event).unwrap();
    }

    fn reconcile(&mut self) {
        match reconcile(self.kind, self.state, self.on_disk, self.attempts, MAX_ATTEMPTS) {
            Step::Nothing => {}
            Step::Record(event) => self.record(event),
            Step::Remove | Step::RemoveThen(_) if self.remove_fails => self.remove_fails = false,
            Step::Remove => self.on_disk = OnDisk::Absent,
            Step::RemoveThen(event) => {
                self.on_disk = OnDisk::Absent;
                self.record(event);
            }
        }
    }

    fn step(&mut self, what: Move) {
        match what {
            Move::Tick if self.builder => {}
            Move::Tick if self.state == State::Queued => {
                // The intent is committed first; nothing may be left of an earlier attempt to build.
                assert!(self.kind == Kind::Drop || self.on_disk == OnDisk::Absent, "started beside a leftover");
                self.record(Event::Start);
                self.attempts += 1;
                self.builder = true;
            }
            Move::Tick => self.reconcile(),
            Move::Progress if self.builder => match (self.kind, self.on_disk) {
                (Kind::Create | Kind::Reindex, OnDisk::Absent) => self.on_disk = OnDisk::Invalid,
                (Kind::Create | Kind::Reindex, OnDisk::Invalid) => self.on_disk = OnDisk::Valid,
                (Kind::Drop, OnDisk::Valid) => self.on_disk = OnDisk::Invalid,
                (Kind::Drop, OnDisk::Invalid) => self.on_disk = OnDisk::Absent,
                _ => {
                    self.record(if self.kind == Kind::Create { Event::Built } else { Event::Done });
                    self.builder = false;
                }
            },
            Move::Error if self.builder => {
                self.builder = false;
                self.reconcile();
            }
            Move::Crash => self.builder = false,
            // A build that has begun is called off by cancelling its DDL: an error like any other.
            // A drop that has begun is not called off.
            Move::Cancel
                if !self.builder && matches!(self.state, State::Queued | State::Blocked) && self.on_disk != OnDisk::Invalid =>
            {
                self.record(Event::Cancel)
            }
            Move::RemoveFails => self.remove_fails = true,
            _ => {}
        }
    }

    /// What must hold after every move.
    fn check(&self) {
        // A drop that has begun goes on for as long as it takes.
        let begun = self.kind == Kind::Drop && self.on_disk != OnDisk::Valid;
        assert!(self.attempts <= MAX_ATTEMPTS || begun);
        assert!(!self.builder || self.state == State::Building, "a builder works for a row that is {:?}", self.state);
        match self.state {
            State::Built => assert_eq!((self.kind, self.on_disk), (Kind::Create, OnDisk::Valid)),
            State::Done if self.kind == Kind::Drop => assert_eq!(self.on_disk, OnDisk::Absent),
            State::Done => assert_eq!((self.kind, self.on_disk), (Kind::Reindex, OnDisk::Valid)),
            State::Queued if self.kind != Kind::Drop => assert_eq!(self.on_disk, OnDisk::Absent),
            State::Failed | State::Cancelled if self.kind != Kind::Drop => assert_ne!(self.on_disk, OnDisk::Valid),
            State::Failed | State::Cancelled => {
                assert_eq!(self.on_disk, OnDisk::Valid, "an index that nobody uses and nobody drops")
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens in whatever order, an action that is then left in peace ends, with a row that tells the truth.
    #[test]
    fn any_interleaving_ends_in_a_state_that_is_true(kind in prop::sample::select(Kind::ALL.to_vec()), moves in prop::collection::vec(any_move(), 0..60)) {
        let mut world = World::new(kind);
        world.check();
        for what in moves {
            world.step(what);
            world.check();
        }
        for _ in 0..20 {
            world.step(Move::Tick);
            world.check();
            world.step(Move::Progress);
            world.check();
        }
        prop_assert!(world.state.settled(), "{:?}", world.state);
        prop_assert!(world.on_disk != OnDisk::Invalid, "a leftover stays behind");
    }
}
