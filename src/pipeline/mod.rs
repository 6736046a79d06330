//! The brain: what is read, written and committed when. Pure but for `driver`, which carries its commands out.

pub mod driver;
pub mod event;
pub mod machine;
pub mod recovery;
