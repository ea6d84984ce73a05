//! Safe, small types over `pg_sys`: here, and in the hook files, lives all unsafe code. No stage of the loop is known here.
pub mod bgworker;
pub mod catalog;
pub mod compat;
pub mod error;
pub mod hook;
pub mod node;
pub mod planner;
pub mod relinfo;
pub mod role;
pub mod shmem;
pub mod solver;
pub mod spi;
pub mod subxact;
pub mod text;
pub mod time;
pub mod toplevel;
