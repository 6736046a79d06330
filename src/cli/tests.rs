//! Tests of arguments.
use clap::CommandFactory as _;
use super::*;
#[test]
fn the_definitions_hold() { Args::command().debug_assert(); }
