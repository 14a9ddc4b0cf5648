//! The workflows run what everybody can run.

use std::collections::BTreeSet;

use super::{files, read, root};

#[test]
fn workflows_run_targets_of_the_makefile() {
    let makefile = read(&root().join("Makefile"));
    let targets: BTreeSet<_> = makefile.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    let mut run = BTreeSet::new();
    for file in files(&root().join(".github/workflows"), ".yml") {
        let text = read(&file);
        for line in text.lines() {
            let line =
                ["- ", "run: ", "sudo "].iter().fold(line.trim(), |line, before| line.trim_start_matches(before));
            if let Some(target) = line.strip_prefix("make ").and_then(|rest| rest.split(' ').next()) {
                assert!(targets.contains(target), "{}: there is no `make {target}`", file.display());
                run.insert(target.to_owned());
            }
        }
    }
    for target in ["test", "lint-deploy"] {
        assert!(run.contains(target), "no workflow runs `make {target}`: {run:?}");
    }
}
