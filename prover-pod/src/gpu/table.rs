//! The file in which `prover-pod bench` writes what it measured, and from which `serve --routing` reads what to prefer.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::memory::MAX_LOG2_HEIGHT;
use crate::scheduler::{Backend, HEIGHTS, Routing};

/// Version of the file's format.
const VERSION: u32 = 1;

/// A measured table. JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredTable {
    /// Of the format: 1.
    pub version: u32,
    /// The devices that were measured, by kind of prover; for people.
    pub devices: BTreeMap<String, String>,
    /// What was measured, by log2 padded height.
    pub heights: Vec<MeasuredHeight>,
}

/// What was measured at one height.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredHeight {
    /// log2 of the padded height.
    pub log2_padded_height: u8,
    /// Seconds of a proof on the CPU, trace included; absent when it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<f64>,
    /// The same on the GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_seconds: Option<f64>,
    /// Where jobs of this height go. `bench` writes the faster one; edit it to decide otherwise.
    pub backend: Backend,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] std::io::Error),
    /// It is no table.
    #[error("it is not a table that `prover-pod bench` writes: {0}")]
    Json(#[from] serde_json::Error),
    /// It is one of another version.
    #[error("it has version {0}, this build reads version {VERSION}; measure again with `prover-pod bench`")]
    Version(u32),
    /// It says nothing, or something impossible.
    #[error("{0}")]
    Content(String),
}

impl MeasuredTable {
    /// A table of what was measured.
    pub fn new(devices: BTreeMap<String, String>, heights: Vec<MeasuredHeight>) -> Self {
        Self { version: VERSION, devices, heights }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn read(path: &Path) -> Result<Self, TableError> {
        Self::parse(&std::fs::read(path)?)
    }

    /// Reads and checks the bytes of a file.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TableError> {
        let table: Self = serde_json::from_slice(bytes)?;
        if table.version != VERSION {
            return Err(TableError::Version(table.version));
        }
        let bad = |text: String| Err(TableError::Content(text));
        let heights: Vec<u8> = table.heights.iter().map(|row| row.log2_padded_height).collect();
        if heights.is_empty() {
            return bad("it has no heights".to_owned());
        }
        if !heights.is_sorted_by(|a, b| a < b) {
            return bad("its heights are not in ascending order, each once".to_owned());
        }
        if let Some(height) = heights.iter().find(|&&height| height > MAX_LOG2_HEIGHT) {
            return bad(format!("2^{height} rows cannot be proven by anyone; {MAX_LOG2_HEIGHT} is the greatest log2 height"));
        }
        if let Some(row) = table.heights.iter().find(|row| row.backend == Backend::Mock) {
            return bad(format!("the backend of 2^{} is mock; it must be cpu or gpu", row.log2_padded_height));
        }
        let wrong = |seconds: Option<f64>| seconds.is_some_and(|seconds| !seconds.is_finite() || seconds < 0.0);
        if let Some(row) = table.heights.iter().find(|row| wrong(row.cpu_seconds) || wrong(row.gpu_seconds)) {
            return bad(format!("the seconds of 2^{} are no seconds", row.log2_padded_height));
        }
        Ok(table)
    }

    /// What to prefer at each height: what the table says, and between and beyond its heights what it says of the next lower
    /// one, or of its lowest.
    pub fn routing(&self) -> Routing {
        let at = |height: usize| {
            let below = self.heights.iter().rev().find(|row| usize::from(row.log2_padded_height) <= height);
            below.or(self.heights.first()).map_or(Backend::Gpu, |row| row.backend)
        };
        Routing::Heights(Box::new(std::array::from_fn::<_, HEIGHTS, _>(at)))
    }

    /// The measured seconds, for estimates: backend, log2 height, seconds.
    pub fn seconds(&self) -> impl Iterator<Item = (Backend, u8, f64)> {
        let row = |row: &MeasuredHeight| {
            let of = |backend, seconds: Option<f64>| seconds.map(|seconds| (backend, row.log2_padded_height, seconds));
            [of(Backend::Cpu, row.cpu_seconds), of(Backend::Gpu, row.gpu_seconds)]
        };
        self.heights.iter().flat_map(row).flatten()
    }
}

/// The faster kind of prover; the GPU where only it was measured, because what is left out is what took too long on the CPU.
pub fn faster(cpu_seconds: Option<f64>, gpu_seconds: Option<f64>) -> Backend {
    match (cpu_seconds, gpu_seconds) {
        (Some(cpu), Some(gpu)) if cpu < gpu => Backend::Cpu,
        (Some(_), None) => Backend::Cpu,
        _ => Backend::Gpu,
    }
}

#[cfg(test)]
mod tests {
    use prover_api::JobKind;

    use super::*;

    fn row(log2_padded_height: u8, cpu: Option<f64>, gpu: Option<f64>) -> MeasuredHeight {
        MeasuredHeight { log2_padded_height, cpu_seconds: cpu, gpu_seconds: gpu, backend: faster(cpu, gpu) }
    }

    #[test]
    fn a_table_survives_its_file_and_fills_its_gaps() {
        let rows = vec![row(9, Some(0.01), Some(0.02)), row(11, Some(0.2), Some(0.02)), row(14, None, Some(0.03))];
        let table = MeasuredTable::new(BTreeMap::from([("gpu".to_owned(), "a device".to_owned())]), rows);
        let bytes = serde_json::to_vec(&table).expect("serializes");
        assert_eq!(MeasuredTable::parse(&bytes).expect("is sound"), table);
        let routing = table.routing();
        let at = |height| routing.preferred(JobKind::Other, height);
        assert_eq!([8, 9, 10, 11, 13, 14, 29].map(at), {
            use Backend::{Cpu, Gpu};
            [Cpu, Cpu, Cpu, Gpu, Gpu, Gpu, Gpu]
        });
        assert_eq!(table.seconds().count(), 5);
    }

    #[test]
    fn broken_files_say_what_is_wrong() {
        let with = |heights: &str| format!(r#"{{"version":1,"devices":{{}},"heights":[{heights}]}}"#);
        for (text, says) in [
            ("[]".to_owned(), "not a table"),
            (r#"{"version":2,"devices":{},"heights":[]}"#.to_owned(), "version 2"),
            (with(""), "no heights"),
            (with(r#"{"log2_padded_height":30,"backend":"gpu"}"#), "2^30"),
            (with(r#"{"log2_padded_height":9,"backend":"mock"}"#), "mock"),
            (with(r#"{"log2_padded_height":9,"backend":"gpu","cpu_seconds":-1}"#), "no seconds"),
            (with(r#"{"log2_padded_height":9,"backend":"gpu"},{"log2_padded_height":9,"backend":"cpu"}"#), "ascending"),
        ] {
            let error = MeasuredTable::parse(text.as_bytes()).expect_err("is broken").to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
