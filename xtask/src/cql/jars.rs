//! The server's jars, fetched once by Maven into `target/cql/jars-VERSION/`.
//!
//! Maven resolves what the server depends on and checks the sums. Where it fetches from, the user's
//! own Maven settings say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::folder::{base, lock};
use super::{CqlError, maven};

/// The version of the server.
pub const VERSION: &str = "5.0.8";

/// What measures objects for the server, loaded as an agent.
const AGENT: &str = "jamm-0.4.0.jar";

/// The plug-in of Maven that copies packages into a folder.
const COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// A folder with all jars of the server.
#[derive(Clone, Debug)]
pub struct Jars {
    folder: PathBuf,
}

impl Jars {
    /// The jars; they are fetched if they are not there yet, with a line on standard error.
    ///
    /// # Errors
    /// When there is no Maven, or it cannot fetch.
    pub fn get() -> Result<Self, CqlError> {
        let base = base()?;
        let folder = base.join(format!("jars-{VERSION}"));
        let jars = Self { folder };
        if jars.folder.exists() {
            return Ok(jars);
        }
        // Another process may just be at it.
        let _one_at_a_time = lock(&base.join("jars.lock"))?;
        if !jars.folder.exists() {
            fetch(&base, &jars.folder)?;
        }
        Ok(jars)
    }

    /// What goes behind `-cp`.
    pub(crate) fn class_path(&self) -> String {
        format!("{}/*", self.folder.display())
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.folder.join(AGENT)
    }
}

/// All or nothing: into a folder beside it, renamed when it is whole.
fn fetch(base: &Path, folder: &Path) -> Result<(), CqlError> {
    let maven = maven()?;
    eprintln!("fetching the CQL server (Apache Cassandra {VERSION}, 67 MB, once)");
    let scratch = tempfile::tempdir_in(base).map_err(CqlError::at(base))?;
    let (project, jars) = (scratch.path().join("pom.xml"), scratch.path().join("jars"));
    fs::write(&project, manifest()).map_err(CqlError::at(&project))?;
    let said = Command::new(maven)
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(&project)
        .arg(COPY)
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .stdin(Stdio::null())
        .output()
        .map_err(CqlError::io("mvn"))?;
    let whole = ["cassandra-all-", "jamm-", "logback-classic-"];
    let names: Vec<_> = fs::read_dir(&jars)
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    let has = |start: &&str| names.iter().any(|name| name.to_string_lossy().starts_with(*start));
    if !said.status.success() || !whole.iter().all(has) {
        let mut all = said.stdout;
        all.extend(said.stderr);
        return Err(CqlError::Fetch(String::from_utf8_lossy(&all).into_owned()));
    }
    fs::rename(&jars, folder).map_err(CqlError::at(folder))
}

/// A project that is nothing but a dependency. The two left out would send log lines in circles.
fn manifest() -> String {
    let exclusion = |name: &str| {
        format!(
            "<exclusion><groupId>org.slf4j</groupId><artifactId>{name}</artifactId></exclusion>"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n\
         <modelVersion>4.0.0</modelVersion>\n\
         <groupId>skein</groupId><artifactId>cql-server</artifactId><version>1</version>\n\
         <packaging>pom</packaging>\n\
         <dependencies><dependency>\n\
         <groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId>\n\
         <version>{VERSION}</version>\n\
         <exclusions>{}{}</exclusions>\n\
         </dependency></dependencies>\n\
         </project>\n",
        exclusion("slf4j-log4j12"),
        exclusion("log4j-over-slf4j"),
    )
}
