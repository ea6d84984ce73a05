//! Building the planner's IndexOptInfo for an index that does not exist.
