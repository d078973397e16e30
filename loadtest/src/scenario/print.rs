//! A scenario as a file to start from.

use std::fmt::Write as _;

use super::Scenario;
use super::keys::SECTIONS;
use super::program::Program;
use super::table::Key;

impl Scenario {
    /// The file that says the same, every key explained: defaults stand there as comments.
    pub fn print(&self) -> String {
        let mut out = format!(
            "# A scenario for `skein-load run FILE`, every key with its meaning. A line that begins\n\
             # with # is a default; flags of the command line are stronger than this file.\n\n\
             # {}\n\
             program = \"{}\"\n",
            self.program.about(),
            self.program.name()
        );
        let preset = Self::preset(self.program);
        for section in SECTIONS {
            let mut keys = section.keys.iter().filter(|key| self.has_use_for(key)).peekable();
            if keys.peek().is_none() {
                continue;
            }
            if !section.name.is_empty() {
                out.push('\n');
                push_comment(&mut out, section.doc);
                let _ = writeln!(out, "[{}]", section.name);
            }
            for key in keys {
                out.push('\n');
                push_comment(&mut out, key.doc);
                let _ = writeln!(out, "# Value: {}   Flag: --{}", (key.range)(), key.flag);
                let value = (key.print)(self);
                let mark = if value == (key.print)(&preset) { "# " } else { "" };
                let _ = writeln!(out, "{mark}{} = {value}", key.name);
            }
        }
        out
    }

    /// Whether a key can be given with the program, and with what a ramp raises.
    fn has_use_for(&self, key: &Key) -> bool {
        let ramped = self.program != Program::Ramp
            || key.path.starts_with("ramp.")
            || (key.is_for(self.ramp.of) && key.path != "load.rate");
        key.is_for(self.program) && ramped
    }
}

fn push_comment(out: &mut String, doc: &str) {
    for line in doc.lines() {
        let _ = writeln!(out, "#{}", line.trim_end());
    }
}
