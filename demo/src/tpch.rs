//! The analytic data: the eight tables of TPC-H without any key, filled by the generator crate at a chosen scale.
//!
//! No primary keys on purpose: finding the join columns is part of what an index advisor is for, and the published comparisons
//! of advisors begin the same way.

use crate::failure::Result;
use crate::ui::Bar;
use postgres::{Client, Transaction};
use std::fmt::Display;
use std::io::Write;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
    SupplierGenerator,
};

const SCHEMA: &str = "
CREATE SCHEMA tpch;
CREATE TABLE tpch.region (r_regionkey integer NOT NULL, r_name char(25) NOT NULL, r_comment varchar(152));
CREATE TABLE tpch.nation (
    n_nationkey integer NOT NULL, n_name char(25) NOT NULL, n_regionkey integer NOT NULL, n_comment varchar(152));
CREATE TABLE tpch.part (
    p_partkey integer NOT NULL, p_name varchar(55) NOT NULL, p_mfgr char(25) NOT NULL, p_brand char(10) NOT NULL,
    p_type varchar(25) NOT NULL, p_size integer NOT NULL, p_container char(10) NOT NULL, p_retailprice decimal(15,2) NOT NULL,
    p_comment varchar(23) NOT NULL);
CREATE TABLE tpch.supplier (
    s_suppkey integer NOT NULL, s_name char(25) NOT NULL, s_address varchar(40) NOT NULL, s_nationkey integer NOT NULL,
    s_phone char(15) NOT NULL, s_acctbal decimal(15,2) NOT NULL, s_comment varchar(101) NOT NULL);
CREATE TABLE tpch.partsupp (
    ps_partkey integer NOT NULL, ps_suppkey integer NOT NULL, ps_availqty integer NOT NULL, ps_supplycost decimal(15,2) NOT NULL,
    ps_comment varchar(199) NOT NULL);
CREATE TABLE tpch.customer (
    c_custkey integer NOT NULL, c_name varchar(25) NOT NULL, c_address varchar(40) NOT NULL, c_nationkey integer NOT NULL,
    c_phone char(15) NOT NULL, c_acctbal decimal(15,2) NOT NULL, c_mktsegment char(10) NOT NULL, c_comment varchar(117) NOT NULL);
CREATE TABLE tpch.orders (
    o_orderkey integer NOT NULL, o_custkey integer NOT NULL, o_orderstatus char(1) NOT NULL, o_totalprice decimal(15,2) NOT NULL,
    o_orderdate date NOT NULL, o_orderpriority char(15) NOT NULL, o_clerk char(15) NOT NULL, o_shippriority integer NOT NULL,
    o_comment varchar(79) NOT NULL);
CREATE TABLE tpch.lineitem (
    l_orderkey integer NOT NULL, l_partkey integer NOT NULL, l_suppkey integer NOT NULL, l_linenumber integer NOT NULL,
    l_quantity decimal(15,2) NOT NULL, l_extendedprice decimal(15,2) NOT NULL, l_discount decimal(15,2) NOT NULL,
    l_tax decimal(15,2) NOT NULL, l_returnflag char(1) NOT NULL, l_linestatus char(1) NOT NULL, l_shipdate date NOT NULL,
    l_commitdate date NOT NULL, l_receiptdate date NOT NULL, l_shipinstruct char(25) NOT NULL, l_shipmode char(10) NOT NULL,
    l_comment varchar(44) NOT NULL);
";

/// Rows at a scale, near enough for a progress bar (the number of lines per order is random).
pub fn rows(scale: f64) -> u64 {
    (scale * 8_661_245.0) as u64 + 30
}

/// Creates and fills the schema in one transaction.
pub fn load(client: &mut Client, scale: f64, bar: &Bar) -> Result<()> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute(SCHEMA)?;
    let t = &mut transaction;
    copy(t, "region", RegionGenerator::new(scale, 1, 1).iter(), bar)?;
    copy(t, "nation", NationGenerator::new(scale, 1, 1).iter(), bar)?;
    copy(t, "supplier", SupplierGenerator::new(scale, 1, 1).iter(), bar)?;
    copy(t, "part", PartGenerator::new(scale, 1, 1).iter(), bar)?;
    copy(t, "partsupp", PartSuppGenerator::new(scale, 1, 1).iter(), bar)?;
    copy(t, "customer", CustomerGenerator::new(scale, 1, 1).iter(), bar)?;
    copy(t, "orders", OrderGenerator::new(scale, 1, 1).iter(), bar)?;
    copy(t, "lineitem", LineItemGenerator::new(scale, 1, 1).iter(), bar)?;
    transaction.commit()?;
    Ok(())
}

/// Copies rows that print themselves with a bar after every field, the last one included.
fn copy(transaction: &mut Transaction<'_>, table: &str, rows: impl Iterator<Item = impl Display>, bar: &Bar) -> Result<()> {
    let mut writer = transaction.copy_in(&format!("COPY tpch.{table} FROM STDIN WITH (FREEZE, DELIMITER '|')"))?;
    let mut line = String::with_capacity(256);
    for row in rows {
        line.clear();
        std::fmt::write(&mut line, format_args!("{row}"))?;
        line.truncate(line.trim_end_matches('|').len());
        line.push('\n');
        writer.write_all(line.as_bytes())?;
        bar.advance(1);
    }
    writer.finish()?;
    Ok(())
}
