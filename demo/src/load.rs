//! The load generator: some connections that run the CRM's families one after another, and one that paces the occasional ones.
//!
//! Statements are prepared and bound as an application would. A run is boxed in time; the draw of families and parameters
//! follows from the seed, so the mix before and after is the same. Latency is what the client sees; the short pause after each
//! call keeps it from being the time that statements wait for one another's processor once they have become fast.

use crate::crm::Crm;
use crate::failure::{Failure, Result};
use crate::families::{Family, Share};
use crate::stats::Latencies;
use crate::ui::Bar;
use postgres::types::ToSql;
use postgres::{Client, Config, NoTls, Statement};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub struct Plan<'a> {
    pub server: &'a Config,
    pub crm: &'a Crm,
    pub families: &'a [Family],
    pub connections: usize,
    pub time: Duration,
    pub seed: u64,
}

/// Between two calls of a connection.
const PAUSE: Duration = Duration::from_millis(4);

/// What one run measured, by family in the order of [`Plan::families`].
pub struct Run {
    pub latencies: Vec<Latencies>,
    pub elapsed: Duration,
}

impl Run {
    pub fn calls(&self) -> usize {
        self.latencies.iter().map(Latencies::calls).sum()
    }

    pub fn calls_per_second(&self) -> f64 {
        self.calls() as f64 / self.elapsed.as_secs_f64().max(0.001)
    }
}

/// Runs the load for the planned time and collects what every connection measured.
pub fn run(plan: &Plan<'_>, bar: &Bar) -> Result<Run> {
    let started = Instant::now();
    let deadline = started + plan.time;
    let calls = AtomicU64::new(0);
    let calls = &calls;
    let parts: Vec<Result<Vec<Vec<f64>>>> = std::thread::scope(|scope| {
        let mut threads: Vec<_> = (0..plan.connections)
            .map(|n| {
                scope.spawn(move || {
                    let mut worker = Worker::new(plan, n as u64, calls)?;
                    let mix = Mix::new(plan.families);
                    while Instant::now() < deadline {
                        let family = mix.draw(&mut worker.rng);
                        worker.call(family)?;
                        std::thread::sleep(PAUSE);
                    }
                    Ok(worker.latencies)
                })
            })
            .collect();
        threads.push(scope.spawn(move || {
            let mut worker = Worker::new(plan, plan.connections as u64, calls)?;
            for (at, family) in schedule(plan.families, plan.time) {
                std::thread::sleep((started + at).saturating_duration_since(Instant::now()));
                worker.call(family)?;
            }
            Ok(worker.latencies)
        }));
        while threads.iter().any(|t| !t.is_finished()) {
            std::thread::sleep(Duration::from_millis(100));
            bar.at(started.elapsed().min(plan.time).as_millis() as u64);
            bar.note(&format!("{} calls", calls.load(Ordering::Relaxed)));
        }
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Failure::new("a connection's thread panicked")))).collect()
    });
    let mut all = vec![Vec::new(); plan.families.len()];
    for part in parts {
        for (sum, of_thread) in all.iter_mut().zip(part?) {
            sum.extend(of_thread);
        }
    }
    Ok(Run { latencies: all.into_iter().map(Latencies::new).collect(), elapsed: started.elapsed() })
}

/// One connection with its prepared statements.
struct Worker<'a> {
    plan: &'a Plan<'a>,
    client: Client,
    statements: Vec<Statement>,
    rng: StdRng,
    latencies: Vec<Vec<f64>>,
    calls: &'a AtomicU64,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan<'a>, number: u64, calls: &'a AtomicU64) -> Result<Self> {
        let mut client = plan.server.connect(NoTls)?;
        let statements = plan.families.iter().map(|f| Ok(client.prepare(f.sql)?)).collect::<Result<_>>()?;
        let rng = StdRng::seed_from_u64(plan.seed.wrapping_add(number));
        Ok(Worker { plan, client, statements, rng, latencies: vec![Vec::new(); plan.families.len()], calls })
    }

    fn call(&mut self, family: usize) -> Result<()> {
        let parameters = (self.plan.families[family].bind)(self.plan.crm, &mut self.rng);
        let references: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|p| p.as_ref() as &(dyn ToSql + Sync)).collect();
        let started = Instant::now();
        self.client
            .query(&self.statements[family], &references)
            .map_err(|e| Failure::from(e).during(self.plan.families[family].name))?;
        self.latencies[family].push(started.elapsed().as_secs_f64() * 1000.0);
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Draws families by weight.
struct Mix(Vec<usize>);

impl Mix {
    fn new(families: &[Family]) -> Self {
        let tickets = |(i, f): (usize, &Family)| match f.share {
            Share::Weight(w) => std::iter::repeat_n(i, w as usize),
            Share::Calls(_) => std::iter::repeat_n(i, 0),
        };
        Mix(families.iter().enumerate().flat_map(tickets).collect())
    }

    fn draw(&self, rng: &mut StdRng) -> usize {
        self.0[rng.random_range(0..self.0.len())]
    }
}

/// When the families with a fixed number of calls run: each evenly spread over the time, in order.
fn schedule(families: &[Family], time: Duration) -> Vec<(Duration, usize)> {
    let mut all = Vec::new();
    for (i, family) in families.iter().enumerate() {
        if let Share::Calls(n) = family.share {
            all.extend((0..n).map(|k| (time.mul_f64((f64::from(k) + 0.5) / f64::from(n)), i)));
        }
    }
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::families;

    #[test]
    fn fixed_calls_are_spread_over_the_whole_run() {
        let families = families();
        let plan = schedule(&families, Duration::from_secs(10));
        let wanted: u32 = families.iter().map(|f| if let Share::Calls(n) = f.share { n } else { 0 }).sum();
        assert_eq!(plan.len(), wanted as usize);
        assert!(plan.windows(2).all(|w| w[0].0 <= w[1].0));
        assert!(plan.iter().all(|(at, _)| *at < Duration::from_secs(10)));
    }

    #[test]
    fn the_mix_draws_only_weighted_families() {
        let families = families();
        let mix = Mix::new(&families);
        let mut rng = StdRng::seed_from_u64(3);
        assert!((0..1000).all(|_| matches!(families[mix.draw(&mut rng)].share, Share::Weight(_))));
    }
}
