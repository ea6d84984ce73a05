//! Options: from the command line, else from the environment, else a default that suits two cores.

use indexpilot_tests::Result;
use std::path::PathBuf;
use std::time::Duration;

/// Every option, its variable, and what it means; `--help` prints it.
const HELP: &str = "\
indexpilot-bench capture|cardinality|select|select-real|select-stars|select-scale|verify [OPTION ...]

  option             variable            default
  --only PART        BENCH_ONLY                   capture: instructions or cpu alone
  --rivals LIST      BENCH_RIVALS                 capture: names with commas, of none (always), query_id, pg_stat_statements, pg_qualstats, indexpilot;
                                                  select*: extend, or none
  --runs N,M         BENCH_RUNS          200,1200 capture: executions of the two runs whose difference is the cost of a query
  --rounds N         BENCH_ROUNDS        9 or 3   capture: rounds of pgbench on each server; select-real: of all queries
  --seconds N        BENCH_SECONDS       4        capture: length of one run of pgbench
  --scale N          BENCH_SCALE         20       capture: scale of pgbench's tables
  --queries N        BENCH_QUERIES       1000000  cardinality: distinct queries
  --tenants N        BENCH_TENANTS       10000    cardinality: tenants
  --budgets LIST     BENCH_BUDGETS                select*: megabytes (10^6 bytes) with commas; 100,250,500,750,1000 unless given
  --max-columns N    BENCH_MAX_COLUMNS            select*: key columns of an index; the setting's default unless given
  --limit N          BENCH_LIMIT                  select*: seconds for one choice; the setting's default unless given
  --timeout N        BENCH_TIMEOUT       20       select-real: seconds after which a query is cancelled
  --templates N      BENCH_TEMPLATES     5000     select-scale: distinct queries
  --tpch-scale F     BENCH_TPCH_SCALE    1        select: scale of the TPC-H data
  --tpch-queries DIR TPCH_QUERIES                 select: *.sql files in place of TPC-H's own or the demo's
  --help

PG_CONFIG names the pg_config of the PostgreSQL to start; the extension must be installed there.";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Command {
    Capture,
    Cardinality,
    Select,
    SelectReal,
    SelectStars,
    SelectScale,
    Verify,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub command: Command,
    pub instructions: bool,
    pub cpu: bool,
    /// Empty: all.
    pub rivals: Vec<String>,
    pub runs: (usize, usize),
    pub rounds: usize,
    pub seconds: usize,
    pub scale: usize,
    pub queries: usize,
    pub tenants: usize,
    /// Of 10^6 bytes.
    pub budgets: Vec<i64>,
    pub max_columns: Option<i32>,
    pub limit: Option<Duration>,
    pub timeout: Duration,
    pub templates: usize,
    pub tpch_scale: f64,
    pub tpch_queries: Option<PathBuf>,
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
        let Some((command, mut rest)) = arguments.split_first() else {
            return Err("say what: capture, cardinality, select, select-real, select-stars, select-scale, verify".into());
        };
        let command = match command.as_str() {
            "capture" => Command::Capture,
            "cardinality" => Command::Cardinality,
            "select" => Command::Select,
            "select-real" => Command::SelectReal,
            "select-scale" => Command::SelectScale,
            "select-stars" => Command::SelectStars,
            "verify" => Command::Verify,
            other => return Err(format!("there is no benchmark {other}; --help lists them").into()),
        };
        let mut given = Vec::new();
        while let [name, after @ ..] = rest {
            if !name.starts_with("--") || !HELP.contains(&format!("  {name} ")) {
                return Err(format!("unknown option {name}; --help lists them").into());
            }
            let [value, after @ ..] = after else { return Err(format!("option {name} needs a value").into()) };
            given.push((name.as_str(), value.clone()));
            rest = after;
        }
        let text = |name: &str| {
            let on_line = given.iter().rev().find(|(n, _)| n.strip_prefix("--") == Some(name)).map(|(_, v)| v.clone());
            let variable = if name == "tpch-queries" {
                "TPCH_QUERIES".into()
            } else {
                format!("BENCH_{}", name.to_uppercase().replace('-', "_"))
            };
            on_line.or_else(|| environment(&variable))
        };
        let parsed = |name: &str, value: &str| -> Result<usize> {
            let number = value.trim().replace('_', "").parse().ok().filter(|n| *n > 0);
            number.ok_or_else(|| format!("--{name} must be a number above 0, not \"{value}\"").into())
        };
        let number = |name: &str, default: usize| text(name).map_or(Ok(default), |value| parsed(name, &value));
        let optional = |name: &str| text(name).map(|value| parsed(name, &value)).transpose();
        let budgets = text("budgets").unwrap_or_else(|| "100,250,500,750,1000".into());
        let budgets = budgets.split(',').map(|b| Ok(parsed("budgets", b)? as i64)).collect::<Result<_>>()?;
        let scale = text("tpch-scale").unwrap_or_else(|| "1".into());
        let tpch_scale = scale.parse().ok().filter(|s: &f64| *s > 0.0).ok_or("--tpch-scale must be a number above 0")?;
        let only = text("only");
        if let Some(part) = only.as_deref().filter(|part| !["instructions", "cpu"].contains(part)) {
            return Err(format!("--only must be instructions or cpu, not \"{part}\"").into());
        }
        let runs = text("runs").unwrap_or_else(|| "200,1200".into());
        let (short, long) = runs.split_once(',').ok_or("--runs needs two numbers with a comma between them")?;
        let runs = (parsed("runs", short)?, parsed("runs", long)?);
        if runs.0 >= runs.1 {
            return Err("the second number of --runs must be the larger one".into());
        }
        Ok(Options {
            command,
            instructions: only.as_deref() != Some("cpu"),
            cpu: only.as_deref() != Some("instructions"),
            rivals: text("rivals").map_or_else(Vec::new, |list| list.split(',').map(|r| r.trim().to_owned()).collect()),
            runs,
            rounds: number("rounds", if command == Command::SelectReal { 3 } else { 9 })?,
            seconds: number("seconds", 4)?,
            scale: number("scale", 20)?,
            queries: number("queries", 1_000_000)?,
            tenants: number("tenants", 10_000)?,
            budgets,
            max_columns: optional("max-columns")?.map(|n| n as i32),
            limit: optional("limit")?.map(|n| Duration::from_secs(n as u64)),
            timeout: Duration::from_secs(number("timeout", 20)? as u64),
            templates: number("templates", 5000)?,
            tpch_scale,
            tpch_queries: text("tpch-queries").map(PathBuf::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, variable: (&str, &str)) -> Result<Options> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments, &|name| (name == variable.0).then(|| variable.1.to_owned()))
    }

    #[test]
    fn the_command_line_beats_the_environment() -> Result<()> {
        assert_eq!(parse("capture", ("", ""))?.rounds, 9);
        assert_eq!(parse("capture", ("BENCH_ROUNDS", "3"))?.rounds, 3);
        let options = parse("capture --rounds 5 --only cpu --runs 10,20", ("BENCH_ROUNDS", "3"))?;
        assert_eq!((options.rounds, options.instructions, options.cpu, options.runs), (5, false, true, (10, 20)));
        assert_eq!(parse("cardinality --queries 2_000", ("", ""))?.queries, 2000);
        Ok(())
    }

    #[test]
    fn mistakes_are_named() {
        let message = |line: &str| parse(line, ("", "")).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(message("").contains("say what"));
        assert!(message("captured").contains("no benchmark captured"));
        assert!(message("capture --round 5").contains("unknown option --round"));
        assert!(message("capture --rounds").contains("needs a value"));
        assert!(message("capture --rounds 0").contains("above 0"));
        assert!(message("capture --runs 20,10").contains("larger"));
        assert!(message("capture --only tps").contains("instructions or cpu"));
    }
}
