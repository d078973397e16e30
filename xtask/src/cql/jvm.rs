//! A JVM that does not outlive this process.
//!
//! It is started by a shell that holds the reading end of a pipe from this process. The pipe closes
//! when the [`Jvm`] is dropped, and in any case when this process ends, SIGKILL included; then the
//! shell kills the JVM. Shell and JVM are in a process group of their own, so that Ctrl-C and a
//! kill of our whole group reach them only in this way.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::CqlError;

/// Says the JVM's process id, then waits for its end. The part in brackets guards it: a line
/// releases the JVM, the end of the pipe kills it.
const GUARD: &str = r#"
trap '' HUP
exec 3<&0 </dev/null
"$@" >&2 3<&- &
jvm=$!
echo "$jvm"
exec >/dev/null
( read -r released <&3 || kill -KILL "$jvm" ) &
guard=$!
exec 3<&-
wait "$jvm"
kill "$guard" 2>/dev/null
"#;

/// A running JVM.
#[derive(Debug)]
pub(crate) struct Jvm {
    shell: Child,
    /// Taken to kill the JVM.
    pipe: Option<ChildStdin>,
    pid: Pid,
}

impl Jvm {
    /// Starts `java` with `arguments` in `folder`; what it prints goes into `console`.
    pub(crate) fn start(
        java: &Path,
        arguments: &[String],
        folder: &Path,
        console: File,
    ) -> Result<Self, CqlError> {
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(java)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(console)
            .process_group(0)
            .spawn()
            .map_err(CqlError::io("sh"))?;
        let pipe = shell.stdin.take();
        let mut line = String::new();
        if let Some(said) = shell.stdout.take() {
            BufReader::new(said).read_line(&mut line).map_err(CqlError::io("sh"))?;
        }
        match line.trim().parse().ok().and_then(Pid::from_raw) {
            Some(pid) => Ok(Self { shell, pipe, pid }),
            None => Err(CqlError::io("sh")(std::io::ErrorKind::InvalidData.into())),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(None))
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<(), CqlError> {
        // The shell waits for the JVM, so the id is still the JVM's while the shell runs.
        if self.runs() {
            kill_process(self.pid, signal)
                .map_err(|error| CqlError::io("signal to the JVM")(error.into()))?;
        }
        Ok(())
    }

    /// Kills it and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.pipe.take().is_some() {
            let _ = self.shell.wait();
        }
    }

    /// Lets it run on when this process ends.
    pub(crate) fn release(mut self) -> Result<u32, CqlError> {
        if let Some(mut pipe) = self.pipe.take() {
            pipe.write_all(b"released\n").map_err(CqlError::io("the guard of the JVM"))?;
        }
        Ok(self.pid())
    }
}

impl Drop for Jvm {
    fn drop(&mut self) {
        self.end();
    }
}
