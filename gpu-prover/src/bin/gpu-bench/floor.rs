//! What each step of a proof has to do at least, beside what it took.
//!
//! Bytes: each input read once, each output written once, two passes for a transform. Permutations: those of Tip5.
//! Products: Goldilocks multiplications of the constraints. The rates are what small kernels reached on an H100 or H200 with
//! nothing else to do (docs/benchmarks.md): 3.3 G permutations/s, 2.84 TB/s, 1.16 T multiplications/s.

use gpu_prover::domain::{Domains, NUM_COSETS};
use gpu_prover::plan::Plan;

const PERMUTATIONS_PER_SECOND: f64 = 3.3e9;
const BYTES_PER_SECOND: f64 = 2.84e12;
const PRODUCTS_PER_SECOND: f64 = 1.16e12;

/// Work of a step.
#[derive(Debug, Clone, Copy, Default)]
struct Work {
    bytes: f64,
    permutations: f64,
    products: f64,
}

impl Work {
    fn seconds(self) -> f64 {
        let Self { bytes, permutations, products } = self;
        (bytes / BYTES_PER_SECOND).max(permutations / PERMUTATIONS_PER_SECOND).max(products / PRODUCTS_PER_SECOND)
    }
}

/// Prints a profile with floors and shares, the longest step first.
pub fn print(domains: &Domains, plan: Plan, steps: &[(&'static str, f64)]) {
    let mut steps: Vec<_> = steps.to_vec();
    steps.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let total: f64 = steps.iter().map(|(_, seconds)| seconds).sum();
    println!(
        "    {:36} {:>9} {:>6} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "step", "ms", "share", "GB", "M perms", "G mul", "floor ms", "of it"
    );
    for (name, seconds) in steps {
        let work = work(name, domains.trace_length() as f64, plan);
        let floor = work.seconds();
        println!(
            "    {name:36} {:9.3} {:5.1}% {:9.2} {:9.2} {:9.2} {:9.3} {:>6}",
            seconds * 1e3,
            100.0 * seconds / total,
            work.bytes / 1e9,
            work.permutations / 1e6,
            work.products / 1e9,
            floor * 1e3,
            if floor > 0.0 { format!("{:.0}%", 100.0 * floor / seconds) } else { "-".into() },
        );
    }
    println!("    {:36} {:9.3}", "all, waiting after each step", total * 1e3);
}

fn work(step: &str, n: f64, plan: Plan) -> Work {
    let cosets = NUM_COSETS as f64;
    let base = |columns: f64| 8.0 * columns * n;
    // A transform reads and writes twice; n log n / 2 butterflies with a product each.
    let transform = |columns: f64, times: f64| Work {
        bytes: 4.0 * base(columns) * times,
        products: columns * times * n * n.log2() / 2.0,
        ..Work::default()
    };
    let hash = |columns: f64, per_row: f64| Work {
        bytes: (base(columns) + 40.0 * n) * cosets,
        permutations: per_row * n * cosets,
        ..Work::default()
    };
    let recomputed = (5.0 - 1.0 - f64::from(plan.kept_cosets())).max(0.0);
    match step {
        "main upload" => Work { bytes: base(149.0), ..Work::default() },
        "main derived columns" => Work { bytes: base(379.0), products: 404.0 * n, ..Work::default() },
        "aux derived columns" => Work { bytes: base(379.0 + 273.0), products: 964.0 * n, ..Work::default() },
        "aux extension" => Work { bytes: base(149.0 + 4.0 * 147.0), ..Work::default() },
        "main interpolation" => transform(379.0, 1.0),
        "aux interpolation" => transform(273.0, 1.0),
        "main evaluation" => transform(379.0, cosets),
        "aux evaluation" => transform(273.0, cosets),
        "evaluation again for the quotient" => transform(652.0, recomputed),
        "main row hash" => hash(379.0, 38.0),
        "aux row hash" => hash(273.0, 28.0),
        "quotient row hash" => hash(15.0, 2.0),
        "trees" => Work { bytes: 3.0 * 80.0 * cosets * n, permutations: 3.0 * cosets * n, ..Work::default() },
        "transition constraints" => Work { bytes: 4.0 * base(652.0), products: 4.0 * (5670.0 + 1938.0) * n, ..Work::default() },
        "consistency constraints" => Work { bytes: 4.0 * base(379.0), products: 4.0 * (220.0 + 291.0) * n, ..Work::default() },
        "initial constraints" => Work { bytes: 5.0 * base(652.0), products: 5.0 * (554.0 + 561.0) * n, ..Work::default() },
        "terminal constraints" => Work { bytes: 5.0 * base(652.0), products: 5.0 * (79.0 + 171.0) * n, ..Work::default() },
        "quotient evaluation" => transform(15.0, cosets),
        "quotient interpolation" => transform(3.0, 9.0),
        "out of domain" => Work { bytes: base(655.0 + 15.0), products: 6.0 * 670.0 * n, ..Work::default() },
        "combination, DEEP" => Work { bytes: base(652.0) + 8.0 * 3.0 * base(9.0), products: 1956.0 * n, ..Work::default() },
        "FRI" => Work { bytes: 2.0 * cosets * (24.0 + 80.0) * n, permutations: 2.0 * cosets * n, ..Work::default() },
        _ => Work::default(),
    }
}
