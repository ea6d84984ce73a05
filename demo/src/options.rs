//! Options: from the command line, else from the environment, else a default that suits two cores and five minutes.

use crate::failure::{Failure, Result};
use std::path::PathBuf;
use std::time::Duration;

/// Every option, its variable, and what it means; `help` prints it.
const HELP: &str = "\
indexpilot-demo: two workloads on a throw-away PostgreSQL, before and after IndexPilot

  option              variable             default
  --tenants N         DEMO_TENANTS         240      tenants of the CRM; their sizes follow a power law
  --interactions N    DEMO_INTERACTIONS    1000000  rows of its largest table
  --contacts N        DEMO_CONTACTS        100000
  --organizations N   DEMO_ORGANIZATIONS   20000
  --seed N            DEMO_SEED            15       everything random follows from it
  --scale F           DEMO_SCALE           0.2      scale of the TPC-H data
  --seconds N         DEMO_SECONDS         25       length of each run of the CRM's load
  --connections N     DEMO_CONNECTIONS     4        connections of the CRM's load
  --rounds N          DEMO_ROUNDS          6        how often each analytic query runs, before and after
  --timeout N         DEMO_TIMEOUT         10       seconds after which an analytic query is cancelled (and counted so)
  --budget MB         DEMO_BUDGET_MB       512      storage that the indexes may take
  --queries DIR       TPCH_QUERIES                  run the *.sql files of a directory in place of the built-in analytic queries
  --server CONNINFO   DEMO_SERVER                   use this running server and do not start one (schemas crm and tpch are replaced)
  --by-hand FILE      DEMO_BY_HAND                  do not ask IndexPilot but run this SQL file, to compare with indexes of your own
  --help

PG_CONFIG names the pg_config of the PostgreSQL to start; the extension must be installed there.";

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub tenants: usize,
    pub interactions: usize,
    pub contacts: usize,
    pub organizations: usize,
    pub seed: u64,
    pub scale: f64,
    pub seconds: Duration,
    pub connections: usize,
    pub rounds: usize,
    pub timeout: Duration,
    pub budget_bytes: i64,
    pub queries: Option<PathBuf>,
    pub server: Option<String>,
    pub by_hand: Option<PathBuf>,
}

impl Options {
    /// Reads the process's arguments and environment; `None` when only help was asked for, which is then printed.
    pub fn read() -> Result<Option<Self>> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if arguments.iter().any(|a| a == "--help" || a == "-h") {
            println!("{HELP}");
            return Ok(None);
        }
        Self::parse(&arguments, &|name| std::env::var(name).ok().filter(|v| !v.is_empty())).map(Some)
    }

    fn parse(arguments: &[String], environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut given = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (argument.as_str(), rest.next().cloned()),
            };
            if !name.starts_with("--") || !HELP.contains(&format!("  {name} ")) {
                return Err(Failure::new(format!("unknown option {name}; --help lists them")));
            }
            let value = value.ok_or_else(|| Failure::new(format!("option {name} needs a value")))?;
            given.push((name, value));
        }
        let text = |name: &str, variable: &str| {
            let on_line = given.iter().rev().find(|(n, _)| n.strip_prefix("--") == Some(name)).map(|(_, v)| v.clone());
            on_line.or_else(|| environment(variable))
        };
        let number = |name: &str, variable: &str, default: f64, least: f64| -> Result<f64> {
            let Some(value) = text(name, variable) else { return Ok(default) };
            let parsed = value.replace('_', "").parse::<f64>().ok().filter(|v| v.is_finite() && *v >= least);
            parsed
                .ok_or_else(|| Failure::new(format!("--{name} ({variable}) must be a number of at least {least}, not \"{value}\"")))
        };
        Ok(Options {
            tenants: number("tenants", "DEMO_TENANTS", 240.0, 1.0)? as usize,
            interactions: number("interactions", "DEMO_INTERACTIONS", 1e6, 1000.0)? as usize,
            contacts: number("contacts", "DEMO_CONTACTS", 1e5, 100.0)? as usize,
            organizations: number("organizations", "DEMO_ORGANIZATIONS", 2e4, 10.0)? as usize,
            seed: number("seed", "DEMO_SEED", 15.0, 0.0)? as u64,
            scale: number("scale", "DEMO_SCALE", 0.2, 0.001)?,
            seconds: Duration::from_secs_f64(number("seconds", "DEMO_SECONDS", 25.0, 1.0)?),
            connections: number("connections", "DEMO_CONNECTIONS", 4.0, 1.0)? as usize,
            rounds: number("rounds", "DEMO_ROUNDS", 6.0, 1.0)? as usize,
            timeout: Duration::from_secs_f64(number("timeout", "DEMO_TIMEOUT", 10.0, 0.1)?),
            budget_bytes: (number("budget", "DEMO_BUDGET_MB", 512.0, 1.0)? * 1024.0 * 1024.0) as i64,
            queries: text("queries", "TPCH_QUERIES").map(PathBuf::from),
            server: text("server", "DEMO_SERVER"),
            by_hand: text("by-hand", "DEMO_BY_HAND").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], variable: (&str, &str)) -> Result<Options> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        Options::parse(&arguments, &|name| (name == variable.0).then(|| variable.1.to_owned()))
    }

    #[test]
    fn the_command_line_beats_the_environment() -> Result<()> {
        assert_eq!(parse(&[], ("", ""))?.tenants, 240);
        assert_eq!(parse(&[], ("DEMO_TENANTS", "300"))?.tenants, 300);
        assert_eq!(parse(&["--tenants", "500"], ("DEMO_TENANTS", "300"))?.tenants, 500);
        assert_eq!(parse(&["--interactions=2_000_000"], ("", ""))?.interactions, 2_000_000);
        Ok(())
    }

    #[test]
    fn mistakes_are_named() {
        let message = |arguments: &[&str]| parse(arguments, ("", "")).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message(&["--tenant", "5"]).contains("unknown option --tenant"));
        assert!(message(&["--scale", "x"]).contains("must be a number"));
        assert!(message(&["--scale"]).contains("needs a value"));
    }
}
