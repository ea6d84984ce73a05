//! What-if: plans stored queries with indexes that do not exist, or without ones that do.
