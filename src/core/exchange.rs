//! exchange: executions that come from elsewhere, and how none of them is counted twice.
//!
//! A standby sends what it ran as a document; pg_stat_statements tells running totals, of which some were captured here too and
//! some were taken over before.

use crate::histogram::BUCKETS;
use serde::{Deserialize, Serialize};

/// What a document of this form calls itself.
pub const FORMAT: &str = "indexpilot workload";
/// Changes when a reader of the old form would misunderstand the new one.
pub const VERSION: u32 = 1;
/// Bytes of a tenant id that capture tells apart.
pub const TENANT: usize = 63;
/// Largest count, time or number of rows that one report or one row of a document may stand for.
pub const MOST: u64 = 1_000_000_000_000_000;
/// Bytes of a statement that is counted at all.
pub const TEXT: usize = 1 << 20;
/// Bytes of a statement, with its parameters, that is kept to plan it again.
pub const SAMPLE: usize = 64 << 10;
/// Base tables of a statement that are remembered.
const RELATIONS: usize = 16;
const COMMANDS: [&str; 7] = ["select", "insert", "update", "delete", "merge", "utility", "unknown"];

/// A workload on its way from one server to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    pub format: String,
    pub version: u32,
    /// A UUID: a document counts once.
    pub id: String,
    /// Seconds since 1970.
    pub exported_at: f64,
    pub source: Source,
    /// Samples hold constants and parameter values.
    pub literals: bool,
    pub templates: Vec<Template>,
}

/// Where a document was made, or where it is read. OIDs mean the same wherever the first two are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// As in `pg_control_system()`: a primary server and its physical standbys share it.
    pub system_identifier: String,
    /// OID of the database.
    pub database_id: u32,
    pub database: String,
    /// The server was a standby.
    pub standby: bool,
    /// `cluster_name`, or what else the server calls itself.
    pub server: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Template {
    pub queryid: i64,
    pub role_id: u32,
    pub relations_hash: i64,
    #[serde(default)]
    pub nested: bool,
    #[serde(default)]
    pub relations: Vec<u32>,
    /// Names of the relations, for people.
    #[serde(default)]
    pub tables: Vec<String>,
    #[serde(default)]
    pub relations_complete: bool,
    pub command: String,
    #[serde(default)]
    pub fingerprint: Option<String>,
    #[serde(default)]
    pub query: Option<String>,
    pub stats: Vec<Stat>,
    #[serde(default)]
    pub samples: Vec<Sample>,
}

/// Executions by one tenant in one span of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    #[serde(default)]
    pub tenant_id: String,
    /// When they ran: seconds since 1970.
    pub at: f64,
    pub calls: u64,
    pub errors: u64,
    pub error_ms: f64,
    pub rows: u64,
    pub total_ms: f64,
    pub sum_squares_ms: f64,
    pub min_ms: f64,
    pub max_ms: f64,
    pub histogram: Vec<u64>,
    pub planner_cost: f64,
    pub shared_blocks_hit: u64,
    pub shared_blocks_read: u64,
    pub temp_blocks: u64,
    pub wal_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    #[serde(default)]
    pub tenant_id: String,
    pub query: String,
    pub search_path: String,
    #[serde(default)]
    pub parameter_types: Vec<u32>,
    #[serde(default)]
    pub parameter_values: Vec<Option<String>>,
}

/// Why a document is not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is something else.
    NotOne(String),
    /// It was written by a version that this one does not know.
    Version(u32),
    /// It comes from another cluster or database, whose OIDs mean other things.
    Foreign(String),
    /// It comes from a primary server: its own tables count it.
    Own,
    /// A figure in it cannot be.
    Figure(String),
}

impl Document {
    /// Reads and checks a document that is to be counted at `here`.
    ///
    /// # Errors
    /// Says what is wrong, in words for the detail of an error message.
    pub fn read(value: serde_json::Value, here: &Source) -> Result<Document, Refusal> {
        match value.get("format").and_then(serde_json::Value::as_str) {
            Some(FORMAT) => {}
            Some(other) => return Err(Refusal::NotOne(format!("Its format is \"{other}\"."))),
            None => return Err(Refusal::NotOne("It has no key \"format\".".into())),
        }
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => return Err(Refusal::Version(u32::try_from(version).unwrap_or(u32::MAX))),
            None => return Err(Refusal::NotOne("It has no version.".into())),
        }
        let document: Document = serde_json::from_value(value).map_err(|e| Refusal::NotOne(format!("{e}.")))?;
        document.check(here)?;
        Ok(document)
    }

    fn check(&self, here: &Source) -> Result<(), Refusal> {
        if self.source.system_identifier != here.system_identifier {
            return Err(Refusal::Foreign(format!(
                "It was made by a server with system identifier {}; this server's is {}.",
                self.source.system_identifier, here.system_identifier
            )));
        }
        if self.source.database_id != here.database_id {
            return Err(Refusal::Foreign(format!(
                "It was made in database \"{}\"; this is \"{}\".",
                self.source.database, here.database
            )));
        }
        if !self.source.standby {
            return Err(Refusal::Own);
        }
        if !is_uuid(&self.id) {
            return Err(Refusal::Figure(format!("Its id \"{}\" is no UUID.", self.id)));
        }
        if !time(self.exported_at) {
            return Err(Refusal::Figure(format!("exported_at is {}.", self.exported_at)));
        }
        if i64::try_from(self.calls()).is_err() {
            return Err(Refusal::Figure("All calls together are more than a bigint holds.".into()));
        }
        for (nth, template) in self.templates.iter().enumerate() {
            template.check().map_err(|what| Refusal::Figure(format!("In template number {}: {what}.", nth + 1)))?;
        }
        Ok(())
    }

    /// Executions that completed.
    pub fn calls(&self) -> u64 {
        self.templates.iter().flat_map(|t| &t.stats).fold(0, |sum, s| sum.saturating_add(s.calls))
    }
}

impl Template {
    fn check(&self) -> Result<(), String> {
        if !COMMANDS.contains(&self.command.as_str()) {
            return Err(format!("command is \"{}\"", self.command));
        }
        if self.relations.len() > RELATIONS {
            return Err(format!("there are {} relations", self.relations.len()));
        }
        let texts = self.query.iter().chain(self.samples.iter().flat_map(|s| [&s.query, &s.search_path, &s.tenant_id]));
        if texts.chain(self.stats.iter().map(|s| &s.tenant_id)).any(|text| text.contains('\0')) {
            return Err("a text has a zero byte in it".into());
        }
        if let Some(text) = self.query.iter().find(|text| text.len() > TEXT) {
            return Err(format!("a query has {} bytes, more than {TEXT}", text.len()));
        }
        for stat in &self.stats {
            stat.check()?;
        }
        for sample in &self.samples {
            if sample.bytes() > TEXT {
                return Err(format!("a sample has {} bytes, more than {TEXT}", sample.bytes()));
            }
            if sample.tenant_id.len() > TENANT {
                return Err(format!("a tenant_id has {} bytes, more than {TENANT}", sample.tenant_id.len()));
            }
        }
        match self.samples.iter().find(|s| s.parameter_values.len() != s.parameter_types.len()) {
            Some(s) => Err(format!("a sample has {} values for {} parameters", s.parameter_values.len(), s.parameter_types.len())),
            None => Ok(()),
        }
    }
}

impl Sample {
    /// Size of its texts.
    pub fn bytes(&self) -> usize {
        let values = self.parameter_values.iter().flatten().map(String::len).sum::<usize>();
        self.query.len() + self.search_path.len() + values
    }
}

impl Stat {
    fn check(&self) -> Result<(), String> {
        /// Of squares and of the planner's costs, in which a forbidden plan weighs ten billion.
        const MOST_OF_SUMS: f64 = 1e30;
        let most = MOST as f64;
        if self.tenant_id.len() > TENANT {
            return Err(format!("a tenant_id has {} bytes, more than {TENANT}", self.tenant_id.len()));
        }
        if !time(self.at) {
            return Err(format!("at is {}", self.at));
        }
        if self.histogram.len() > BUCKETS {
            return Err(format!("a histogram has {} buckets, more than {BUCKETS}", self.histogram.len()));
        }
        let counts = [
            ("calls", self.calls),
            ("errors", self.errors),
            ("rows", self.rows),
            ("shared_blocks_hit", self.shared_blocks_hit),
            ("shared_blocks_read", self.shared_blocks_read),
            ("temp_blocks", self.temp_blocks),
            ("wal_bytes", self.wal_bytes),
        ];
        let all = counts.into_iter().chain(self.histogram.iter().map(|c| ("histogram", *c)));
        for (name, count) in all {
            if count > MOST {
                return Err(format!("{name} is {count}"));
            }
        }
        for (name, figure, most) in [
            ("error_ms", self.error_ms, most),
            ("total_ms", self.total_ms, most),
            ("sum_squares_ms", self.sum_squares_ms, MOST_OF_SUMS),
            ("min_ms", self.min_ms, most),
            ("max_ms", self.max_ms, most),
            ("planner_cost", self.planner_cost, MOST_OF_SUMS),
        ] {
            if !(0.0..=most).contains(&figure) {
                return Err(format!("{name} is {figure}"));
            }
        }
        Ok(())
    }
}

/// Somewhere between 1970 and the year 3000.
fn time(seconds: f64) -> bool {
    (0.0..32_503_680_000.0).contains(&seconds)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, c)| if [8, 13, 18, 23].contains(&at) { c == '-' } else { c.is_ascii_hexdigit() })
}

/// Running totals of a statement, as pg_stat_statements has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub calls: u64,
    pub rows: u64,
    pub total_ms: f64,
    pub sum_squares_ms: f64,
    pub shared_blocks_hit: u64,
    pub shared_blocks_read: u64,
    pub temp_blocks: u64,
    pub wal_bytes: u64,
}

/// How far the totals of a statement have been taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Taken over since the totals last began at zero.
    pub imported_calls: u64,
    /// Captured here before they did.
    pub captured_before: u64,
    /// Captured here by the last time.
    pub captured_calls: u64,
    /// The totals by then.
    #[serde(flatten)]
    pub totals: Totals,
}

/// What the totals have that was neither captured here nor taken over before, and how far it goes now. `captured` is the number of
/// executions captured here, ever.
///
/// Both count the same executions, so what was captured is left out; when a little of it was not known yet at one time, the next
/// time takes over as much less. Totals that went down began anew.
pub fn take_over(now: &Totals, before: Option<&Progress>, captured: u64) -> (Totals, Progress) {
    let mut progress = before.copied().unwrap_or_default();
    if now.calls < progress.totals.calls {
        progress = Progress { imported_calls: 0, captured_before: progress.captured_calls, totals: Totals::default(), ..progress };
    }
    let known = captured.saturating_sub(progress.captured_before).saturating_add(progress.imported_calls);
    let calls = now.calls.saturating_sub(known);
    let last = progress.totals;
    let grown = now.calls.saturating_sub(last.calls);
    let share = if grown == 0 { 0.0 } else { (calls as f64 / grown as f64).min(1.0) };
    let part = |now: u64, last: u64| (now.saturating_sub(last) as f64 * share).round() as u64;
    let part_of = |now: f64, last: f64| if now > last { (now - last) * share } else { 0.0 };
    let taken = Totals {
        calls,
        rows: part(now.rows, last.rows),
        total_ms: part_of(now.total_ms, last.total_ms),
        sum_squares_ms: part_of(now.sum_squares_ms, last.sum_squares_ms),
        shared_blocks_hit: part(now.shared_blocks_hit, last.shared_blocks_hit),
        shared_blocks_read: part(now.shared_blocks_read, last.shared_blocks_read),
        temp_blocks: part(now.temp_blocks, last.temp_blocks),
        wal_bytes: part(now.wal_bytes, last.wal_bytes),
    };
    progress.imported_calls = progress.imported_calls.saturating_add(calls);
    progress.captured_calls = captured;
    progress.totals = *now;
    (taken, progress)
}

/// Spreads totals that were counted from `since` to `now` evenly over that time: when each part ran, and the part. What is older
/// than `keep` seconds is left out, because the tables would delete it at once; `parts` is the largest number of parts.
pub fn spread(taken: &Totals, since: f64, now: f64, keep: f64, parts: u64) -> Vec<(f64, Totals)> {
    let age = (now - since).max(1.0);
    // The oldest part must not be so old that the next clean-up takes it away.
    let window = age.min(keep * 0.98);
    let kept = window / age;
    let parts = parts.min(taken.calls).max(1);
    let scaled = |figure: u64| (figure as f64 * kept).round() as u64;
    // Sums up to the nth part, so that the parts add up to the whole.
    let upto = |figure: u64, n: u64| (u128::from(scaled(figure)) * u128::from(n) / u128::from(parts)) as u64;
    let each = |figure: u64, n: u64| upto(figure, n + 1) - upto(figure, n);
    (0..parts)
        .map(|n| {
            let at = now - window + window * n as f64 / parts as f64;
            let calls = each(taken.calls, n);
            let share = if taken.calls == 0 { 0.0 } else { calls as f64 / taken.calls as f64 };
            let part = Totals {
                calls,
                rows: each(taken.rows, n),
                total_ms: taken.total_ms * share,
                sum_squares_ms: taken.sum_squares_ms * share,
                shared_blocks_hit: each(taken.shared_blocks_hit, n),
                shared_blocks_read: each(taken.shared_blocks_read, n),
                temp_blocks: each(taken.temp_blocks, n),
                wal_bytes: each(taken.wal_bytes, n),
            };
            (at, part)
        })
        .filter(|(_, part)| part.calls > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn here() -> Source {
        Source { system_identifier: "7".into(), database_id: 5, database: "shop".into(), standby: false, server: "a".into() }
    }

    fn document() -> Document {
        Document {
            format: FORMAT.into(),
            version: VERSION,
            id: "6f1c2a34-0000-4000-8000-0123456789ab".into(),
            exported_at: 1.7e9,
            source: Source { standby: true, ..here() },
            literals: true,
            templates: vec![Template {
                queryid: -3,
                command: "select".into(),
                relations: vec![16500],
                stats: vec![Stat { at: 1.7e9, calls: 2, histogram: vec![0, 2], ..Stat::default() }],
                samples: vec![Sample { query: "SELECT 1".into(), ..Sample::default() }],
                ..Template::default()
            }],
        }
    }

    fn read(change: impl FnOnce(&mut Value)) -> Result<Document, Refusal> {
        let mut value = serde_json::to_value(document()).unwrap();
        change(&mut value);
        Document::read(value, &here())
    }

    #[test]
    fn a_document_comes_back_as_it_went() {
        assert_eq!(read(|_| ()), Ok(document()));
        assert_eq!(document().calls(), 2);
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for value in [json!(null), json!([]), json!({}), json!({"format": "other"}), json!({"format": FORMAT})] {
            assert!(matches!(Document::read(value, &here()), Err(Refusal::NotOne(_))));
        }
        assert_eq!(read(|d| d["version"] = json!(2)), Err(Refusal::Version(2)));
        assert!(matches!(read(|d| d["templates"] = json!(3)), Err(Refusal::NotOne(_))));
        assert!(matches!(read(|d| d["templates"][0]["stats"][0]["calls"] = json!(-1)), Err(Refusal::NotOne(_))));
    }

    #[test]
    fn what_belongs_elsewhere_is_refused() {
        assert!(matches!(read(|d| d["source"]["system_identifier"] = json!("8")), Err(Refusal::Foreign(_))));
        assert!(matches!(read(|d| d["source"]["database_id"] = json!(6)), Err(Refusal::Foreign(_))));
        assert_eq!(read(|d| d["source"]["standby"] = json!(false)), Err(Refusal::Own));
    }

    #[test]
    fn figures_that_cannot_be_are_refused() {
        let wrong: [(&str, Value); 10] = [
            ("at", json!(-1)),
            ("calls", json!(u64::MAX)),
            ("rows", json!(MOST + 1)),
            ("max_ms", json!(1.1e15)),
            ("sum_squares_ms", json!(1e31)),
            ("total_ms", json!(-0.5)),
            ("max_ms", json!(-1)),
            ("tenant_id", json!("x".repeat(64))),
            ("histogram", json!(vec![0; BUCKETS + 1])),
            ("tenant_id", json!("a\0b")),
        ];
        for (key, value) in wrong {
            let refused = read(|d| d["templates"][0]["stats"][0][key] = value.clone());
            assert!(matches!(refused, Err(Refusal::Figure(_))), "{key} {value}: {refused:?}");
        }
        assert!(matches!(read(|d| d["id"] = json!("1")), Err(Refusal::Figure(_))));
        for (key, length) in [("query", TEXT + 1), ("search_path", TEXT), ("tenant_id", TENANT + 1)] {
            let long = read(|d| d["templates"][0]["samples"][0][key] = json!("x".repeat(length)));
            assert!(matches!(long, Err(Refusal::Figure(_))), "{key}");
        }
        let many = json!(vec![Stat { at: 1.7e9, calls: MOST, ..Stat::default() }; 9224]);
        assert!(matches!(read(|d| d["templates"][0]["stats"] = many), Err(Refusal::Figure(_))));
        assert!(matches!(read(|d| d["templates"][0]["command"] = json!("drop")), Err(Refusal::Figure(_))));
        let values = read(|d| d["templates"][0]["samples"][0]["parameter_values"] = json!(["1"]));
        assert!(matches!(values, Err(Refusal::Figure(_))));
    }

    fn calls(n: u64) -> Totals {
        Totals { calls: n, rows: 2 * n, total_ms: n as f64, ..Totals::default() }
    }

    #[test]
    fn history_is_taken_over_once() {
        let (taken, progress) = take_over(&calls(100), None, 30);
        assert_eq!((taken.calls, taken.rows), (70, 140));
        assert!((taken.total_ms - 70.0).abs() < 1e-9);
        let (again, progress) = take_over(&calls(100), Some(&progress), 30);
        assert_eq!(again, Totals::default());
        // Ten more, which were captured too; five of them not known here yet the first time.
        let (late, progress) = take_over(&calls(110), Some(&progress), 35);
        assert_eq!(late.calls, 5);
        let (made_good, progress) = take_over(&calls(120), Some(&progress), 50);
        assert_eq!(made_good.calls, 0);
        let (_, progress) = take_over(&calls(4), Some(&progress), 50);
        assert_eq!((progress.imported_calls, progress.captured_before), (4, 50));
    }

    proptest! {
        /// Whatever runs, captured or not, and whenever it is asked: the parts are never more than what ran unseen, and all of it
        /// once everything that was captured is known.
        #[test]
        fn nothing_counts_twice(rounds in prop::collection::vec((0u64..50, 0u64..50, any::<bool>()), 1..30)) {
            let (mut total, mut captured, mut unseen, mut imported) = (0, 0, 0, 0);
            let mut progress = None;
            for (seen, missed, ask) in rounds {
                total += seen + missed;
                captured += seen;
                unseen += missed;
                if ask {
                    let (taken, next) = take_over(&calls(total), progress.as_ref(), captured);
                    imported += taken.calls;
                    progress = Some(next);
                    prop_assert_eq!(imported, unseen);
                }
            }
        }

        #[test]
        fn the_parts_add_up(n in 1u64..1_000_000, age in 1.0..1e7f64, keep in 3600.0..1e7f64, parts in 1u64..20) {
            let now = 1.7e9;
            let spans = spread(&calls(n), now - age, now, keep, parts);
            let sum: u64 = spans.iter().map(|(_, p)| p.calls).sum();
            let wanted = n as f64 * (age.min(keep * 0.98) / age).min(1.0);
            prop_assert!((sum as f64 - wanted).abs() <= 1.0, "{} {}", sum, wanted);
            prop_assert!(spans.iter().all(|(at, p)| *at >= now - keep && *at <= now && p.calls > 0));
        }

        #[test]
        fn no_document_makes_the_reader_fail(key in "[a-z_]{1,12}", number in any::<i64>()) {
            let _ = read(|d| d["templates"][0]["stats"][0][&key] = json!(number));
            let _ = read(|d| d["templates"][0][&key] = json!(number));
            let _ = read(|d| d[&key] = json!(number));
        }
    }
}
