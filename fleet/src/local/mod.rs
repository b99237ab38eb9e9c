//! `fleet local`: a fleet's manifest as processes of this machine.
//!
//! It reads the `UpgraderFleet` that `kubectl apply` takes. [`manifest`] understands and judges it, [`fit`] says what one machine
//! does otherwise or not at all, and [`plan`] makes a list of processes of it, with ports, shards and GPUs: all pure. [`life`]
//! is what happens to one process, [`supervisor`] makes it happen, [`sight`] asks the processes how they are, [`display`] shows
//! it, [`directory`] keeps what stays on disk, and [`run`] puts all of it together.

pub mod address;
pub mod directory;
pub mod display;
pub mod fit;
pub mod gpus;
pub mod life;
pub mod machine;
pub mod manifest;
pub mod plan;
pub mod record;
pub mod run;
pub mod sight;
mod spawn;
pub mod supervisor;
pub mod table;
