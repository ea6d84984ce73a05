//! Ninety questions of decision support over 24 tables: facts of three channels with shared dimensions, long joins, CTEs, unions,
//! windows, subtotals, subqueries. Nobody's published figures; Extend is the rival, in worth and in planner calls.

use super::contest::{Contest, MB};
use super::data;
use super::query::Query;
use crate::claim;
use crate::options::Options;
use indexpilot_tests::Result;

const SCHEMA: &str = include_str!("../../stars/schema.sql");
const QUESTIONS: &str = include_str!("../../stars/queries.sql");

/// The channels, in the words that stand for them in the questions.
const WORDS: [&str; 11] = ["{f}", "{p}", "{r}", "{q}", "{place}", "{key}", "{name}", "{g}", "{h}", "{y}", "{n}"];
const CHANNELS: [[&str; 11]; 3] = [
    ["shop_sales", "s", "shop_returns", "sr", "shop", "o_shop", "o_name", "mail_orders", "m", "1999", "1"],
    ["mail_orders", "m", "mail_returns", "mr", "center", "l_center", "l_name", "web_orders", "w", "2000", "2"],
    ["web_orders", "w", "web_returns", "wr", "site", "e_site", "e_name", "shop_sales", "s", "2001", "3"],
];

/// Runs and prints; false when Extend does better, or asks the planner less.
///
/// # Errors
/// When the server refuses.
pub fn run(options: &Options) -> Result<bool> {
    let data = data::start("stars", "stars", |client| Ok(client.batch_execute(SCHEMA)?))?;
    let queries = queries();
    let mut contest = Contest::open(&data, options, queries.clone())?;
    println!(
        "\n{} queries; planner cost without indexes {:.0}. Costs are relative to that, MB are 10^6 bytes",
        queries.len(),
        contest.baseline
    );
    let ours = contest.ours("asked for all queries", &queries, "", &|_| String::new())?;
    let rivals = contest.rival(&[2])?;
    let mut held = true;
    println!();
    for found in &ours {
        let (real, mb, calls, budget) = (found.real, found.bytes as f64 / MB, found.planner_calls, found.budget_mb);
        for rival in rivals.iter().filter(|r| r.budget_mb == budget) {
            let text = format!(
                "{budget} MB: {real:.4} of the cost in {mb:.1} MB with {calls} planner calls, {} reaches {:.4} with {}",
                rival.who, rival.real, rival.planner_calls
            );
            held &= claim(found.fits() && real <= rival.real && calls <= rival.planner_calls, &text);
        }
    }
    contest.close();
    Ok(held)
}

/// Every question of every channel.
fn queries() -> Vec<Query> {
    let mut all = Vec::new();
    for (number, question) in QUESTIONS.split("-- question: ").skip(1).enumerate() {
        let (_, sql) = question.split_once('\n').unwrap_or_default();
        for (channel, words) in CHANNELS.iter().enumerate() {
            let sql =
                WORDS.iter().zip(words).fold(sql.trim().trim_end_matches(';').to_owned(), |s, (from, to)| s.replace(from, to));
            all.push(Query { name: format!("{:02}{}", number + 1, ["s", "m", "w"][channel]), sql });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn ninety_questions_with_every_word_filled_in() {
        let queries = super::queries();
        assert_eq!(queries.len(), 90);
        assert!(queries.iter().all(|q| !q.sql.contains(['{', '}', ';'])));
    }
}
