//! Lines of standard input, read on a thread of its own because reading cannot be interrupted.

use std::io::{BufRead, IsTerminal, Read};

use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor, ExternalPrinter};
use tokio::sync::mpsc;

/// Longest line, bytes: the largest message in base64, with room.
const MAX_LINE_BYTES: u64 = 32 << 20;

/// Lines that wait. Beyond, the script's pipe fills.
const MAX_LINES: usize = 16;

/// What comes from standard input. The channel's end is the input's end.
#[derive(Debug)]
pub(crate) enum Line {
    /// Without the line break.
    Text(String),
    /// Not UTF-8 or too long; nothing can be made of it.
    Unusable(String),
}

/// How to write while a line is being edited.
pub(crate) type Printer = Box<dyn FnMut(String) + Send>;

/// Reads whole lines.
pub(crate) fn lines() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(MAX_LINES);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        while let Some(line) = read_line(&mut input) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn read_line(input: &mut impl BufRead) -> Option<Line> {
    let mut line = Vec::new();
    let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).ok()?;
    if read == 0 {
        return None;
    }
    if line.len() as u64 == MAX_LINE_BYTES && !line.ends_with(b"\n") {
        input.skip_until(b'\n').ok()?;
        return Some(Line::Unusable(format!("a line is longer than {MAX_LINE_BYTES} bytes")));
    }
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    Some(match String::from_utf8(line) {
        Ok(line) => Line::Text(line),
        Err(_) => Line::Unusable("a line is not UTF-8".into()),
    })
}

/// Whether a person types here.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// A person at a terminal.
pub(crate) struct Desk {
    pub(crate) lines: mpsc::Receiver<Line>,
    pub(crate) printer: Printer,
    /// Lets the next line be edited, once the last one is dealt with: so the prompt is right, and
    /// a chat that ends leaves the terminal as it was.
    pub(crate) next: std::sync::mpsc::Sender<()>,
}

/// Lets a person edit lines. The prompt is asked for before each.
pub(crate) fn edited(prompt: impl Fn() -> String + Send + 'static) -> Result<Desk, ReadlineError> {
    let mut editor = DefaultEditor::with_config(Config::builder().auto_add_history(true).build())?;
    let mut external = editor.create_external_printer()?;
    let (sender, lines) = mpsc::channel(1);
    let (next, turns) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Ctrl-C, Ctrl-D and a broken terminal all end the input.
        while let Ok(line) = editor.readline(&prompt()) {
            if sender.blocking_send(Line::Text(line)).is_err() || turns.recv().is_err() {
                return;
            }
        }
    });
    let printer = Box::new(move |text: String| {
        if external.print(text.clone()).is_err() {
            print!("{text}");
        }
    });
    Ok(Desk { lines, printer, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_either_break_or_the_input() {
        let mut input = &b"one\r\ntwo\n\xff\nlast"[..];
        let mut next = || {
            read_line(&mut input).map(|line| match line {
                Line::Text(text) => text,
                Line::Unusable(why) => format!("({why})"),
            })
        };
        assert_eq!(next().unwrap(), "one");
        assert_eq!(next().unwrap(), "two");
        assert_eq!(next().unwrap(), "(a line is not UTF-8)");
        assert_eq!(next().unwrap(), "last");
        assert_eq!(next(), None);
    }
}
