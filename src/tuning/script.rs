//! The changes as a shell script, for those who want to read before they run.

use std::fmt::Write;

use super::apply::Step;

const HEAD: &str = "\
#!/bin/sh
# What `percolog tune apply` would change on this host. Read it, then run it as root.
# It keeps no undo file: the value that was there stands behind each line.
failed=0
put() { printf '%s\\n' \"$2\" > \"$1\" || failed=1; }
";

/// A script that does the steps.
#[must_use]
pub fn render(steps: &[Step]) -> String {
    let mut text = HEAD.to_owned();
    let mut item = "";
    for step in steps {
        if step.item != item {
            item = step.item;
            let _ = writeln!(text, "\n# {item}: {}", step.reason);
        }
        // Neither a path nor a value can hold a quote: targets and values are checked for that.
        let (path, after, before) = (step.target.path(), &step.after, &step.before);
        let _ = writeln!(text, "put '/{path}' '{after}' # was {before}");
    }
    if steps.is_empty() {
        text.push_str("\n# There is nothing to change.\n");
    }
    text.push_str("\nexit $failed\n");
    text
}
