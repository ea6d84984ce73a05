//! make demo.
fn main() {}
