//! Processor time that other programs took on the cores that the generator runs on.

use std::path::Path;

use procfs_core::FromRead as _;
use procfs_core::process::{Stat, Status};

/// Ticks a second of `/proc/stat` and `/proc/PID/stat`: `USER_HZ`, 100 on every Linux.
const TICKS: f64 = 100.0;

/// Processor times since the start of the machine, seconds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Times {
    /// Which cores: those that the generator may use, and those that the target may. What others do
    /// on the remaining ones takes nothing from either, as where containers have cores of their own.
    cores: Vec<(u32, u32)>,
    /// The target's process, if it is on this machine.
    target: Option<u32>,
    /// Of all programs, on these cores.
    all: f64,
    /// Of the generator and the target.
    ours: f64,
}

impl Times {
    /// `None` where the system does not say.
    pub(super) fn look(root: &Path, target: Option<u32>) -> Option<Self> {
        let processes = std::iter::once("self".to_owned()).chain(target.map(|pid| pid.to_string()));
        let (mut cores, mut ours) = (Vec::new(), 0.0);
        for process in processes {
            let folder = root.join("proc").join(process);
            cores.extend(Status::from_file(folder.join("status")).ok()?.cpus_allowed_list?);
            let stat = Stat::from_file(folder.join("stat")).ok()?;
            ours += (stat.utime + stat.stime) as f64 / TICKS;
        }
        cores.sort_unstable();
        cores.dedup();
        let text = std::fs::read_to_string(root.join("proc/stat")).ok()?;
        let all = busy(&text, &cores)?;
        Some(Self { cores, target, all, ours })
    }

    /// Cores that others used in so many seconds. Below 0 by what the kernel rounds: the error is
    /// gone in the sum of a few seconds. `None` if it is not about the same cores and processes.
    pub(super) fn others_since(&self, before: &Self, seconds: f64) -> Option<f64> {
        let is_same = (&self.cores, self.target) == (&before.cores, before.target);
        let others = (self.all - before.all) - (self.ours - before.ours);
        (is_same && seconds > 0.0).then_some(others / seconds)
    }
}

/// Seconds in which programs ran on these cores. Without interrupts: what the network costs there is
/// mostly the load's own, and belongs to no program.
fn busy(text: &str, cores: &[(u32, u32)]) -> Option<f64> {
    let core = |line: &str| {
        let (name, times) = line.split_once(' ')?;
        let number: u32 = name.strip_prefix("cpu")?.parse().ok()?;
        let is_ours = cores.iter().any(|(first, last)| (*first..=*last).contains(&number));
        let times = times.split_whitespace().take(3).map(|time| time.parse::<u64>().ok());
        // user, nice, system
        is_ours.then(|| times.sum::<Option<u64>>())?
    };
    let found: Vec<u64> = text.lines().filter_map(core).collect();
    (!found.is_empty()).then(|| found.iter().sum::<u64>() as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "cpu  600 30 300 9000 0 50 50 0 0 0\ncpu0 100 10 100 4000 5 6 7 8 0 0\n\
        cpu1 200 10 100 4000 0 0 0 0 0 0\ncpu12 300 10 100 4000 0 0 0 0 0 0\nintr 5\nctxt 7\n";

    #[test]
    fn only_the_cores_that_are_ours_count() {
        assert_eq!(busy(STAT, &[(0, 0)]), Some(2.1));
        assert_eq!(busy(STAT, &[(0, 1), (1, 11)]), Some(5.2));
        assert_eq!(busy(STAT, &[(0, 12)]), Some(9.3));
        assert_eq!(busy(STAT, &[(2, 3)]), None);
        assert_eq!(busy("nonsense", &[(0, 1)]), None);
    }

    #[test]
    fn others_are_what_is_neither_ours_nor_the_targets() {
        let times = |target, all, ours| Times { cores: vec![(0, 1)], target, all, ours };
        let before = times(Some(7), 100.0, 40.0);
        assert_eq!(times(Some(7), 103.0, 42.0).others_since(&before, 2.0), Some(0.5));
        assert_eq!(times(Some(8), 103.0, 1.0).others_since(&before, 2.0), None, "restarted");
        assert_eq!(before.others_since(&before, 0.0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_says_it() {
        let own = Times::look(Path::new("/"), None).unwrap();
        assert!(own.all >= own.ours, "{own:?}");
        let both = Times::look(Path::new("/"), Some(std::process::id())).unwrap();
        assert_eq!(both.cores, own.cores);
        assert_eq!(Times::look(Path::new("/"), Some(u32::MAX)), None);
        assert_eq!(Times::look(Path::new("/nowhere"), None), None);
    }
}
