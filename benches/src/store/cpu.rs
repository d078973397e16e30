//! Processor time of processes, user and system.

use std::ops::Sub;

/// Seconds so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuSeconds {
    /// This process: generator, and the store or the driver of it.
    pub(crate) own: f64,
    /// The server's processes; `None` if they are not on this machine.
    pub(crate) server: Option<f64>,
}

impl Sub for CpuSeconds {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let server = self.server.zip(before.server).map(|(after, before)| after - before);
        Self { own: self.own - before.own, server }
    }
}

/// Of this process.
pub(crate) fn own() -> f64 {
    of("self").unwrap_or(0.0)
}

/// Of all these processes together; `None` if there are none, or one cannot be looked at.
pub(crate) fn of_all(pids: &[u32]) -> Option<f64> {
    if pids.is_empty() {
        return None;
    }
    pids.iter().map(|pid| of(&pid.to_string())).sum()
}

fn of(process: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name in brackets; utime and stime are fields 14 and 15, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}
