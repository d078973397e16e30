//! A JVM that does not outlive this process.
//!
//! It is started by a shell that holds the reading end of a pipe from this process. The pipe closes
//! when the [`Jvm`] is dropped, and in any case when this process ends, SIGKILL included; then the
//! shell kills the JVM. Shell and JVM are in a process group of their own, so that Ctrl-C and a
//! kill of our whole group reach them only in this way.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
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
            None => Err(CqlError::io("sh")(io::ErrorKind::InvalidData.into())),
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
    pub(crate) fn kill(mut self) -> Result<(), CqlError> {
        self.end().map_err(CqlError::io("the end of the JVM"))
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(pipe) = self.pipe.take() else { return Ok(()) };
        drop(pipe);
        self.shell.wait().map(drop)
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
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::env;
    use std::io::Read;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::process::test_kill_process;

    use super::*;

    /// In the environment of a process that is to start something and be killed.
    const PARENT: &str = "SKEIN_XTASK_PARENT";

    /// Any program will do in place of a JVM.
    fn start(seconds: &str) -> Jvm {
        let console = File::options().write(true).open("/dev/null").unwrap();
        Jvm::start(Path::new("sleep"), &[seconds.into()], Path::new("/"), console).unwrap()
    }

    fn wait_until_gone(pid: Pid) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while test_kill_process(pid).is_ok() {
            assert!(Instant::now() < deadline, "process {pid:?} is still there");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn killed_stopped_or_not_it_is_gone_at_once() {
        for stopped in [false, true] {
            let mut jvm = start("1000");
            assert!(jvm.runs());
            if stopped {
                jvm.signal(Signal::STOP).unwrap();
            }
            let pid = jvm.pid;
            jvm.kill().unwrap();
            assert!(test_kill_process(pid).is_err());
        }
    }

    #[test]
    fn dropped_it_is_gone() {
        let pid = start("1000").pid;
        assert!(test_kill_process(pid).is_err());
    }

    #[test]
    fn one_that_ends_by_itself_is_seen() {
        let mut jvm = start("0");
        let deadline = Instant::now() + Duration::from_secs(30);
        while jvm.runs() {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(5));
        }
        // Not sent to whoever has the id by now.
        jvm.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn released_it_runs_on() {
        let jvm = start("1000");
        let pid = jvm.pid;
        jvm.release().unwrap();
        // Longer than the guard would take.
        thread::sleep(Duration::from_millis(100));
        assert!(test_kill_process(pid).is_ok());
        kill_process(pid, Signal::KILL).unwrap();
        wait_until_gone(pid);
    }

    #[test]
    fn it_is_gone_when_its_parent_is_killed_or_interrupted() {
        let mut signals = vec![Signal::KILL, Signal::TERM];
        // Whoever started this in the background of a script has it ignored in all that it starts.
        if !is_ignored(Signal::INT) {
            signals.push(Signal::INT);
        }
        for signal in signals {
            let mut parent = Command::new(env::current_exe().unwrap())
                .args(["--exact", "cql::jvm::tests::parent", "--nocapture"])
                .env(PARENT, "yes")
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            let mut said = BufReader::new(parent.stdout.take().unwrap());
            let pid = loop {
                let mut line = String::new();
                assert_ne!(said.read_line(&mut line).unwrap(), 0, "the parent ended");
                if let Some((_, pid)) = line.split_once("started ") {
                    break Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
                }
            };
            assert!(test_kill_process(pid).is_ok());
            // As Ctrl-C in a terminal: to all of the group.
            let group = Pid::from_child(&parent);
            rustix::process::kill_process_group(group, signal).unwrap();
            parent.wait().unwrap();
            wait_until_gone(pid);
            // Nor does anything hold on to what the parent's output went to.
            said.read_to_string(&mut String::new()).unwrap();
        }
    }

    fn is_ignored(signal: Signal) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
    }

    /// The process that is killed by the test above; otherwise nothing.
    #[test]
    fn parent() {
        if env::var_os(PARENT).is_none() {
            return;
        }
        let jvm = start("1000");
        println!("started {}", jvm.pid());
        thread::sleep(Duration::from_secs(1000));
    }
}
