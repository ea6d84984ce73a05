//! Makes the link fail unless libpg_query was compiled with `tools/pgq_rename/pgq_rename.h` (see `.cargo/config.toml`):
//! without it, libpg_query's own `palloc` would silently take the place of the server's inside this library.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-link-arg-cdylib=-Wl,--defsym=indexpilot_pg_query_is_renamed=pgq_palloc");
    }
}
