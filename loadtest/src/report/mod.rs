//! The folder that a run leaves behind.
//!
//! ```text
//! summary.json        the figures for scripts (schema: `skein-load schema`)
//! report.html         one page for people, without anything from elsewhere
//! send_ack.hlog       response times of an operation, for the HdrHistogram tools
//! send_ack.service.hlog, send_ack.seconds.hlog   see `hlog`
//! outcome.json        everything, histograms included: what `merge` adds up
//! ```

mod failed;
mod health;
mod hlog;
mod html;
mod knee;
mod summary;
mod table;
mod timeline;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::objective::Objective;
use crate::operation::Operation;
use crate::outcome::{self, Outcome};

pub use failed::failures_of_step;
pub use health::{AgentSummary, HealthSummary};
pub use knee::{Knee, Place};
pub use summary::{
    Latency, MarkSummary, Note, OperationSummary, Part, PhaseLengths, Process, Reason, SCHEMA,
    StepSummary, Summary, schema,
};
pub use table::table;
pub use timeline::{Slot, SlotOperation, Timeline};

/// File of the figures for scripts.
pub const SUMMARY: &str = "summary.json";
/// File of the page for people.
pub const PAGE: &str = "report.html";
/// File of everything.
pub const OUTCOME: &str = "outcome.json";

/// Why a report cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file or folder is out of reach.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder holds a report, and nobody has said that it may go.
    #[error("{path} holds a report already: give another folder, or --overwrite", path = .0.display())]
    Exists(PathBuf),
    /// The folder holds something that must not be overwritten.
    #[error("{path} holds other files: name a new or an empty folder", path = .0.display())]
    Taken(PathBuf),
    /// The file is not what it should be.
    #[error("{path} is not what skein-load writes: {why}", path = path.display())]
    Strange {
        /// Which.
        path: PathBuf,
        /// In which way.
        why: String,
    },
}

/// Makes a folder for a report, or sees that the one that is there may be used: it is empty, or
/// holds an older report that is to be overwritten.
///
/// # Errors
/// It cannot be made, holds a report that must stay, or holds something else.
pub fn prepare(folder: &Path, overwrite: bool) -> Result<(), ReportError> {
    let io = |source| ReportError::Io { path: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(io)?;
    let is_empty = fs::read_dir(folder).map_err(io)?.next().is_none();
    let is_report = [SUMMARY, PAGE, OUTCOME].iter().any(|name| folder.join(name).exists());
    match (is_empty, is_report) {
        (false, true) if !overwrite => return Err(ReportError::Exists(folder.to_owned())),
        (false, false) => return Err(ReportError::Taken(folder.to_owned())),
        _ => {}
    }
    // Tells before the load that the report could not be written after it.
    let probe = folder.join(".skein-load");
    File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(io)
}

/// Writes the whole folder. What an older report left there is taken away.
///
/// # Errors
/// Something cannot be written.
pub fn write(
    outcome: &Outcome,
    objectives: &[Objective],
    folder: &Path,
) -> Result<Summary, ReportError> {
    let strange = |why: &dyn std::fmt::Display| ReportError::Strange {
        path: folder.join(OUTCOME),
        why: why.to_string(),
    };
    fs::create_dir_all(folder)
        .map_err(|source| ReportError::Io { path: folder.to_owned(), source })?;
    let summary = Summary::new(outcome, objectives).map_err(|error| strange(&error))?;
    for operation in Operation::ALL {
        for log in hlog::Log::ALL {
            let path = folder.join(log.file_name(operation));
            let mut text = Vec::new();
            match hlog::write(outcome, operation, log, &mut text) {
                Ok(true) => write_file(&path, &text)?,
                Ok(false) => remove(&path)?,
                Err(source) => return Err(ReportError::Io { path, source }),
            }
        }
    }
    write_file(&folder.join(PAGE), html::page(outcome, &summary).as_bytes())?;
    write_json(&folder.join(OUTCOME), outcome, false)?;
    // Last: where it stands, the report is whole.
    write_json(&folder.join(SUMMARY), &summary, true)?;
    Ok(summary)
}

/// Reads the figures of a report: a folder, or its `summary.json`.
///
/// # Errors
/// There is none, or it is of another version.
pub fn read_summary(path: &Path) -> Result<Summary, ReportError> {
    let path = if path.is_dir() { path.join(SUMMARY) } else { path.to_owned() };
    read_json(&path, "schema", SCHEMA)
}

/// Reads everything of a report: a folder, or its `outcome.json`.
///
/// # Errors
/// There is none, or it is of another version.
pub fn read_outcome(path: &Path) -> Result<Outcome, ReportError> {
    let path = if path.is_dir() { path.join(OUTCOME) } else { path.to_owned() };
    read_json(&path, "schema", outcome::SCHEMA)
}

fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    version: &str,
    ours: u32,
) -> Result<T, ReportError> {
    let strange = |why: String| ReportError::Strange { path: path.to_owned(), why };
    let text = fs::read_to_string(path)
        .map_err(|source| ReportError::Io { path: path.to_owned(), source })?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| strange(error.to_string()))?;
    match value.get(version).and_then(serde_json::Value::as_u64) {
        Some(found) if found == u64::from(ours) => {}
        Some(found) => {
            return Err(strange(format!("version {found}, and this program reads {ours}")));
        }
        None => return Err(strange(format!("there is no `{version}` in it"))),
    }
    serde_json::from_value(value).map_err(|error| strange(error.to_string()))
}

fn write_json<T: serde::Serialize>(
    path: &Path,
    value: &T,
    pretty: bool,
) -> Result<(), ReportError> {
    let io = |source| ReportError::Io { path: path.to_owned(), source };
    let mut file = BufWriter::new(File::create(path).map_err(io)?);
    let done = match pretty {
        true => serde_json::to_writer_pretty(&mut file, value),
        false => serde_json::to_writer(&mut file, value),
    };
    done.map_err(io::Error::from).and_then(|()| file.write_all(b"\n")).map_err(io)?;
    file.flush().map_err(io)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    fs::write(path, bytes).map_err(|source| ReportError::Io { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), ReportError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ReportError::Io { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
