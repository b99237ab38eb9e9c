//! The order of a kernel's statements: loads well ahead of what needs them.
//!
//! ptxas at -O1, which keeps registers few, leaves loads about where they stand. A load takes some six hundred cycles, and at
//! 168 registers a scheduler has three warps to hide them with. So each load moves up, over as many instructions as it takes,
//! as long as the registers last.

use std::collections::HashMap;

use crate::emit::KEEP_APART;

/// Estimated instructions between a load and its first use.
const AHEAD: usize = 200;

#[derive(Debug, Clone)]
struct Line<'a> {
    text: &'a str,
    /// Variable that it declares, and its registers.
    declares: Option<(usize, usize)>,
    /// Variables that it names, the declared one included.
    names: Vec<usize>,
    /// What it loads, if it is a load.
    loads: Option<&'a str>,
    cost: usize,
}

/// Registers of a variable of this type.
fn registers(kind: &str) -> usize {
    match kind {
        "u64" => 2,
        "Sum" => 3,
        "X" => 6,
        "Acc" => 8,
        "SumX" => 9,
        "XMat" => 14,
        "AccX" => 24,
        _ => 0,
    }
}

/// Estimated instructions of a statement.
fn cost(text: &str) -> usize {
    let call = text.rsplit("= ").next().unwrap_or(text).split('(').next().unwrap_or_default();
    match call {
        "acc_mul" => 8,
        "acc_mul_small" | "neg_any" | "sum_value" => 6,
        "accx_mul" => 72,
        "accx_mul_base" | "accx_mul_weight" | "x_matrix" => 24,
        "acc_value" | "x_neg_any" | "sumx_value" => 18,
        "accx_value" => 54,
        "accx_add" | "accx_sub" | "sumx_add" | "sumx_sub" => 9,
        "acc_add" | "acc_sub" | "sum_add" | "sum_sub" => 3,
        _ => 1,
    }
}

fn parse(body: &str) -> Vec<Line<'_>> {
    let mut ids: HashMap<&str, usize> = HashMap::new();
    let line = |text| {
        let text: &str = text;
        let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let names = words.iter().map(|&word| {
            let next = ids.len();
            *ids.entry(word).or_insert(next)
        });
        let names: Vec<usize> = names.collect();
        let taken = words.first().map_or(0, |kind| registers(kind));
        let declares = (taken > 0).then(|| (names[1], taken));
        let value = text.split_once("= ").map(|(_, value)| value);
        let is_load = |value: &&str| value.starts_with("main_") || value.starts_with("aux_");
        Line { text, declares, names, loads: value.filter(is_load), cost: cost(text.trim()) }
    };
    body.lines().map(line).collect()
}

/// Registers alive at each line.
fn alive(lines: &[Line]) -> Vec<usize> {
    let mut last: HashMap<usize, usize> = HashMap::new();
    for (number, line) in lines.iter().enumerate() {
        last.extend(line.names.iter().map(|&name| (name, number)));
    }
    let mut ends = vec![0; lines.len()];
    let mut live = 0;
    let at = |(number, line): (usize, &Line)| {
        if let Some((name, registers)) = line.declares {
            live += registers;
            ends[last[&name]] += registers;
        }
        let now = live;
        live -= ends[number];
        now
    };
    lines.iter().enumerate().map(at).collect()
}

/// Estimated registers that statements need at their greatest, if they stay in order.
pub fn pressure(body: &str) -> usize {
    alive(&parse(body)).into_iter().max().unwrap_or(0)
}

/// Moves loads up, each over at most [`AHEAD`] instructions, where that takes no more than `most` registers. Loads of one value
/// that were kept apart stay so.
pub fn hoist(body: &str, most: usize) -> String {
    let mut lines = parse(body);
    let mut live = alive(&lines);
    for from in 0..lines.len() {
        let Some(loaded) = lines[from].loads else { continue };
        let (_, registers) = lines[from].declares.unwrap_or_default();
        let mut to = from;
        let mut ahead = 0;
        while to > 0 {
            let above = &lines[to - 1];
            // Above a line that keeps loads apart: only if none of the same value stands between it and the next such line.
            let segment = || lines[..to - 1].iter().rev().take_while(|line| !is_apart(line));
            let is_barred = is_apart(above) && segment().any(|line| line.loads == Some(loaded));
            ahead += above.cost;
            if is_barred || ahead > AHEAD || live[to - 1] + registers > most {
                break;
            }
            to -= 1;
        }
        if to < from {
            let line = lines.remove(from);
            lines.insert(to, line);
            live = alive(&lines);
        }
    }
    lines.iter().flat_map(|line| [line.text, "\n"]).collect()
}

fn is_apart(line: &Line) -> bool {
    line.text.trim() == KEEP_APART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_counts_what_is_alive_together() {
        assert_eq!(pressure(""), 0);
        let apart = "    u64 v1 = load(1);\n    use(v1);\n    X v2 = load(2);\n    use(v2);\n";
        assert_eq!(pressure(apart), 6);
        let together = "    u64 v1 = load(1);\n    X v2 = load(2);\n    use(v1, v2);\n";
        assert_eq!(pressure(together), 8);
    }

    const BODY: &str = "    u64 v1 = main_here(1);\n    accx_mul(total, v1, w);\n    accx_mul(total, v1, w);\n    u64 v2 = main_next(2);\n    accx_mul(total, v2, w);\n";

    fn order(body: &str) -> Vec<&str> {
        body.lines().map(str::trim).collect()
    }

    #[test]
    fn loads_go_ahead_as_far_as_registers_last() {
        let free = hoist(BODY, 100);
        assert_eq!(order(&free)[..2], ["u64 v2 = main_next(2);", "u64 v1 = main_here(1);"]);
        assert_eq!(order(&free).len(), 5);
        assert_eq!(hoist(BODY, 3), BODY, "two values at once are too many");
    }

    #[test]
    fn loads_of_one_value_stay_apart() {
        let body = "    u64 v1 = main_here(1);\n    acc_mul(s, v1, v1);\n    AIR_APART;\n    u64 v2 = main_here(1);\n    u64 v3 = main_here(3);\n    acc_mul(s, v2, v3);\n";
        let hoisted = hoist(body, 100);
        let lines = order(&hoisted);
        let place = |text: &str| lines.iter().position(|line| *line == text).expect("is there");
        assert!(place("u64 v1 = main_here(1);") < place("AIR_APART;") && place("AIR_APART;") < place("u64 v2 = main_here(1);"));
        assert!(place("u64 v3 = main_here(3);") < place("AIR_APART;"), "another value may pass");
    }
}
