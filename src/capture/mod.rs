//! Capture: counts executions in shared memory and samples statements; never raises, never waits, never uses SPI.
