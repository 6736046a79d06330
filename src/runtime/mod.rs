//! What running code leans on: time, randomness, tasks, byte budgets, compute. The only place that touches the
//! clock, spawns tasks or sleeps; everything else is given these.

pub mod backoff;
pub mod budget;
pub mod clock;
pub mod compute;
pub mod crash;
pub mod lane;
pub mod shutdown;
pub mod task;
