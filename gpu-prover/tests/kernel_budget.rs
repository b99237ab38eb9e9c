//! Registers and spills of every kernel against `kernels/budget.txt`. A kernel that takes more than it did is slower, and
//! nothing else would say so without a GPU.

use std::collections::BTreeMap;

use gpu_prover::cuda::resources;

/// Kernel to registers and spilled bytes, on sm_90a.
fn budget() -> BTreeMap<&'static str, (u32, u32)> {
    let lines = include_str!("../kernels/budget.txt").lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let entry = |line: &'static str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kernel, registers, spilled] = words[..] else { panic!("not `kernel registers spilled-bytes`: {line}") };
        let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        (kernel, (number(registers), number(spilled)))
    };
    lines.map(entry).collect()
}

#[test]
fn no_kernel_takes_more_than_its_budget() {
    let all = resources();
    if all.is_empty() {
        println!("skipped: this build has no kernels; `make cuda-toolchain` gets a compiler");
        return;
    }
    let budget = budget();
    let mut wrong = vec![];
    let mut seen = 0;
    for kernel in all.iter().filter(|kernel| kernel.architecture == "sm_90a") {
        seen += 1;
        let taken = (kernel.registers, kernel.spilled_bytes);
        match budget.get(kernel.kernel) {
            Some(&(registers, spilled)) if taken.0 <= registers && taken.1 <= spilled => {}
            _ => wrong.push(format!("{} {} {}", kernel.kernel, taken.0, taken.1)),
        }
    }
    assert!(
        wrong.is_empty(),
        "over budget, or not in kernels/budget.txt (kernel registers spilled-bytes):\n{}",
        wrong.join("\n")
    );
    assert!(seen == 0 || seen == budget.len(), "kernels/budget.txt has {} kernels, this build {seen}", budget.len());
}
