//! SQL over tables as they are now: DataFusion plans and runs it, over each table's committed files and the live tail
//! behind them. What a table is at a moment comes from [`crate::seam`], its files from [`crate::ports::LakeReader`].

mod catalog;
mod columns;
mod engine;
mod exact;
mod files;
mod filter;
mod provider;
mod prune;
mod system;
mod travel;

pub use engine::{Options, SqlEngine};
pub use filter::SqlFilter;
