//! The one listener: who may ask, how connections live and end, and the faces for operators. Faces of other parts
//! (catalog, agents) bring their own routers; nothing here knows tables or topics.

pub mod auth;
pub mod error;
mod operations;
pub mod search;
pub mod server;
pub mod sql;
pub mod tls;

pub use operations::operations;
pub use server::{Options, Server};

#[cfg(test)]
mod tests;
