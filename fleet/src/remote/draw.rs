//! The fleet as text.

use super::view::{Condition, View};
use crate::status::{Format, table};

/// Prints it.
///
/// # Errors
///
/// None in practice: every view has a JSON form.
pub fn render(view: &View, format: Format) -> Result<String, serde_json::Error> {
    let tables = || [line(view), shards(view), provers(view), conditions(view)].join("\n\n");
    match format {
        Format::Table => Ok(tables()),
        Format::Wide => Ok(format!("{}\n\n{}", tables(), pods(view))),
        Format::Json => serde_json::to_string_pretty(view),
    }
}

fn line(view: &View) -> String {
    let count = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![format!(
        "{} in {} on {}: shards {}, coverage {}/256, provers {}, queue {}",
        view.name,
        view.namespace,
        view.network,
        count(&view.shards_ready),
        view.coverage,
        count(&view.provers_ready),
        view.queue.map_or("-".to_owned(), |queue| queue.to_string()),
    )];
    if !view.uncovered.is_empty() {
        let classes: Vec<String> = view.uncovered.iter().map(ToString::to_string).collect();
        lines.push(format!("nobody upgrades {}", classes.join(", ")));
    }
    if view.outdated {
        lines.push("the operator has not looked at the last change yet: what follows is from before".to_owned());
    }
    lines.join("\n")
}

fn shards(view: &View) -> String {
    let mut table = table(["SHARD", "STATE", "FOR", "POD", "NODE"], &[2]);
    for shard in &view.shards {
        let phase = format!("{:?}", shard.phase).to_lowercase();
        table.add_row([
            shard.class.to_string(),
            if shard.substituted { format!("{phase}, with a substitute") } else { phase },
            shard.seconds.map_or("-".to_owned(), age),
            shard.pod.clone().unwrap_or_else(|| "-".to_owned()),
            shard.node.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table.trim_fmt()
}

fn provers(view: &View) -> String {
    let mut table = table(["PROVERS", "READY", "UNSCHEDULABLE", "QUEUE", "WAIT"], &[1, 2, 3, 4]);
    for kind in &view.provers {
        table.add_row([
            kind.name.clone(),
            format!("{}/{}", kind.ready, kind.desired),
            kind.unschedulable.to_string(),
            kind.queue.map_or("-".to_owned(), |queue| queue.to_string()),
            kind.queued_seconds.filter(|seconds| *seconds > 0).map_or("-".to_owned(), |seconds| format!("{seconds} s")),
        ]);
    }
    table.trim_fmt()
}

fn conditions(view: &View) -> String {
    let mut table = table(["CONDITION", "STATUS", "FOR", "REASON", "MESSAGE"], &[2]);
    for Condition { kind, status, reason, message, seconds } in &view.conditions {
        table.add_row([kind.clone(), status.clone(), age(*seconds), reason.clone(), message.clone()]);
    }
    table.trim_fmt()
}

fn pods(view: &View) -> String {
    let mut table = table(["POD", "COMPONENT", "PART", "STATE", "NODE", "RESTARTS", "AGE"], &[5, 6]);
    for pod in &view.pods {
        table.add_row([
            pod.name.clone(),
            pod.component.clone(),
            pod.part.clone(),
            pod.state.clone(),
            pod.node.clone().unwrap_or_else(|| "-".to_owned()),
            pod.restarts.to_string(),
            age(pod.age),
        ]);
    }
    table.trim_fmt()
}

/// In the largest unit of which there are two.
fn age(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
