//! Apply: the only module that issues DDL; only the worker calls it.
