//! `make demo`: two workloads on a throw-away PostgreSQL, before and after IndexPilot.
//!
//! The story, in the order of [`demo`]:
//! 1. a server with the extension preloaded; a multi-tenant CRM and the TPC-H tables, both without indexes but primary keys;
//! 2. the genome: which fields there are, and which tenants use them;
//! 3. both workloads run and are measured, as IndexPilot captures them;
//! 4. `analyze_and_create_indexes()` decides, and its worker builds;
//! 5. the same workloads run again, and IndexPilot gives its verdict on every index;
//! 6. everything is shown, and one index is taken back through the log;
//! 7. the demo checks its own claims and fails when one does not hold.
//!
//! Files: `options` what can be chosen, `server` the PostgreSQL, `crm` the data of the CRM and `families` its statements, `load` the
//! load generator, `pilot` every call of the extension, `report` and `claims` the findings. The analytic workload is in the library
//! of this crate.

mod claims;
mod crm;
mod families;
mod load;
mod options;
mod pilot;
mod report;
mod server;
mod zipf;

use claims::Claim;
use crm::{Crm, Size};
use failure::{Failure, Result};
use families::{Family, Role};
use indexpilot_demo::{analytic, failure, stats, table, tpch, ui};
use options::Options;
use postgres::{Client, NoTls};
use server::Server;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use ui::{Bar, heading};

/// What one run of both workloads measured.
pub struct Side {
    pub crm: load::Run,
    pub analytic: Vec<analytic::Outcome>,
    /// Planner cost of each analytic query.
    pub costs: Vec<f64>,
}

impl Side {
    pub fn total_cost(&self) -> f64 {
        self.costs.iter().sum()
    }
}

fn main() -> ExitCode {
    match Options::read().and_then(|options| options.map_or(Ok(true), |o| demo(&o))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("indexpilot-demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Everything that both runs need.
struct Stage<'a> {
    options: &'a Options,
    server: &'a Server,
    crm: Crm,
    families: Vec<Family>,
    queries: Vec<analytic::Query>,
}

/// Tells the story; false when a claim did not hold.
fn demo(options: &Options) -> Result<bool> {
    let started = Instant::now();
    let size = Size {
        tenants: options.tenants,
        organizations: options.organizations,
        contacts: options.contacts,
        interactions: options.interactions,
    };
    let queries = analytic::queries(options.queries.as_deref())?;
    heading("Server and data");
    let server = Server::start(options)?;
    println!("  to look at it meanwhile: {}", server.place);
    let stage = Stage { options, server: &server, crm: Crm::new(size, options.seed), families: families::families(), queries };
    load_data(&stage)?;
    let mut client = server.config.connect(NoTls)?;

    if options.by_hand.is_none() {
        heading("Genome");
        let version = pilot::create_extension(&mut client)?;
        let pilot::Genome { fields, withdrawn, keep } = pilot::prepare_genome(&mut client)?;
        println!(
            "  indexpilot {version}: {fields} fields; interactions.custom_channel_detail withdrawn from {withdrawn} tenants, {keep} keep it"
        );
    }

    heading("Workloads without indexes");
    let before = stage.measure("before")?;

    let mut decisions = Vec::new();
    match &options.by_hand {
        Some(file) => {
            heading("Indexes by hand");
            let bar = Bar::spinner(&file.display().to_string());
            client.batch_execute(&std::fs::read_to_string(file)?)?;
            bar.done("built");
        }
        None => {
            heading("IndexPilot decides and builds");
            let bar = Bar::spinner("analyze_and_create_indexes()");
            decisions = pilot::analyze(&mut client, options.budget_bytes)?;
            bar.done(&format!("{} decisions, {} to create", decisions.len(), decisions.iter().filter(|d| d.creates()).count()));
            report::decisions(&decisions);
            heading("Building");
            let bar = Bar::spinner("CALL wait_for_actions()");
            pilot::wait(&server.config, &bar)?;
            bar.done("nothing left in the queue");
        }
    }

    heading("The same workloads again");
    let after = stage.measure("after")?;
    let mut claims = claims::heavy_filters(&stage.families, &before, &after);
    claims.push(claims::analytic_cost(before.total_cost(), after.total_cost()));

    if options.by_hand.is_none() {
        let bar = Bar::spinner("waiting for verdicts");
        let missing = pilot::wait_for_verdicts(&mut client, Duration::from_secs(60), &bar)?;
        bar.done(&format!("{missing} without a verdict"));
    }
    report::families(&stage.families, &before, &after);
    report::analytic(&stage.queries, &before, &after);
    if options.by_hand.is_none() {
        report::sizes(&pilot::actions(&mut client)?);
        report::verdicts(&pilot::verdicts(&mut client)?);
        claims.extend(unindexed(&stage.families, &mut client)?);
        claims.push(take_back(&server, &mut client, &decisions)?);
    }

    heading("Claims");
    let held = claims::print(&claims);
    heading("Summary");
    let faster = after.crm.calls_per_second() / before.crm.calls_per_second();
    println!(
        "  {} calls of the CRM and {} analytic queries measured, twice",
        before.crm.calls() + after.crm.calls(),
        stage.queries.len()
    );
    println!(
        "  the CRM's throughput is {faster:.0} times what it was; analytic planner cost {:.1} % of what it was",
        100.0 * after.total_cost() / before.total_cost()
    );
    println!("  {} in {:.0} s", if held { "all claims hold" } else { "NOT all claims hold" }, started.elapsed().as_secs_f64());
    Ok(held)
}

/// Loads both schemas side by side, then makes statistics.
fn load_data(stage: &Stage<'_>) -> Result<()> {
    let (crm, scale) = (&stage.crm, stage.options.scale);
    let config = &stage.server.config;
    let bar = Bar::new("loading CRM and TPC-H", crm.rows() + tpch::rows(scale));
    std::thread::scope(|scope| {
        let analytic = scope.spawn(|| tpch::load(&mut config.connect(NoTls)?, scale, &bar));
        crm.load(&mut config.connect(NoTls)?, &bar)?;
        analytic.join().unwrap_or_else(|_| Err(Failure::new("the loader's thread panicked")))
    })?;
    bar.done(&format!(
        "{} tenants (the largest has {:.0} % of the rows), {} interactions; TPC-H at scale {scale}",
        crm.size.tenants,
        100.0 * crm.largest_share(),
        crm.size.interactions
    ));
    let bar = Bar::spinner("VACUUM ANALYZE");
    let mut client = config.connect(NoTls)?;
    client.batch_execute("VACUUM ANALYZE")?;
    let row = client.query_one("SELECT pg_size_pretty(pg_database_size(current_database()))", &[])?;
    bar.done(&format!("database of {}", row.get::<_, String>(0)));
    Ok(())
}

impl Stage<'_> {
    /// Runs both workloads.
    fn measure(&self, when: &str) -> Result<Side> {
        let plan = load::Plan {
            server: &self.server.config,
            crm: &self.crm,
            families: &self.families,
            connections: self.options.connections,
            time: self.options.seconds,
            seed: self.options.seed,
        };
        let bar = Bar::new(&format!("CRM, {when}"), self.options.seconds.as_millis() as u64);
        let crm = load::run(&plan, &bar)?;
        bar.done(&format!("{} calls over {} connections", crm.calls(), self.options.connections));

        let (queries, rounds) = (&self.queries, self.options.rounds);
        let bar = Bar::new(&format!("analytic queries, {when}"), (queries.len() * rounds) as u64);
        let analytic = analytic::run(&self.server.config, queries, rounds, self.options.timeout, &bar)?;
        let cancelled: usize = analytic.iter().map(|o| o.cancelled).sum();
        bar.done(&format!("{} queries, {rounds} times each, {cancelled} cancelled", queries.len()));
        let costs = analytic::costs(&self.server.config, queries)?;
        Ok(Side { crm, analytic, costs })
    }
}

/// One claim for each field that must not be indexed.
fn unindexed(families: &[Family], client: &mut Client) -> Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for family in families {
        if let Role::Unindexed(table, column) = family.role {
            claims.push(claims::no_index(table, column, &pilot::indexes_on(client, table, column)?));
        }
    }
    Ok(claims)
}

/// Takes back the index that pays least, as a user would who thinks better of it.
fn take_back(server: &Server, client: &mut Client, decisions: &[pilot::Decision]) -> Result<Claim> {
    report::log("Mutation log", &pilot::log(client, 40)?);
    let mut created: Vec<_> = decisions.iter().filter(|d| d.creates()).collect();
    created.sort_by(|a, b| a.saved_ms_per_hour.unwrap_or(0.0).total_cmp(&b.saved_ms_per_hour.unwrap_or(0.0)));
    let kept: Vec<String> = pilot::actions(client)?.into_iter().filter(|a| a.state == "kept").map(|a| a.index).collect();
    for index in created.iter().filter_map(|d| d.index.as_deref()) {
        if !kept.iter().any(|k| k == index) {
            continue;
        }
        let Some(mutation) = pilot::undoable(client, index)? else { continue };
        heading(&format!("Taking back {index} (mutation {mutation})"));
        for (statement, effect) in pilot::rollback_preview(client, mutation)? {
            println!("  preview: {statement}\n           {effect}");
        }
        pilot::rollback(client, mutation)?;
        let bar = Bar::spinner("CALL wait_for_actions()");
        pilot::wait(&server.config, &bar)?;
        bar.done("rolled back");
        report::log("Mutation log, its end", &pilot::log(client, 4)?);
        let gone = !pilot::index_exists(client, index)?;
        return Ok(Claim::new(
            gone,
            format!("rollback of {index}: {}", if gone { "the index is gone" } else { "the index is still there" }),
        ));
    }
    Ok(Claim::new(false, "rollback: no index was built that could be taken back".to_owned()))
}
