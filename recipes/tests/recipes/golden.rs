//! The conversations in testdata, replayed. `REWRITE=1` writes what the recipes answer now: review it as a diff.

use crate::script::Script;

#[test]
fn lock() {
    datadriven::walk("testdata/lock", |file| {
        let mut script = Script::new();
        file.run(|case| script.answer(case));
    });
}
