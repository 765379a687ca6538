//! Patterns of paths against deep and wide contexts.

use super::{Hostile, hostile, scratch};
use kiln_e2e::Result;
use std::path::Path;

/// A folder in a folder, sixty deep, with a file in each.
fn deep_tree(context: &Path) -> Result<()> {
    let mut folder = context.to_owned();
    for _ in 0..60 {
        folder = folder.join("a");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("f"), "f")?;
    }
    Ok(())
}

fn many_patterns(context: &Path) -> Result<()> {
    let patterns: String = (0..100_000)
        .map(|number| format!("p{number}*/**/x{number}?\n"))
        .collect();
    std::fs::write(context.join(".dockerignore"), patterns)?;
    for number in 0..300 {
        std::fs::write(context.join(format!("file{number}")), "x")?;
    }
    Ok(())
}

fn star_patterns(context: &Path) -> Result<()> {
    deep_tree(context)?;
    std::fs::write(
        context.join(".dockerignore"),
        format!("{}x\n{}b\n", "**/".repeat(20_000), "*a".repeat(200)),
    )?;
    Ok(std::fs::write(context.join("a".repeat(250)), "x")?)
}

pub(super) fn globs() -> Vec<Hostile> {
    let with = |name, context, dockerfile, error| Hostile {
        context,
        ..hostile(name, dockerfile, error)
    };
    vec![
        with(
            "deep wildcards",
            deep_tree,
            || scratch(format!("COPY {}f /d/\n", "**/".repeat(2000))),
            None,
        ),
        with(
            "deep wildcards that match",
            deep_tree,
            || scratch(format!("COPY {}f /d/\n", "*/".repeat(50))),
            None,
        ),
        with(
            "exponential wildcard",
            |context| Ok(std::fs::write(context.join("a".repeat(250)), "x")?),
            || scratch(format!("COPY {}b /d/\n", "*a".repeat(120))),
            None,
        ),
        with(
            "hundred thousand ignore patterns",
            many_patterns,
            || scratch("COPY . /d/\n"),
            None,
        ),
        with(
            "exponential ignore patterns",
            star_patterns,
            || scratch("COPY . /d/\n"),
            None,
        ),
    ]
}
