//! How often the verdict is right, on simulated workloads: log-normal times with outliers, a server that drifts as a whole, few calls,
//! and several looks at what has come in so far. The numbers are drawn from fixed seeds, so every run is the same.

use super::tests::window;
use super::*;

/// xorshift, and Box–Muller on top of it.
struct Dice(u64);

impl Dice {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    fn normal(&mut self) -> f64 {
        let (a, b) = (self.uniform().max(1e-12), self.uniform());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// A query with its own speed and spread.
struct Source {
    role: Role,
    median_us: f64,
    sigma: f64,
    /// Calls in one unit of time.
    rate: f64,
    /// How many times as long it takes after the change.
    effect: f64,
}

impl Source {
    fn new(dice: &mut Dice, role: Role, effect: f64) -> Self {
        let (median_us, sigma, rate) = match role {
            Role::Cited => (dice.between(5_000.0, 80_000.0), dice.between(0.3, 0.9), dice.between(8.0, 60.0)),
            Role::Other => (dice.between(300.0, 20_000.0), dice.between(0.3, 1.0), dice.between(5.0, 120.0)),
            Role::Write => (dice.between(200.0, 2_000.0), dice.between(0.3, 0.7), dice.between(40.0, 400.0)),
        };
        Source { role, median_us, sigma, rate, effect }
    }

    /// What runs within so many units of time; `factor` is how many times as long everything takes.
    fn run(&self, dice: &mut Dice, units: f64, factor: f64) -> Window {
        let calls = (self.rate * units * dice.between(0.8, 1.2)).round() as usize;
        let us: Vec<u64> = (0..calls)
            .map(|_| {
                // One in a hundred finds its blocks cold, or waits for a lock.
                let outlier = if dice.uniform() < 0.01 { dice.between(5.0, 30.0) } else { 1.0 };
                (self.median_us * (self.sigma * dice.normal()).exp() * factor * outlier).max(1.0) as u64
            })
            .collect();
        window(&us)
    }
}

/// A change and its surroundings.
struct World {
    sources: Vec<Source>,
    controls: Vec<Source>,
    updates: Option<Updates>,
    /// How many times as long everything takes after the change.
    drift: f64,
}

const CONFIG: Config = Config { min_calls: 20, max_regression: 0.1, confidence: 0.99, max_hot_loss: 0.2, timeout_s: 259_200.0 };

/// What becomes of it, look after look, at twenty units of time before and as many after as the looks take.
fn verdict(dice: &mut Dice, world: &World) -> Verdict {
    let before: Vec<Window> = world.sources.iter().map(|s| s.run(dice, 20.0, 1.0)).collect();
    let controls_before: Vec<Window> = world.controls.iter().map(|s| s.run(dice, 20.0, 1.0)).collect();
    let mut after = vec![Window::default(); world.sources.len()];
    let mut controls_after = vec![Window::default(); world.controls.len()];
    let mut watched = 0.0;
    for look in 1..=9 {
        // A unit is half an hour: the first look comes after that, each further one after half as long again.
        let units = 1.5_f64.powi(look - 1) - watched;
        watched += units;
        // The server does not drift all at once.
        let factor = world.drift * dice.between(0.95, 1.05);
        for (sum, source) in after.iter_mut().zip(&world.sources) {
            sum.merge(&source.run(dice, units, factor * source.effect));
        }
        for (sum, source) in controls_after.iter_mut().zip(&world.controls) {
            sum.merge(&source.run(dice, units, factor));
        }
        let measured: Vec<Measured> = (1..)
            .zip(&world.sources)
            .zip(before.iter().zip(&after))
            .map(|((id, s), (b, a))| Measured { workload_id: id, role: s.role, before: b.clone(), after: a.clone() })
            .collect();
        let controls: Vec<(Window, Window)> = controls_before.iter().cloned().zip(controls_after.iter().cloned()).collect();
        let rates: Vec<f64> = world.sources.iter().filter(|s| s.role == Role::Cited).map(|s| s.rate / 1800.0).collect();
        let seen = Circumstances {
            observation_s: observation_s(&rates, CONFIG.min_calls, 1800.0, CONFIG.timeout_s),
            look: look_number(watched * 1800.0 + 1.0, 1800.0),
            scans: Some(10),
            updates: world.updates,
            drift: drift(&controls, CONFIG.min_calls),
            ..Circumstances::after(watched * 1800.0)
        };
        match judge(&measured, &seen, &CONFIG).verdict {
            Verdict::Pending => {}
            verdict => return verdict,
        }
    }
    Verdict::Pending
}

/// Out of so many worlds, in how many the verdict is "reverted".
fn reverted(worlds: u64, make: impl Fn(&mut Dice) -> World) -> u64 {
    let one = |seed: u64| {
        let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (seed + 1).wrapping_mul(0xD134_2543_DE82_EF95));
        let world = make(&mut dice);
        verdict(&mut dice, &world) == Verdict::Reverted
    };
    (0..worlds).filter(|seed| one(*seed)).count() as u64
}

const WORLDS: u64 = 200;

fn others(dice: &mut Dice, role: Role, least: usize, effect: f64) -> Vec<Source> {
    let number = least + (dice.uniform() * 5.0) as usize;
    (0..number).map(|_| Source::new(dice, role, effect)).collect()
}

/// An index that helps one or two queries, costs writes a little, on a server that becomes up to half as slow again or fast again.
fn helpful(dice: &mut Dice) -> World {
    let gain = dice.between(0.02, 0.6);
    let mut sources = vec![Source::new(dice, Role::Cited, gain)];
    if dice.uniform() < 0.5 {
        let gain = dice.between(0.3, 1.0);
        sources.push(Source::new(dice, Role::Cited, gain));
    }
    sources.extend(others(dice, Role::Other, 2, 1.0));
    let write = dice.between(1.0, 1.06);
    sources.extend(others(dice, Role::Write, 1, write));
    World { sources, controls: others(dice, Role::Other, 5, 1.0), updates: None, drift: dice.between(0.67, 1.5) }
}

#[test]
fn a_helpful_index_is_hardly_ever_taken_back() {
    let wrong = reverted(WORLDS, helpful);
    assert!(wrong * 50 <= WORLDS, "{wrong} of {WORLDS} helpful indexes were taken back");
}

#[test]
fn a_helpful_index_without_anything_to_compare_with_is_hardly_ever_taken_back() {
    // Nothing else runs on the server, so its drift is not known; what there is of it is small.
    let wrong = reverted(WORLDS, |dice| World { controls: Vec::new(), drift: dice.between(0.95, 1.05), ..helpful(dice) });
    assert!(wrong * 50 <= WORLDS, "{wrong} of {WORLDS} helpful indexes were taken back");
}

#[test]
fn an_index_that_changes_nothing_is_hardly_ever_taken_back() {
    let wrong = reverted(WORLDS, |dice| {
        let mut world = helpful(dice);
        world.sources.iter_mut().for_each(|s| s.effect = 1.0);
        world
    });
    assert!(wrong * 50 <= WORLDS, "{wrong} of {WORLDS} indifferent indexes were taken back");
}

#[test]
fn an_index_that_slows_its_query_is_taken_back() {
    let right = reverted(WORLDS, |dice| {
        let mut world = helpful(dice);
        let harm = dice.between(1.6, 10.0);
        world.sources.iter_mut().filter(|s| s.role == Role::Cited).for_each(|s| s.effect = harm);
        world
    });
    assert!(right * 20 >= WORLDS * 19, "{right} of {WORLDS} indexes that flip a plan were taken back");
}

#[test]
fn an_index_that_slows_writes_is_taken_back() {
    let right = reverted(WORLDS, |dice| {
        let mut world = helpful(dice);
        let harm = dice.between(1.4, 4.0);
        for s in &mut world.sources {
            s.effect = if s.role == Role::Write { harm } else { 1.0 };
        }
        world
    });
    assert!(right * 20 >= WORLDS * 19, "{right} of {WORLDS} indexes that slow writes were taken back");
}

#[test]
fn an_index_that_costs_heap_only_updates_and_gives_nothing_is_taken_back() {
    let right = reverted(WORLDS, |dice| {
        let mut world = helpful(dice);
        for s in &mut world.sources {
            s.effect = if s.role == Role::Write { 1.08 } else { 1.0 };
        }
        let hot_before = dice.between(0.7, 1.0);
        let share = |part: f64| (5000.0 * part) as u64;
        world.updates =
            Some(Updates { before: 5000, hot_before: share(hot_before), after: 5000, hot_after: share(dice.between(0.0, 0.4)) });
        world
    });
    assert!(right * 20 >= WORLDS * 19, "{right} of {WORLDS} indexes that cost heap-only updates were taken back");
}
