//! The seeded simulation: driver, brain and commit as they are, over models of Kafka, its groups, catalog and store.
//!
//! [`simulation`] runs a seed: [`scenario`] says what it stands for, [`broker`] and [`group`] model Kafka, [`lake`] is
//! the way to catalog and store, [`operator`] everybody else and [`existing`] what a tool did before, [`history`] and [`verify`] judge. One thread, paused
//! time, one generator: the same seed gives the same trace. Nothing here is part of the product.

// The models count small numbers, and are written for reading.
#![expect(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "a simulation's offsets are small")]

pub mod broker;
pub mod existing;
pub mod filter;
pub mod group;
pub mod history;
pub mod lake;
pub mod operator;
pub mod producer;
pub mod random;
pub mod scenario;
pub mod simulation;
#[cfg(test)]
mod tests;
pub mod verify;
pub mod world;
