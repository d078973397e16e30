//! Finds the programs that a server needs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::CqlError;

/// The version that the server runs on. It does not start on 21 and later.
const VERSION: &str = "17";

/// Where Linux distributions put their JDKs.
const JVMS: &str = "/usr/lib/jvm";

/// A Java 17.
#[derive(Clone, Debug)]
pub struct Java {
    program: PathBuf,
}

impl Java {
    /// Looks at `JAVA17_HOME`, `JAVA_HOME`, the JDKs under `/usr/lib/jvm`, then `java` on the path.
    /// The first one that says it is version 17 is taken.
    ///
    /// # Errors
    /// [`CqlError::NoJava`], which says what to install.
    pub fn find() -> Result<Self, CqlError> {
        let homes = ["JAVA17_HOME", "JAVA_HOME"].into_iter().filter_map(env::var_os);
        let mut installed: Vec<_> = fs::read_dir(JVMS)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        installed.retain(|path| path.to_string_lossy().contains(VERSION));
        installed.sort();
        homes
            .map(PathBuf::from)
            .chain(installed)
            .map(|home| home.join("bin/java"))
            .chain([PathBuf::from("java")])
            .find(|program| is_right(program))
            .map(|program| Self { program })
            .ok_or(CqlError::NoJava)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// `openjdk version "17.0.15" 2025-04-15` is what it says, on standard error.
fn is_right(program: &Path) -> bool {
    let Ok(said) = Command::new(program).arg("-version").stdin(Stdio::null()).output() else {
        return false;
    };
    let said = String::from_utf8_lossy(&said.stderr);
    let version = said.split('"').nth(1).unwrap_or_default();
    version.split(['.', '-', '+']).next() == Some(VERSION)
}

/// `mvn` on the path. Its own settings say where it fetches from.
///
/// # Errors
/// [`CqlError::NoMaven`], which says what to install.
pub fn maven() -> Result<PathBuf, CqlError> {
    let program = PathBuf::from("mvn");
    let found = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match found {
        Ok(status) if status.success() => Ok(program),
        _ => Err(CqlError::NoMaven),
    }
}
