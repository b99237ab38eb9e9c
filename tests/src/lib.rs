//! What the end-to-end tests, the demo and the bench share.

pub mod fixtures;
pub mod http;
pub mod jobs;
pub mod machine;
pub mod pods;
pub mod upgrade;
