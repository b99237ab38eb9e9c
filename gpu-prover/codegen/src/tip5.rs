//! Tip5's constants as a header.

use std::fmt::Write;

use twenty_first::tip5::{LOOKUP_TABLE, MDS_MATRIX_FIRST_COLUMN, ROUND_CONSTANTS};

/// `tip5_constants.cuh`: comma-separated lists for initializers. Round constants are in Montgomery form.
pub fn tip5_constants() -> String {
    let list = |name: &str, items: &mut dyn Iterator<Item = String>| {
        let mut text = format!("#define {name}");
        for (i, item) in items.enumerate() {
            write!(text, "{} {item}", if i == 0 { "" } else { "," }).expect("writing to a string does not fail");
        }
        text
    };
    [
        "// Generated from twenty-first.".to_string(),
        list("TIP5_MDS_COLUMN", &mut MDS_MATRIX_FIRST_COLUMN.iter().map(ToString::to_string)),
        list("TIP5_ROUND_CONSTANTS", &mut ROUND_CONSTANTS.iter().map(|c| format!("{:#x}ull", c.raw_u64()))),
        list("TIP5_LOOKUP", &mut LOOKUP_TABLE.iter().map(ToString::to_string)),
        String::new(),
    ]
    .join("\n")
}
