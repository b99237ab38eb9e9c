//! `fleet status`: what the pods say of themselves, as a table or as JSON.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use prover_api::{Capacity, DeviceInfo};
use serde::Serialize;

/// One pod's answers, or why there are none.
#[derive(Debug, Clone, Serialize)]
pub struct PodReport {
    /// Base URL.
    pub url: String,
    /// What the pod said, or why it did not.
    #[serde(flatten)]
    pub answer: Answer,
}

/// Whether a pod answered.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// It did.
    Up {
        /// `GET /v1/capacity`.
        capacity: Box<Capacity>,
        /// `GET /v1/devices`.
        devices: Vec<DeviceInfo>,
    },
    /// It did not.
    Down {
        /// Why.
        error: String,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One row for each pod.
    #[default]
    Table,
    /// And one row for each device.
    Wide,
    /// For programs.
    Json,
}

/// Prints the reports.
///
/// # Errors
///
/// None in practice: every report has a JSON form.
pub fn render(pods: &[PodReport], format: Format) -> Result<String, serde_json::Error> {
    match format {
        Format::Table => Ok(pod_table(pods).trim_fmt()),
        Format::Wide => Ok(format!("{}\n\n{}", pod_table(pods).trim_fmt(), device_table(pods).trim_fmt())),
        Format::Json => serde_json::to_string_pretty(&serde_json::json!({ "pods": pods })),
    }
}

pub(crate) fn table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn pod_table(pods: &[PodReport]) -> Table {
    let header = ["POD", "STATE", "BACKEND", "RUNNING", "QUEUED", "WAIT", "MAX HEIGHT", "NETWORK"];
    let mut table = table(header, &[3, 4, 5, 6]);
    for pod in pods {
        let url = pod.url.clone();
        let Answer::Up { capacity, .. } = &pod.answer else {
            let Answer::Down { error } = &pod.answer else { continue };
            table.add_row([url, format!("unreachable: {error}")]);
            continue;
        };
        let queued: usize = capacity.queue.values().map(|waiting| waiting.jobs).sum();
        let seconds: f64 = capacity.queue.values().map(|waiting| waiting.seconds).sum();
        table.add_row([
            url,
            state(capacity).to_owned(),
            capacity.backends.join(","),
            format!("{}/{}", capacity.running, capacity.slots),
            queued.to_string(),
            if queued == 0 { "-".to_owned() } else { format!("{seconds:.0} s") },
            capacity.max_log2_padded_height.map_or("-".to_owned(), |height| format!("2^{height}")),
            if capacity.mock { "mock" } else { "real" }.to_owned(),
        ]);
    }
    table
}

fn state(capacity: &Capacity) -> &'static str {
    match capacity {
        Capacity { draining: true, .. } => "draining",
        Capacity { ready: false, .. } => "no device ready",
        Capacity { idle: true, .. } => "idle",
        _ => "busy",
    }
}

pub(crate) fn device_table(pods: &[PodReport]) -> Table {
    let header = ["POD", "WORKER", "DEVICE", "BACKEND", "STATE", "RUNNING", "MEMORY", "RESTARTS", "WRONG PROOFS", "MAX HEIGHT"];
    let mut table = table(header, &[1, 5, 6, 7, 8, 9]);
    for pod in pods {
        let Answer::Up { devices, .. } = &pod.answer else { continue };
        for device in devices {
            let state = match device {
                DeviceInfo { quarantined: true, .. } => "quarantined",
                DeviceInfo { ready: true, .. } => "ready",
                _ => "starting",
            };
            table.add_row([
                pod.url.clone(),
                device.worker.to_string(),
                device.device.clone(),
                device.backend.clone(),
                state.to_owned(),
                format!("{}/{}", device.running.len(), device.slots),
                format!("{:.1} GiB", device.rss_bytes as f64 / f64::from(1 << 30)),
                device.restarts.to_string(),
                device.wrong_proofs.to_string(),
                format!("2^{}", device.max_log2_padded_height),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prover_api::{Priority, QueueLength};

    use super::*;

    fn pods() -> Vec<PodReport> {
        let capacity = Capacity {
            idle: false,
            ready: true,
            draining: false,
            max_log2_padded_height: Some(17),
            slots: 1,
            running: 1,
            queue: BTreeMap::from([
                (Priority::Low, QueueLength { jobs: 2, seconds: 20.0 }),
                (Priority::High, QueueLength { jobs: 1, seconds: 11.6 }),
            ]),
            body_bytes: 5,
            max_body_bytes: 10,
            proof_versions: vec![8],
            backends: vec!["cpu".to_owned()],
            mock: false,
        };
        let device = DeviceInfo {
            worker: 0,
            backend: "cpu".to_owned(),
            device: "2 cores".to_owned(),
            ready: true,
            quarantined: false,
            wrong_proofs: 0,
            slots: 1,
            running: vec![],
            pid: Some(7),
            rss_bytes: 3 << 30,
            restarts: 4,
            max_log2_padded_height: 17,
            gpu: None,
        };
        let up = Answer::Up { capacity: Box::new(capacity), devices: vec![device] };
        let down = Answer::Down { error: "connection refused".to_owned() };
        vec![PodReport { url: "http://a:1".to_owned(), answer: up }, PodReport { url: "http://b:2".to_owned(), answer: down }]
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn a_table_has_a_row_for_each_pod_and_wide_one_for_each_device() {
        let text = render(&pods(), Format::Wide).expect("renders");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(words(lines[1]), ["http://a:1", "busy", "cpu", "1/1", "3", "32", "s", "2^17", "real"]);
        assert_eq!(words(lines[2]), ["http://b:2", "unreachable:", "connection", "refused"]);
        let device = ["http://a:1", "0", "2", "cores", "cpu", "ready", "0/1", "3.0", "GiB", "4", "0", "2^17"];
        assert_eq!(words(lines[5]), device);
        assert_eq!(6, lines.len());

        let narrow = render(&pods(), Format::Table).expect("renders");
        assert_eq!(lines[..3].join("\n"), narrow);
    }

    #[test]
    fn json_is_for_programs() {
        let text = render(&pods(), Format::Json).expect("renders");
        let value: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
        assert_eq!(17, value["pods"][0]["capacity"]["max_log2_padded_height"]);
        assert_eq!(4, value["pods"][0]["devices"][0]["restarts"]);
        assert_eq!("connection refused", value["pods"][1]["error"]);
    }
}
