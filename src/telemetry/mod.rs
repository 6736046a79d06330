//! What running code tells its operator: logs, metrics, health. It decides nothing and knows no adapter.

pub mod catalogue;
pub mod health;
pub mod logs;
pub mod metrics;
mod process;
