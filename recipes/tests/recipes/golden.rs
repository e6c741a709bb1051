//! The conversations in testdata, replayed. `REWRITE=1` writes what the recipes answer now: review it as a diff.

use crate::script::Script;

/// Every story of every recipe: one folder each.
#[test]
fn conversations() {
    datadriven::walk("testdata", |file| {
        let mut script = Script::new();
        file.run(|case| script.answer(case));
    });
}
