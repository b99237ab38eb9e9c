//! What the end-to-end tests, the demo and the bench share.

pub mod devnode;
pub mod fixtures;
pub mod http;
pub mod jobs;
pub mod machine;
pub mod pods;
pub mod realnode;
pub mod scenario;
pub mod story;
pub mod upgrade;
pub mod upgraders;
