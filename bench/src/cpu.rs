//! CPU time of the server per transaction, under `pgbench -S`.
//!
//! One pgbench at a time, the servers in random order in every round, and ratios within a round: what else the machine does
//! disturbs all alike. On a busy machine the same work takes up to twice the time, so beside the medians stands the ratio of the
//! least that each took. Time counts, not throughput, and of all processes of the server, so that IndexPilot's workers count too.
//! The kernel adds the time of a process to its parent's when the parent has reaped it.

use crate::options::Options;
use crate::rivals::Rival;
use indexpilot_tests::{Result, poll_until};
use rand::seq::SliceRandom;
use std::path::Path;
use std::time::Duration;

/// Measures and prints. There is no bar: below some per cent, noise is all there is to see.
pub fn run(rivals: &mut [Rival], options: &Options) -> Result<()> {
    let (rounds, seconds) = (options.rounds, options.seconds);
    for rival in rivals.iter() {
        rival.warm()?;
    }
    println!("\nCPU time of the server per transaction (pgbench -S), {rounds} rounds of {seconds} s each\n");
    println!(
        "  {:10} {:>7} {:20} {:>8} {:>8} {:>17} {:>8} {:>8} {:>8}",
        "protocol", "clients", "", "us", "ratio", "", "least", "ratio", "counted"
    );
    for protocol in ["prepared", "simple"] {
        for clients in [1, 2] {
            let mut times = vec![Vec::new(); rivals.len()];
            let mut executed = vec![0; rivals.len()];
            let before = rivals.iter().map(Rival::counted).collect::<Result<Vec<_>>>()?;
            let mut order: Vec<usize> = (0..rivals.len()).collect();
            for _ in 0..rounds {
                order.shuffle(&mut rand::rng());
                for &at in &order {
                    let (transactions, us) = round(&rivals[at], protocol, clients, seconds)?;
                    times[at].push(us);
                    executed[at] += transactions;
                }
            }
            for (at, rival) in rivals.iter().enumerate() {
                let ratios: Vec<f64> = times[at].iter().zip(&times[0]).map(|(own, none)| own / none).collect();
                let counted = match (before[at], rival.counted()?) {
                    (Some(before), Some(after)) if after - before == executed[at] => "all".to_owned(),
                    (Some(before), Some(after)) => {
                        let name = rival.kind.name;
                        return Err(format!("{name} counted {} of {} transactions", after - before, executed[at]).into());
                    }
                    _ => "–".to_owned(),
                };
                let range = format!("({:.3} to {:.3})", least(&ratios), ratios.iter().copied().fold(0.0, f64::max));
                println!(
                    "  {protocol:10} {clients:>7} {:20} {:>8.1} {:>8.3} {range:>17} {:>8.1} {:>8.3} {counted:>8}",
                    rival.kind.name,
                    median(&times[at]),
                    median(&ratios),
                    least(&times[at]),
                    least(&times[at]) / least(&times[0]),
                );
            }
        }
    }
    Ok(())
}

/// One run of pgbench: transactions, and microseconds of CPU time for each.
fn round(rival: &Rival, protocol: &str, clients: usize, seconds: usize) -> Result<(i64, f64)> {
    let cluster = &rival.cluster;
    let mut before = 0.0;
    settled(cluster.data(), |time| before = time)?;
    let mut pgbench = cluster.client_program("pgbench");
    pgbench.args(["-n", "-S", "-j", "1", "-M", protocol, "-c", &clients.to_string(), "-T", &seconds.to_string()]);
    let output = cluster.run(&mut pgbench)?;
    let processed = output.lines().find_map(|l| l.strip_prefix("number of transactions actually processed: "));
    let transactions: i64 =
        processed.and_then(|n| n.trim().parse().ok()).ok_or("pgbench did not say how many transactions it ran")?;
    let mut after = 0.0;
    settled(cluster.data(), |time| after = time)?;
    Ok((transactions, (after - before) / transactions as f64 * 1e6))
}

/// Waits until no backend is left, and hands over the seconds that the server and all its processes that have ended took.
fn settled(data: &Path, mut found: impl FnMut(f64)) -> Result<()> {
    let postmaster: i32 =
        std::fs::read_to_string(data.join("postmaster.pid"))?.lines().next().unwrap_or_default().trim().parse()?;
    poll_until(Duration::from_secs(60), "the sessions of pgbench to end", || {
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))?;
        // A process that ended just now has no title any more, and is none that matters when it is reaped.
        let busy = |pid: &str| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|title| {
                let title = String::from_utf8_lossy(&title);
                title.is_empty() || title.contains("[local]") || title.contains("indexpilot worker")
            })
        };
        Ok(!children.split_whitespace().any(busy))
    })?;
    let stat = std::fs::read_to_string(format!("/proc/{postmaster}/stat"))?;
    // After the name, which may have spaces and brackets: fields 3 and on. 16 and 17 are the children's user and system time.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|f| f.parse::<f64>().ok()).ok_or("/proc has no times of processes");
    found((ticks(16)? + ticks(17)?) / 100.0);
    Ok(())
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (n, half) if n % 2 == 0 => (sorted[half - 1] + sorted[half]) / 2.0,
        (_, half) => sorted[half],
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
