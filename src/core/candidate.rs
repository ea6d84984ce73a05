//! temporary
use crate::model::*;
use crate::size::Size;
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate { pub def: IndexDef, pub size: Size, pub queries: Vec<QueryIdx> }
