//! The generated files.

use std::collections::HashSet;
use std::fmt::Write;

use crate::air::{Air, Constraint, Derived};
use crate::cluster::{Cluster, Piece, clusters, kept};
use crate::dag::Dag;
use crate::emit::Emitter;
use crate::schedule::{hoist, pressure};

/// Estimated instructions of one constraint kernel. Smaller kernels repeat more loads and shared sub-expressions,
/// larger ones outgrow the instruction cache and the registers.
const KERNEL_LIMIT: usize = 5000;

/// Number of verifier challenges, which stand before the weights in a module's table of constants.
const NUM_CHALLENGES: usize = 63;

/// One generated source file. Files whose name ends in `.cu` hold one kernel each, named like the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedFile {
    /// File name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Generates all files.
pub fn generate() -> Vec<GeneratedFile> {
    let mut air = Air::build();
    let mut files = vec![];
    let sets: [(&str, Vec<Constraint>); 4] = [
        ("initial", air.initial.clone()),
        ("consistency", air.consistency.clone()),
        ("transition", air.transition.clone()),
        ("terminal", air.terminal.clone()),
    ];
    for (name, constraints) in sets {
        for (i, cluster) in clusters(&mut air.dag, &constraints, KERNEL_LIMIT).iter().enumerate() {
            files.push(constraint_kernel(&air.dag, &format!("air_{name}_{i}"), cluster));
        }
    }
    files.push(fill_kernel(&air.dag, "fill_main_single", &air.main_single));
    files.push(fill_kernel(&air.dag, "fill_main_dual", &air.main_dual));
    files.push(fill_kernel(&air.dag, "fill_aux_dual", &air.aux_dual));
    files.push(registry(&air, &files));
    files
}

/// Candidates for what is dear enough to be held from one constraint to the next, the most generous first.
const KEEP_COSTS: [usize; 6] = [60, 120, 250, 500, 1000, usize::MAX];

/// Estimated registers with which a kernel does not spill. The estimate knows no addresses and temporaries.
const REGISTERS: usize = 120;

fn constraint_kernel(dag: &Dag, name: &str, cluster: &Cluster) -> GeneratedFile {
    let body_with = |least: usize| {
        let mut emitter = Emitter::new(dag, kept(dag, &cluster.pieces, least));
        for piece in &cluster.pieces {
            match piece {
                Piece::Whole(constraint) => {
                    emitter.weighted_constraint(constraint.root, NUM_CHALLENGES + constraint.weight);
                }
                Piece::Part(terms, weight) => emitter.weighted_terms(terms, NUM_CHALLENGES + weight),
            }
        }
        emitter.into_body()
    };
    // Hold as much as fits; where nothing fits, what needs least.
    let bodies: Vec<(usize, String)> = KEEP_COSTS.into_iter().map(body_with).map(|body| (24 + pressure(&body), body)).collect();
    let fitting = bodies.iter().find(|(registers, _)| *registers <= REGISTERS);
    let (registers, body) =
        fitting.or_else(|| bodies.iter().min_by_key(|(registers, _)| *registers)).expect("there are candidates");
    let text = format!(
        "// Generated: {} pieces of constraints, about {} instructions a row, about {registers} registers.\n\
         #include \"air.cuh\"\n\n\
         FN X air_row(AIR_PARAMETERS) {{\n    AccX total = accx_zero(0);\n{body}    return accx_value(total);\n}}\n\n\
         AIR_KERNEL({name})\n",
        cluster.pieces.len(),
        cluster.cost,
        body = hoist(body, REGISTERS - 24),
    );
    GeneratedFile { name: format!("{name}.cu"), text }
}

fn fill_kernel(dag: &Dag, name: &str, columns: &[Derived]) -> GeneratedFile {
    // Later columns read earlier ones of the same row; a column is stored before anything reads it back.
    let mut emitter = Emitter::new(dag, HashSet::new());
    for column in columns {
        emitter.derived_column(column.root, column.column);
    }
    let body = emitter.into_body();
    let text = format!(
        "// Generated: {} derived columns.\n#define AIR_FILL\n#include \"air.cuh\"\n\n\
         FN void fill_row(FILL_PARAMETERS) {{\n{body}}}\n\nFILL_KERNEL({name})\n",
        columns.len(),
    );
    GeneratedFile { name: format!("{name}.cu"), text }
}

/// What the host must know about the generated kernels, as Rust.
fn registry(air: &Air, files: &[GeneratedFile]) -> GeneratedFile {
    let mut text = String::from("// Generated.\n");
    for set in ["initial", "consistency", "transition", "terminal"] {
        let names: Vec<_> = files
            .iter()
            .filter_map(|f| f.name.strip_suffix(".cu"))
            .filter(|n| n.starts_with(&format!("air_{set}_")))
            .map(|n| format!("\"{n}\""))
            .collect();
        writeln!(text, "/// Kernels of the {set} constraints.").expect("writing to a string does not fail");
        writeln!(text, "pub const {}: &[&str] = &[{}];", set.to_uppercase(), names.join(", "))
            .expect("writing to a string does not fail");
    }
    writeln!(
        text,
        "/// Number of challenges and of constraints: entries of a module's table of constants.\n\
         pub const TABLE_LENGTHS: (usize, usize) = ({NUM_CHALLENGES}, {});",
        air.num_constraints()
    )
    .expect("writing to a string does not fail");
    text.push_str(&crate::names::column_registry());
    GeneratedFile { name: "air_registry.rs".into(), text }
}
