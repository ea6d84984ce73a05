//! The clusters themselves: they start, survive a kill, restart, have standbys, and leave nothing behind.

use indexpilot_tests::{Cluster, Result, Stop, poll_until};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_cluster_starts_recovers_and_leaves_nothing_behind() -> Result<()> {
    let mut cluster = Cluster::build("smoke").preload(false).setting("work_mem", "5MB").start()?;
    let data = cluster.data().to_owned();
    let mut client = cluster.connect("postgres", "postgres")?;
    client.batch_execute("CREATE TABLE kept AS SELECT generate_series(1, 10) AS n")?;
    assert_eq!(client.query_one("SHOW work_mem", &[])?.get::<_, String>(0), "5MB");

    // A killed backend takes all sessions with it; the server recovers by itself.
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    cluster.kill9(pid)?;
    poll_until(PATIENCE, "the server to notice", || Ok(cluster.log().contains("was terminated by signal 9")))?;
    poll_until(PATIENCE, "the server to recover", || Ok(cluster.connect("postgres", "postgres").is_ok()))?;

    // A killed server has to be started again.
    cluster.kill_server()?;
    assert!(cluster.connect("postgres", "postgres").is_err());
    cluster.start()?;
    cluster.restart(Stop::Fast)?;
    let output = cluster.run(cluster.client_program("psql").args(["-Atc", "SELECT count(*) FROM kept"]))?;
    assert_eq!(output.trim(), "10");

    drop(cluster);
    assert!(!data.exists());
    Ok(())
}

#[test]
fn a_standby_follows() -> Result<()> {
    let primary = Cluster::build("primary").preload(false).start()?;
    let standby = primary.standby("standby")?;
    primary.connect("postgres", "postgres")?.batch_execute("CREATE TABLE seen AS SELECT 1 AS n")?;
    let mut client = standby.connect("postgres", "postgres")?;
    assert!(client.query_one("SELECT pg_is_in_recovery()", &[])?.get::<_, bool>(0));
    poll_until(PATIENCE, "the standby to follow", || Ok(client.query_one("SELECT to_regclass('seen') IS NOT NULL", &[])?.get(0)))
}

#[test]
fn waiting_in_vain_says_for_what() {
    let error = poll_until(Duration::ZERO, "a miracle", || Ok(false)).expect_err("there are none");
    assert!(error.to_string().contains("in vain for a miracle"));
}
