//! Standard output and standard error, either of which may be closed.

use std::io::{self, Write};

use crate::exit::Failure;

/// Writes to standard output.
///
/// # Errors
/// When it cannot be written, except that nobody reads it any more (`| head`).
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::could_not_run(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Tells the user on standard error; where that is closed the exit status is all that is left.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "skein-load: {text}");
}
